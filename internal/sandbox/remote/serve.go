package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
	"hako/internal/tree"
)

// Kernel is what runs steps in a child. It is used from many goroutines.
type Kernel interface {
	// Mount makes image with its patch the lower id. It takes image over. An id that is there already is left alone.
	Mount(id string, image *os.File, patch *rootfs.Patch) error
	// NewStep makes a step without doing anything yet.
	NewStep(req *Run) Step
	// CacheChanges calls write with what steps changed in a cache; an error Is fs.ErrNotExist if there is none.
	CacheChanges(id string, write func(layer.Changes) error) error
	// Stop ends all steps and removes what they have left. No more of them come.
	Stop() error
	// Check tries what the child must not be able to do, and returns a line for each thing that it could.
	Check() []string
}

// Step is one step in a child. Its methods are called one after the other, but for Kill.
type Step interface {
	// Run executes the step to its end, when none of its processes is left. stdio are stdin if the step has one, stdout and
	// stderr; they are closed when the processes have them. A command that cannot be started is a [*StartError].
	Run(stdio []*os.File) (Exit, error)
	// Kill ends the step, now or as soon as it starts. It may be called at any time, and does not wait.
	Kill()
	// Changes calls write with what a step that succeeded changed.
	Changes(write func(layer.Changes) error) error
	// SetTime gives the files and directories at paths, which Changes told of, this time. It comes after Changes.
	SetTime(paths []string, to time.Time) error
	// Keep makes what the step wrote the lower id. It comes after Changes and SetTime.
	Keep(id string) error
	// Release drops everything of the step that was not kept.
	Release()
}

// StartError says why a command cannot be started, in the words of runc.
type StartError struct{ Reason string }

// Error is the reason.
func (e *StartError) Error() string { return e.Reason }

var errBadRequest = errors.New("request makes no sense")

// Serve answers the builder that started this process until it closes the connection. boot is called by the first request,
// with what the engine sent; it owns files.
func Serve(boot func(options []byte, files []*os.File) (Kernel, error)) error {
	return child.Serve[Request, Response](&server{bootKernel: boot, steps: map[uint64]*running{}})
}

// server is the serving side of the protocol.
type server struct {
	bootKernel func(options []byte, files []*os.File) (Kernel, error)
	kernel     Kernel // set by the first request

	mu    sync.Mutex // guards steps
	steps map[uint64]*running
}

// running is a step until it is released.
type running struct {
	Step
	latest *time.Time
	late   []string // what Changes told of that was younger than latest
}

// Accept implements [child.Server].
func (s *server) Accept(req *Request) bool {
	if req.Run != nil && s.kernel != nil {
		// Before the next request is read, which may be its kill.
		s.mu.Lock()
		s.steps[req.Run.Step] = &running{Step: s.kernel.NewStep(req.Run), latest: req.Run.Latest}
		s.mu.Unlock()
	}
	return req.Boot != nil // nothing else makes sense before
}

// Handle implements [child.Server].
func (s *server) Handle(req *Request, files []*os.File, res *Response) error {
	err := s.handle(req, files, res)
	var unsupported *sandbox.UnsupportedError
	if errors.As(err, &unsupported) {
		res.Unsupported = unsupported.What
	}
	return err
}

// handle owns files.
func (s *server) handle(req *Request, files []*os.File, res *Response) error {
	if req.Boot != nil {
		return s.boot(req.Boot, files)
	}
	if s.kernel == nil {
		child.CloseAll(files)
		return fmt.Errorf("before boot: %w", errBadRequest)
	}
	switch {
	case req.Mount != nil && len(files) == 1:
		return s.kernel.Mount(req.Mount.ID, files[0], &req.Mount.Patch)
	case req.Run != nil:
		return s.run(req.Run, files, res)
	case req.Changes != nil && len(files) == 1:
		return s.changes(req.Changes.Step, files[0])
	case req.CacheChanges != nil && len(files) == 1:
		return s.cacheChanges(req.CacheChanges.ID, files[0], res)
	}
	child.CloseAll(files)
	switch {
	case req.Kill != nil:
		if step, err := s.step(req.Kill.Step); err == nil { // one that is gone needs no killing
			step.Kill()
		}
		return nil
	case req.Keep != nil:
		step, err := s.step(req.Keep.Step)
		if err != nil {
			return err
		}
		return step.keep(req.Keep.ID)
	case req.Release != nil:
		s.release(req.Release.Step)
		return nil
	case req.Stop:
		return s.kernel.Stop()
	case req.Check:
		res.Report = s.kernel.Check()
		return nil
	}
	return errBadRequest
}

