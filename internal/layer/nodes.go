package layer

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// node is one name of a layer while it is put together.
type node struct {
	name     string
	parent   *node
	children map[string]*node // of directories
	depth    int              // bytes of the path
	*inode
}

// inode is what all names of one file share.
type inode struct {
	tree.Entry // Path and Linkname of hard links are not used

	content digest.Digest
	data    *bytes.Buffer // the content, if it is to be at hand
	offset  int64
	implied bool
	first   *node // the first name in tree order
	links   uint32

	// What the EROFS writer needs.
	nid    uint64
	block  uint32
	length int64 // of what the image stores for it: content, link target or directory
	tail   int   // bytes of it that follow the inode
}

// names is the tree of a layer's names. Entries of a foreign tar come in any order and any number of times;
// names does what extracting them one after the other would do, except that a whiteout and the entries of the
// same layer never get in each other's way by order alone: what hides a path and then makes a directory there
// makes an opaque directory.
type names struct {
	root   *node
	count  int   // nodes made, also those replaced, and late links
	bytes  int64 // of names, link targets and attributes
	limits Limits
	late   []lateLink
	small  map[string][]byte // set by index: contents that are at hand
}

// lateLink is a hard link whose first name had not come yet.
type lateLink struct {
	parent *node
	name   string
	entry  tree.Entry
}

func newNames(l Limits) *names {
	root := &node{name: ".", children: map[string]*node{}, inode: impliedDir()}
	return &names{root: root, limits: l.orDefault()}
}

func impliedDir() *inode {
	return &inode{
		Entry:   tree.Entry{Kind: tree.Dir, Mode: 0o755, ModTime: time.Unix(0, 0)},
		offset:  -1,
		implied: true,
	}
}

// maxSymlinks is Linux's limit, path_resolution(7).
const maxSymlinks = 40

// dir finds the directory at path and makes what is missing.
func (t *names) dir(path string) (*node, error) {
	return t.walk(path, t.enter)
}

// walk goes to the directory at path; enter takes each step. Symbolic links of this layer are followed
// inside its root; those of the layers below are unknown here, as they are to an overlay file system.
func (t *names) walk(path string, enter func(dir *node, name string) (*node, error)) (*node, error) {
	cur, links := t.root, 0
	for rest := path; rest != "" && rest != "."; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			cur = cur.up()
			continue
		}
		next := cur.children[name]
		if next != nil && next.Kind == tree.Symlink {
			if links++; links > maxSymlinks {
				return nil, fmt.Errorf("more than %d symbolic links", maxSymlinks)
			}
			if strings.HasPrefix(next.Linkname, "/") {
				cur = t.root
			}
			rest = next.Linkname + "/" + rest
			if len(rest) > 2*maxPath {
				return nil, fmt.Errorf("path through symbolic links is longer than %d bytes", maxPath)
			}
			continue
		}
		var err error
		if cur, err = enter(cur, name); cur == nil || err != nil {
			return nil, err
		}
	}
	return cur, nil
}

func (n *node) up() *node {
	if n.parent == nil {
		return n
	}
	return n.parent
}

// enter returns the directory name in dir and makes it if it is missing.
func (t *names) enter(dir *node, name string) (*node, error) {
	next := dir.children[name]
	switch {
	case next == nil:
		return t.link(dir, name, impliedDir())
	case next.Kind == tree.Dir:
		return next, nil
	case next.Kind == tree.Whiteout:
		// The path is gone and back again: a new directory, of which the layer only says that it is there.
		ino := impliedDir()
		ino.implied, ino.Opaque = false, true
		return t.link(dir, name, ino)
	}
	return nil, fmt.Errorf("%s is not a directory in this layer", next.path())
}

// link makes name in dir stand for ino, whatever it stood for.
func (t *names) link(dir *node, name string, ino *inode) (*node, error) {
	n := &node{name: name, parent: dir, inode: ino, depth: dir.depth + 1 + len(name)}
	if n.depth > maxPath {
		return nil, fmt.Errorf("path is longer than %d bytes", maxPath)
	}
	if len(name) > maxName {
		return nil, fmt.Errorf("name has a component longer than %d bytes", maxName)
	}
	if err := t.charge(n.depth, &ino.Entry); err != nil {
		return nil, err
	}
	if ino.Kind == tree.Dir {
		n.children = map[string]*node{}
	}
	dir.children[name] = n
	return n, nil
}

// charge counts what an entry with a path of so many bytes costs.
func (t *names) charge(path int, e *tree.Entry) error {
	if t.count++; t.count > t.limits.Entries {
		return fmt.Errorf("layer has more than %d entries", t.limits.Entries)
	}
	t.bytes += int64(path + len(e.Linkname))
	for k, v := range e.Xattrs {
		t.bytes += int64(len(k) + len(v))
	}
	if t.bytes > t.limits.NameBytes {
		return fmt.Errorf("layer has more than %d bytes of names and attributes", t.limits.NameBytes)
	}
	return nil
}

// put adds an entry at its path, which has no markers in it. Hard links go to putLink.
func (t *names) put(ino *inode) error {
	if ino.Path == "." {
		return t.putRoot(ino)
	}
	dirPath, name := splitPath(ino.Path)
	dir, err := t.dir(dirPath)
	if err != nil {
		return err
	}
	old := dir.children[name]
	if ino.Kind != tree.Dir || old == nil {
		_, err = t.link(dir, name, ino)
		return err
	}
	if old.Kind == tree.Dir {
		ino.Opaque = ino.Opaque || old.Opaque
		old.inode = ino
		return nil
	}
	ino.Opaque = true // what was here hid the directory below
	_, err = t.link(dir, name, ino)
	return err
}

