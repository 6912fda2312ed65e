package archive

import (
	"errors"
	"io"
	"io/fs"
	"slices"
	"time"

	"hako/internal/spool"
	"hako/internal/tree"
)

// Tree is the tree of an archive. It may be used from many goroutines.
type Tree struct {
	index *index
	spool *spool.Spool
}

var _ tree.Tree = (*Tree)(nil)

// Empty is a tree with nothing in it but its root, whose time is now.
func Empty(now time.Time) *Tree { return &Tree{index: newIndex(now), spool: &spool.Spool{}} }

// Close frees the contents. It is idempotent; nobody may read the tree any more.
func (t *Tree) Close() error { return t.spool.Close() }

// Size is how much the contents take, in bytes, holes included.
func (t *Tree) Size() int64 { return t.spool.Size() }

// Lstat implements [tree.Tree].
func (t *Tree) Lstat(p string) (tree.Entry, error) {
	id := t.index.find(p)
	if id == 0 {
		return tree.Entry{}, &fs.PathError{Op: "lstat", Path: p, Err: fs.ErrNotExist}
	}
	i := t.index.inode(id)
	e := tree.Entry{Path: p, Kind: i.kind, Mode: uint32(i.mode), Size: i.size, ModTime: time.Unix(i.seconds, int64(i.nanos))}
	if i.more > 0 {
		m := &t.index.more[i.more-1]
		e.Linkname, e.Major, e.Minor, e.Xattrs = m.linkname, m.major, m.minor, m.xattrs
	}
	if i.kind != tree.Dir {
		e.Links = i.links
	}
	if i.links > 1 && i.kind != tree.Dir {
		e.Inode = uint64(id)
	}
	return e, nil
}

// ReadDir implements [tree.Tree].
func (t *Tree) ReadDir(p string) ([]string, error) {
	id := t.index.find(p)
	err := fs.ErrNotExist
	if id != 0 {
		i := t.index.inode(id)
		if i.kind == tree.Dir {
			return t.index.list(nameID(i.at)), nil //nolint:gosec // a number of a row
		}
		err = errIsFile
	}
	return nil, &fs.PathError{Op: "readdir", Path: p, Err: err}
}

var (
	errIsFile     = errors.New("it is not a directory")
	errNotRegular = errors.New("it is not a regular file")
)

// list are the names of a directory whose last name is given.
func (x *index) list(last nameID) []string {
	var out []string
	for id := last; id != 0; {
		n := x.names.at(uint32(id))
		out = append(out, x.bytes.text(n.at, n.size))
		id = n.next
	}
	slices.Sort(out)
	return out
}

// Open implements [tree.Tree].
func (t *Tree) Open(p string) (io.ReadCloser, error) {
	id := t.index.find(p)
	if id == 0 {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	i := t.index.inode(id)
	err := errDropped
	switch {
	case i.kind != tree.Regular:
		err = errNotRegular
	case !i.dropped:
		var r io.ReadCloser
		if r, err = t.spool.Open(i.at, i.size); err == nil {
			return r, nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: p, Err: err}
}
