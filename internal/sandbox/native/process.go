package native

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox/remote"
)

const (
	defaultUmask = 0o022
	// What calls of the first process attempt.
	whatExec   = "execve"
	whatFilter = "install the seccomp filter"
)

// defaultCapabilities are what BuildKit gives to a step without --security=insecure (containerd's defaultUnixCaps).
func defaultCapabilities() []uintptr {
	return []uintptr{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FSETID, unix.CAP_FOWNER, unix.CAP_MKNOD,
		unix.CAP_NET_RAW, unix.CAP_SETGID, unix.CAP_SETUID, unix.CAP_SETFCAP, unix.CAP_SETPCAP,
		unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_KILL, unix.CAP_AUDIT_WRITE,
	}
}

// stepProgram is what the first process of a step does, the last of it to execute file.
type stepProgram struct {
	program
	file string
}

// program readies the calling thread, of which the step's first process will be a copy, and says what that does.
// The thread is inside the step's root already.
func (s *step) program(r *root, w *watcher, stdio []*os.File) (*stepProgram, error) {
	req := s.req
	file, err := findCommand(req)
	if err != nil {
		return nil, err
	}
	if err := limitCapabilities(); err != nil {
		return nil, err
	}
	unix.Umask(defaultUmask) // the thread has a umask of its own
	p := &stepProgram{file: file}
	s.box.masks.add(&p.program)
	// A /proc can be mounted in a user namespace only while another is to be seen; that one goes now, with everything else
	// of the child.
	p.add("enter the child's root", unix.SYS_FCHDIR, uintptr(r.old))
	if s.box.covers {
		p.add("leave the data directory", unix.SYS_UMOUNT2, p.text(dirData), unix.MNT_DETACH) // the rest is out of reach
	} else {
		p.add("leave the child's root", unix.SYS_UMOUNT2, p.text("."), unix.MNT_DETACH)
	}
	p.add("enter the working directory", unix.SYS_CHDIR, p.text(req.Dir))
	if err := p.stdio(req, stdio); err != nil {
		return nil, err
	}
	p.add("setsid", unix.SYS_SETSID)
	p.install(s.box.filter, w)
	p.identity(req)
	p.add("mark descriptors", unix.SYS_CLOSE_RANGE, 3, ^uintptr(0)&0xffffffff, unix.CLOSE_RANGE_CLOEXEC)
	p.add(whatExec, unix.SYS_EXECVE, p.text(file), p.texts(req.Args), p.texts(req.Env))
	return p, nil
}

// stdio makes the step's standard streams descriptors 0 to 2, and gives them to its user, who may want to open them again.
func (p *stepProgram) stdio(req *remote.Run, files []*os.File) error {
	for _, f := range files {
		if err := unix.Fchown(int(f.Fd()), int(req.UID), int(req.GID)); err != nil {
			return fmt.Errorf("give streams to the step: %w", ownerError(req.UID, req.GID, err))
		}
	}
	first := 0
	if len(files) == 2 {
		const stdin = 0
		p.add("open /dev/null", unix.SYS_OPENAT, ^uintptr(99), p.text("/dev/null"), unix.O_RDONLY) // AT_FDCWD is -100
		c := p.add("install stdin", unix.SYS_DUP3, 0, stdin, 0)
		c.useResult = true
		first = 1
	}
	for i, f := range files {
		p.add("install a stream", unix.SYS_DUP3, f.Fd(), uintptr(first+i), 0)
	}
	return nil
}

// install adds the seccomp filter. It needs a privilege that goes afterwards. What it asks about, it asks w, if that is not nil.
func (p *stepProgram) install(filter []unix.SockFilter, w *watcher) {
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]} //nolint:gosec // far less than BPF_MAXINSNS
	p.keep = append(p.keep, prog, filter)
	flags := uintptr(0)
	if w != nil {
		flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	p.add(whatFilter, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(prog)))
	if w != nil {
		w.add(&p.program)
	}
}

