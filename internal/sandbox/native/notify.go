package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox"
	"hako/internal/tree"
)

// In a user namespace no process can make device nodes, and the kernel says EPERM. A step must not go on with that, for its
// image would lack something that it has elsewhere: the seccomp filter asks us. Where the builder can make nodes, it makes this
// one; elsewhere the step is ended at once, so that another engine can run it.
//
// The kernel's overlay would not let the builder's node in either: it acts with the rights of whoever mounted it. But what lies
// in the upper already may be moved about. So the node is made in a directory of the upper that the overlay has never looked
// at, under a name that nobody can guess, and then moved to its place through the overlay.

// watcher answers what the filter of one step asks.
type watcher struct {
	step *step
	root int // the step's root
	// ours is where the listener's descriptor comes from, theirs what the step's first process sends it to.
	ours, theirs int
	done         chan struct{}
	// failure is why the step was ended; set before done is closed.
	failure error
}

// listenerFD is the number under which a step's first process sends its listener. It may be any that is not in use there.
const listenerFD = 900

// watch readies a watcher. The caller closes it.
func (s *step) watch(r *root) (*watcher, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	return &watcher{step: s, root: r.fresh, ours: fds[0], theirs: fds[1], done: make(chan struct{})}, nil
}

// add makes p send the listener that the call before it has returned.
func (w *watcher) add(p *program) {
	c := p.add("name the listener", unix.SYS_DUP3, 0, listenerFD, unix.O_CLOEXEC)
	c.useResult = true
	rights := unix.UnixRights(listenerFD)
	payload := []byte{0}
	iov := &unix.Iovec{Base: &payload[0]}
	iov.SetLen(1)
	msg := &unix.Msghdr{Iov: iov, Control: &rights[0]}
	msg.SetIovlen(1)
	msg.SetControllen(len(rights))
	p.keep = append(p.keep, rights, payload, iov, msg)
	p.add("send the listener", unix.SYS_SENDMSG, uintptr(w.theirs), uintptr(unsafe.Pointer(msg)), 0)
}

// start answers until the step has ended. It returns at once.
func (w *watcher) start() {
	_ = unix.Close(w.theirs)
	w.theirs = -1
	go func() {
		defer close(w.done)
		fd, err := receiveFD(w.ours)
		if err != nil {
			return // the process gave up before, and says so itself
		}
		defer func() { _ = unix.Close(fd) }()
		w.serve(fd)
	}()
}

// close waits for the end of a watcher whose step has ended, and returns why it ended the step, if it did.
func (w *watcher) close() error {
	if w.theirs >= 0 {
		_ = unix.Close(w.theirs) // it never started
		close(w.done)
	}
	<-w.done
	_ = unix.Close(w.ours)
	return w.failure
}

func receiveFD(from int) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(from, make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || n == 0 {
		return -1, errors.Join(err, errBadRequest)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return -1, errors.Join(err, errBadRequest)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, errors.Join(err, errBadRequest)
	}
	return fds[0], nil
}

// notification is struct seccomp_notif.
type notification struct {
	id         uint64
	pid, flags uint32
	number     int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

// answer is struct seccomp_notif_resp.
type answer struct {
	id    uint64
	value int64
	errno int32 // negative
	flags uint32
}

// serve answers questions until nobody can ask any more.
func (w *watcher) serve(fd int) {
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}} //nolint:gosec // a descriptor
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			if poll[0].Revents != 0 {
				return // the last process is gone
			}
			continue
		}
		var n notification
		if !control(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)) {
			continue // whoever asked is gone
		}
		a := answer{id: n.id}
		valid := func() bool { return control(fd, notifIDValid(), unsafe.Pointer(&n.id)) }
		if err := w.node(&n, valid); err != nil {
			a.errno = -int32(unix.EPERM)
			var errno syscall.Errno
			if errors.As(err, &errno) {
				a.errno = -int32(errno) //nolint:gosec // a small number
			}
			var unsupported *sandbox.UnsupportedError
			if errors.As(err, &unsupported) {
				w.failure = err
				w.step.Kill()
			}
		}
		control(fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)) // it is gone if that fails
	}
}

func control(fd int, request uintptr, arg unsafe.Pointer) bool {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		if errno != unix.EINTR {
			return errno == 0
		}
	}
}

// notifIDValid is SECCOMP_IOCTL_NOTIF_ID_VALID: whether whoever asked still waits, so that what was read of it is its own.
func notifIDValid() uintptr { return 0x40082102 }

