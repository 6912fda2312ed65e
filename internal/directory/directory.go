// Package directory writes a file tree into a directory of this machine, as a plain user if need be: files belong to
// whoever writes them, everything else is as in the tree. What the directory holds already stays, unless the tree has
// something else under that name. Nothing outside the directory is ever touched, whatever links the tree or the
// directory hold.
package directory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"hako/internal/diag"
	"hako/internal/layer"
	"hako/internal/tree"
)

// Report says what could not be written as the tree has it.
type Report struct {
	// Attributes counts the extended attributes that this user may not set, or the file system does not keep.
	Attributes int
}

// Write writes changes, a whole tree in normal form as [layer.Diff] makes it, to dir, which is made, for this user alone, if it does not exist.
// On an error, what was written until then stays. A device that this user may not make is an error.
// It returns ctx's cause if ctx ends first.
func Write(ctx context.Context, dir string, changes layer.Changes) (_ *Report, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	w := &writer{root: root}
	defer func() { err = errors.Join(err, w.leave(), root.Close()) }()
	if err := changes.Each(ctx, w.entry); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return &w.report, w.finish()
}

// writer is one run of Write. Look-ups of more than one component go through root, which no link leads out of; names
// in the directory at hand are used with the flags that do not follow links.
type writer struct {
	root   *os.Root
	dirs   []tree.Entry // those that were written; they get mode and time when all is in them
	at     string       // the directory that handle is
	handle *os.File     // nil: none
	temps  int
	report Report
}

// entry writes one entry. Its parents came before.
func (w *writer) entry(e tree.Entry, content io.Reader) error {
	if !fs.ValidPath(e.Path) || e.Path == "." {
		return fmt.Errorf("write %q: it is no path inside a directory", e.Path)
	}
	if err := w.enter(path.Dir(e.Path)); err != nil {
		return err
	}
	err := w.put(&e, content)
	if err != nil {
		return fmt.Errorf("write %s: %w", e.Path, err)
	}
	return nil
}

// enter opens the directory that the next entries are in. The writer made it, so it is one, and may be searched.
func (w *writer) enter(dir string) error {
	if w.handle != nil && w.at == dir {
		return nil
	}
	if err := w.leave(); err != nil {
		return err
	}
	f, err := w.root.Open(dir)
	if err != nil {
		return err
	}
	w.at, w.handle = dir, f
	return nil
}

func (w *writer) leave() error {
	if w.handle == nil {
		return nil
	}
	f := w.handle
	w.handle = nil
	return f.Close()
}

func (w *writer) fd() int { return int(w.handle.Fd()) }