// identity makes the process that of the step's user.
func (p *stepProgram) identity(req *remote.Run) {
	groups := req.Groups
	var list uintptr
	if len(groups) > 0 {
		groups = append([]uint32(nil), groups...)
		p.keep = append(p.keep, &groups[0])
		list = uintptr(unsafe.Pointer(&groups[0]))
	}
	p.add("set groups", unix.SYS_SETGROUPS, uintptr(len(groups)), list)
	uid, gid := uintptr(req.UID), uintptr(req.GID)
	p.add("set group", unix.SYS_SETRESGID, gid, gid, gid)
	p.add("set user", unix.SYS_SETRESUID, uid, uid, uid)
}

// limitCapabilities takes from what the calling thread will execute everything but the capabilities of a step. The thread
// itself loses nothing.
func limitCapabilities() error {
	keep := map[uintptr]bool{}
	for _, c := range defaultCapabilities() {
		keep[c] = true
	}
	for c := uintptr(0); c <= unix.CAP_LAST_CAP+32; c++ {
		if keep[c] {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // one that this kernel does not have
		}
		if err != nil {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("drop ambient capabilities: %w", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("drop inheritable capabilities: %w", err)
	}
	return nil
}

// findCommand looks Args[0] up as Go's exec.LookPath does, because that is what runc calls: in the step's root,
// which is the calling thread's, as the step's user.
func findCommand(req *remote.Run) (string, error) {
	back, err := becomeUser(req)
	if err != nil {
		return "", err
	}
	file, err := lookPath(req)
	return file, errors.Join(err, back())
}

func lookPath(req *remote.Run) (string, error) {
	name := req.Args[0]
	if strings.Contains(name, "/") {
		p := name
		if !path.IsAbs(p) {
			p = path.Join(req.Dir, p)
		}
		if err := executable(p); err != nil {
			return "", &remote.StartError{Reason: fmt.Sprintf("exec: %q: %s", name, lookupReason(err, name))}
		}
		return p, nil
	}
	for _, dir := range strings.Split(lookupEnv(req.Env, "PATH"), ":") {
		if dir == "" {
			dir = req.Dir
		}
		if p := path.Join(dir, name); path.IsAbs(p) && executable(p) == nil {
			return p, nil
		}
	}
	return "", &remote.StartError{Reason: fmt.Sprintf("exec: %q: executable file not found in $PATH", name)}
}

func executable(p string) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	return unix.Faccessat(unix.AT_FDCWD, p, unix.X_OK, unix.AT_EACCESS)
}

func lookupReason(err error, name string) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Sprintf("stat %s: no such file or directory", name)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Sprintf("stat %s: not a directory", name)
	case errors.Is(err, unix.EACCES):
		return "permission denied"
	}
	return err.Error()
}

func lookupEnv(env []string, name string) string {
	value := ""
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			value = v
		}
	}
	return value
}

// becomeUser makes the calling thread see files as the step's user does, until back is called.
func becomeUser(req *remote.Run) (back func() error, err error) {
	if req.UID == 0 && req.GID == 0 {
		return func() error { return nil }, nil
	}
	set := func(uid, gid uint32, groups []uint32) error {
		var list unsafe.Pointer
		if len(groups) > 0 {
			list = unsafe.Pointer(&groups[0])
		}
		// Not the functions of package syscall, which change all threads.
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(list), 0); errno != 0 {
			return fmt.Errorf("set groups: %w", errno)
		}
		_, _, _ = syscall.RawSyscall(unix.SYS_SETFSGID, uintptr(gid), 0, 0) // says nothing about errors
		_, _, _ = syscall.RawSyscall(unix.SYS_SETFSUID, uintptr(uid), 0, 0)
		return nil
	}
	if err := set(req.UID, req.GID, req.Groups); err != nil {
		return nil, err
	}
	return func() error {
		_, _, _ = syscall.RawSyscall(unix.SYS_SETFSUID, 0, 0, 0) // first: it gives capabilities back
		return set(0, 0, nil)
	}, nil
}
