package native

import (
	"errors"
	"fmt"
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

// dirTree reads a directory as it is, without following links: an upper with its whiteouts and opaque marks, or a view.
type dirTree struct {
	root *os.File
	// opaque is the xattr that marks a directory which hides those below; empty in a view, where nothing does.
	opaque string
	// socket, if not nil, is told of each socket.
	socket func(p string)

	mu     sync.Mutex // guards the rest, and is held while it is used
	dir    string     // of the tree, that fd is
	fd     int        // -1 if there is none
	names  []byte
	values []byte
}

var _ tree.Tree = (*dirTree)(nil)

func newDirTree(root *os.File) *dirTree {
	const most = 64 << 10 // XATTR_LIST_MAX and XATTR_SIZE_MAX
	return &dirTree{root: root, fd: -1, names: make([]byte, most), values: make([]byte, most)}
}

func openDirTree(dir string) (*dirTree, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	return newDirTree(f), nil
}

func (t *dirTree) close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fd >= 0 {
		_ = unix.Close(t.fd)
		t.fd = -1
	}
	_ = t.root.Close() // only read
}

// openLocked makes dir the directory that fd is. A walk stays in a directory for a while.
func (t *dirTree) openLocked(dir string) error {
	if t.fd >= 0 && t.dir == dir {
		return nil
	}
	fd, err := openBelow(int(t.root.Fd()), dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	if t.fd >= 0 {
		_ = unix.Close(t.fd)
	}
	t.dir, t.fd = dir, fd
	return nil
}

// openBelow opens p in the directory root; no component of it may be a link.
func openBelow(root int, p string, flags uint64) (int, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(root, p, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// split is where p is looked up: in which directory, under which name.
func split(p string) (dir, name string) {
	if p == "." {
		return ".", "."
	}
	return path.Dir(p), path.Base(p)
}

// Lstat implements [tree.Tree].
func (t *dirTree) Lstat(p string) (tree.Entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	dir, name := split(p)
	if err := t.openLocked(dir); err != nil {
		return tree.Entry{}, pathError("lstat", p, err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(t.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return tree.Entry{}, pathError("lstat", p, err)
	}
	e := tree.Entry{
		Path: p, Kind: kindOf(&st), Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid,
		ModTime: time.Unix(st.Mtim.Sec, st.Mtim.Nsec), Inode: st.Ino, Links: uint32(st.Nlink), //nolint:gosec,unconvert // differs between architectures
	}
	switch e.Kind {
	case tree.Whiteout:
		return e, nil
	case tree.Regular:
		e.Size = st.Size
	case tree.CharDevice, tree.BlockDevice:
		e.Major, e.Minor = unix.Major(uint64(st.Rdev)), unix.Minor(uint64(st.Rdev)) //nolint:unconvert // differs between architectures
	case tree.Symlink:
		link, err := readlink(t.fd, name)
		if err != nil {
			return tree.Entry{}, pathError("readlink", p, err)
		}
		e.Linkname = link
	}
	if e.Kind == tree.Socket && t.socket != nil {
		t.socket(p)
	}
	return e, t.xattrsLocked(&e, name)
}

// setTime gives what is at p this time; a link is not followed.
func (t *dirTree) setTime(p string, to time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	dir, name := split(p)
	if err := t.openLocked(dir); err != nil {
		return pathError("open", dir, err)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: to.Unix(), Nsec: int64(to.Nanosecond())}}
	if err := unix.UtimesNanoAt(t.fd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("utimensat", p, err)
	}
	return nil
}

// kindOf is the type of what st describes; an overlay's whiteout is a character device 0:0.
func kindOf(st *unix.Stat_t) tree.Kind {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return tree.Dir
	case unix.S_IFLNK:
		return tree.Symlink
	case unix.S_IFIFO:
		return tree.Fifo
	case unix.S_IFSOCK:
		return tree.Socket
	case unix.S_IFBLK:
		return tree.BlockDevice
	case unix.S_IFCHR:
		if st.Rdev == 0 {
			return tree.Whiteout
		}
		return tree.CharDevice
	default:
		return tree.Regular
	}
}

func readlink(dir int, name string) (string, error) {
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(dir, name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// xattrsLocked adds the xattrs of e, which is name in fd. What the overlay keeps for itself becomes Opaque or nothing.
func (t *dirTree) xattrsLocked(e *tree.Entry, name string) error {
	at := "/proc/self/fd/" + strconv.Itoa(t.fd) + "/" + name
	n, err := unix.Llistxattr(at, t.names)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return pathError("listxattr", e.Path, err)
	}
	for _, x := range strings.Split(strings.TrimSuffix(string(t.names[:max(n, 0)]), "\x00"), "\x00") {
		if x == "" || foreignXattr(x) {
			continue
		}
		if isOverlayXattr(x) && x != t.opaque {
			continue
		}
		n, err := unix.Lgetxattr(at, x, t.values)
		if err != nil {
			return pathError("getxattr "+x, e.Path, err)
		}
		if x == t.opaque {
			e.Opaque = e.Kind == tree.Dir && string(t.values[:n]) == "y"
			continue
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[x] = string(t.values[:n])
	}
	return nil
}

// isOverlayXattr tells whether an xattr is an overlay's own.
func isOverlayXattr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// foreignXattr tells whether an xattr is the machine's and not the step's: labels and hashes of security modules.
func foreignXattr(name string) bool {
	switch name {
	case "security.selinux", "security.SMACK64", "security.ima", "security.evm":
		return true
	}
	return false
}

// ReadDir implements [tree.Tree].
func (t *dirTree) ReadDir(p string) ([]string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.openLocked(p); err != nil {
		return nil, pathError("readdir", p, err)
	}
	names, err := readNames(t.fd)
	if err != nil {
		return nil, pathError("readdir", p, err)
	}
	slices.Sort(names)
	return names, nil
}

// readNames lists the directory that dir is, from its beginning, in any order.
func readNames(dir int) ([]string, error) {
	if _, err := unix.Seek(dir, 0, io.SeekStart); err != nil {
		return nil, err
	}
	buf := make([]byte, 32<<10)
	var names []string
	for {
		n, err := unix.ReadDirent(dir, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n <= 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names)
	}
}

// Open implements [tree.Tree].
func (t *dirTree) Open(p string) (io.ReadCloser, error) {
	fd, err := t.openFile(p)
	if err != nil {
		return nil, err
	}
	return &plainFile{fd}, nil
}

func (t *dirTree) openFile(p string) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	dir, name := split(p)
	if err := t.openLocked(dir); err != nil {
		return -1, pathError("open", p, err)
	}
	fd, err := unix.Openat(t.fd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, pathError("open", p, err)
	}
	return fd, nil
}

// plainFile is an open regular file, without what package os does to make it ready for waiting.
type plainFile struct{ fd int }

func (f *plainFile) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, err := unix.Read(f.fd, p)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("read", err)
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (f *plainFile) Close() error { return unix.Close(f.fd) }

// pathError says what failed where. A path below something that is not a directory is missing, like any other,
// and so is one below a symbolic link, because paths are literal here.
func pathError(op, p string, err error) error {
	for _, missing := range []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP} {
		if errors.Is(err, missing) {
			return &fs.PathError{Op: op, Path: p, Err: fs.ErrNotExist}
		}
	}
	return fmt.Errorf("%s /%s: %w", op, p, err)
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// lazyTree is a tree that is opened when it is first read.
type lazyTree struct {
	open func() (*dirTree, error)
	once sync.Once
	tree *dirTree
	err  error
}

var _ tree.Tree = (*lazyTree)(nil)

func (l *lazyTree) get() (*dirTree, error) {
	l.once.Do(func() { l.tree, l.err = l.open() })
	return l.tree, l.err
}

// Lstat implements [tree.Tree].
func (l *lazyTree) Lstat(p string) (tree.Entry, error) {
	t, err := l.get()
	if err != nil {
		return tree.Entry{}, err
	}
	return t.Lstat(p)
}

// ReadDir implements [tree.Tree].
func (l *lazyTree) ReadDir(p string) ([]string, error) {
	t, err := l.get()
	if err != nil {
		return nil, err
	}
	return t.ReadDir(p)
}

// Open implements [tree.Tree].
func (l *lazyTree) Open(p string) (io.ReadCloser, error) {
	t, err := l.get()
	if err != nil {
		return nil, err
	}
	return t.Open(p)
}

func (l *lazyTree) close() {
	if l.tree != nil {
		l.tree.close()
	}
}

// lookTree finds links in a directory that is used while it is looked at.
type lookTree struct{ root int }

// Lstat implements [tree.Lstater]; only the kind and the target of a link are filled in.
func (t lookTree) Lstat(p string) (tree.Entry, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(t.root, p, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return tree.Entry{}, pathError("lstat", p, err)
	}
	e := tree.Entry{Path: p, Kind: kindOf(&st)}
	if e.Kind != tree.Symlink {
		return e, nil
	}
	var err error
	if e.Linkname, err = readlink(t.root, p); err != nil {
		return tree.Entry{}, pathError("readlink", p, err)
	}
	return e, nil
}

// removeTree removes the directory p, which may be missing, with everything in it. Nobody else may change it meanwhile.
func removeTree(p string) error {
	err := unix.Rmdir(p)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == nil {
		err = removeAll(fd)
		_ = unix.Close(fd)
	}
	if err == nil {
		err = unix.Rmdir(p)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", p, err)
	}
	return nil
}

// removeAll removes what is in the directory dir.
func removeAll(dir int) error {
	names, err := readNames(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Unlinkat(dir, name, 0)
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EPERM) { // EPERM: POSIX, for a directory
			return err
		}
		if err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err == nil {
			continue
		}
		fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = removeAll(fd)
		_ = unix.Close(fd)
		if err == nil {
			err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
