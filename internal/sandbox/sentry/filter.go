package sentry

import (
	"fmt"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/bpf"
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/seccomp/precompiledseccomp"
	"gvisor.dev/gvisor/pkg/sentry/kernel"
	"gvisor.dev/gvisor/pkg/sentry/socket/hostinet"
)

type rules = map[uintptr]seccomp.SyscallRule

// filter builds the seccomp program of the child: what is not listed fails with EPERM.
// What the platform needs to run its stub processes, it says itself.
func filter(k *kernel.Kernel) ([]bpf.Instruction, error) {
	allowed := seccomp.NewSyscallRules()
	info := k.Platform.SeccompInfo()
	vars := precompiledseccomp.Values{}
	for name, value := range info.Variables() {
		vars[name] = value
	}
	for _, r := range []seccomp.SyscallRules{
		seccomp.MakeSyscallRules(runtimeCalls()), seccomp.MakeSyscallRules(memoryCalls()),
		seccomp.MakeSyscallRules(fileCalls()), networkCalls(), info.SyscallFilters(vars), cgoCalls(),
	} {
		allowed.Merge(r)
	}
	program := seccomp.Program{
		RuleSets: []seccomp.RuleSet{
			// No new code, whatever else a rule may say.
			{Rules: seccomp.DenyNewExecMappings, Action: seccomp.ReturnError.Code(uint16(unix.EPERM))},
			// The C library of a test built with cgo falls back to clone(2), whose flags can be checked.
			{
				Rules:  seccomp.MakeSyscallRules(rules{unix.SYS_CLONE3: seccomp.MatchAll{}}),
				Action: seccomp.ReturnError.Code(uint16(unix.ENOSYS)),
			},
			{Rules: allowed, Action: seccomp.Allow},
		},
		Options: seccomp.ProgramOptions{
			DefaultAction: seccomp.ReturnError.Code(uint16(unix.EPERM)),
			BadArchAction: seccomp.ReturnError.Code(uint16(unix.EPERM)),
			HotSyscalls:   append([]uintptr{unix.SYS_FUTEX, unix.SYS_NANOSLEEP}, info.HottestSyscalls()...),
		},
	}
	instructions, _, err := program.Build()
	if err != nil {
		return nil, fmt.Errorf("compile: %w", err)
	}
	return instructions, nil
}

func args(m ...seccomp.ValueMatcher) seccomp.PerArg {
	var p seccomp.PerArg
	for i := range p {
		p[i] = seccomp.AnyValue{}
	}
	copy(p[:], m)
	return p
}

func is(v uintptr) seccomp.ValueMatcher { return seccomp.EqualTo(v) }

func anything() seccomp.ValueMatcher { return seccomp.AnyValue{} }

// oneOf allows the values for argument n.
func oneOf(n int, values ...uintptr) seccomp.SyscallRule {
	var or seccomp.Or
	for _, v := range values {
		p := args()
		p[n] = is(v)
		or = append(or, p)
	}
	return or
}

// runtimeCalls are those of the Go runtime: threads, signals, time, and waiting.
func runtimeCalls() rules {
	all := seccomp.MatchAll{}
	r := rules{
		unix.SYS_CLONE: args(is(unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND |
			unix.CLONE_SYSVSEM | unix.CLONE_THREAD | threadFlags)),
		unix.SYS_FUTEX:      args(anything(), seccomp.BitsAllowlist(linux.FUTEX_WAIT|linux.FUTEX_WAKE|linux.FUTEX_PRIVATE_FLAG)),
		unix.SYS_EVENTFD2:   all,
		unix.SYS_GETRANDOM:  all,
		unix.SYS_PRCTL:      args(is(unix.PR_SET_VMA), is(unix.PR_SET_VMA_ANON_NAME)),
		unix.SYS_TGKILL:     args(is(uintptr(unix.Getpid()))),
		unix.SYS_MEMBARRIER: args(is(linux.MEMBARRIER_CMD_GLOBAL), is(0)),
	}
	for _, n := range []uintptr{
		unix.SYS_CLOCK_GETTIME, unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EXIT,
		unix.SYS_EXIT_GROUP, unix.SYS_GETCPU, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_GETTIMEOFDAY, unix.SYS_NANOSLEEP,
		unix.SYS_PPOLL, unix.SYS_RESTART_SYSCALL, unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN,
		unix.SYS_SCHED_YIELD, unix.SYS_SETITIMER, unix.SYS_SIGALTSTACK, unix.SYS_TIMER_CREATE, unix.SYS_TIMER_DELETE,
		unix.SYS_TIMER_SETTIME,
	} {
		r[n] = all
	}
	return r
}