// node makes the device node that n asks for.
func (w *watcher) node(n *notification, valid func() bool) error {
	args := n.args[:]
	dir := int64(unix.AT_FDCWD)
	for _, t := range tables() {
		if t.arch == n.arch && uint32(n.number) == t.mknodat { //nolint:gosec // a number of a system call
			dir, args = int64(int32(args[0])), args[1:] //nolint:gosec // an int of C
		}
	}
	e := tree.Entry{Mode: uint32(args[1]) & 0o7777, Kind: tree.CharDevice} //nolint:gosec // an unsigned int of C
	if args[1]&unix.S_IFMT == unix.S_IFBLK {
		e.Kind = tree.BlockDevice
	}
	dev := uint64(uint32(args[2])) //nolint:gosec // the kernel looks at no more
	e.Major, e.Minor = unix.Major(dev), unix.Minor(dev)
	if dev == 0 && e.Kind == tree.CharDevice {
		return unix.EPERM // an overlay lets nobody make a whiteout
	}
	p, err := readCaller(n.pid)
	if err != nil {
		return unix.ESRCH
	}
	if p.name, err = readText(n.pid, args[0]); err != nil {
		return err
	}
	if !valid() {
		return unix.ESRCH
	}
	if p.capabilities&(1<<unix.CAP_MKNOD) == 0 {
		return unix.EPERM
	}
	e.Mode, e.UID, e.GID = e.Mode&^p.umask, p.uid, p.gid
	return w.step.box.makeNode(w, &caller{process: *p, dir: dir}, &e)
}

// process is what has to be known of a process that asks.
type process struct {
	pid          string
	uid, gid     uint32 // of the file system
	umask        uint32
	capabilities uint64
	name         string // the path that it wants to make
}

// caller is a process and what its path is relative to: a descriptor, or AT_FDCWD.
type caller struct {
	process
	dir int64
}

