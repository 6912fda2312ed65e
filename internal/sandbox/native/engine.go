// Package native runs steps in the kernel that we run on, each in namespaces of its own over an overlay file system whose
// upper is what the step changed: at full speed, and exact in everything, because the kernel itself does all of it.
//
// It needs the right to mount file systems in namespaces. That there is one is found out by doing it, on the first of three
// rungs that bears: where we are ([Direct]), in a user namespace whose ID map we write ourselves ([OwnMap]), or in one that
// newuidmap(1) maps for us ([SetuidMap]). A map of a single ID is not enough: owners would be wrong.
//
// A re-executed child does the work. It has namespaces of its own, in which it sees nothing of the host but its data directory,
// and none of the builder's environment, descriptors and credentials. Each step is a PID namespace in it, with its own root,
// hosts and devices, the capabilities and the seccomp filter that Docker gives to containers; when its first process ends,
// all of its processes do, and when the child ends, all steps do.
//
// A program that uses this package must give way to it in main and in TestMain:
//
//	if native.IsChild(os.Args) {
//		os.Exit(native.ChildMain())
//	}
package native

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
	"hako/internal/sandbox/remote"
)

// Options says how an engine runs. Dir must be set.
type Options struct {
	// Dir is an existing directory for what steps write and for layers, on a file system that can hold an overlay's upper.
	Dir string
	// Rungs are tried in this order; nil means all.
	Rungs []Rung
	// ResolvConf is the /etc/resolv.conf of steps; nil means ours.
	ResolvConf []byte
	// Crashed, if not nil, is told of each crash that costs a step its first try. It may be called from many goroutines.
	Crashed func(*child.CrashError)
}

// Engine runs steps natively. See [remote.Engine]. A step returns an [*UnavailableError] if no sandbox can be started.
type Engine struct {
	*remote.Engine
	options Options

	mu     sync.Mutex // guards report
	report Report
}

var _ sandbox.Engine = (*Engine)(nil)

// New makes an engine. Nothing is started before the first step or Ready, but from now on this process cannot be dumped or
// traced by others of the same user. The caller closes the engine.
func New(ctx context.Context, options Options) (*Engine, error) {
	if options.Rungs == nil {
		options.Rungs = []Rung{Direct, OwnMap, SetuidMap}
	}
	e := &Engine{options: options}
	var err error
	e.Engine, err = remote.New(ctx, remote.Options{Start: e.start, ResolvConf: options.ResolvConf, Crashed: options.Crashed})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// Ready starts the child if it does not run, which takes a few milliseconds, and says on which rung.
// It returns an [*UnavailableError] if that does not work, or ctx's cause if ctx ends first.
func (e *Engine) Ready(ctx context.Context) (Report, error) {
	err := e.Engine.Ready(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.report, err
}

// stopPatience is how long a child may take to remove what steps have left.
const stopPatience = time.Minute

// Close implements [sandbox.Engine]. Nothing is left in the data directory.
func (e *Engine) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	var err error
	if p := e.Child(); p != nil {
		_, err = p.Call(ctx, remote.Request{Stop: true})
	}
	var crash *child.CrashError
	if errors.As(err, &crash) {
		// What it left may belong to IDs that only a child has. A new one removes it first of all.
		if err = e.Engine.Ready(ctx); errors.Is(err, remote.ErrClosed) {
			err = nil
		}
	}
	return errors.Join(err, e.Engine.Close())
}

// Probe starts a sandbox and ends it, a few milliseconds, and says on which rung.
// It returns an [*UnavailableError] if that does not work, or ctx's cause if ctx ends first.
func Probe(ctx context.Context, options Options) (Report, error) {
	e, err := New(ctx, options)
	if err != nil {
		return Report{}, err
	}
	r, err := e.Ready(ctx)
	return r, errors.Join(err, e.Close())
}

// Clear empties the directory of an engine whose process was killed. What steps on the rung [SetuidMap] have left there belongs to
// users that only such a child can be. It returns an [*UnavailableError] if there can be none.
func Clear(ctx context.Context, dir string) error {
	_, err := Probe(ctx, Options{Dir: dir, Rungs: []Rung{SetuidMap}}) // a child's first act
	return err
}

// start starts a child on the first rung that bears. Once one did, no other is tried.
func (e *Engine) start(ctx context.Context) (*remote.Process, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	rungs := e.options.Rungs
	if e.report.Rung != 0 {
		rungs = []Rung{e.report.Rung}
	}
	var failures []Failure
	for _, r := range rungs {
		p, err := e.boot(ctx, r)
		if err == nil {
			e.report = Report{Rung: r, Failures: failures}
			return p, nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		failures = append(failures, Failure{Rung: r, Err: err})
	}
	e.report = Report{Failures: failures}
	return nil, &UnavailableError{Report: e.report}
}

// boot starts a child on one rung.
func (e *Engine) boot(ctx context.Context, r Rung) (*remote.Process, error) {
	c, err := r.command(ctx)
	if err != nil {
		return nil, err
	}
	p, err := child.Start[remote.Request, remote.Response](c)
	if err != nil {
		return nil, err
	}
	boot, err := json.Marshal(bootRequest{Dir: e.options.Dir, UserNamespace: r != Direct})
	if err == nil {
		var files []*os.File
		if r != Direct {
			files = e.serveNodes()
			defer child.CloseAll(files)
		}
		_, err = p.Call(ctx, remote.Request{Boot: boot}, files...)
	}
	if err != nil {
		p.Close()
		return nil, plainError(err)
	}
	return p, nil
}

// serveNodes makes device nodes for a child, if it is possible at all where the child's data is, and returns what the child
// asks through, or nothing.
func (e *Engine) serveNodes() []*os.File {
	probe := filepath.Join(e.options.Dir, "probe-node")
	if err := unix.Mknod(probe, unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))); err != nil { //nolint:gosec // a small number
		return nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err = errors.Join(err, os.Remove(probe)); err != nil {
		return nil
	}
	go serveNodes(os.NewFile(uintptr(fds[0]), "nodes")) // it ends with the child
	return []*os.File{os.NewFile(uintptr(fds[1]), "nodes")}
}

// plainError takes the log of a child that could not be started out of its error.
func plainError(err error) error {
	var crash *child.CrashError
	if errors.As(err, &crash) {
		return fmt.Errorf("the child ended: %s", crash.How)
	}
	return err
}
