// Package sentry runs steps in gVisor's user-space kernel, in a re-executed child of this program.
//
// It needs no privilege: no root, no capabilities, no user namespaces, no writable root file system. What it needs is
// ptrace(2) of its own children and seccomp(2) filters for itself, which container runtimes allow by default; [Probe] tells.
//
// The child is started by the first step and serves all steps, several at once. It has none of the builder's environment,
// descriptors and credentials; after its start it can open no file of the host and run no program (see confine.go),
// and works with descriptors that the builder hands over. A child that crashes is replaced, and what it had mounted is
// mounted again from the lowers; nothing lives in it alone.
//
// A program that uses this package must give way to it in main and in TestMain:
//
//	if sentry.IsChild(os.Args) {
//		os.Exit(sentry.ChildMain())
//	}
package sentry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"hako/internal/rootfs"
	"hako/internal/sandbox"
)

const (
	defaultHostname = "buildkitsandbox" // BuildKit: executor/oci/hosts.go
	defaultShmSize  = 64 << 20          // runc's default: 64 MiB
	openLowers      = 4                 // lowers that are made ready at the same time for one step
)

// Options says how an engine runs. The zero value works.
type Options struct {
	// Platform is "systrap" or "ptrace"; empty means the first of them that works here.
	Platform string
	// UpperFile makes an empty file for the data of what steps write: not linked anywhere, and mappable executable.
	// The engine owns the result. Nil means memory.
	UpperFile func() (*os.File, error)
	// MemoryTotal is what steps are told about the machine's memory, in bytes; 0 means the limit of our cgroup,
	// or else what the machine has.
	MemoryTotal uint64
	// ResolvConf is the /etc/resolv.conf of steps; nil means what BuildKit makes of ours.
	ResolvConf []byte
	// Crashed, if not nil, is told of each crash that costs a step its first try. It may be called from many goroutines.
	Crashed func(*CrashError)
	// Debug makes the sentry log much more.
	Debug bool
}

// Engine runs steps in sentries, one at a time but for the moment when one replaces another. See [sandbox.Engine].
type Engine struct {
	options Options
	steps   counter

	mu     sync.Mutex // guards the rest
	child  *handle
	closed bool
	// platform is the one that worked, once one did; failures are those tried before it.
	platform string
	failures []Failure
}

var _ sandbox.Engine = (*Engine)(nil)

var (
	errClosed  = errors.New("the sandbox engine is closed")
	errNetwork = errors.New("a step without network is not supported yet")
	errMounts  = errors.New("mounts are not supported yet")
	errNoArgs  = errors.New("a step needs a command")
)

// counter hands out numbers from 1.
type counter struct {
	mu sync.Mutex
	n  uint64
}

func (c *counter) next() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n++
	return c.n
}

// New makes an engine. Nothing is started before the first step, but from now on this process cannot be dumped or traced
// by others of the same user. The caller closes the engine.
func New(ctx context.Context, options Options) (*Engine, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	if err := hide(); err != nil {
		return nil, err
	}
	if options.MemoryTotal == 0 {
		options.MemoryTotal = memoryTotal("/")
	}
	if options.ResolvConf == nil {
		options.ResolvConf = resolvConf("/")
	}
	return &Engine{options: options, platform: options.Platform}, nil
}

// Close implements [sandbox.Engine].
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.child != nil {
		e.child.close()
		e.child = nil
	}
	return nil
}