// readCaller reads /proc/PID/status.
func readCaller(pid uint32) (*process, error) {
	p := &process{pid: strconv.FormatUint(uint64(pid), 10)}
	b, err := os.ReadFile("/proc/" + p.pid + "/status")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		var n uint64
		switch f[0] {
		case "Umask:":
			n, err = strconv.ParseUint(f[1], 8, 32)
			p.umask = uint32(n) //nolint:gosec // 32 bits
		case "CapEff:":
			p.capabilities, err = strconv.ParseUint(f[1], 16, 64)
		case "Uid:", "Gid:":
			if len(f) < 5 {
				return nil, errBadRequest
			}
			n, err = strconv.ParseUint(f[4], 10, 32)
			if f[0] == "Uid:" {
				p.uid = uint32(n) //nolint:gosec // 32 bits
			} else {
				p.gid = uint32(n) //nolint:gosec // 32 bits
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return p, nil
}

// readText reads a string of C from the memory of a process.
func readText(pid uint32, at uint64) (string, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return "", unix.EFAULT
	}
	defer func() { _ = f.Close() }()
	var text []byte
	page := uint64(os.Getpagesize()) //nolint:gosec // positive
	for len(text) < unix.PathMax {
		// Up to the end of the page: the next one may not be there.
		b := make([]byte, page-at%page)
		n, err := f.ReadAt(b, int64(at)) //nolint:gosec // an address in user space
		if n == 0 && err != nil {
			return "", unix.EFAULT
		}
		before, _, ended := strings.Cut(string(b[:n]), "\x00")
		if text = append(text, before...); ended {
			return string(text), nil
		}
		at += uint64(n) //nolint:gosec // positive
	}
	return "", unix.ENAMETOOLONG
}

// parent opens the directory that the caller's path is in, as the caller sees it, and returns the last component.
func (c *caller) parent() (fd int, name string, err error) {
	at := "/proc/" + c.pid
	from := c.name
	if from == "" {
		return -1, "", unix.ENOENT
	}
	if !strings.HasPrefix(from, "/") {
		base := at + "/cwd"
		if c.dir != unix.AT_FDCWD {
			base = at + "/fd/" + strconv.FormatInt(c.dir, 10)
		}
		if from, err = c.below(base); err != nil {
			return -1, "", err
		}
		from = path.Join(from, ".") + "/" + c.name
	}
	from = strings.TrimRight(from, "/")
	i := strings.LastIndexByte(from, '/')
	if name = from[i+1:]; name == "." || name == ".." || name == "" {
		return -1, "", unix.EEXIST
	}
	root, err := unix.Open(at+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, "", unix.ESRCH
	}
	defer func() { _ = unix.Close(root) }()
	fd, err = unix.Openat2(root, "./"+from[:i+1], &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
	return fd, name, err
}

// below is the path of the directory that link, a link in /proc, leads to, below the caller's root.
func (c *caller) below(link string) (string, error) {
	root, err := os.Readlink("/proc/" + c.pid + "/root")
	if err != nil {
		return "", unix.ESRCH
	}
	p, err := os.Readlink(link)
	if err != nil {
		return "", unix.EBADF
	}
	rest, ok := strings.CutPrefix(p, strings.TrimSuffix(root, "/"))
	if !ok || rest != "" && !strings.HasPrefix(rest, "/") {
		return "", &sandbox.UnsupportedError{What: "a device node outside of the root cannot be made in a user namespace"}
	}
	return rest, nil
}

// makeNode makes e at the caller's path, or says why nobody can.
func (b *box) makeNode(w *watcher, c *caller, e *tree.Entry) error {
	if b.nodes == nil {
		return nodeError(e, unix.EPERM)
	}
	parent, name, err := c.parent()
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	var st unix.Stat_t
	if err := unix.Fstatat(parent, name, &st, unix.AT_SYMLINK_NOFOLLOW); !errors.Is(err, unix.ENOENT) {
		if err == nil {
			err = unix.EEXIST
		}
		return err
	}
	return w.moveIn(parent, name, e)
}

// moveIn makes e in the upper and moves it to name in the directory parent of the overlay.
func (w *watcher) moveIn(parent int, name string, e *tree.Entry) (err error) {
	aside := ".hako-" + w.step.box.secret()
	dir := w.step.upper + "/" + aside
	var before unix.Stat_t
	if err := unix.Stat(w.step.upper, &before); err != nil {
		return err
	}
	if err := unix.Mkdir(dir, 0o700); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		if err = w.step.box.nodes.make(fd, "node", e); err == nil {
			err = describeNode(fd, "node", e)
		}
		_ = unix.Close(fd)
	}
	if err == nil {
		err = unix.Renameat2(w.root, aside+"/node", parent, name, unix.RENAME_NOREPLACE)
	}
	if errors.Is(err, unix.EXDEV) {
		err = &sandbox.UnsupportedError{What: "a device node cannot be made in a mount in a user namespace"}
	}
	if err != nil {
		return errors.Join(err, removeTree(dir))
	}
	// By the same way out, so that the overlay knows.
	if err := unix.Unlinkat(w.root, aside, unix.AT_REMOVEDIR); err != nil {
		return err
	}
	return setTimes(w.root, ".", &before)
}

// nodes asks the builder for device nodes: it may have the right where a user namespace never has it.
type nodes struct {
	socket *os.File
	turn   chan struct{} // one token
}

func newNodes(socket *os.File) *nodes {
	n := &nodes{socket: socket, turn: make(chan struct{}, 1)}
	n.turn <- struct{}{}
	return n
}

// nodeRequestSize is how many bytes of a request to the builder come before the name: the mode as in mknod(2), 4 bytes, and
// the device, 8. The directory comes with it.
const nodeRequestSize = 12

// make makes e as name, without owner and time, in the directory dir.
func (n *nodes) make(dir int, name string, e *tree.Entry) error {
	kind := uint32(unix.S_IFCHR)
	if e.Kind == tree.BlockDevice {
		kind = unix.S_IFBLK
	}
	<-n.turn
	defer func() { n.turn <- struct{}{} }()
	msg := binary.LittleEndian.AppendUint32(nil, kind|0o600)
	msg = binary.LittleEndian.AppendUint64(msg, unix.Mkdev(e.Major, e.Minor))
	msg = append(msg, name...)
	fd := int(n.socket.Fd())
	if err := unix.Sendmsg(fd, msg, unix.UnixRights(dir), nil, 0); err != nil {
		return fmt.Errorf("ask the builder for a device node: %w", err)
	}
	var reply [4]byte
	got, err := unix.Read(fd, reply[:])
	if err != nil || got != len(reply) {
		return errors.Join(err, errBadRequest)
	}
	if errno := binary.LittleEndian.Uint32(reply[:]); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

// serveNodes makes the device nodes that a child asks for, in the builder, until the child is gone. It takes socket over.
func serveNodes(socket *os.File) {
	defer func() { _ = socket.Close() }()
	fd := int(socket.Fd())
	buf, oob := make([]byte, nodeRequestSize+unix.NAME_MAX), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= nodeRequestSize {
			return
		}
		errno := answerNode(buf[:n], oob[:oobn])
		if _, err := unix.Write(fd, binary.LittleEndian.AppendUint32(nil, uint32(errno))); err != nil { //nolint:gosec // a small number
			return
		}
	}
}

// answerNode makes one node. The child is not trusted: a name is a name, and what is made is a device.
func answerNode(msg, oob []byte) syscall.Errno {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 {
		return unix.EINVAL
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return unix.EINVAL
	}
	defer func() { _ = unix.Close(fds[0]) }()
	mode, dev, name := binary.LittleEndian.Uint32(msg), binary.LittleEndian.Uint64(msg[4:]), string(msg[nodeRequestSize:])
	kind := mode & unix.S_IFMT
	if strings.ContainsAny(name, "/\x00") || kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return unix.EINVAL
	}
	err = unix.Mknodat(fds[0], name, kind|0o600, int(dev)) //nolint:gosec // as the system call takes it
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return 0
}
