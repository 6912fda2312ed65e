// Package choice is the engine that a build asks for, or the best that works here: the native one where the kernel lets us
// mount file systems, the sentry everywhere else. Which it is, is found out by the first step.
package choice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"

	"hako/internal/layer"
	"hako/internal/sandbox"
	"hako/internal/sandbox/native"
	"hako/internal/sandbox/sentry"
	"hako/internal/tree"
)

// Mode says which engine is wanted.
type Mode string

// The modes.
const (
	Auto   Mode = "auto"
	Native Mode = "native"
	Sentry Mode = "sentry"
)

// Valid says whether m is one of the modes, or empty for Auto.
func (m Mode) Valid() bool { return slices.Contains([]Mode{"", Auto, Native, Sentry}, m) }

// Options says how an engine is chosen and runs.
type Options struct {
	// Mode is empty for Auto.
	Mode Mode
	// DataDir makes or finds the directory for what native steps write. An error says why there is none.
	DataDir func() (string, error)
	// UpperFile is that of the sentry.
	UpperFile func() (*os.File, error)
	// Chosen, if not nil, is told which engine was chosen, and for Auto why not the native one; one line.
	Chosen func(text string)
	// Crashed, if not nil, is told of each crash that costs a step its first try. It may be called from many goroutines.
	Crashed func(*sentry.CrashError)
}

// IsChild says whether a process with these arguments (os.Args) is an engine's and must call [ChildMain] and nothing else.
func IsChild(args []string) bool { return native.IsChild(args) || sentry.IsChild(args) }

// ChildMain serves the engine that started this process and returns its exit code.
func ChildMain() int {
	if native.IsChild(os.Args) {
		return native.ChildMain()
	}
	return sentry.ChildMain()
}

// Engine is the chosen engine. It may be used from many goroutines.
type Engine struct {
	options Options

	mu     sync.Mutex // guards the rest, and is held while an engine is started
	native *native.Engine
	sentry *sentry.Engine
	closed bool
	// refused is why there is no native engine.
	refused error
}

var (
	_ sandbox.Engine      = (*Engine)(nil)
	_ sandbox.CacheReader = (*Engine)(nil)
)

var errClosed = errors.New("the sandbox engine is closed")

// New makes an engine. Nothing is started before the first step. The caller closes the engine.
func New(options Options) (*Engine, error) {
	if !options.Mode.Valid() {
		return nil, fmt.Errorf("there is no sandbox %q", options.Mode)
	}
	return &Engine{options: options}, nil
}

// Run implements [sandbox.Engine]. A step that the native engine does not support runs in the sentry, unless one of them was
// asked for by name; what it has written by then has been passed on.
func (e *Engine) Run(ctx context.Context, step *sandbox.Step) (sandbox.Outcome, error) {
	if e.options.Mode != Sentry {
		n, err := e.startNative(ctx)
		if err != nil {
			return nil, err
		}
		if n != nil {
			out, err := n.Run(ctx, step)
			var unsupported *sandbox.UnsupportedError
			if e.options.Mode == Native || step.Stdin != nil || !errors.As(err, &unsupported) {
				return out, err
			}
			e.say(fmt.Sprintf("%s runs in the sentry: %s", step.Name, unsupported.What))
		}
	}
	s, err := e.startSentry(ctx)
	if err != nil {
		return nil, err
	}
	return s.Run(ctx, step)
}

// CacheChanges implements [sandbox.CacheReader]. Of a cache that steps of both engines used, the native one's counts.
func (e *Engine) CacheChanges(id string) layer.Changes { return &either{engine: e, id: id} }

// either reads the cache of the engine that has it.
type either struct {
	engine *Engine
	id     string
}

// Each implements [layer.Changes].
func (c *either) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	c.engine.mu.Lock()
	n, s := c.engine.native, c.engine.sentry
	c.engine.mu.Unlock()
	err := fmt.Errorf("cache %s: %w", c.id, fs.ErrNotExist)
	if n != nil {
		err = n.CacheChanges(c.id).Each(ctx, fn)
	}
	if s != nil && errors.Is(err, fs.ErrNotExist) {
		err = s.CacheChanges(c.id).Each(ctx, fn)
	}
	return err
}

// Close implements [sandbox.Engine].
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	var errs []error
	if e.native != nil {
		errs = append(errs, e.native.Close())
	}
	if e.sentry != nil {
		errs = append(errs, e.sentry.Close())
	}
	return errors.Join(errs...)
}

func (e *Engine) say(text string) {
	if e.options.Chosen != nil {
		e.options.Chosen(text)
	}
}

// startSentry returns the sentry's engine.
func (e *Engine) startSentry(ctx context.Context) (*sentry.Engine, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	if e.sentry != nil {
		return e.sentry, nil
	}
	var err error
	e.sentry, err = sentry.New(ctx, sentry.Options{UpperFile: e.options.UpperFile, Crashed: e.options.Crashed})
	switch {
	case err != nil:
		return nil, err
	case e.options.Mode == Sentry:
		e.say("RUN steps run in the sentry")
	case e.refused != nil:
		e.say("RUN steps run in the sentry: " + e.refused.Error())
	}
	return e.sentry, nil
}

// startNative returns the native engine, or none for Auto where it does not work. It is tried once.
func (e *Engine) startNative(ctx context.Context) (*native.Engine, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	if e.native != nil || e.refused != nil {
		return e.native, e.unlessAuto(e.refused)
	}
	n, rung, err := e.open(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return nil, cause
	}
	if err != nil {
		e.refused = err
		return nil, e.unlessAuto(err)
	}
	e.native = n
	e.say(fmt.Sprintf("RUN steps run natively, %s", rung))
	return n, nil
}

func (e *Engine) unlessAuto(err error) error {
	if e.options.Mode == Native {
		return err
	}
	return nil
}

// open starts the native engine.
func (e *Engine) open(ctx context.Context) (*native.Engine, native.Rung, error) {
	dir, err := e.options.DataDir()
	if err != nil {
		return nil, 0, err
	}
	n, err := native.New(ctx, native.Options{Dir: dir, Crashed: e.options.Crashed})
	if err != nil {
		return nil, 0, err
	}
	r, err := n.Ready(ctx)
	if err != nil {
		return nil, 0, errors.Join(err, n.Close())
	}
	return n, r.Rung, nil
}