// Run implements [sandbox.Engine]. It returns an [*UnavailableError] if no sandbox can be started here. A step during which the sentry crashed is tried once more, in a new one.
// A command that cannot be started is an exit code of 1 with the reason on Stderr, as with BuildKit.
func (e *Engine) Run(ctx context.Context, step *sandbox.Step) (sandbox.Outcome, error) {
	if len(step.Args) == 0 {
		return nil, errNoArgs
	}
	if step.Network == sandbox.NetworkNone {
		return nil, errNetwork
	}
	if len(step.Mounts) > 0 {
		return nil, errMounts
	}
	out, err := e.try(ctx, step)
	var crash *CrashError
	if errors.As(err, &crash) && step.Stdin == nil && context.Cause(ctx) == nil {
		if e.options.Crashed != nil {
			e.options.Crashed(crash)
		}
		out, err = e.try(ctx, step)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (e *Engine) try(ctx context.Context, step *sandbox.Step) (*outcome, error) {
	h, err := e.running(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.ensure(ctx, h, step.Lowers); err != nil {
		return nil, err
	}
	req := e.request(step)
	if err := h.run(ctx, req, step); err != nil {
		return nil, err
	}
	return &outcome{handle: h, step: req.Step}, nil
}

// running returns a child that is alive, as far as is known.
func (e *Engine) running(ctx context.Context) (*handle, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	if e.child != nil {
		select {
		case <-e.child.gone:
			e.child = nil
		default:
			return e.child, nil
		}
	}
	platforms := []string{e.platform}
	if e.platform == "" {
		platforms = []string{platformSystrap, platformPtrace}
	}
	var failures []Failure
	for _, p := range platforms {
		h, err := e.options.boot(ctx, p)
		if err == nil {
			e.child, e.platform, e.failures = h, p, failures
			return h, nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		failures = append(failures, Failure{Platform: p, Err: err})
	}
	return nil, &UnavailableError{Report: Report{Failures: failures, Causes: causes("/")}}
}

const (
	platformSystrap = "systrap"
	platformPtrace  = "ptrace"
)

// boot starts a child and its kernel.
func (o *Options) boot(ctx context.Context, platform string) (*handle, error) {
	var files []*os.File
	if o.UpperFile != nil {
		f, err := o.UpperFile()
		if err != nil {
			return nil, fmt.Errorf("make the file of the uppers: %w", err)
		}
		defer func() { _ = f.Close() }() // the child has its own by then
		files = append(files, f)
	}
	h, err := start()
	if err != nil {
		return nil, err
	}
	boot := &bootRequest{Platform: platform, MemoryTotal: o.MemoryTotal, Debug: o.Debug}
	if _, err := h.call(ctx, &request{Boot: boot}, files...); err != nil {
		h.close()
		return nil, err
	}
	return h, nil
}

// ensure makes sure that all lowers are mounted in h.
func (e *Engine) ensure(ctx context.Context, h *handle, lowers []rootfs.Lower) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(openLowers)
	for i := range lowers {
		if h.has(lowers[i].ID.String()) {
			continue
		}
		g.Go(func() error { return h.mount(ctx, &lowers[i]) })
	}
	return g.Wait()
}

func (e *Engine) request(step *sandbox.Step) *runRequest {
	r := &runRequest{
		Step: e.steps.next(), Name: step.Name, Args: step.Args, Env: step.Env, Dir: step.Dir,
		UID: step.User.UID, GID: step.User.GID, Groups: step.User.Groups,
		Hostname: step.Hostname, ResolvConf: e.options.ResolvConf, ShmSize: step.ShmSize, Stdin: step.Stdin != nil,
	}
	if r.Hostname == "" {
		r.Hostname = defaultHostname
	}
	if r.ShmSize == 0 {
		r.ShmSize = defaultShmSize
	}
	if r.Dir == "" {
		r.Dir = "/"
	}
	r.Hosts = hosts(r.Hostname, step.ExtraHosts)
	for i := range step.Lowers {
		r.Lowers = append(r.Lowers, step.Lowers[i].ID.String())
	}
	for _, f := range step.Files {
		r.Files = append(r.Files, stepFile(f))
	}
	return r
}

// streams are the pipes of one step. The child gets the far ends, the near ends are copied from and to the step's streams.
type streams struct {
	far  []*os.File
	near []*os.File
	done errgroup.Group
	// stdin is the near end of stdin, or nil.
	stdin *os.File
}

func newStreams(step *sandbox.Step) (_ *streams, err error) {
	s := &streams{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if step.Stdin != nil {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make the pipe of stdin: %w", err)
		}
		s.far, s.near, s.stdin = append(s.far, r), append(s.near, w), w
	}
	for range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make the pipes of stdout and stderr: %w", err)
		}
		s.far, s.near = append(s.far, w), append(s.near, r)
	}
	return s, nil
}

// close drops all pipes of a step that never started.
func (s *streams) close() {
	closeAll(s.far)
	closeAll(s.near)
}

// copy starts copying. It owns the near ends from now on.
func (s *streams) copy(step *sandbox.Step) {
	outputs := s.near
	if s.stdin != nil {
		outputs = s.near[1:]
		go func() { // not waited for: reading from step.Stdin cannot be interrupted
			_, _ = io.Copy(s.stdin, step.Stdin) // a step need not read its input to the end
			_ = s.stdin.Close()
		}()
	}
	for i, w := range []io.Writer{step.Stdout, step.Stderr} {
		s.done.Go(func() error {
			_, err := io.Copy(w, outputs[i])
			if err != nil {
				// Nobody listens any more; the step must not be held up by a full pipe.
				_, _ = io.Copy(io.Discard, outputs[i])
			}
			return errors.Join(err, outputs[i].Close())
		})
	}
}
