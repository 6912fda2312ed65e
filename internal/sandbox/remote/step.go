package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/cgroup"
	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
	"hako/internal/tree"
)

const exitNotStarted = 1 // runc run exits with it if it cannot start the command, and BuildKit reports that

// handle is a child and what is mounted in it.
type handle struct {
	*Process
	// oomKills counts what the kernel killed for want of memory; killed is what it was when the child started.
	oomKills func() int64
	killed   int64

	mu     sync.Mutex // guards lowers
	lowers map[string]*mounting
}

// reason is err, or if the child crashed and there was no memory left, that.
func (h *handle) reason(err error) error {
	var crash *child.CrashError
	if errors.As(err, &crash) && h.oomKills() > h.killed {
		return &sandbox.MemoryError{LimitBytes: cgroup.MemoryLimit()}
	}
	return err
}

// mounting is a lower that is mounted, or on the way.
type mounting struct {
	done chan struct{}
	err  error // set before done is closed
}

// has says whether lower id is mounted already.
func (h *handle) has(id string) bool {
	h.mu.Lock()
	m := h.lowers[id]
	h.mu.Unlock()
	if m == nil {
		return false
	}
	select {
	case <-m.done:
		return m.err == nil
	default:
		return false
	}
}

// mount makes l ready and mounts it, once however many steps ask for it at the same time.
func (h *handle) mount(ctx context.Context, l *rootfs.Lower) error {
	id := l.ID.String()
	for {
		h.mu.Lock()
		m := h.lowers[id]
		if m == nil {
			m = &mounting{done: make(chan struct{})}
			h.lowers[id] = m
			h.mu.Unlock()
			m.err = h.mountNow(ctx, l)
			h.settle(id, m)
			return m.err
		}
		h.mu.Unlock()
		select {
		case <-m.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if m.err == nil {
			return nil
		}
		// The other one failed, maybe because its own context ended: try ourselves.
	}
}

// settle records how m ended; a lower that could not be mounted can be tried again.
func (h *handle) settle(id string, m *mounting) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.err != nil {
		delete(h.lowers, id)
	}
	close(m.done)
}

func (h *handle) mountNow(ctx context.Context, l *rootfs.Lower) error {
	m, err := l.Open(ctx)
	if err != nil {
		return fmt.Errorf("open layer %s: %w", l.ID, err)
	}
	res, err := h.Call(ctx, Request{Mount: &Mount{ID: l.ID.String(), Patch: m.Patch}}, m.Image.File)
	if err != nil {
		return fmt.Errorf("mount layer %s: %w", l.ID, failure(res, err))
	}
	return nil
}

// run executes a step and returns when it is over and all its output is written.
func (h *handle) run(ctx context.Context, req *Run, step *sandbox.Step) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	s, err := newStreams(step)
	if err != nil {
		return err
	}
	sockets, err := newSockets(step)
	if err != nil {
		s.close()
		return err
	}
	defer sockets.close()
	wait, err := h.Begin(Request{Run: req}, slices.Concat(s.far, sockets.far)...)
	if err != nil {
		s.close()
		return err
	}
	child.CloseAll(s.far) // those of the child are closed when the step is over, which ends the copying
	s.copy(step)
	sockets.serve(ctx)
	// The end of ctx must not make us leave before the step's processes are gone, so it only sends the kill.
	patient := context.WithoutCancel(ctx)
	over := make(chan struct{})
	defer close(over)
	stop := context.AfterFunc(ctx, func() { h.kill(req.Step, over) })
	defer stop()
	res, err := wait(patient)
	copied := s.done.Wait()
	if cause := context.Cause(ctx); cause != nil {
		h.forget(req.Step)
		return cause
	}
	if err != nil {
		return fmt.Errorf("run %s: %w", step.Name, failure(res, err))
	}
	if copied != nil {
		h.forget(req.Step)
		return fmt.Errorf("write the output of %s: %w", step.Name, copied)
	}
	return exitError(step, res.Exit)
}

