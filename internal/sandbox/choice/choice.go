// Package choice is the engine that a build asks for, or the best that works here: the native one where the kernel lets us
// mount file systems, the sentry everywhere else. Which it is, is found out by the first step.
package choice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"hako/internal/sandbox"
	"hako/internal/sandbox/native"
	"hako/internal/sandbox/sentry"
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

	mu     sync.Mutex // guards the rest, and is held while the engine is chosen
	chosen sandbox.Engine
	closed bool
}

var _ sandbox.Engine = (*Engine)(nil)

var errClosed = errors.New("the sandbox engine is closed")

// New makes an engine. Nothing is started before the first step. The caller closes the engine.
func New(options Options) (*Engine, error) {
	if !options.Mode.Valid() {
		return nil, fmt.Errorf("there is no sandbox %q", options.Mode)
	}
	return &Engine{options: options}, nil
}

// Run implements [sandbox.Engine].
func (e *Engine) Run(ctx context.Context, step *sandbox.Step) (sandbox.Outcome, error) {
	chosen, err := e.choose(ctx)
	if err != nil {
		return nil, err
	}
	return chosen.Run(ctx, step)
}

// Close implements [sandbox.Engine].
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.chosen == nil {
		return nil
	}
	return e.chosen.Close()
}

func (e *Engine) choose(ctx context.Context) (sandbox.Engine, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, errClosed
	}
	if e.chosen != nil {
		return e.chosen, nil
	}
	text := "RUN steps run in the sentry"
	if e.options.Mode != Sentry {
		n, rung, err := e.native(ctx)
		if err == nil {
			e.chosen = n
			e.say(fmt.Sprintf("RUN steps run natively, %s", rung))
			return n, nil
		}
		if e.options.Mode == Native || context.Cause(ctx) != nil {
			return nil, err
		}
		text += ": " + err.Error()
	}
	s, err := sentry.New(ctx, sentry.Options{UpperFile: e.options.UpperFile, Crashed: e.options.Crashed})
	if err != nil {
		return nil, err
	}
	e.chosen = s
	e.say(text)
	return s, nil
}

func (e *Engine) say(text string) {
	if e.options.Chosen != nil {
		e.options.Chosen(text)
	}
}

// native starts the native engine.
func (e *Engine) native(ctx context.Context) (*native.Engine, native.Rung, error) {
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
