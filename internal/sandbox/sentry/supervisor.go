package sentry

import (
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// supervisor is the kernel's own context, but it belongs to no mount namespace.
//
// gVisor's supervisor context looks up the mount namespace of the first process under the kernel's lock of processes,
// and mounting asks a context for it while it holds the lock of mounts. Creating a process takes the two locks the other
// way around, so that two steps that start at the same moment would wait for each other for ever.
// The answer matters only to mounts that propagate, and ours do not.
type supervisor struct{ context.Context }

// Value implements [context.Context].
func (s supervisor) Value(key any) any {
	if key == vfs.CtxMountNamespace {
		return nil
	}
	return s.Context.Value(key)
}
