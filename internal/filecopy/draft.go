package filecopy

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"hako/internal/tree"
)

// draft is the stage's tree while a step changes it: what the step touched, over the tree below. It does what the
// kernel would do to a mounted file system, including what nobody asks for: directories get a new time when a name
// comes or goes, and what is made in a set-group-ID directory belongs to that group. Nothing is read from below but
// what is looked up, and no content at all.
type draft struct {
	below tree.Tree // nil where there is nothing
	now   time.Time
	root  *node
}

// node is one name.
type node struct {
	name   string
	parent *node // nil for the root
	*inode
}

// inode is what all names of one file share.
type inode struct {
	meta    meta
	content opener // of regular files
	// lower says that this is below's file, unchanged but for what touched says.
	lower bool
	// touched says that meta may differ from below's by more than the time.
	touched bool
	// names are all names, if there is more than one.
	names []*node
	// children are the names in a directory that were looked up or made; nil for one that is gone.
	children map[string]*node
	// fresh says that nothing of below shows through in this directory.
	fresh bool
}

func newDraft(below tree.Tree, now time.Time) (*draft, error) {
	d := &draft{below: below, now: now}
	root := &inode{meta: newMeta(&tree.Entry{Kind: tree.Dir, Mode: 0o755, ModTime: now}), fresh: true}
	if below != nil {
		e, err := below.Lstat(".")
		if err != nil {
			return nil, err
		}
		root.meta, root.fresh, root.lower = newMeta(&e), false, true
	}
	d.root = &node{name: ".", inode: root}
	return d, nil
}

// path is the literal path of n.
func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	size := len(n.name)
	for p := n.parent; p.parent != nil; p = p.parent {
		size += len(p.name) + 1
	}
	buf := make([]byte, size)
	for p := n; p.parent != nil; p = p.parent {
		size -= copy(buf[size-len(p.name):], p.name)
		if size > 0 {
			size--
			buf[size] = '/'
		}
	}
	return string(buf)
}

func (n *node) isDir() bool { return n.meta.kind == tree.Dir }

// Lstat describes what is at p now; it makes a draft something that paths can be resolved in.
func (d *draft) Lstat(p string) (tree.Entry, error) {
	n, err := d.find(p)
	if err != nil {
		return tree.Entry{}, err
	}
	if n == nil {
		return tree.Entry{}, &fs.PathError{Op: "lstat", Path: p, Err: fs.ErrNotExist}
	}
	return n.meta.entry(p), nil
}

// find returns the node at the literal path p, or nil.
func (d *draft) find(p string) (*node, error) {
	n := d.root
	if p == "." {
		return n, nil
	}
	for rest := p; rest != ""; {
		var name string
		var err error
		name, rest, _ = strings.Cut(rest, "/")
		if !n.isDir() {
			return nil, nil //nolint:nilnil // absence is an answer here
		}
		if n, err = d.child(n, name); n == nil || err != nil {
			return nil, err
		}
	}
	return n, nil
}

// child returns the node name in dir, or nil.
func (d *draft) child(dir *node, name string) (*node, error) {
	if c, ok := dir.children[name]; ok {
		return c, nil
	}
	if dir.fresh {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	p := join(dir.path(), name)
	e, err := d.below.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	if err != nil {
		return nil, err
	}
	c := &node{name: name, parent: dir, inode: &inode{meta: newMeta(&e), lower: true}}
	if e.Kind == tree.Regular {
		c.content = treeOpener{from: d.below, path: p}
	}
	dir.keep(name, c)
	return c, nil
}

func (i *inode) keep(name string, c *node) {
	if i.children == nil {
		i.children = map[string]*node{}
	}
	i.children[name] = c
}

// put makes name in dir stand for i. There must be nothing at that name.
func (d *draft) put(dir *node, name string, i *inode) *node {
	n := &node{name: name, parent: dir, inode: i}
	dir.keep(name, n)
	dir.meta.setTime(d.now)
	return n
}

// link makes a further name for the file at first.
func (d *draft) link(dir *node, name string, first *node) *node {
	n := d.put(dir, name, first.inode)
	if first.names == nil {
		first.names = []*node{first}
	}
	n.names = append(n.names, n)
	return n
}

// remove takes n away with all that is in it. n is not the root.
func (d *draft) remove(n *node) {
	n.parent.keep(n.name, nil)
	n.parent.meta.setTime(d.now)
	forget(n)
}

// forget takes n out of the names of its file, and likewise all that is in it.
func forget(n *node) {
	n.names = slices.DeleteFunc(n.names, func(o *node) bool { return o == n })
	for _, c := range n.children {
		if c != nil {
			forget(c)
		}
	}
}

// mkdir makes an empty directory as mkdir(2) does for root: in a set-group-ID directory it has its group and bit.
func (d *draft) mkdir(dir *node, name string, mode uint32) *node {
	e := tree.Entry{Kind: tree.Dir, Mode: mode, ModTime: d.now}
	if dir.meta.mode&modeSetGID != 0 {
		e.Mode |= modeSetGID
		e.GID = dir.meta.gid
	}
	return d.put(dir, name, &inode{meta: newMeta(&e), touched: true, fresh: true})
}

// mkdirAll makes the directory at the literal path p and all its parents that are missing.
// Each new one gets the mode, and the owner if there is one.
func (d *draft) mkdirAll(p string, mode uint32, o *owner) (*node, error) {
	n := d.root
	if p == "." {
		return n, nil
	}
	for rest := p; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		c, err := d.child(n, name)
		if err != nil {
			return nil, err
		}
		switch {
		case c == nil:
			c = d.mkdir(n, name, mode)
			o.apply(c)
		case !c.isDir():
			return nil, &notDirectoryError{path: c.path()}
		}
		n = c
	}
	return n, nil
}

// workdir makes the directory at the literal path p and all its parents that are missing. If it is made and created is
// not nil, that is its time.
func (d *draft) workdir(p string, o *owner, created *time.Time) error {
	n, err := d.mkdirAll(p, 0o755, o)
	if err == nil && n.fresh && created != nil {
		n.meta.setTime(*created)
	}
	return err
}

// notDirectoryError is a path of the stage that has to be a directory and is something else.
type notDirectoryError struct{ path string }

func (e *notDirectoryError) Error() string {
	return fmt.Sprintf("/%s exists in the stage and is not a directory", e.path)
}

// Mode bits of inode(7).
const (
	modeSetGID = 0o2000
	modePerm   = 0o777
	modeAll    = 0o7777
)

// owner is who files are given to; nil leaves them as they are.
type owner struct{ uid, gid uint32 }

func (o *owner) apply(n *node) {
	if o != nil {
		n.meta.uid, n.meta.gid = o.uid, o.gid
		n.touched = true
	}
}

// join is path.Join for clean parts.
func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// literal makes a path relative to the root, cleaned without a look at symbolic links.
func literal(p string) string {
	if p = path.Clean("/" + p)[1:]; p == "" {
		return "."
	}
	return p
}
