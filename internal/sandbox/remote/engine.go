// Package remote is a sandbox engine whose steps run in a child process: what all such engines have in common,
// on the side of the builder ([Engine]) and in the child ([Serve]).
//
// A child is started by the first step and serves all steps, several at once. One that crashes is replaced, and what it had
// mounted is mounted again from the lowers; nothing lives in it alone.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"

	"golang.org/x/sync/errgroup"

	"hako/internal/cgroup"
	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
	"hako/internal/tree"
)

const openLowers = 4 // lowers that are made ready at the same time for one step

// Process is the builder's end of a child that serves steps.
type Process = child.Process[Request, Response]

// Options says how an engine runs. Only Start has to be set.
type Options struct {
	// Start starts a child that takes steps. It is called by the first step and after a crash, never twice at a time.
	Start func(ctx context.Context) (*Process, error)
	// Refuse, if not nil, returns an error for a step that the child cannot run.
	Refuse func(step *sandbox.Step) error
	// ResolvConf is the /etc/resolv.conf of steps; nil means ours.
	ResolvConf []byte
	// OOMKills counts what the kernel killed for want of memory; nil means [cgroup.OOMKills].
	OOMKills func() int64
	// Crashed, if not nil, is told of each crash that costs a step its first try. It may be called from many goroutines.
	Crashed func(*child.CrashError)
}

// Engine runs steps in children, one at a time but for the moment when one replaces another. See [sandbox.Engine].
type Engine struct {
	options Options
	steps   counter

	mu     sync.Mutex // guards the rest
	child  *handle
	closed bool
}

var (
	_ sandbox.Engine      = (*Engine)(nil)
	_ sandbox.CacheReader = (*Engine)(nil)
)

// ErrClosed is the error of a step for which the engine has no time left.
var ErrClosed = errors.New("the sandbox engine is closed")

var errNoArgs = errors.New("a step needs a command")

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
	if err := child.Hide(); err != nil {
		return nil, err
	}
	if options.ResolvConf == nil {
		options.ResolvConf = sandbox.ResolvConf("/")
	}
	if options.OOMKills == nil {
		options.OOMKills = cgroup.OOMKills
	}
	return &Engine{options: options}, nil
}

// Close implements [sandbox.Engine].
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	if e.child != nil {
		e.child.Close()
		e.child = nil
	}
	return nil
}

// Ready starts a child if none runs.
func (e *Engine) Ready(ctx context.Context) error {
	_, err := e.running(ctx)
	return err
}

// Child is the child that runs, or nil.
func (e *Engine) Child() *Process {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.child == nil {
		return nil
	}
	return e.child.Process
}

// Run implements [sandbox.Engine]. A step during which the child crashed is tried once more, in a new one; but not if there was
// no memory left, since that would take as much again: that is a [*sandbox.MemoryError].
// A command that cannot be started is an exit code of 1 with the reason on Stderr, as with BuildKit.
func (e *Engine) Run(ctx context.Context, step *sandbox.Step) (sandbox.Outcome, error) {
	if len(step.Args) == 0 {
		return nil, errNoArgs
	}
	if e.options.Refuse != nil {
		if err := e.options.Refuse(step); err != nil {
			return nil, err
		}
	}
	j, err := newJob(step)
	if err != nil {
		return nil, err
	}
	killed := e.options.OOMKills()
	out, err := e.try(ctx, j)
	var crash *child.CrashError
	if errors.As(err, &crash) && e.options.OOMKills() > killed {
		return nil, &sandbox.MemoryError{LimitBytes: cgroup.MemoryLimit()}
	}
	if errors.As(err, &crash) && step.Stdin == nil && context.Cause(ctx) == nil {
		if e.options.Crashed != nil {
			e.options.Crashed(crash)
		}
		out, err = e.try(ctx, j)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// CacheChanges implements [sandbox.CacheReader].
func (e *Engine) CacheChanges(id string) layer.Changes {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.child == nil {
		return noChanges{}
	}
	return &changes{e.child, Request{CacheChanges: &CacheID{ID: id}}}
}

// noChanges are those of a cache where no child ever ran.
type noChanges struct{}

// Each implements [layer.Changes].
func (noChanges) Each(context.Context, func(tree.Entry, io.Reader) error) error {
	return fmt.Errorf("there is no sandbox: %w", fs.ErrNotExist)
}

func (e *Engine) try(ctx context.Context, j *job) (*outcome, error) {
	h, err := e.running(ctx)
	if err != nil {
		return nil, err
	}
	if err := e.ensure(ctx, h, j.lowers); err != nil {
		return nil, err
	}
	req := e.request(j)
	if err := h.run(ctx, req, j.Step); err != nil {
		return nil, err
	}
	return &outcome{handle: h, step: req.Step}, nil
}

// running returns a child that is alive, as far as is known.
func (e *Engine) running(ctx context.Context) (*handle, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	if e.child != nil {
		select {
		case <-e.child.Gone():
			e.child = nil
		default:
			return e.child, nil
		}
	}
	killed := e.options.OOMKills()
	p, err := e.options.Start(ctx)
	if err != nil {
		return nil, err
	}
	e.child = &handle{Process: p, oomKills: e.options.OOMKills, killed: killed, lowers: map[string]*mounting{}}
	return e.child, nil
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

func (e *Engine) request(step *job) *Run {
	r := &Run{
		Step: e.steps.next(), Name: step.Name, Args: step.Args, Env: step.Env, Dir: step.Dir,
		UID: step.User.UID, GID: step.User.GID, Groups: step.User.Groups,
		Hostname: step.Hostname, ResolvConf: e.options.ResolvConf,
		Lowers: lowerIDs(step.Lowers), Mounts: step.mounts, Files: step.Files,
		ShmSize: step.ShmSize, Stdin: step.Stdin != nil, NoNetwork: step.Network == sandbox.NetworkNone,
		Latest: step.Latest,
	}
	if r.Hostname == "" {
		r.Hostname = sandbox.DefaultHostname
	}
	if r.ShmSize == 0 {
		r.ShmSize = sandbox.DefaultShmSize
	}
	if r.Dir == "" {
		r.Dir = "/"
	}
	r.Hosts = sandbox.Hosts(r.Hostname, step.ExtraHosts)
	return r
}
