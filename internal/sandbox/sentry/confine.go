package sentry

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/seccomp"
	"gvisor.dev/gvisor/pkg/sentry/kernel"

	"hako/internal/sandbox/child"
)

// A step that breaks out of gVisor finds itself in the child, so the child must be a poor place to be. It gives up:
//
//   - before it exists, on the thread of the builder that makes it: new privileges; all capabilities but binding low ports;
//     and by Landlock every file of the host but the program itself and what the start of a kernel reads of /proc and /sys,
//     as well as signals and abstract sockets outside. It cannot be later, because Landlock confines each thread for itself,
//     and forbids to trace processes that are less confined, or by another domain, than the tracer.
//   - once the kernel runs: being dumped or traced by others, and by seccomp every system call that the sentry does not
//     need, among them all that open a file by name, run a program, or make a process.
//
// What stays is the network, which steps have anyway, and the descriptors that the builder hands over.

// confineThread does the first part to the calling thread, which must be locked and never be used for anything else than
// to start the child. What the kernel cannot do is reported, not an error: seccomp alone holds the line then.
func confineThread() []string {
	nnp := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	return []string{say("no new privileges", nnp), say("landlock", landlock()), say("capabilities", dropCapabilities())}
}

// confineLate does the second part, in the child.
func confineLate(k *kernel.Kernel) error {
	if err := child.Hide(); err != nil {
		return err
	}
	program, err := filter(k)
	if err != nil {
		return fmt.Errorf("build the seccomp filter: %w", err)
	}
	if err := seccomp.SetFilter(program); err != nil {
		return fmt.Errorf("install the seccomp filter: %w", err)
	}
	return nil
}

func say(what string, err error) string {
	if err == nil {
		return what + ": confined"
	}
	return fmt.Sprintf("%s: not confined: %v", what, err)
}

// dropCapabilities keeps at most the right to bind ports below 1024. Without new privileges, execve gives none back.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var have [2]unix.CapUserData
	if err := unix.Capget(&header, &have[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	keep := have[0].Permitted & (1 << unix.CAP_NET_BIND_SERVICE)
	want := [2]unix.CapUserData{{Effective: keep, Permitted: keep}}
	if err := unix.Capset(&header, &want[0]); err != nil {
		return fmt.Errorf("drop capabilities: %w", err)
	}
	return nil
}

// landlockRuleset is struct landlock_ruleset_attr of Linux 6.12.
type landlockRuleset struct {
	fs, net, scoped uint64
}

// landlock takes away the host's files.
func landlock() error {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	attr, size := landlockRights(int(abi)) //nolint:gosec // a small number
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return os.NewSyscallError("landlock_create_ruleset", errno)
	}
	rules := os.NewFile(fd, "landlock")
	defer func() { _ = rules.Close() }()
	for _, a := range landlockAllowed() {
		if err := allow(fd, a.path, a.rights); err != nil {
			return err
		}
	}
	if _, _, errno = unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return os.NewSyscallError("landlock_restrict_self", errno)
	}
	return nil
}

type allowance struct {
	path   string
	rights uint64
}

// landlockAllowed is what the child needs until the seccomp filter is there. The processes in /proc that are not its own
// are closed to it all the same, being in no domain, or in the builder's case undumpable.
func landlockAllowed() []allowance {
	const look = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	const run = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE
	a := []allowance{{child.Self, run}, {"/proc", look}, {"/sys", look}}
	if cgo { // the dynamic linker of a test
		a = append(a, allowance{"/lib", look | run}, allowance{"/lib64", look | run}, allowance{"/usr/lib", look | run}, allowance{"/etc", look})
	}
	return a
}

// allow adds a rule to the rule set fd. A path that is not there needs none.
func allow(fd uintptr, path string, rights uint64) error {
	f, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer func() { _ = unix.Close(f) }()
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(f)} //nolint:gosec // a descriptor
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, fd, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return &os.PathError{Op: "landlock_add_rule", Path: path, Err: errno}
	}
	return nil
}

// landlockRights is everything that this version of Landlock can take away, and the size of what it knows of the struct.
func landlockRights(abi int) (landlockRuleset, uintptr) {
	a := landlockRuleset{fs: unix.LANDLOCK_ACCESS_FS_MAKE_SYM<<1 - 1} // all of version 1
	if abi >= 2 {
		a.fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		a.fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 5 {
		a.fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi < 6 {
		return a, unsafe.Offsetof(a.net)
	}
	a.scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	return a, unsafe.Sizeof(a)
}

// Check implements [remote.Kernel].
func (b *box) Check() []string {
	var report []string
	for _, try := range forbidden(b.builder) {
		if err := try.do(); !errors.Is(err, unix.EPERM) {
			report = append(report, fmt.Sprintf("%s: %v, want %v", try.name, err, unix.EPERM))
		}
	}
	return report
}

type attempt struct {
	name string
	do   func() error
}

func forbidden(builder int) []attempt {
	open := func(name string, flags int) func() error {
		return func() error {
			fd, err := unix.Open(name, flags|unix.O_CLOEXEC, 0o600)
			if err == nil {
				_ = unix.Close(fd)
			}
			return err
		}
	}
	return []attempt{
		{"open a file", open("/proc/self/exe", unix.O_RDONLY)},
		{"open a directory", open("/", unix.O_RDONLY|unix.O_DIRECTORY)},
		{"make a file", open("/tmp/hako-escape", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL)},
		{"look at a file", func() error { var st unix.Stat_t; return unix.Lstat("/", &st) }},
		{"read the directory in use", func() error { _, err := unix.Getcwd(make([]byte, unix.PathMax)); return err }},
		{"run a program", func() error { return unix.Exec("/proc/self/exe", []string{"true"}, nil) }},
		{"signal the builder", func() error { return unix.Kill(builder, 0) }},
		{"make a unix socket", func() error { _, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err }},
		{"trace the builder", func() error { return unix.PtraceSeize(builder) }},
		{"mount", func() error { return unix.Mount("none", "/", "tmpfs", 0, "") }},
		{"make a namespace", func() error { return unix.Unshare(unix.CLONE_NEWUSER) }},
		{"map new code", func() error {
			_, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
			return err
		}},
		{"use io_uring", func() error { _, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return errnoErr(e) }},
	}
}

func errnoErr(e unix.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}
