package native

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A step's first process is a fork of the thread that readied its namespaces, because a few things have to happen between
// its birth and its program: /proc can only be mounted inside the new PID namespace, and after the seccomp filter and the
// loss of capabilities nothing else can be done. Starting this whole program once more for that would cost more than
// everything else that a step needs.
//
// Between fork and exec a Go program may do next to nothing: there is one thread, so no lock that another held is ever
// released, no stack may grow and nothing may be allocated. So what the new process does is a list of system calls,
// with all their arguments in memory beforehand, and a loop that makes them. The runtime's part is what package syscall
// does around its own forks; that it stays reachable is promised for gVisor, which does the same.

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// call is a system call of a new process.
type call struct {
	number uintptr
	args   [6]uintptr
	// useResult makes the result of the call before this one's first argument.
	useResult bool
	// mayFail lets the program go on after an error.
	mayFail bool
}

// program is what a new process does. The memory that its calls refer to lives as long as the program.
type program struct {
	calls []call
	whats []string // what each call attempts, for errors
	keep  []any
}

// add appends a call that attempts what.
func (p *program) add(what string, number uintptr, args ...uintptr) *call {
	c := call{number: number}
	copy(c.args[:], args)
	p.calls = append(p.calls, c)
	p.whats = append(p.whats, what)
	return &p.calls[len(p.calls)-1]
}

// text is the address of a copy of s that ends with a zero byte.
func (p *program) text(s string) uintptr {
	b := append([]byte(s), 0)
	return p.bytes(b)
}

func (p *program) bytes(b []byte) uintptr {
	p.keep = append(p.keep, &b[0])
	return uintptr(unsafe.Pointer(&b[0]))
}

// texts is the address of an array of the addresses of all, with a zero at its end.
func (p *program) texts(all []string) uintptr {
	list := make([]uintptr, 0, len(all)+1)
	for _, s := range all {
		list = append(list, p.text(s))
	}
	list = append(list, 0)
	p.keep = append(p.keep, &list[0])
	return uintptr(unsafe.Pointer(&list[0]))
}

// callError is a call of a new process that failed.
type callError struct {
	what  string
	errno syscall.Errno
}

func (e *callError) Error() string { return e.what + ": " + e.errno.Error() }

func (e *callError) Unwrap() error { return e.errno }

const exitNoProgram = 253 // nobody looks at it: the reason comes through the pipe

// start forks the calling thread, which must be locked, with these flags of clone(2), and returns once the new process
// has executed another program or given up; then it is a [*callError], and the process is gone.
// running is called with its ID as soon as there is one.
func (p *program) start(flags uintptr, running func(pid int)) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer func() { _ = unix.Close(pipe[0]) }()
	syscall.ForkLock.Lock()
	pid, errno := fork(flags|uintptr(unix.SIGCHLD), p.calls, uintptr(pipe[1]))
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(p)
	_ = unix.Close(pipe[1])
	if errno != 0 {
		return fmt.Errorf("make a process: %w", errno)
	}
	running(int(pid)) //nolint:gosec // a process ID
	var report [2]uint64
	n, err := readFull(pipe[0], unsafe.Slice((*byte)(unsafe.Pointer(&report)), unsafe.Sizeof(report)))
	if err != nil {
		return err
	}
	if n == 0 {
		return nil // the pipe was closed by execve
	}
	return &callError{what: p.whats[report[0]], errno: syscall.Errno(report[1])}
}

func readFull(fd int, p []byte) (int, error) {
	for done := 0; ; {
		n, err := unix.Read(fd, p[done:])
		switch {
		case err == unix.EINTR:
		case err != nil:
			return done, os.NewSyscallError("read", err)
		case n == 0 || done+n == len(p):
			return done + n, nil
		default:
			done += n
		}
	}
}

// fork makes a process that makes calls, the last of which should be execve. The number of the first one that fails goes
// to the pipe, with its error.
//
//go:noinline
//go:norace
//go:nocheckptr
func fork(flags uintptr, calls []call, pipe uintptr) (uintptr, syscall.Errno) {
	// All variables come before the fork: the stack of the new process must not grow.
	var (
		pid, result, i uintptr
		errno          syscall.Errno
		report         [2]uint64
		c              *call
	)
	beforeFork()
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno != 0 || pid != 0 {
		afterFork()
		return pid, errno
	}
	afterForkInChild()
	for i = 0; i < uintptr(len(calls)); i++ {
		c = &calls[i]
		if c.useResult {
			c.args[0] = result
		}
		result, _, errno = syscall.RawSyscall6(c.number, c.args[0], c.args[1], c.args[2], c.args[3], c.args[4], c.args[5])
		if errno != 0 && !c.mayFail {
			report[0], report[1] = uint64(i), uint64(errno)
			syscall.RawSyscall(syscall.SYS_WRITE, pipe, uintptr(unsafe.Pointer(&report)), unsafe.Sizeof(report))
			break
		}
	}
	for {
		syscall.RawSyscall(syscall.SYS_EXIT, exitNoProgram, 0, 0)
	}
}
