package buildcontext

import (
	"bytes"
	"container/list"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"hako/internal/tree"
)

// dir is a directory of the machine as a tree.
//
// Every path is walked component by component from the root's descriptor, each opened as a directory and never through
// a symbolic link; the descriptors of directories in use are kept. So a look-up stays inside whatever happens to the
// directory meanwhile, and needs nothing that old kernels or strict seccomp profiles lack (openat2).
//
// Ownership is root's and a socket is an empty file, as BuildKit sends them. Of the extended attributes only those of
// users ("user.") are read: capabilities do not survive BuildKit's change of owner, and labels are the machine's own.
type dir struct {
	now      time.Time
	device   uint64 // of the root
	excluded []string

	mu      sync.Mutex // guards what follows
	handles map[string]*handle
	recent  *list.List // of *handle, most recently used first
	foreign map[fileID]uint64
	closed  bool
}

var _ tree.Tree = (*dir)(nil)

// handle is the descriptor of a directory, good for look-ups only (O_PATH).
type handle struct {
	path    string
	fd      int
	users   int
	evicted bool
	place   *list.Element
}

// fileID tells files of all devices apart.
type fileID struct{ device, inode uint64 }

// maxHandles is how many descriptors are kept besides those in use.
const maxHandles = 64

const lookup = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC

func openDir(path string, now time.Time) (*dir, error) {
	fd, err := ignoringEINTR(func() (int, error) { return unix.Open(path, lookup, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "stat", Path: path, Err: err}, unix.Close(fd))
	}
	d := &dir{
		now: now, device: st.Dev, handles: map[string]*handle{}, recent: list.New(), foreign: map[fileID]uint64{},
	}
	// The root has a user for good: the tree itself.
	d.handles["."] = &handle{path: ".", fd: fd, users: 1}
	return d, nil
}

// exclude hides paths. It must be called before the tree is used.
func (d *dir) exclude(paths []string) { d.excluded = paths }

func (d *dir) hides(p string) bool {
	return slices.ContainsFunc(d.excluded, func(x string) bool { return tree.Within(p, x) })
}

// valid tells whether p is a path of a tree: clean, relative and inside. Any bytes do, unlike for fs.ValidPath.
func valid(p string) bool {
	return p != "" && p[0] != '/' && p != ".." && !strings.HasPrefix(p, "../") && path.Clean(p) == p
}

// Lstat describes the entry at p.
func (d *dir) Lstat(p string) (tree.Entry, error) {
	e, err := d.lstat(p)
	if err != nil {
		return tree.Entry{}, &fs.PathError{Op: "lstat", Path: p, Err: err}
	}
	return e, nil
}

func (d *dir) lstat(p string) (tree.Entry, error) {
	if p == "." {
		return d.rootEntry()
	}
	if !valid(p) || d.hides(p) {
		return tree.Entry{}, fs.ErrNotExist
	}
	h, err := d.acquire(path.Dir(p))
	if err != nil {
		return tree.Entry{}, err
	}
	defer d.release(h)
	name := path.Base(p)
	var st unix.Stat_t
	if err := unix.Fstatat(h.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return tree.Entry{}, absent(err)
	}
	e := tree.Entry{
		Path: p, Mode: st.Mode & 0o7777, ModTime: time.Unix(st.Mtim.Unix()), Links: uint32(st.Nlink), //nolint:unconvert // differs by architecture
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Kind, e.Links = tree.Dir, 0
	case unix.S_IFREG:
		e.Kind, e.Size = tree.Regular, st.Size
	case unix.S_IFLNK:
		e.Kind = tree.Symlink
		if e.Linkname, err = readlink(h.fd, name); err != nil {
			return tree.Entry{}, err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		e.Kind = tree.CharDevice
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			e.Kind = tree.BlockDevice
		}
		e.Major, e.Minor = unix.Major(st.Rdev), unix.Minor(st.Rdev)
	case unix.S_IFIFO:
		e.Kind = tree.Fifo
	case unix.S_IFSOCK:
		e.Kind = tree.Regular
	default:
		return tree.Entry{}, errors.New("file of unknown kind")
	}
	if e.Links > 1 {
		e.Inode = d.inode(fileID{device: st.Dev, inode: st.Ino})
	}
	if e.Kind == tree.Dir || e.Kind == tree.Regular {
		e.Xattrs, err = xattrs(h.fd, name)
	}
	return e, err
}

