package native

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/erofs"

	"hako/internal/rootfs"
	"hako/internal/tree"
)

// A layer becomes a directory by writing its image and, over that, its patch. Names are looked up once: every call works
// on a name in an open directory, so the length of paths does not matter, and no link is followed.
//
// Directories get their owner, mode and time when nothing more will happen in them: those that the patch speaks about
// at the end, all others as soon as everything below them is there.

// copyWhole is from which size on a file is copied by the kernel, which may share the blocks; smaller ones are written
// straight from the mapped image, in one call.
const copyWhole = 128 << 10 // 128 KiB

// extractor writes one layer into a directory.
type extractor struct {
	image *erofs.Image // nil if only the patch is written
	file  *os.File     // the image
	root  int          // the directory
	nodes *nodes       // makes devices; may be nil
	// origin is the xattr of an overlay's copies.
	origin string
	patch  map[string]*rootfs.PatchEntry

	idle chan struct{} // a token for each goroutine that may still be started

	mu    sync.Mutex // guards links
	links map[uint64]*firstName
}

// firstName is the first name of a file that has more than one.
type firstName struct {
	path string
	done chan struct{}
	err  error // set before done is closed
}

// layerPart says what of a layer is written.
type layerPart uint8

const (
	wholeLayer layerPart = iota
	patchOnly
)

// writeLayer writes the layer that image and patch are, or a part of it, to dir, which must be empty.
func (b *box) writeLayer(image *os.File, patch *rootfs.Patch, dir string, part layerPart) error {
	root, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = unix.Close(root) }()
	x := &extractor{
		file: image, root: root, nodes: b.nodes, origin: strings.Replace(b.overlay.opaque, "opaque", "origin", 1), patch: make(map[string]*rootfs.PatchEntry, len(patch.Entries)),
		idle: make(chan struct{}, runtime.GOMAXPROCS(0)-1), links: map[uint64]*firstName{},
	}
	for i := range patch.Entries {
		x.patch[patch.Entries[i].Path] = &patch.Entries[i]
	}
	defer func() {
		if x.image != nil {
			x.image.Close()
		}
	}()
	if part == wholeLayer {
		if err := x.all(); err != nil {
			return err
		}
	}
	for i := range patch.Entries {
		e := &patch.Entries[i]
		if err := x.patched(e); err != nil {
			return fmt.Errorf("write /%s: %w", e.Path, err)
		}
	}
	return x.finish(patch)
}

// all writes the image.
func (x *extractor) all() error {
	dup, err := unix.FcntlInt(x.file.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("duplicate the image's descriptor: %w", err)
	}
	f := os.NewFile(uintptr(dup), "image")
	if x.image, err = erofs.OpenImage(f); err != nil {
		return errors.Join(fmt.Errorf("open the image: %w", err), f.Close())
	}
	top, err := x.image.Inode(x.image.RootNid())
	if err != nil {
		return fmt.Errorf("read the image's root: %w", err)
	}
	return x.dir(".", x.root, &top)
}

// dir fills the directory at p, which fd is, with what the image has there.
func (x *extractor) dir(p string, fd int, ino *erofs.Inode) error {
	var g errgroup.Group
	hides := false
	err := ino.IterDirents(func(name string, _ uint8, nid uint64) error {
		if name == "." || name == ".." {
			return nil
		}
		if name == "" || strings.Contains(name, "/") {
			return fmt.Errorf("bad name %q in the image", name)
		}
		at := path.Join(p, name)
		child, err := x.image.Inode(nid)
		if err == nil {
			hides = hides || child.IsCharDev() // real devices are in the patch
			if child.IsDir() {
				err = x.subdir(&g, at, fd, &child)
			} else {
				err = x.leaf(at, fd, &child)
			}
		}
		if err != nil {
			return fmt.Errorf("write /%s: %w", at, err)
		}
		return nil
	})
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	if hides {
		// A layer may say that something is gone which never was, in a directory that no other layer has. An overlay looks for
		// whiteouts in such a directory only if it seems to be a copy of another; the value says "of which is unknown".
		if err := unix.Fsetxattr(fd, x.origin, nil, 0); err != nil {
			return fmt.Errorf("mark /%s: %w", p, err)
		}
	}
	if x.patch[p] != nil {
		return nil
	}
	e := entryOf(ino)
	return describeOpen(fd, &e)
}

// subdir makes a directory and fills it, in a goroutine of g if there is one to spare.
func (x *extractor) subdir(g *errgroup.Group, p string, parent int, ino *erofs.Inode) error {
	name := path.Base(p)
	if err := unix.Mkdirat(parent, name, 0o700); err != nil {
		return err
	}
	fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fill := func() error {
		err := x.dir(p, fd, ino)
		_ = unix.Close(fd)
		return err
	}
	select {
	case x.idle <- struct{}{}:
		own := *ino
		g.Go(func() error {
			defer func() { <-x.idle }()
			err := x.dir(p, fd, &own)
			_ = unix.Close(fd)
			return err
		})
		return nil
	default:
		return fill()
	}
}

