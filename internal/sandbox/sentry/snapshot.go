package sentry

import (
	"fmt"
	"io"
	"io/fs"
	"sort"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"

	"hako/internal/tree"
)

const (
	overlayXattrs = "trusted.overlay."
	opaqueXattr   = overlayXattrs + "opaque"
	inodeBits     = 40
)

// vfsTree reads a tree of the sandbox as it is, without following links: an upper with its whiteouts and
// opaque marks, or a merged view.
type vfsTree struct {
	box  *box
	root vfs.VirtualDentry
}

var _ tree.Tree = (*vfsTree)(nil)

func (t *vfsTree) pop(p string) *vfs.PathOperation {
	if p == "." {
		p = ""
	}
	return &vfs.PathOperation{Root: t.root, Start: t.root, Path: fspath.Parse(p), ResolveFlags: linux.RESOLVE_NO_SYMLINKS}
}

// Lstat implements [tree.Tree].
func (t *vfsTree) Lstat(p string) (tree.Entry, error) {
	st, err := t.box.kernel.VFS().StatAt(t.box.ctx, t.box.creds, t.pop(p), &vfs.StatOptions{Mask: linux.STATX_BASIC_STATS})
	if err != nil {
		return tree.Entry{}, pathError("lstat", p, err)
	}
	e := tree.Entry{
		Path: p, Kind: kindOf(&st), Mode: uint32(st.Mode) & 0o7777, UID: st.UID, GID: st.GID,
		ModTime: time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)), Links: st.Nlink,
		// A merged view has a device number for each layer, whose inode numbers are small.
		Inode: st.Ino | uint64(st.DevMinor)<<inodeBits,
	}
	switch e.Kind {
	case tree.Whiteout:
		return e, nil
	case tree.Regular:
		e.Size = int64(st.Size) //nolint:gosec // tmpfs sizes fit
	case tree.CharDevice, tree.BlockDevice:
		e.Major, e.Minor = st.RdevMajor, st.RdevMinor
	case tree.Symlink:
		if e.Linkname, err = t.box.kernel.VFS().ReadlinkAt(t.box.ctx, t.box.creds, t.pop(p)); err != nil {
			return tree.Entry{}, pathError("readlink", p, err)
		}
	}
	if err := t.xattrs(&e); err != nil {
		return tree.Entry{}, err
	}
	return e, nil
}

func kindOf(st *linux.Statx) tree.Kind {
	switch st.Mode & linux.S_IFMT {
	case linux.S_IFDIR:
		return tree.Dir
	case linux.S_IFLNK:
		return tree.Symlink
	case linux.S_IFIFO:
		return tree.Fifo
	case linux.S_IFSOCK:
		return tree.Socket
	case linux.S_IFBLK:
		return tree.BlockDevice
	case linux.S_IFCHR:
		if st.RdevMajor == 0 && st.RdevMinor == 0 {
			return tree.Whiteout
		}
		return tree.CharDevice
	default:
		return tree.Regular
	}
}

// xattrs adds the xattrs of e as they are stored; what the overlay keeps for itself becomes Opaque or nothing.
func (t *vfsTree) xattrs(e *tree.Entry) error {
	v, b := t.box.kernel.VFS(), t.box
	names, err := v.ListXattrAt(b.ctx, b.creds, t.pop(e.Path), 0)
	if err != nil && !linuxerr.Equals(linuxerr.EOPNOTSUPP, err) {
		return pathError("listxattr", e.Path, err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, overlayXattrs) {
			e.Opaque = e.Opaque || name == opaqueXattr
			continue
		}
		value, err := v.GetXattrAt(b.ctx, b.creds, t.pop(e.Path), &vfs.GetXattrOptions{Name: name})
		if err != nil {
			return pathError("getxattr "+name, e.Path, err)
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[name] = value
	}
	return nil
}

// ReadDir implements [tree.Tree].
func (t *vfsTree) ReadDir(p string) ([]string, error) {
	d, err := t.box.kernel.VFS().OpenAt(t.box.ctx, t.box.creds, t.pop(p), &vfs.OpenOptions{Flags: linux.O_RDONLY | linux.O_DIRECTORY})
	if err != nil {
		return nil, pathError("open", p, err)
	}
	defer d.DecRef(t.box.ctx)
	var names []string
	err = d.IterDirents(t.box.ctx, vfs.IterDirentsCallbackFunc(func(e vfs.Dirent) error {
		if e.Name != "." && e.Name != ".." {
			names = append(names, e.Name)
		}
		return nil
	}))
	if err != nil {
		return nil, pathError("readdir", p, err)
	}
	sort.Strings(names)
	return names, nil
}

// Open implements [tree.Tree].
func (t *vfsTree) Open(p string) (io.ReadCloser, error) {
	f, err := t.box.kernel.VFS().OpenAt(t.box.ctx, t.box.creds, t.pop(p), &vfs.OpenOptions{Flags: linux.O_RDONLY})
	if err != nil {
		return nil, pathError("open", p, err)
	}
	return &vfsFile{box: t.box, file: f}, nil
}

// vfsFile reads an open file of the sandbox.
type vfsFile struct {
	box  *box
	file *vfs.FileDescription
}

func (f *vfsFile) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.file.Read(f.box.ctx, usermem.BytesIOSequence(p), vfs.ReadOptions{})
	if n > 0 {
		return int(n), nil
	}
	if err == nil {
		err = io.EOF
	}
	return 0, err
}

func (f *vfsFile) Close() error {
	f.file.DecRef(f.box.ctx)
	return nil
}

// pathError says what failed where. A path below something that is not a directory is missing, like any other,
// and so is one below a symbolic link, because paths are literal here.
func pathError(op, p string, err error) error {
	if isMissing(err) || linuxerr.Equals(linuxerr.ELOOP, err) {
		return &fs.PathError{Op: op, Path: p, Err: fs.ErrNotExist}
	}
	return fmt.Errorf("%s /%s: %w", op, p, err)
}

func isMissing(err error) bool {
	return linuxerr.Equals(linuxerr.ENOENT, err) || linuxerr.Equals(linuxerr.ENOTDIR, err)
}
