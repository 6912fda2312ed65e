package filecopy

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"strings"
	"syscall"
	"time"

	"hako/internal/compression"
	"hako/internal/diag"
	"hako/internal/tree"
)

// unpack unpacks the file at p of From into the destination if it is an archive: a tar, compressed or not, whose first
// header can be read. Anything else is left to be copied. src is p as written.
func (c *copier) unpack(src, p string) (done bool, err error) {
	ok, err := c.isArchive(p)
	if err != nil || !ok {
		return false, err
	}
	dest, err := tree.Resolve(c.draft, path.Clean(c.dest), true)
	if err != nil {
		return false, c.destError(err)
	}
	root, err := c.draft.mkdirAll(dest, 0o755, c.owner)
	if err != nil {
		return false, c.destError(err)
	}
	r, err := c.source.Tree.Open(p)
	if err != nil {
		return false, c.readError(p, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	plain, err := compression.NewReader(&interruptible{c.ctx, r})
	if err != nil {
		return false, c.readError(p, err)
	}
	defer plain.Close()            //nolint:errcheck // nothing was written
	root.meta.setTime(c.draft.now) // BuildKit makes and removes a directory in it, to change its root to it
	u := &unpacker{copier: c, root: root}
	if err := u.all(tar.NewReader(&interruptible{c.ctx, plain})); err != nil {
		if c.ctx.Err() != nil {
			return false, context.Cause(c.ctx)
		}
		return false, &diag.Error{What: fmt.Sprintf("ADD: unpack %s", strings.TrimPrefix(src, "/")), Cause: err}
	}
	return true, nil
}

func (c *copier) isArchive(p string) (bool, error) {
	r, err := c.source.Tree.Open(p)
	if err != nil {
		return false, c.readError(p, err)
	}
	defer r.Close() //nolint:errcheck // nothing was written
	plain, err := compression.NewReader(r)
	if err != nil {
		return false, nil //nolint:nilerr // not an archive, then
	}
	defer plain.Close() //nolint:errcheck // nothing was written
	_, err = tar.NewReader(&interruptible{c.ctx, plain}).Next()
	if c.ctx.Err() != nil {
		return false, context.Cause(c.ctx)
	}
	return err == nil, nil
}

// unpacker puts the entries of an archive into the draft as extracting them in a process with the destination as its
// root directory would: whatever names and links say, they stay inside.
type unpacker struct {
	*copier
	root *node // the destination
	dirs []dirTime
}

// dirTime is a directory's time, which is set when everything has been made.
type dirTime struct {
	path string
	time time.Time
}

// Lstat describes what is at p inside the destination.
func (u *unpacker) Lstat(p string) (tree.Entry, error) {
	return u.draft.Lstat(u.inside(p))
}

// inside is the stage's path of the destination's path p.
func (u *unpacker) inside(p string) string {
	if p == "." {
		return u.root.path()
	}
	return join(u.root.path(), p)
}

// maxEntries is how many entries an archive may have, those that replace others included: as many as a layer.
const maxEntries = 5_000_000

func (u *unpacker) all(r *tar.Reader) error {
	for count := 0; ; count++ {
		if count > maxEntries {
			return fmt.Errorf("%w: more than %d entries", errTooMuch, maxEntries)
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := u.entry(h, r); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	return u.setTimes()
}

// setTimes sets the times of directories. What a later entry has put in the place of one gets its time,
// through symbolic links.
func (u *unpacker) setTimes() error {
	for _, d := range u.dirs {
		at, err := tree.Resolve(u, d.path, true)
		if err != nil {
			return fmt.Errorf("set time of %q: %w", d.path, err)
		}
		n, err := u.draft.find(u.inside(at))
		if err != nil {
			return fmt.Errorf("set time of %q: %w", d.path, err)
		}
		if n == nil {
			return fmt.Errorf("set time of %q: it is not there", d.path)
		}
		n.meta.setTime(d.time)
		n.touched = true
	}
	return nil
}

// find follows p inside the destination, but for a link at its end.
func (u *unpacker) find(p string) (*node, error) {
	at, err := tree.Resolve(u, p, false)
	if err != nil {
		return nil, err
	}
	return u.draft.find(u.inside(at))
}

var (
	errZeroByte  = errors.New("name contains a zero byte")
	errLongName  = errors.New("name is longer than Linux allows")
	errNoParent  = errors.New("its directory is not there")
	errLinkToDir = errors.New("a hard link cannot point to a directory")
	errNoTarget  = errors.New("a hard link must point to a file that is there")
	errOwner     = errors.New("owner is out of range")
	errTooMuch   = errors.New("archives hold too much")
)

// entry unpacks one entry.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := archiveName(h.Name)
	if err != nil {
		return err
	}
	if name == "." && path.Clean(h.Name) == "." {
		return nil // the destination keeps its metadata
	}
	dir, err := u.parent(name)
	if err != nil {
		return err
	}
	old := u.root
	if name != "." {
		if old, err = u.draft.child(dir, path.Base(name)); err != nil {
			return err
		}
	}
	isDir := h.Typeflag == tar.TypeDir
	if old == u.root && !isDir {
		return errors.New("the destination cannot be replaced")
	}
	if old != nil && !(isDir && old.isDir()) {
		u.draft.remove(old)
		old = nil
	}
	n, err := u.create(h, content, place{dir: dir, name: strings.Clone(path.Base(name))}, old)
	if err != nil {
		return err
	}
	if err := u.metadata(n, h); err != nil {
		return err
	}
	if isDir {
		u.dirs = append(u.dirs, dirTime{path: name, time: n.meta.time()})
	}
	return nil
}

// archiveName is an entry's name relative to the destination. Names that point out of it come back to it.
func archiveName(s string) (string, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return "", errZeroByte
	}
	name := literal(s)
	const maxName = 255 // NAME_MAX of Linux
	if len(name) >= maxPath {
		return "", errLongName
	}
	for part := range strings.SplitSeq(name, "/") {
		if len(part) > maxName {
			return "", errLongName
		}
	}
	return name, nil
}

// parent returns the directory that name goes into. What is missing is made, for root whatever --chown says.
func (u *unpacker) parent(name string) (*node, error) {
	if name == "." {
		return u.root, nil
	}
	at, err := tree.Resolve(u, path.Dir(name), true)
	if err != nil {
		return nil, err
	}
	n, err := u.draft.find(u.inside(at))
	if err != nil {
		return nil, err
	}
	if n == nil {
		if err := u.reachable(path.Dir(name)); err != nil {
			return nil, err
		}
		if n, err = u.draft.mkdirAll(u.inside(at), 0o755, &owner{}); err != nil {
			return nil, err
		}
	}
	if !n.isDir() {
		return nil, &notDirectoryError{path: n.path()}
	}
	return n, nil
}

// reachable says whether the missing directory p can be made: not through a link to nowhere.
func (u *unpacker) reachable(p string) error {
	for ; p != "."; p = path.Dir(p) {
		n, err := u.find(p)
		if err != nil {
			return err
		}
		if n == nil {
			continue
		}
		at, err := tree.Resolve(u, p, true)
		if err != nil {
			return err
		}
		if n, err = u.draft.find(u.inside(at)); n == nil && err == nil {
			err = errNoParent
		}
		return err
	}
	return nil
}

// create makes the entry at a place with nothing there, or takes the directory old.
func (u *unpacker) create(h *tar.Header, content io.Reader, at place, old *node) (*node, error) {
	i := &inode{touched: true}
	switch h.Typeflag {
	case tar.TypeDir:
		if old != nil {
			return old, nil
		}
		return u.draft.mkdir(at.dir, at.name, 0), nil
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		i.meta.kind, i.meta.size = tree.Regular, h.Size
		if h.Size > 0 {
			if limit := cmp.Or(u.req.MaxUnpacked, defaultMaxUnpacked); h.Size > limit-u.spool.Size() {
				return nil, fmt.Errorf("%w: more than %d bytes", errTooMuch, limit)
			}
			at, err := u.spool.Add(u.ctx, content, h.Size)
			if err != nil {
				return nil, err
			}
			i.content = spoolOpener{u.spool, at, h.Size}
		}
	case tar.TypeSymlink:
		i.meta.kind, i.meta.more = tree.Symlink, &moreMeta{linkname: h.Linkname}
		if h.Linkname == "" || strings.IndexByte(h.Linkname, 0) >= 0 {
			return nil, fmt.Errorf("bad target %q of a symbolic link", h.Linkname)
		}
	case tar.TypeLink:
		return u.hardLink(h, at)
	case tar.TypeFifo:
		i.meta.kind = tree.Fifo
	case tar.TypeChar, tar.TypeBlock:
		i.meta.kind = tree.CharDevice
		if h.Typeflag == tar.TypeBlock {
			i.meta.kind = tree.BlockDevice
		}
		const maxMajor, maxMinor = 1<<12 - 1, 1<<20 - 1 // of Linux
		if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
			return nil, fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		i.meta.more = &moreMeta{major: uint32(h.Devmajor), minor: uint32(h.Devminor)}
	default:
		return nil, fmt.Errorf("unknown type %q of an entry", h.Typeflag)
	}
	return u.draft.put(at.dir, at.name, i), nil
}

func (u *unpacker) hardLink(h *tar.Header, at place) (*node, error) {
	target, err := archiveName(h.Linkname)
	if err != nil {
		return nil, err
	}
	first, err := u.find(target)
	switch {
	case err != nil:
		return nil, err
	case first == nil:
		return nil, errNoTarget
	case first.isDir():
		return nil, errLinkToDir
	}
	return u.draft.link(at.dir, at.name, first), nil
}

// metadata gives n what the header says, and the owner of --chown.
func (u *unpacker) metadata(n *node, h *tar.Header) error {
	if h.Uid < 0 || h.Uid > math.MaxUint32 || h.Gid < 0 || h.Gid > math.MaxUint32 {
		return errOwner
	}
	n.touched = true
	keep, err := u.keepsMode(h)
	if err != nil {
		return err
	}
	m := &n.meta
	m.uid, m.gid = uint32(h.Uid), uint32(h.Gid) //nolint:gosec // checked above
	u.owner.apply(n)
	switch {
	case keep:
	case m.kind == tree.Symlink:
		m.setMode(0o777)
	default:
		m.setMode(uint32(h.Mode & modeAll)) //nolint:gosec // masked
	}
	if !keep {
		m.setTime(boundTime(h.ModTime))
	}
	x, err := archiveXattrs(h, m.kind)
	m.addXattrs(x)
	return err
}

// keepsMode says whether mode and time are not the entry's business: those of a hard link to a symbolic link,
// or to a target that is not there under the name as it is written.
func (u *unpacker) keepsMode(h *tar.Header) (bool, error) {
	if h.Typeflag != tar.TypeLink {
		return false, nil
	}
	for i, c := range h.Linkname {
		if c != '/' || i == 0 {
			continue
		}
		if k, err := u.kindAt(h.Linkname[:i], true); k != tree.Dir {
			return true, err
		}
	}
	k, err := u.kindAt(h.Linkname, false)
	return k != tree.Regular && k != tree.Fifo && k != tree.CharDevice && k != tree.BlockDevice, err
}

// kindAt is what is at p, through a symbolic link at its end if follow is set; 0 if there is nothing.
func (u *unpacker) kindAt(p string, follow bool) (tree.Kind, error) {
	at, err := tree.Resolve(u, p, follow)
	if err == nil {
		var e tree.Entry
		if e, err = u.Lstat(at); err == nil {
			return e.Kind, nil
		}
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ELOOP) {
		err = nil
	}
	return 0, err
}

// boundTime is the epoch for times that a file cannot have.
func boundTime(t time.Time) time.Time {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return time.Unix(0, 0)
	}
	return t
}
