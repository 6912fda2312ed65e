package native

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"hako/internal/layer"
	"hako/internal/sandbox/remote"
	"hako/internal/tree"
)

// What RUN --mount shows is cloned from a place in the child's own tree:
//
//	binds    an overlay of their own, in the step's mount namespace, so that it goes with the step
//	caches   an overlay in the child's mount namespace, which outlives steps
//	sockets  a socket of the child, which connects each connection with one that the builder makes
//
// and a tmpfs from nowhere.

var errTarget = errors.New("nothing can be mounted there")

// freshTmpfsMode is that of an empty directory where the image has none, tmpfs(5).
const freshTmpfsMode = 0o1777

// source is what a mount shows, before it has its place.
type source struct {
	*remote.StepMount
	isDir bool
	fd    int // what is cloned; -1 for a tmpfs
}

// open finds what is cloned, at the literal path p of root, which is relative to the child's root.
func (s *source) open(root, p string) error {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", root, err)
	}
	defer func() { _ = unix.Close(dir) }()
	if s.fd, err = openBelow(dir, p, unix.O_PATH); err != nil {
		return pathError("open", p, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(s.fd, &st); err != nil {
		return pathError("lstat", p, err)
	}
	s.isDir = kindOf(&st) == tree.Dir
	return nil
}

// clone makes the mount that is placed at the target; mode is that of the directory there, for a tmpfs.
func (s *source) clone(mode uint32) (int, error) {
	attrs := uint64(attrNoDev)
	if s.ReadOnly {
		attrs |= attrReadOnly
	}
	if s.Tmpfs != nil {
		return newMount("tmpfs", int(attrs)|attrNoSUID, //nolint:gosec // small
			option{"mode", strconv.FormatUint(uint64(mode), 8)}, option{"size", strconv.FormatInt(s.Tmpfs.Size, 10)})
	}
	return cloneTree(s.fd, "", attrs)
}

// sources opens what the step mounts, in its own mount namespace, from where the child's root is still "/".
func (s *step) sources() ([]*source, error) {
	var out []*source
	for i := range s.req.Mounts {
		src := &source{StepMount: &s.req.Mounts[i], isDir: true, fd: -1}
		out = append(out, src)
		var err error
		switch {
		case src.Bind != nil:
			err = s.openBind(src, i)
		case src.Cache != nil:
			err = s.openCache(src)
		case src.Socket != nil:
			err = src.open(s.files(), socketName(i))
		}
		if err != nil {
			closeSources(out)
			return nil, fmt.Errorf("open what is mounted on %s: %w", src.Target, err)
		}
	}
	return out, nil
}

func closeSources(all []*source) {
	for _, s := range all {
		if s.fd >= 0 {
			_ = unix.Close(s.fd)
			s.fd = -1
		}
	}
}

// openBind mounts an overlay of the bind's lowers, with an upper of its own if the step may write.
func (s *step) openBind(src *source, i int) error {
	dirs, err := s.box.stack(src.Bind.Lowers)
	if err != nil {
		return err
	}
	target := dirViews + "/" + s.name + "." + strconv.Itoa(i)
	if err := unix.Mkdir(target, 0o755); err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	s.places = append(s.places, target)
	upper, work := "", ""
	if !src.ReadOnly {
		if upper, work, err = s.box.newUpper(s.name+"."+strconv.Itoa(i), dirs[0]); err != nil {
			return err
		}
		s.places = append(s.places, upper, work)
	}
	if err := s.box.overlay.mount(target, dirs, upper, work); err != nil {
		return err
	}
	return src.open(target, src.Bind.Path)
}

// newUpper makes an upper and its work directory. The upper looks as the directory below does.
func (b *box) newUpper(name, below string) (upper, work string, err error) {
	upper, work = dirData+"/u"+name, dirData+"/w"+name
	for _, dir := range []string{upper, work} {
		if err := unix.Mkdir(dir, 0o755); err != nil {
			return "", "", fmt.Errorf("make an upper: %w", err)
		}
	}
	var st unix.Stat_t
	if err := unix.Stat(below, &st); err != nil {
		return "", "", fmt.Errorf("look at the root below: %w", err)
	}
	return upper, work, setTimes(unix.AT_FDCWD, upper, &st)
}

// caches are the trees that outlive steps, by ID. They live as long as the child.
type caches struct {
	mu   sync.Mutex // guards byID; held while a cache is made
	byID map[string]*cache
}

// cache is one of them: where it is seen, what steps wrote, and what it had at first.
type cache struct {
	root, upper string
	lowers      []string
}

// openCache shows a part of a cache, which readyCaches made.
func (s *step) openCache(src *source) error {
	s.box.caches.mu.Lock()
	c := s.box.caches.byID[src.Cache.ID]
	s.box.caches.mu.Unlock()
	err := src.open(c.root, src.Cache.First.Path)
	if isNotExist(err) {
		return &remote.StartError{Reason: fmt.Sprintf("mount %s: the cache has no /%s", src.Target, src.Cache.First.Path)}
	}
	return err
}

// readyCaches makes the caches of a step that are not there, before the step gets a copy of the child's mounts.
func (b *box) readyCaches(mounts []remote.StepMount) error {
	b.caches.mu.Lock()
	defer b.caches.mu.Unlock()
	for i := range mounts {
		c := mounts[i].Cache
		if c == nil || b.caches.byID[c.ID] != nil {
			continue
		}
		made, err := b.newCache(c)
		if err != nil {
			return fmt.Errorf("make cache %s: %w", c.ID, err)
		}
		b.caches.byID[c.ID] = made
	}
	return nil
}

func (b *box) newCache(c *remote.Cache) (*cache, error) {
	dirs, err := b.stack(c.First.Lowers)
	if err != nil {
		return nil, err
	}
	n := b.next()
	upper, work, err := b.newUpper(n, dirs[0])
	if err != nil {
		return nil, err
	}
	if len(c.First.Lowers) == 0 || c.Owned {
		if err := unix.Chown(upper, int(c.UID), int(c.GID)); err != nil {
			return nil, ownerError(c.UID, c.GID, err)
		}
		if err := unix.Chmod(upper, c.Mode); err != nil {
			return nil, fmt.Errorf("set mode: %w", err)
		}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, upper, nil, 0); err != nil {
			return nil, fmt.Errorf("set times: %w", err)
		}
	}
	root := dirViews + "/c" + n
	if err := unix.Mkdir(root, 0o755); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	return &cache{root: root, upper: upper, lowers: dirs}, b.overlay.mount(root, dirs, upper, work)
}