// rootEntry describes the root as BuildKit makes it for every context.
func (d *dir) rootEntry() (tree.Entry, error) {
	e := tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755, ModTime: d.now}
	if !d.now.IsZero() {
		return e, nil
	}
	h, err := d.acquire(".")
	if err != nil {
		return e, err
	}
	defer d.release(h)
	var st unix.Stat_t
	if err := unix.Fstat(h.fd, &st); err != nil {
		return e, err
	}
	e.ModTime = time.Unix(st.Mtim.Unix())
	return e, nil
}

// inode is a number for a file, unique among all devices that the tree spans.
func (d *dir) inode(id fileID) uint64 {
	if id.device == d.device {
		return id.inode
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.foreign[id]
	if !ok {
		n = 1<<63 | uint64(len(d.foreign)) // beyond the inode numbers of file systems in use
		d.foreign[id] = n
	}
	return n
}

// ReadDir returns the names in the directory at p, sorted.
func (d *dir) ReadDir(p string) ([]string, error) {
	names, err := d.readDir(p)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: err}
	}
	return names, nil
}

func (d *dir) readDir(p string) ([]string, error) {
	if !valid(p) || d.hides(p) {
		return nil, fs.ErrNotExist
	}
	h, err := d.acquire(p)
	if err != nil {
		return nil, err
	}
	defer d.release(h)
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(h.fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return nil, absent(err)
	}
	f := os.NewFile(uintptr(fd), p) //nolint:gosec // a descriptor
	defer f.Close()                 //nolint:errcheck // nothing was written
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	if len(d.excluded) > 0 {
		names = slices.DeleteFunc(names, func(n string) bool { return d.hides(path.Join(p, n)) })
	}
	slices.Sort(names)
	return names, nil
}

// Open reads the regular file at p.
func (d *dir) Open(p string) (io.ReadCloser, error) {
	f, err := d.open(p)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	return f, nil
}

func (d *dir) open(p string) (io.ReadCloser, error) {
	if !valid(p) || p == "." || d.hides(p) {
		return nil, fs.ErrNotExist
	}
	h, err := d.acquire(path.Dir(p))
	if err != nil {
		return nil, err
	}
	defer d.release(h)
	name := path.Base(p)
	// Without blocking, in case a file has become a pipe since it was looked at.
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK | unix.O_NOCTTY | unix.O_CLOEXEC
	fd, err := ignoringEINTR(func() (int, error) { return unix.Openat(h.fd, name, flags, 0) })
	var st unix.Stat_t
	if errors.Is(err, unix.ENXIO) { // a socket, or a device without a driver
		if err := unix.Fstatat(h.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return io.NopCloser(bytes.NewReader(nil)), nil
		}
	}
	if err != nil {
		return nil, absent(err)
	}
	f := &file{fd: fd, path: p}
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errors.Join(errNotRegular, err, f.Close())
	}
	return f, nil
}