// memoryCalls map descriptors and memory, never to execute (see filter).
func memoryCalls() rules {
	all := seccomp.MatchAll{}
	return rules{
		unix.SYS_MADVISE: all, unix.SYS_MINCORE: all, unix.SYS_MLOCK: all, unix.SYS_MUNLOCK: all,
		unix.SYS_MMAP: all, unix.SYS_MPROTECT: all, unix.SYS_MUNMAP: all,
	}
}

// fileCalls work on open descriptors only.
func fileCalls() rules {
	all := seccomp.MatchAll{}
	r := rules{
		unix.SYS_DUP3:      args(anything(), anything(), is(unix.O_CLOEXEC)),
		unix.SYS_FCNTL:     oneOf(1, unix.F_GETFL, unix.F_SETFL, unix.F_GETFD, unix.F_SETFD, unix.F_DUPFD_CLOEXEC),
		unix.SYS_STATX:     args(seccomp.NonNegativeFD{}, anything(), seccomp.MaskedEqual(unix.AT_EMPTY_PATH, unix.AT_EMPTY_PATH)),
		unix.SYS_UTIMENSAT: args(seccomp.NonNegativeFD{}, is(0), anything(), is(0)), // no name: the descriptor itself
		unix.SYS_IOCTL:     oneOf(1, linux.FIONREAD),
	}
	for _, n := range []uintptr{
		unix.SYS_CLOSE, unix.SYS_DUP, unix.SYS_FALLOCATE, unix.SYS_FCHMOD, unix.SYS_FDATASYNC, unix.SYS_FSTAT, unix.SYS_FSTATFS,
		unix.SYS_FSYNC, unix.SYS_FTRUNCATE, unix.SYS_LSEEK, unix.SYS_PREAD64, unix.SYS_PREADV, unix.SYS_PREADV2,
		unix.SYS_PWRITE64, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_READ, unix.SYS_READV, unix.SYS_SYNC_FILE_RANGE,
		unix.SYS_TEE, unix.SYS_WRITE, unix.SYS_WRITEV,
	} {
		r[n] = all
	}
	return r
}

// networkCalls are those of steps, which use the sockets of the host.
func networkCalls() seccomp.SyscallRules {
	all := seccomp.MatchAll{}
	r := seccomp.MakeSyscallRules(rules{
		unix.SYS_ACCEPT4: args(anything(), anything(), anything(), is(unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)),
		unix.SYS_IOCTL: oneOf(1, unix.SIOCGIFCONF, unix.SIOCETHTOOL, unix.SIOCGIFFLAGS, unix.SIOCGIFHWADDR, unix.SIOCGIFINDEX,
			unix.SIOCGIFMTU, unix.SIOCGIFNAME, unix.SIOCGIFNETMASK, linux.SIOCGIFTXQLEN, unix.TIOCOUTQ, unix.TIOCINQ),
		unix.SYS_SOCKET: sockets(),
	})
	for _, n := range []uintptr{
		unix.SYS_BIND, unix.SYS_CONNECT, unix.SYS_GETPEERNAME, unix.SYS_GETSOCKNAME, unix.SYS_LISTEN, unix.SYS_RECVFROM,
		unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_SENDTO, unix.SYS_SHUTDOWN,
	} {
		r.Add(n, all)
	}
	for _, o := range append(hostinet.SockOpts, hostinet.SockOpt{Level: unix.SOL_SOCKET, Name: unix.SO_DOMAIN, AllowGet: true},
		hostinet.SockOpt{Level: unix.SOL_SOCKET, Name: unix.SO_TYPE, AllowGet: true}) {
		if o.AllowGet {
			r.Add(unix.SYS_GETSOCKOPT, args(anything(), is(uintptr(o.Level)), is(uintptr(o.Name))))
		}
		if o.AllowSet {
			r.Add(unix.SYS_SETSOCKOPT, args(anything(), is(uintptr(o.Level)), is(uintptr(o.Name))))
		}
	}
	return r
}

// sockets are the kinds that steps may have, and those with which the sentry itself asks for interfaces and routes.
func sockets() seccomp.Or {
	or := seccomp.Or{
		args(is(unix.AF_NETLINK), is(unix.SOCK_RAW|unix.SOCK_CLOEXEC), is(unix.NETLINK_ROUTE)),
		args(is(unix.AF_INET), is(unix.SOCK_STREAM), is(0)),
		args(is(unix.AF_INET6), is(unix.SOCK_STREAM), is(0)),
	}
	for _, s := range hostinet.AllowedSocketTypes {
		protocol := anything()
		if s.Protocol != hostinet.AllowAllProtocols {
			protocol = is(uintptr(s.Protocol))
		}
		or = append(or, args(is(uintptr(s.Family)), is(uintptr(s.Type|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)), protocol))
	}
	return or
}
