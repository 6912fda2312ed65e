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
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"hako/internal/cgroup"
	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
	"hako/internal/sandbox/remote"
)

// CrashError is a sentry that ended although it should not have.
type CrashError = child.CrashError

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

// Engine runs steps in sentries. See [remote.Engine].
type Engine struct {
	*remote.Engine
	options Options

	mu sync.Mutex // guards the rest
	// platform is the one that worked, once one did; failures are those tried before it.
	platform string
	failures []Failure
	// confinement says how far the child is confined.
	confinement []string
}

var _ sandbox.Engine = (*Engine)(nil)

// New makes an engine. Nothing is started before the first step, but from now on this process cannot be dumped or traced
// by others of the same user. The caller closes the engine. A step returns an [*UnavailableError] if no sandbox can be started.
func New(ctx context.Context, options Options) (*Engine, error) {
	if options.MemoryTotal == 0 {
		options.MemoryTotal = uint64(max(0, cgroup.MemoryTotal())) //nolint:gosec // not negative
	}
	e := &Engine{options: options, platform: options.Platform}
	var err error
	e.Engine, err = remote.New(ctx, remote.Options{
		Start: e.start, ResolvConf: options.ResolvConf, Crashed: options.Crashed,
	})
	if err != nil {
		return nil, err
	}
	return e, nil
}

// start starts a child on the first platform that works.
func (e *Engine) start(ctx context.Context) (*remote.Process, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	platforms := []string{e.platform}
	if e.platform == "" {
		platforms = []string{platformSystrap, platformPtrace}
	}
	var failures []Failure
	for _, p := range platforms {
		c, confinement, err := e.options.boot(ctx, p)
		if err == nil {
			e.platform, e.failures, e.confinement = p, failures, confinement
			return c, nil
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

// bootRequest starts the kernel. Its descriptor, if one comes with it, holds the file data of the uppers.
type bootRequest struct {
	Platform    string
	MemoryTotal uint64 // bytes, 0: as the kernel guesses
	Debug       bool
}

// boot starts a child and its kernel, and says how far it is confined.
func (o *Options) boot(ctx context.Context, platform string) (*remote.Process, []string, error) {
	var files []*os.File
	if o.UpperFile != nil {
		f, err := o.UpperFile()
		if err != nil {
			return nil, nil, fmt.Errorf("make the file of the uppers: %w", err)
		}
		defer func() { _ = f.Close() }() // the child has its own by then
		files = append(files, f)
	}
	boot, err := json.Marshal(bootRequest{Platform: platform, MemoryTotal: o.MemoryTotal, Debug: o.Debug})
	if err != nil {
		return nil, nil, fmt.Errorf("encode options: %w", err)
	}
	var confinement []string
	p, err := child.Start[remote.Request, remote.Response](&child.Command{
		Title: "the sentry", Args: []string{childName}, Env: childEnv(),
		OnThread: func() { confinement = confineThread() }, // confined from its first instruction
	})
	if err != nil {
		return nil, nil, err
	}
	if _, err := p.Call(ctx, remote.Request{Boot: boot}, files...); err != nil {
		p.Close()
		return nil, nil, err
	}
	return p, confinement, nil
}

// childEnv is the child's whole environment. The one variable matters only to a program built with cgo, a test for one:
// restartable sequences, which glibc registers for each thread, live in memory that systrap's stub processes unmap.
func childEnv() []string { return []string{"GLIBC_TUNABLES=glibc.pthread.rseq=0"} }
