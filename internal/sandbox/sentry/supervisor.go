package sentry

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// supervisor is the kernel's own context, but with a mount namespace that can be had without a lock.
//
// gVisor's supervisor context looks up the mount namespace of the first process under the kernel's lock of processes,
// and mounting asks a context for it while it holds the lock of mounts. Creating a process takes the two locks the other
// way around, so that two steps that start at the same moment would wait for each other for ever.
type supervisor struct {
	context.Context
	// mounts is the namespace of the first process, or nil before there is one; then nothing must be deleted.
	mounts *vfs.MountNamespace
}

// Value implements [context.Context]. As with gVisor's contexts, the caller owns a reference to a namespace.
func (s supervisor) Value(key any) any {
	if key != vfs.CtxMountNamespace {
		return s.Context.Value(key)
	}
	if s.mounts == nil {
		return nil
	}
	s.mounts.IncRef()
	return s.mounts
}
