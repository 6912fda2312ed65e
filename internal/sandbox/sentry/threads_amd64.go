package sentry

import "golang.org/x/sys/unix"

// threadFlags are what the Go runtime adds to clone(2) on this architecture.
const threadFlags = unix.CLONE_SETTLS