// CacheChanges implements [remote.Kernel].
func (b *box) CacheChanges(id string, write func(layer.Changes) error) error {
	b.caches.mu.Lock()
	c := b.caches.byID[id]
	b.caches.mu.Unlock()
	if c == nil {
		return fmt.Errorf("cache %s: %w", id, fs.ErrNotExist)
	}
	upper, err := openDirTree(c.upper)
	if err != nil {
		return err
	}
	defer upper.close()
	upper.opaque = b.overlay.opaque
	lower := b.lazyView(c.lowers)
	defer lower.close()
	return write(layer.Diff(upper, lower))
}

// lazyView is what lowers show together.
func (b *box) lazyView(lowers []string) *lazyTree {
	return &lazyTree{open: func() (*dirTree, error) {
		f, err := b.view(lowers)
		if err != nil {
			return nil, err
		}
		return newDirTree(f), nil
	}}
}

// dropCaches unmounts all caches.
func (b *box) dropCaches() error {
	b.caches.mu.Lock()
	defer b.caches.mu.Unlock()
	var errs []error
	for id, c := range b.caches.byID {
		if err := unix.Unmount(c.root, unix.MNT_DETACH); err != nil {
			errs = append(errs, fmt.Errorf("unmount cache %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// listener is a socket that a step mounts.
type listener struct {
	socket  *net.UnixListener
	done    sync.WaitGroup
	mu      sync.Mutex // guards the rest
	closed  bool
	running map[net.Conn]struct{}
}

func socketName(i int) string { return "socket" + strconv.Itoa(i) }

// listen makes the sockets of the step, and connects each connection to them with one that the builder makes.
// The caller closes the listeners.
func (s *step) listen() ([]*listener, error) {
	var out []*listener
	for i := range s.req.Mounts {
		m := s.req.Mounts[i].Socket
		if m == nil {
			continue
		}
		name := s.files() + "/" + socketName(i)
		socket, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
		if err == nil {
			l := &listener{socket: socket, running: map[net.Conn]struct{}{}}
			out = append(out, l)
			socket.SetUnlinkOnClose(false) // the step's directory goes as a whole
			l.done.Go(func() { l.serve(func() (*os.File, error) { return s.req.Connect(i) }) })
			if err = unix.Chown(name, int(m.UID), int(m.GID)); err != nil {
				err = ownerError(m.UID, m.GID, err)
			} else {
				err = unix.Chmod(name, m.Mode)
			}
		}
		if err != nil {
			closeListeners(out)
			return nil, fmt.Errorf("make a socket: %w", err)
		}
	}
	return out, nil
}

func closeListeners(all []*listener) {
	for _, l := range all {
		l.close()
	}
}

// close ends all connections and waits for them.
func (l *listener) close() {
	_ = l.socket.Close() // nobody hears of it
	l.mu.Lock()
	l.closed = true
	for c := range l.running {
		_ = c.Close()
	}
	l.mu.Unlock()
	l.done.Wait()
}

// hold notes a connection that close has to end. It returns false, with the connection closed, if it is too late.
func (l *listener) hold(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return false
	}
	l.running[c] = struct{}{}
	return true
}

func (l *listener) drop(c net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.running, c)
	_ = c.Close()
}

func (l *listener) serve(connect func() (*os.File, error)) {
	for {
		c, err := l.socket.AcceptUnix()
		if err != nil {
			return
		}
		if !l.hold(c) {
			return
		}
		l.done.Go(func() {
			defer l.drop(c)
			l.join(c, connect)
		})
	}
}

// join copies between c and what connect returns.
func (l *listener) join(c *net.UnixConn, connect func() (*os.File, error)) {
	f, err := connect()
	if err != nil {
		return // the step sees the end of the connection
	}
	other, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return
	}
	if !l.hold(other) {
		return
	}
	defer l.drop(other)
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // both sides have gone their way if it fails
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}
	both.Go(func() { pass(c, other) })
	both.Go(func() { pass(other, c) })
	both.Wait()
}