func (w *writer) put(e *tree.Entry, content io.Reader) error {
	old, exists, err := w.look(path.Base(e.Path))
	if err != nil {
		return err
	}
	if e.Kind == tree.Dir {
		return w.dir(e, old, exists)
	}
	name := path.Base(e.Path)
	if exists && old == unix.S_IFDIR {
		if err := w.root.RemoveAll(e.Path); err != nil {
			return err
		}
		exists = false
	}
	if exists { // it is replaced when the new one is complete
		w.temps++
		name = ".hako-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(w.temps)
	}
	if err := w.make(name, e, content); err != nil || !exists {
		return err
	}
	if err := unix.Renameat(w.fd(), name, w.fd(), path.Base(e.Path)); err != nil {
		return errors.Join(err, unix.Unlinkat(w.fd(), name, 0))
	}
	// Of two names of one file, rename leaves both.
	if err := unix.Unlinkat(w.fd(), name, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// look says what there is under a name of the directory at hand.
func (w *writer) look(name string) (kind uint32, exists bool, err error) {
	var st unix.Stat_t
	switch err := unix.Fstatat(w.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		return 0, false, nil
	case err != nil:
		return 0, false, err
	}
	return st.Mode & unix.S_IFMT, true, nil
}

// private is the mode of what is not finished.
const private = 0o700

func (w *writer) dir(e *tree.Entry, old uint32, exists bool) error {
	name := path.Base(e.Path)
	switch {
	case exists && old == unix.S_IFDIR:
		// An earlier run may have left it without permissions.
		if err := w.root.Chmod(e.Path, private); err != nil {
			return err
		}
	case exists:
		if err := unix.Unlinkat(w.fd(), name, 0); err != nil {
			return err
		}
		fallthrough
	default:
		if err := unix.Mkdirat(w.fd(), name, private); err != nil {
			return err
		}
	}
	w.dirs = append(w.dirs, *e)
	return nil
}

// make makes what is no directory under a name that is free.
func (w *writer) make(name string, e *tree.Entry, content io.Reader) error {
	switch e.Kind {
	case tree.Regular:
		return w.file(name, e, content)
	case tree.Symlink:
		w.report.Attributes += len(e.Xattrs) // no user may set any on a link
		if err := unix.Symlinkat(e.Linkname, w.fd(), name); err != nil {
			return err
		}
		return w.times(name, e.ModTime)
	case tree.Hardlink:
		return w.link(name, e)
	case tree.Fifo, tree.CharDevice, tree.BlockDevice:
		return w.node(name, e)
	}
	return fmt.Errorf("unknown kind of entry %d", e.Kind)
}

func (w *writer) file(name string, e *tree.Entry, content io.Reader) (err error) {
	fd, err := unix.Openat(w.fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.Path)
	defer func() {
		if err = errors.Join(err, f.Close()); err == nil {
			err = w.times(name, e.ModTime)
		}
	}()
	if _, err := io.Copy(f, content); err != nil {
		return err
	}
	return w.metadata(f, e)
}

// metadata sets attributes and mode of a file or directory.
func (w *writer) metadata(f *os.File, e *tree.Entry) error {
	for name, value := range e.Xattrs {
		switch err := unix.Fsetxattr(int(f.Fd()), name, []byte(value), 0); {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EACCES):
			w.report.Attributes++
		case err != nil:
			return fmt.Errorf("set attribute %q: %w", name, err)
		}
	}
	return unix.Fchmod(int(f.Fd()), e.Mode)
}

// link makes a further name of a file that was written before.
func (w *writer) link(name string, e *tree.Entry) error {
	first, err := w.root.Open(path.Dir(e.Linkname))
	if err != nil {
		return err
	}
	return errors.Join(unix.Linkat(int(first.Fd()), path.Base(e.Linkname), w.fd(), name, 0), first.Close())
}

func (w *writer) node(name string, e *tree.Entry) error {
	w.report.Attributes += len(e.Xattrs) // likewise
	kind, device := uint32(unix.S_IFIFO), uint64(0)
	switch e.Kind {
	case tree.CharDevice:
		kind, device = unix.S_IFCHR, unix.Mkdev(e.Major, e.Minor)
	case tree.BlockDevice:
		kind, device = unix.S_IFBLK, unix.Mkdev(e.Major, e.Minor)
	}
	err := unix.Mknodat(w.fd(), name, kind|private, int(device)) //nolint:gosec // what mknod(2) takes
	if errors.Is(err, unix.EPERM) {
		return &diag.Error{What: "make a device", Cause: err, Hint: "Only root can: write a tar instead, with --output type=tar,dest=FILE."}
	}
	if err != nil {
		return err
	}
	if err := unix.Fchmodat(w.fd(), name, e.Mode, 0); err != nil {
		return err
	}
	return w.times(name, e.ModTime)
}

// times sets the time of what is under a name of the directory at hand, and of a link itself.
func (w *writer) times(name string, t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(w.fd(), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// finish gives directories what they could not have while they were written to, the deepest first.
func (w *writer) finish() error {
	for _, e := range slices.Backward(w.dirs) {
		if err := w.enter(path.Dir(e.Path)); err != nil {
			return err
		}
		if err := w.finishDir(&e); err != nil {
			return fmt.Errorf("write %s: %w", e.Path, err)
		}
	}
	return nil
}

func (w *writer) finishDir(e *tree.Entry) error {
	name := path.Base(e.Path)
	fd, err := unix.Openat(w.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), e.Path)
	if err := errors.Join(w.metadata(f, e), f.Close()); err != nil {
		return err
	}
	return w.times(name, e.ModTime)
}
