// Package native runs steps in the kernel that we run on, each in namespaces of its own over an overlay file system whose
// upper is what the step changed.
package native

import (
	"context"
	"encoding/json"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
	"hako/internal/sandbox/remote"
)

// Options says how an engine runs. Dir must be set.
type Options struct {
	// Dir is an existing directory for what steps write and for layers, on a file system that can hold an overlay's upper.
	Dir string
	// ResolvConf is the /etc/resolv.conf of steps; nil means ours.
	ResolvConf []byte
	// Crashed, if not nil, is told of each crash that costs a step its first try. It may be called from many goroutines.
	Crashed func(*child.CrashError)
}

// Engine runs steps natively. See [remote.Engine].
type Engine struct {
	*remote.Engine
	options Options
}

var _ sandbox.Engine = (*Engine)(nil)

// New makes an engine.
func New(ctx context.Context, options Options) (*Engine, error) {
	e := &Engine{options: options}
	var err error
	e.Engine, err = remote.New(ctx, remote.Options{Start: e.start, ResolvConf: options.ResolvConf, Crashed: options.Crashed})
	if err != nil {
		return nil, err
	}
	return e, nil
}

func (e *Engine) start(ctx context.Context) (*remote.Process, error) {
	p, err := child.Start[remote.Request, remote.Response](&child.Command{
		Title: "the native sandbox", Args: []string{childName},
		Attr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		},
	})
	if err != nil {
		return nil, err
	}
	boot, err := json.Marshal(bootRequest{Dir: e.options.Dir})
	if err != nil {
		return nil, fmt.Errorf("encode options: %w", err)
	}
	if _, err := p.Call(ctx, remote.Request{Boot: boot}); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}