// leaf writes what is no directory.
func (x *extractor) leaf(p string, parent int, ino *erofs.Inode) error {
	if x.patch[p] != nil {
		return nil
	}
	if ino.Nlink() < 2 {
		return x.first(p, parent, ino)
	}
	x.mu.Lock()
	link := x.links[ino.Nid()]
	if link == nil {
		link = &firstName{path: p, done: make(chan struct{})}
		x.links[ino.Nid()] = link
		x.mu.Unlock()
		link.err = x.first(p, parent, ino)
		close(link.done)
		return link.err
	}
	x.mu.Unlock()
	<-link.done // whoever makes it waits for nothing
	if link.err != nil {
		return nil // reported there
	}
	return unix.Linkat(x.root, link.path, parent, path.Base(p), 0)
}

// first writes the first name of a file.
func (x *extractor) first(p string, parent int, ino *erofs.Inode) error {
	e := entryOf(ino)
	switch {
	case ino.IsRegular():
		off, err := ino.DataOffset()
		if err != nil {
			return err
		}
		return x.regular(parent, path.Base(p), &e, int64(off)) //nolint:gosec // inside the image
	case ino.IsSymlink():
		target, err := ino.Readlink()
		if err != nil {
			return err
		}
		e.Kind, e.Linkname = tree.Symlink, target
	case ino.IsCharDev(): // real devices are in the patch
		e = tree.Entry{Kind: tree.Whiteout}
	default:
		return fmt.Errorf("mode %o in the image", ino.Mode())
	}
	return x.nodes.special(parent, path.Base(p), &e)
}

// entryOf is what an image says of an inode's metadata.
func entryOf(ino *erofs.Inode) tree.Entry {
	return tree.Entry{
		Kind: tree.Regular, Mode: uint32(ino.Mode() & 0o7777), UID: ino.UID(), GID: ino.GID(), Size: int64(ino.Size()), //nolint:gosec // below 1<<63
		ModTime: time.Unix(int64(ino.Mtime()), int64(ino.MtimeNsec())), //nolint:gosec // two's complement
	}
}

// regular writes a regular file whose bytes are at off in the image.
func (x *extractor) regular(parent int, name string, e *tree.Entry, off int64) error {
	fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, e.Mode&0o777)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := x.copy(fd, off, e.Size); err != nil {
		return err
	}
	return describeFile(fd, e)
}

// copy writes size bytes at off of the image to fd.
func (x *extractor) copy(fd int, off, size int64) error {
	if x.image != nil && size < copyWhole {
		data, err := x.image.BytesAt(uint64(off), uint64(size)) //nolint:gosec // never negative
		if err != nil && size > 0 {
			return fmt.Errorf("read the image: %w", err)
		}
		for len(data) > 0 {
			n, err := unix.Write(fd, data)
			if err != nil {
				return err
			}
			data = data[n:]
		}
		return nil
	}
	return copyRange(int(x.file.Fd()), off, fd, size)
}