func (t *names) putRoot(ino *inode) error {
	if ino.Kind != tree.Dir {
		return fmt.Errorf("the root of a layer must be a directory")
	}
	ino.Opaque = ino.Opaque || t.root.Opaque
	t.root.inode = ino
	return nil
}

// putLink adds a further name for the file at e.Linkname. A first name that comes later in the tar is waited for.
func (t *names) putLink(e tree.Entry) error {
	dirPath, name := splitPath(e.Path)
	dir, err := t.dir(dirPath)
	if err != nil {
		return err
	}
	target, err := t.find(e.Linkname)
	if err != nil {
		return err
	}
	if target == nil {
		if err := t.charge(len(e.Path), &e); err != nil {
			return err
		}
		t.late = append(t.late, lateLink{parent: dir, name: name, entry: e})
		return nil
	}
	return t.share(dir, name, target, e)
}

// find returns the name at path, or nil. Its directory is found through symbolic links, itself it is none.
func (t *names) find(path string) (*node, error) {
	dirPath, name := splitPath(path)
	dir, err := t.walk(dirPath, func(dir *node, name string) (*node, error) {
		if n := dir.children[name]; n != nil && n.Kind == tree.Dir {
			return n, nil
		}
		return nil, nil //nolint:nilnil // absence is an answer here
	})
	if dir == nil || err != nil {
		return nil, err
	}
	n := dir.children[name]
	if n == nil || n.Kind == tree.Whiteout {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	return n, nil
}

func (t *names) share(dir *node, name string, target *node, e tree.Entry) error {
	if target.Kind == tree.Dir {
		return fmt.Errorf("hard link to the directory %s", target.path())
	}
	if dir.children[name] == target {
		return nil
	}
	// As an extractor does: the owner and time of the last name hold for all of them.
	target.UID, target.GID, target.ModTime = e.UID, e.GID, e.ModTime
	if len(e.Xattrs) > 0 {
		all := maps.Clone(target.Xattrs)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, e.Xattrs)
		target.Xattrs = all
	}
	_, err := t.link(dir, name, target.inode)
	return err
}

// linkLate makes the hard links that came before their first names.
func (t *names) linkLate() error {
	for _, l := range t.late {
		target, err := t.find(l.entry.Linkname)
		if err == nil && target == nil {
			err = fmt.Errorf("hard link to %q, which is not in the layer", l.entry.Linkname)
		}
		if err == nil && l.parent.children[l.name] == nil {
			err = t.share(l.parent, l.name, target, l.entry)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.entry.Path, err)
		}
	}
	t.late = nil
	return nil
}

// setOpaque marks the directory at path as hiding everything below it.
func (t *names) setOpaque(path string) error {
	dir, err := t.dir(path)
	if err != nil {
		return err
	}
	dir.Opaque = true
	return nil
}

// hide records that path is gone, with all that this layer said about it before.
func (t *names) hide(path string, e tree.Entry) error {
	dirPath, name := splitPath(path)
	dir, err := t.dir(dirPath)
	if err != nil {
		return err
	}
	_, err = t.link(dir, name, &inode{
		Entry: tree.Entry{Kind: tree.Whiteout, ModTime: e.ModTime}, offset: -1,
	})
	return err
}

// path is the node's path in the layer.
func (n *node) path() string {
	if n.parent == nil {
		return "."
	}
	parts := []string{n.name}
	for p := n.parent; p.parent != nil; p = p.parent {
		parts = append(parts, p.name)
	}
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// sorted returns the children in tree order.
func (n *node) sorted() []*node {
	out := make([]*node, 0, len(n.children))
	for _, c := range n.children {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return out
}

// index lists all names in tree order. A layer without any entry has an empty index.
func (t *names) index() *Index {
	ix := &Index{Entries: make([]IndexEntry, 0, t.count+1)}
	t.small = map[string][]byte{}
	t.root.appendTo(ix, ".")
	for _, p := range accountFiles() {
		if n, _ := t.find(p); n != nil && n.data != nil {
			t.small[n.first.path()] = n.data.Bytes()
		}
	}
	if len(ix.Entries) == 1 && t.root.implied && !t.root.Opaque {
		ix.Entries = nil
	}
	return ix
}

func (n *node) appendTo(ix *Index, path string) {
	e := IndexEntry{Entry: n.Entry, Content: n.content, Offset: n.offset, Implied: n.implied}
	e.Path = path
	if n.Kind != tree.Dir {
		n.links++
	}
	if n.first == nil {
		n.first = n
	} else if n.first != n {
		e.Kind, e.Linkname, e.Size = tree.Hardlink, n.first.path(), 0
	}
	ix.Entries = append(ix.Entries, e)
	prefix := path + "/"
	if path == "." {
		prefix = ""
	}
	for _, c := range n.sorted() {
		c.appendTo(ix, prefix+c.name)
	}
}

// splitPath is path.Split for clean relative paths; the directory of a top-level name is ".".
func splitPath(p string) (dir, name string) {
	i := strings.LastIndexByte(p, '/')
	if i < 0 {
		return ".", p
	}
	return p[:i], p[i+1:]
}
