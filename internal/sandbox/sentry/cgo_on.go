//go:build cgo

package sentry

import (
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"
)

// cgo says how the program was built. A release never has cgo; a test run by the race detector must.
const cgo = true

// cgoCalls are what the C library does when the Go runtime has it make a thread.
func cgoCalls() seccomp.SyscallRules {
	return seccomp.MakeSyscallRules(map[uintptr]seccomp.SyscallRule{
		unix.SYS_CLONE: seccomp.PerArg{seccomp.MaskedEqual(unix.CLONE_THREAD|unix.CLONE_VM, unix.CLONE_THREAD|unix.CLONE_VM)},
		unix.SYS_MMAP: seccomp.PerArg{
			seccomp.AnyValue{}, seccomp.AnyValue{}, seccomp.BitsAllowlist(unix.PROT_READ | unix.PROT_WRITE),
			seccomp.MaskedEqual(unix.MAP_ANONYMOUS|unix.MAP_PRIVATE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE),
		},
		unix.SYS_RSEQ:              seccomp.MatchAll{},
		unix.SYS_SET_ROBUST_LIST:   seccomp.MatchAll{},
		unix.SYS_SCHED_GETAFFINITY: seccomp.MatchAll{},
	})
}