// failure is the error of a request; one that the child cannot fulfil is a [*sandbox.UnsupportedError].
func failure(res *Response, err error) error {
	if res != nil && res.Unsupported != "" {
		return &sandbox.UnsupportedError{What: res.Unsupported}
	}
	return err
}

// killPatience is how long a step that was killed may take to be over.
const killPatience = 5 * time.Second

// kill ends a step. If it is not over in time, the child does not work any more, and is ended with all its steps.
func (h *handle) kill(step uint64, over <-chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), killPatience)
	defer cancel()
	_, _ = h.Call(ctx, Request{Kill: &StepID{Step: step}}) // fails if the child is gone, and with it the step, or below
	select {
	case <-over:
	case <-ctx.Done():
		h.Close()
	}
}

// exitError turns how a step ended into what Run returns.
func exitError(step *sandbox.Step, exit Exit) error {
	switch {
	case exit.Start != "":
		if _, err := fmt.Fprintf(step.Stderr, "unable to start container process: %s\n", exit.Start); err != nil {
			return fmt.Errorf("write the output of %s: %w", step.Name, err)
		}
		return &sandbox.ExitError{Code: exitNotStarted}
	case exit.Signal != 0:
		return &sandbox.ExitError{Code: -1, Signal: exit.Signal}
	case exit.Code != 0:
		return &sandbox.ExitError{Code: exit.Code}
	}
	return nil
}

// forget releases a step. A child that is gone has forgotten already.
func (h *handle) forget(step uint64) {
	_, _ = h.Call(context.Background(), Request{Release: &StepID{Step: step}})
}

// outcome is what a step left in the child that ran it.
type outcome struct {
	handle *handle
	step   uint64
	once   sync.Once
}

var _ sandbox.Outcome = (*outcome)(nil)

// Changes implements [sandbox.Outcome].
func (o *outcome) Changes() layer.Changes {
	return &changes{o.handle, Request{Changes: &StepID{Step: o.step}}}
}

// Keep implements [sandbox.Outcome]. It does nothing if the child is gone: then the lower is opened when it is needed.
func (o *outcome) Keep(id digest.Digest) error {
	h := o.handle
	m := &mounting{done: make(chan struct{})}
	h.mu.Lock()
	if h.lowers[id.String()] != nil {
		h.mu.Unlock()
		return nil // another step made the same, or it is about to be mounted from its blob
	}
	h.lowers[id.String()] = m
	h.mu.Unlock()
	_, m.err = h.Call(context.Background(), Request{Keep: &Keep{Step: o.step, ID: id.String()}})
	h.settle(id.String(), m)
	var crash *child.CrashError
	if errors.As(m.err, &crash) {
		return nil
	}
	if m.err != nil {
		return fmt.Errorf("keep the result of step %d: %w", o.step, m.err)
	}
	return nil
}

// Close implements [sandbox.Outcome].
func (o *outcome) Close() error {
	o.once.Do(func() { o.handle.forget(o.step) })
	return nil
}

// changes reads from the child what a request asks for: the changes of a step or of a cache.
type changes struct {
	handle  *handle
	request Request
}

// Each implements [layer.Changes].
func (c *changes) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make the pipe of the changes: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// Without its end of the pipe the child gives up, and without the child's end we do.
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer stop()
	sent := make(chan error, 1)
	go func() {
		res, err := c.handle.Call(context.WithoutCancel(ctx), c.request, w)
		_ = w.Close()
		if err != nil && res != nil && res.Missing {
			err = fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
		sent <- err
	}()
	err = layer.Decode(r).Each(ctx, fn)
	_ = r.Close()
	serr := <-sent
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var crash *child.CrashError
	if errors.As(serr, &crash) || errors.Is(serr, fs.ErrNotExist) {
		return fmt.Errorf("read the changes: %w", c.handle.reason(serr))
	}
	if err == nil {
		err = serr
	}
	return err
}