// acquire returns the descriptor of the directory at p, to be given back with release.
func (d *dir) acquire(p string) (*handle, error) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil, fs.ErrClosed
	}
	if h := d.handles[p]; h != nil {
		d.useLocked(h)
		d.mu.Unlock()
		return h, nil
	}
	d.mu.Unlock()
	parent, err := d.acquire(path.Dir(p))
	if err != nil {
		return nil, err
	}
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(parent.fd, path.Base(p), lookup|unix.O_NOFOLLOW, 0)
	})
	d.release(parent)
	if err != nil {
		return nil, absent(err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.handles[p]; h != nil { // somebody else was quicker
		d.useLocked(h)
		return h, unix.Close(fd)
	}
	h := &handle{path: p, fd: fd}
	h.place = d.recent.PushFront(h)
	d.handles[p] = h
	d.useLocked(h)
	d.evictLocked()
	return h, nil
}

func (d *dir) useLocked(h *handle) {
	h.users++
	if h.place != nil {
		d.recent.MoveToFront(h.place)
	}
}

// evictLocked forgets the descriptors that were not used for longest.
func (d *dir) evictLocked() {
	for d.recent.Len() > maxHandles {
		h := d.recent.Remove(d.recent.Back()).(*handle) //nolint:forcetypeassert // it holds nothing else
		delete(d.handles, h.path)
		h.evicted = true
		if h.users == 0 {
			_ = unix.Close(h.fd) // a descriptor without data cannot fail to close in a way that matters
		}
	}
}

func (d *dir) release(h *handle) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h.users--
	if h.evicted && h.users == 0 {
		_ = unix.Close(h.fd) // as above
	}
}

// close closes all descriptors that are not in use, and the others when they are given back.
func (d *dir) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var errs []error
	d.handles["."].users--
	for _, h := range d.handles {
		h.evicted = true
		if h.users == 0 {
			errs = append(errs, unix.Close(h.fd))
		}
	}
	d.handles = nil
	return errors.Join(errs...)
}

// absent makes one error of all that say that there is no such path: a component that is no directory, or a link.
func absent(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fs.ErrNotExist
	}
	return err
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func readlink(fd int, name string) (string, error) {
	for size := 256; ; size *= 2 {
		b := make([]byte, size)
		n, err := unix.Readlinkat(fd, name, b)
		if err != nil {
			return "", absent(err)
		}
		if n < size {
			return string(b[:n]), nil
		}
	}
}

// file is an open regular file.
type file struct {
	fd   int
	path string
}

// Read reads on.
func (f *file) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := ignoringEINTR(func() (int, error) { return unix.Read(f.fd, p[:min(len(p), 1<<30)]) })
	switch {
	case err != nil:
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Close closes the file.
func (f *file) Close() error {
	if f.fd < 0 {
		return fs.ErrClosed
	}
	err := unix.Close(f.fd)
	f.fd = -1
	return err
}

// xattrs returns the attributes of users that the file name in the directory fd has.
func xattrs(fd int, name string) (map[string]string, error) {
	// There is no call for a name in a directory before Linux 6.13; the link in /proc leads to the directory itself.
	p := "/proc/self/fd/" + strconv.Itoa(fd) + "/" + name
	list, err := grow(func(b []byte) (int, error) { return unix.Llistxattr(p, b) })
	if err != nil || len(list) == 0 {
		return nil, ignoreUnsupported(err)
	}
	var out map[string]string
	for key := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !strings.HasPrefix(key, "user.") || strings.HasPrefix(key, "user.overlay.") {
			continue
		}
		value, err := grow(func(b []byte) (int, error) { return unix.Lgetxattr(p, key, b) })
		if err != nil {
			if err := ignoreUnsupported(err); err != nil {
				return nil, err
			}
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = string(value)
	}
	return out, nil
}

// grow calls read with larger and larger buffers until the result fits.
func grow(read func([]byte) (int, error)) ([]byte, error) {
	const limit = 1 << 20 // larger than XATTR_SIZE_MAX and XATTR_LIST_MAX
	for size := 128; ; size *= 8 {
		b := make([]byte, size)
		n, err := read(b)
		if err == nil {
			return b[:n], nil
		}
		if !errors.Is(err, unix.ERANGE) || size > limit {
			return nil, err
		}
	}
}

// ignoreUnsupported drops errors that mean that there are no attributes to be had: a file system without them,
// a file that is gone or cannot be read (which comes up when it is copied), no /proc.
func ignoreUnsupported(err error) error {
	for _, e := range []error{unix.ENOTSUP, unix.ENODATA, unix.ENOENT, unix.EACCES, unix.EPERM, unix.ENOSYS} {
		if errors.Is(err, e) {
			return nil
		}
	}
	return err
}