// copyRange copies size bytes at off of from to the empty file to. Holes stay holes.
func copyRange(from int, off int64, to int, size int64) error {
	if err := unix.Ftruncate(to, size); err != nil {
		return err
	}
	for done := int64(0); done < size; {
		// Seeking does not disturb others: nobody uses the position of an image's descriptor.
		start, err := unix.Seek(from, off+done, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // a hole to the end
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(from, start, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		start, end = start-off, min(end-off, size)
		if start >= size {
			return nil
		}
		if err := copyData(from, off, to, [2]int64{start, end}); err != nil {
			return err
		}
		done = end
	}
	return nil
}

// copyData copies the bytes from span[0] to span[1].
func copyData(from int, off int64, to int, span [2]int64) error {
	var buf []byte
	for at := span[0]; at < span[1]; {
		src, dst := off+at, at
		if buf == nil {
			n, err := unix.CopyFileRange(from, &src, to, &dst, int(min(span[1]-at, 1<<30)), 0)
			switch {
			case err == nil && n > 0:
				at += int64(n)
				continue
			case err == nil, errors.Is(err, unix.EXDEV), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.EOPNOTSUPP):
				const bufSize = 256 << 10
				buf = make([]byte, bufSize)
			default:
				return err
			}
		}
		n, err := unix.Pread(from, buf[:min(int64(len(buf)), span[1]-at)], off+at)
		if err != nil {
			return err
		}
		if n == 0 {
			return errors.New("the image is too short")
		}
		if _, err := unix.Pwrite(to, buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// special makes what has neither content nor entries, with all its metadata. n may be nil.
func (n *nodes) special(parent int, name string, e *tree.Entry) error {
	var err error
	switch e.Kind {
	case tree.Whiteout:
		return unix.Mknodat(parent, name, unix.S_IFCHR, 0)
	case tree.Symlink:
		err = unix.Symlinkat(e.Linkname, parent, name)
	case tree.CharDevice:
		err = n.device(parent, name, unix.S_IFCHR, e)
	case tree.BlockDevice:
		err = n.device(parent, name, unix.S_IFBLK, e)
	case tree.Fifo:
		err = unix.Mknodat(parent, name, unix.S_IFIFO|0o600, 0)
	default:
		return fmt.Errorf("kind %d cannot be part of a layer", e.Kind)
	}
	if err != nil {
		return err
	}
	if err := describeNode(parent, name, e); err != nil {
		return err
	}
	if err := setXattrs("/proc/self/fd/"+strconv.Itoa(parent)+"/"+name, e); err != nil {
		return err
	}
	return setModTime(parent, name, e)
}

// device makes a device node, or asks the builder to.
func (n *nodes) device(parent int, name string, kind uint32, e *tree.Entry) error { //nolint:params // as mknodat
	err := unix.Mknodat(parent, name, kind|0o600, int(unix.Mkdev(e.Major, e.Minor))) //nolint:gosec // at most 1<<44
	if errors.Is(err, unix.EPERM) && n != nil {
		err = n.make(parent, name, e)
	}
	return nodeError(e, err)
}

// describeNode gives what special makes its owner and mode.
func describeNode(parent int, name string, e *tree.Entry) error {
	if e.UID != 0 || e.GID != 0 {
		if err := unix.Fchownat(parent, name, int(e.UID), int(e.GID), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return chownError(e, err)
		}
	}
	if e.Kind == tree.Symlink {
		return nil
	}
	if err := unix.Fchmodat(parent, name, e.Mode, 0); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return nil
}

func setModTime(dir int, name string, e *tree.Entry) error {
	return setTimes(dir, name, &unix.Stat_t{Atim: modTime(e), Mtim: modTime(e)})
}

// setOpenTime is setModTime for an open file.
func setOpenTime(fd int, e *tree.Entry) error {
	t := [2]unix.Timespec{modTime(e), modTime(e)}
	// Without a name the call is about the descriptor; package unix has no way to say that.
	if _, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&t)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("set times: %w", errno)
	}
	return nil
}

func modTime(e *tree.Entry) unix.Timespec {
	t := unix.NsecToTimespec(int64(e.ModTime.Nanosecond()))
	t.Sec += e.ModTime.Unix()
	return t
}

// describeFile gives the file fd, made with its permissions by root, the rest of its metadata. Xattrs come after the owner,
// because changing that drops capabilities.
func describeFile(fd int, e *tree.Entry) error {
	if e.UID != 0 || e.GID != 0 {
		if err := unix.Fchown(fd, int(e.UID), int(e.GID)); err != nil {
			return chownError(e, err)
		}
	}
	if e.Mode&0o7000 != 0 {
		if err := unix.Fchmod(fd, e.Mode); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if err := setXattrs("/proc/self/fd/"+strconv.Itoa(fd), e); err != nil {
		return err
	}
	return setOpenTime(fd, e)
}

// describeOpen gives the open directory fd all its metadata.
func describeOpen(fd int, e *tree.Entry) error {
	if e.UID != 0 || e.GID != 0 {
		if err := unix.Fchown(fd, int(e.UID), int(e.GID)); err != nil {
			return chownError(e, err)
		}
	}
	if err := unix.Fchmod(fd, e.Mode); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	if err := setXattrs("/proc/self/fd/"+strconv.Itoa(fd), e); err != nil {
		return err
	}
	return setOpenTime(fd, e)
}

// setXattrs sets the xattrs of e, which is at.
func setXattrs(at string, e *tree.Entry) error {
	for name, value := range e.Xattrs {
		if isOverlayXattr(name) || foreignXattr(name) {
			continue // no layer of ours has one, and none may have an effect
		}
		set := unix.Setxattr
		if e.Kind != tree.Regular && e.Kind != tree.Dir {
			set = unix.Lsetxattr
			if strings.HasPrefix(name, "user.") {
				continue // xattr(7): there cannot be any
			}
		}
		if err := set(at, name, []byte(value), 0); err != nil {
			return xattrError(name, err)
		}
	}
	return nil
}

// patched writes one entry of the patch. Its parents are there.
func (x *extractor) patched(e *rootfs.PatchEntry) error {
	if e.Path == "." {
		return nil
	}
	dir, name := split(e.Path)
	parent, err := openBelow(x.root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	switch e.Kind {
	case tree.Dir:
		if err := unix.Mkdirat(parent, name, 0o700); !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	case tree.Regular:
		return x.regular(parent, name, &e.Entry, e.Offset)
	case tree.Hardlink:
		return unix.Linkat(x.root, e.Linkname, parent, name, 0)
	default:
		return x.nodes.special(parent, name, &e.Entry)
	}
}

// finish gives the directories of the patch their metadata, the innermost first.
func (x *extractor) finish(patch *rootfs.Patch) error {
	for i := len(patch.Entries) - 1; i >= 0; i-- {
		e := &patch.Entries[i]
		if e.Kind != tree.Dir {
			continue
		}
		fd, err := openBelow(x.root, e.Path, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return fmt.Errorf("open /%s: %w", e.Path, err)
		}
		err = describeOpen(fd, &e.Entry)
		_ = unix.Close(fd)
		if err != nil {
			return fmt.Errorf("write /%s: %w", e.Path, err)
		}
	}
	return nil
}
