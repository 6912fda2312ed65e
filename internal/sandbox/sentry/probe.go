package sentry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox"
)

// Report says whether and how steps can run here.
type Report struct {
	// Platform is the first that works; empty if none does.
	Platform string
	// Failures are the platforms that were tried before it and do not work.
	Failures []Failure
	// Causes are the system calls that were refused, most likely cause first. It is empty if a platform works,
	// or if none of the calls that we know to be needed fails by itself.
	Causes []Cause
	// Confinement says for each way to confine the sandbox's process whether this machine has it. Seccomp is not among them:
	// without it nothing works.
	Confinement []string
}

// Failure is a platform that does not work.
type Failure struct {
	Platform string
	Err      error
}

// Cause is one system call that the sandbox needs and that was refused.
type Cause struct {
	// Call is as in its manual page: "ptrace(PTRACE_ATTACH)".
	Call string
	Err  error
	// Setting is what to change in the pod or on the node, one sentence.
	Setting string
}

// UnavailableError says that no step can run here, and why.
type UnavailableError struct{ Report Report }

// Error names the calls that were refused, or, if none is known, what went wrong with each platform, all on one line.
func (e *UnavailableError) Error() string {
	var reasons []string
	for _, c := range e.Report.Causes {
		reasons = append(reasons, fmt.Sprintf("%s: %v", c.Call, c.Err))
	}
	if len(reasons) == 0 {
		for _, f := range e.Report.Failures {
			first, _, _ := strings.Cut(f.Err.Error(), "\n")
			reasons = append(reasons, f.Platform+": "+first)
		}
	}
	return "the sandbox cannot run here: " + strings.Join(reasons, "; ")
}

// Hint is the setting that would change the first cause, or empty.
func (e *UnavailableError) Hint() string {
	if len(e.Report.Causes) == 0 {
		return ""
	}
	return e.Report.Causes[0].Setting
}

// Unwrap returns what went wrong with each platform.
func (e *UnavailableError) Unwrap() []error {
	errs := make([]error, len(e.Report.Failures))
	for i, f := range e.Report.Failures {
		errs[i] = f.Err
	}
	return errs
}

// Probe starts a sandbox, runs a program in it that does nothing, and ends it: about 50 ms.
// It returns an [*UnavailableError] if that does not work, or ctx's cause if ctx ends first.
func Probe(ctx context.Context, options Options) (Report, error) {
	e, err := New(ctx, options)
	if err != nil {
		return Report{}, err
	}
	defer e.Close() //nolint:errcheck // it only ends processes
	out, err := e.Run(ctx, &sandbox.Step{
		Name: "probe", Args: []string{probePath}, Dir: "/", Stdout: io.Discard, Stderr: io.Discard,
		Files: []sandbox.File{{Path: probePath, Mode: 0o755, Data: staticELF(machine, exitCode())}},
	})
	var unavailable *UnavailableError
	if errors.As(err, &unavailable) {
		return unavailable.Report, err
	}
	if cause := context.Cause(ctx); cause != nil {
		return Report{}, cause
	}
	r := e.report()
	if err != nil {
		r.Failures = append(r.Failures, Failure{Platform: r.Platform, Err: err})
		r.Platform, r.Causes = "", causes("/")
		return r, &UnavailableError{Report: r}
	}
	return r, out.Close()
}

const probePath = "/hako-probe"

// report describes the child that runs.
func (e *Engine) report() Report {
	e.mu.Lock()
	defer e.mu.Unlock()
	return Report{Platform: e.platform, Failures: e.failures, Confinement: e.confinement}
}

// causes tries the calls that a sandbox cannot do without, each so that it changes nothing. root is where /proc is.
func causes(root string) []Cause {
	var found []Cause
	for _, need := range []func(root string) *Cause{needPtrace, needSeccomp, needExecutableMemory} {
		if c := need(root); c != nil {
			found = append(found, *c)
		}
	}
	return found
}

func needPtrace(root string) *Cause {
	// There is no such process, so that permission is all that the answer can be about.
	if err := unix.PtraceAttach(1<<31 - 1); !errors.Is(err, unix.ESRCH) {
		return &Cause{
			Call: "ptrace(PTRACE_ATTACH)", Err: err,
			Setting: "Use seccompProfile type RuntimeDefault (Docker: the default profile) on Linux 4.8 or newer, or a profile that allows ptrace.",
		}
	}
	scope, err := os.ReadFile(filepath.Join(root, "proc/sys/kernel/yama/ptrace_scope"))
	if s := strings.TrimSpace(string(scope)); err == nil && (s == "2" || s == "3") {
		return &Cause{
			Call: "ptrace(PTRACE_ATTACH)", Err: fmt.Errorf("kernel.yama.ptrace_scope is %s: %w", s, unix.EPERM),
			Setting: "Set the sysctl kernel.yama.ptrace_scope to 0 or 1 on the node.",
		}
	}
	return nil
}

func needSeccomp(string) *Cause {
	action := uint32(unix.SECCOMP_RET_TRAP)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno == 0 {
		return nil
	}
	return &Cause{
		Call: "seccomp(SECCOMP_GET_ACTION_AVAIL)", Err: errno,
		Setting: "Use seccompProfile type RuntimeDefault (Docker: the default profile), or a profile that allows seccomp.",
	}
}

func needExecutableMemory(string) *Cause {
	fd, err := unix.MemfdCreate("hako-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return &Cause{Call: "memfd_create", Err: err, Setting: "Use a seccomp profile that allows memfd_create."}
	}
	defer func() { _ = unix.Close(fd) }()
	size := os.Getpagesize()
	err = unix.Ftruncate(fd, int64(size))
	if err == nil {
		var p []byte
		if p, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED); err == nil {
			err = unix.Munmap(p)
		}
	}
	if err == nil {
		return nil
	}
	return &Cause{
		Call: "mmap(PROT_EXEC) of a memfd", Err: err,
		Setting: "Allow executable memory files: sysctl vm.memfd_noexec=0 on the node, and no SELinux or AppArmor rule against it.",
	}
}
