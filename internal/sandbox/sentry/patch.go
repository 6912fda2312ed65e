package sentry

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"

	"hako/internal/rootfs"
	"hako/internal/tree"
)

const copyBuffer = 1 << 20 // 1 MiB

var errPatchKind = errors.New("a patch cannot have such an entry")

// patch builds the tmpfs that lies directly above an image: what the image cannot say by itself.
func (b *box) patch(imageRoot vfs.VirtualDentry, image *os.File, patch *rootfs.Patch) (_ vfs.VirtualDentry, err error) {
	root, err := b.tmpfs()
	if err != nil {
		return root, err
	}
	defer func() {
		if err != nil {
			b.unmount(root)
		}
	}()
	if err := b.copyMetadata(imageRoot, root, ""); err != nil {
		return vfs.VirtualDentry{}, err
	}
	w := treeWriter{box: b, root: root, buf: make([]byte, copyBuffer)}
	for i := range patch.Entries {
		e := &patch.Entries[i]
		if err := w.add(&e.Entry, io.NewSectionReader(image, e.Offset, e.Size)); err != nil {
			return vfs.VirtualDentry{}, fmt.Errorf("add %s: %w", e.Path, err)
		}
	}
	return root, w.finish()
}

// treeWriter fills a writable tree entry by entry, parents before what is in them.
type treeWriter struct {
	box  *box
	root vfs.VirtualDentry
	buf  []byte
	// dirs are set to their times at the end, because every entry made inside moves them.
	dirs []*tree.Entry
}

func (w *treeWriter) add(e *tree.Entry, content io.Reader) error {
	if err := w.create(e, content); err != nil {
		return err
	}
	if e.Kind == tree.Hardlink || e.Kind == tree.Whiteout {
		return nil
	}
	if err := w.xattrs(e); err != nil {
		return err
	}
	if e.Kind == tree.Dir {
		w.dirs = append(w.dirs, e)
	}
	return w.box.setMetadata(w.pop(e.Path), e)
}

func (w *treeWriter) pop(p string) *vfs.PathOperation { return at(w.root, p) }

func (w *treeWriter) create(e *tree.Entry, content io.Reader) error {
	v, b := w.box.kernel.VFS(), w.box
	device := func(kind linux.FileMode) error {
		return v.MknodAt(b.ctx, b.creds, w.pop(e.Path), &vfs.MknodOptions{
			Mode: kind | linux.FileMode(e.Mode&0o777), DevMajor: e.Major, DevMinor: e.Minor, //nolint:gosec // masked
		})
	}
	switch e.Kind {
	case tree.Dir:
		if e.Path == "." {
			return nil
		}
		return v.MkdirAt(b.ctx, b.creds, w.pop(e.Path), &vfs.MkdirOptions{Mode: 0o755})
	case tree.Regular:
		return w.file(e, content)
	case tree.Symlink:
		return v.SymlinkAt(b.ctx, b.creds, w.pop(e.Path), e.Linkname)
	case tree.Hardlink:
		return v.LinkAt(b.ctx, b.creds, w.pop(e.Linkname), w.pop(e.Path))
	case tree.CharDevice:
		return device(linux.S_IFCHR)
	case tree.BlockDevice:
		return device(linux.S_IFBLK)
	case tree.Fifo:
		return device(linux.S_IFIFO)
	case tree.Whiteout: // char 0/0 is what an overlay takes for one
		return v.MknodAt(b.ctx, b.creds, w.pop(e.Path), &vfs.MknodOptions{Mode: linux.S_IFCHR})
	default:
		return fmt.Errorf("kind %d: %w", e.Kind, errPatchKind)
	}
}

func (w *treeWriter) file(e *tree.Entry, content io.Reader) error {
	b := w.box
	f, err := b.kernel.VFS().OpenAt(b.ctx, b.creds, w.pop(e.Path), &vfs.OpenOptions{
		Flags: linux.O_WRONLY | linux.O_CREAT | linux.O_EXCL, Mode: linux.S_IFREG | 0o600,
	})
	if err != nil {
		return err
	}
	defer f.DecRef(b.ctx)
	for {
		n, err := content.Read(w.buf)
		if n > 0 {
			if _, werr := f.Write(b.ctx, usermem.BytesIOSequence(w.buf[:n]), vfs.WriteOptions{}); werr != nil {
				return fmt.Errorf("write: %w", werr)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from the image: %w", err)
		}
	}
}

func (w *treeWriter) xattrs(e *tree.Entry) error {
	names := make([]string, 0, len(e.Xattrs))
	for name := range e.Xattrs {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		err := w.box.kernel.VFS().SetXattrAt(w.box.ctx, w.box.creds, w.pop(e.Path), &vfs.SetXattrOptions{Name: name, Value: e.Xattrs[name]})
		// tmpfs has no xattrs on symbolic links and the like, and no more do steps see any there.
		if err != nil && !linuxerr.Equals(linuxerr.EOPNOTSUPP, err) && !linuxerr.Equals(linuxerr.EPERM, err) {
			return fmt.Errorf("set xattr %s: %w", name, err)
		}
	}
	return nil
}

func (w *treeWriter) finish() error {
	for i := len(w.dirs) - 1; i >= 0; i-- {
		e := w.dirs[i]
		if err := w.box.setTime(w.pop(e.Path), e); err != nil {
			return fmt.Errorf("set the time of %s: %w", e.Path, err)
		}
	}
	return nil
}

// setMetadata sets owner, mode and time. The owner comes first: changing it drops setuid bits and capabilities.
func (b *box) setMetadata(pop *vfs.PathOperation, e *tree.Entry) error {
	st := linux.Statx{Mask: linux.STATX_UID | linux.STATX_GID, UID: e.UID, GID: e.GID}
	if err := b.kernel.VFS().SetStatAt(b.ctx, b.creds, pop, &vfs.SetStatOptions{Stat: st}); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if e.Kind != tree.Symlink {
		st = linux.Statx{Mask: linux.STATX_MODE, Mode: uint16(e.Mode & 0o7777)} //nolint:gosec // masked
		if err := b.kernel.VFS().SetStatAt(b.ctx, b.creds, pop, &vfs.SetStatOptions{Stat: st}); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	return b.setTime(pop, e)
}

func (b *box) setTime(pop *vfs.PathOperation, e *tree.Entry) error {
	t := linux.StatxTimestamp{Sec: e.ModTime.Unix(), Nsec: uint32(e.ModTime.Nanosecond())} //nolint:gosec // below 1e9
	st := linux.Statx{Mask: linux.STATX_MTIME | linux.STATX_ATIME, Mtime: t, Atime: t}
	if err := b.kernel.VFS().SetStatAt(b.ctx, b.creds, pop, &vfs.SetStatOptions{Stat: st}); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}

// copyMetadata gives the directory dir of to the owner, mode, time and xattrs that it has in from.
func (b *box) copyMetadata(from, to vfs.VirtualDentry, dir string) error {
	e, err := (&vfsTree{box: b, root: from}).Lstat(path.Clean(dir))
	if err != nil {
		return fmt.Errorf("look at /%s: %w", dir, err)
	}
	w := treeWriter{box: b, root: to}
	e.Path = dir
	if err := w.xattrs(&e); err != nil {
		return err
	}
	return b.setMetadata(at(to, dir), &e)
}