func (s *server) boot(options []byte, files []*os.File) error {
	if s.kernel != nil {
		child.CloseAll(files)
		return fmt.Errorf("boot: %w", errBadRequest)
	}
	k, err := s.bootKernel(options, files)
	if err != nil {
		return err
	}
	s.kernel = k
	return nil
}

func (s *server) step(id uint64) (*running, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	step, ok := s.steps[id]
	if !ok {
		return nil, fmt.Errorf("step %d: %w", id, errBadRequest)
	}
	return step, nil
}

// run executes a step to its end. Unless it succeeds, nothing of it stays.
func (s *server) run(req *Run, stdio []*os.File, res *Response) error {
	step, err := s.step(req.Step)
	want := 2
	if req.Stdin {
		want = 3
	}
	connects := slices.ContainsFunc(req.Mounts, func(m StepMount) bool { return m.Socket != nil })
	if connects && len(stdio) > 0 {
		last := len(stdio) - 1
		req.connector = &connector{file: stdio[last]}
		defer stdio[last].Close() //nolint:errcheck // nothing is buffered
		stdio = stdio[:last]
	}
	if err == nil && len(stdio) != want {
		err = fmt.Errorf("run with %d descriptors: %w", len(stdio), errBadRequest)
	}
	if err != nil {
		child.CloseAll(stdio)
		return err
	}
	res.Exit, err = step.Run(stdio)
	child.CloseAll(stdio)
	var start *StartError
	if errors.As(err, &start) {
		res.Exit, err = Exit{Start: start.Reason}, nil
	}
	if err != nil || res.Exit != (Exit{}) {
		s.release(req.Step)
	}
	return err
}

// changes writes what the step changed to w, which it takes over.
func (s *server) changes(id uint64, w *os.File) (err error) {
	defer func() {
		if cerr := w.Close(); err == nil {
			err = cerr
		}
	}()
	step, err := s.step(id)
	if err != nil {
		return err
	}
	return step.Changes(func(c layer.Changes) error {
		if step.latest != nil {
			c = layer.Until(c, *step.latest, step.note)
		}
		if err := layer.Encode(context.Background(), w, c); err != nil {
			return fmt.Errorf("send the changes of step %d: %w", id, err)
		}
		return nil
	})
}

// cacheChanges writes what became of a cache to w, which it takes over.
func (s *server) cacheChanges(id string, w *os.File, res *Response) error {
	err := s.kernel.CacheChanges(id, func(c layer.Changes) error {
		if err := layer.Encode(context.Background(), w, c); err != nil {
			return fmt.Errorf("send the changes of cache %s: %w", id, err)
		}
		return nil
	})
	res.Missing = errors.Is(err, fs.ErrNotExist)
	return errors.Join(err, w.Close())
}

// note remembers an entry whose time was changed on its way to the builder.
func (r *running) note(e *tree.Entry) {
	if e.Kind != tree.Whiteout {
		r.late = append(r.late, e.Path)
	}
}

// keep makes what the step wrote the lower id, as the builder was told of it.
func (r *running) keep(id string) error {
	if len(r.late) > 0 {
		if err := r.SetTime(r.late, *r.latest); err != nil {
			return fmt.Errorf("set times: %w", err)
		}
		r.late = nil
	}
	return r.Keep(id)
}

// release forgets a step and what it did not keep.
func (s *server) release(id uint64) {
	s.mu.Lock()
	step, ok := s.steps[id]
	delete(s.steps, id)
	s.mu.Unlock()
	if ok {
		step.Release()
	}
}
