package rootfs

import (
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/tree"
)

// Tree is a stack of layers seen as one file tree. It is immutable and may be used from many goroutines;
// Add makes a new one that shares everything the layer does not touch.
//
// A directory is a sorted slice of names. A layer's entries come in the same order, so adding a layer merges
// two sorted lists in every directory that the layer has, and takes the others as they are. A name refers to the entry
// in the layer's index instead of copying it, which makes 40 bytes per file.
type Tree struct {
	root   node
	layers int
}

var _ tree.Tree = (*Tree)(nil)

// node is one name.
type node struct {
	name string
	// entry says what the name is. For every name of a hard-linked file it is that of the first one.
	entry *layer.IndexEntry
	from  *source
	dir   *directory // of directories
}

// directory is what a directory holds, sorted by name.
type directory struct {
	nodes []node
}

// source is the layer that an entry comes from.
type source struct {
	image *layer.Image
	// number counts the layers from 1.
	number int
	// links is what the names of hard-linked files share, by the entry of the first name.
	links map[*layer.IndexEntry]link
}

// link is a file of a layer with more than one name.
type link struct {
	inode uint64
	names uint32
}

// NewTree returns the tree without any layer: an empty root directory.
func NewTree() *Tree {
	return &Tree{root: node{name: ".", entry: newDirectoryEntry(), dir: &directory{}}}
}

// newDirectoryEntry describes a directory that no layer says anything about.
func newDirectoryEntry() *layer.IndexEntry {
	return &layer.IndexEntry{
		Entry:   tree.Entry{Kind: tree.Dir, Mode: 0o755, ModTime: time.Unix(0, 0)},
		Offset:  -1,
		Implied: true,
	}
}

// Lstat describes the entry at path.
func (t *Tree) Lstat(path string) (tree.Entry, error) {
	n := t.find(path)
	if n == nil {
		return tree.Entry{}, &fs.PathError{Op: "lstat", Path: path, Err: fs.ErrNotExist}
	}
	return n.describe(path), nil
}

// describe is n's entry as a tree shows it at path.
func (n *node) describe(path string) tree.Entry {
	e := n.entry.Entry
	e.Path, e.Opaque = path, false
	if n.from == nil {
		return e
	}
	if l, ok := n.from.links[n.entry]; ok {
		e.Inode, e.Links = l.inode, l.names
	}
	return e
}

// ReadDir returns the names in the directory at path, sorted bytewise.
func (t *Tree) ReadDir(path string) ([]string, error) {
	n := t.find(path)
	if n == nil {
		return nil, &fs.PathError{Op: "readdir", Path: path, Err: fs.ErrNotExist}
	}
	if n.dir == nil {
		return nil, &fs.PathError{Op: "readdir", Path: path, Err: errNotDirectory}
	}
	names := make([]string, len(n.dir.nodes))
	for i := range n.dir.nodes {
		names[i] = n.dir.nodes[i].name
	}
	return names, nil
}

// Open reads the content of the regular file at path. What it returns is an io.ReaderAt, too.
func (t *Tree) Open(path string) (io.ReadCloser, error) {
	n := t.find(path)
	if n == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	if n.entry.Kind != tree.Regular {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	return opened{n.from.image.Content(n.entry)}, nil
}

// ContentDigest is the digest of the bytes of the regular file at path; ok is false if there is none.
func (t *Tree) ContentDigest(path string) (_ digest.Digest, ok bool) {
	n := t.find(path)
	if n == nil || n.entry.Kind != tree.Regular || n.entry.Content == "" {
		return "", false
	}
	return n.entry.Content, true
}

// opened is an open file. There is nothing to close: the layer stays.
type opened struct{ layer.Content }

func (opened) Close() error { return nil }

// Layer is the number of the layer, from 0, that what path names comes from; -1 if no layer says anything about it.
func (t *Tree) Layer(path string) int {
	n := t.find(path)
	if n == nil || n.from == nil {
		return -1
	}
	return n.from.number - 1
}

// Resolve follows the symbolic links of path inside the tree, the last component's only if last is set;
// see tree.Resolve. The result is a literal path that may be missing.
func (t *Tree) Resolve(path string, last bool) (string, error) {
	p, err := tree.Resolve(t, path, last)
	if err != nil {
		return "", fmt.Errorf("resolve %s: %w", path, err)
	}
	return p, nil
}

// find returns the node at path, or nil.
func (t *Tree) find(path string) *node {
	n := &t.root
	if path == "." {
		return n
	}
	for rest, more := path, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, "/")
		if n.dir == nil {
			return nil
		}
		if n = n.dir.find(name); n == nil {
			return nil
		}
	}
	return n
}

func (d *directory) find(name string) *node {
	i, ok := sort.Find(len(d.nodes), func(i int) int { return strings.Compare(name, d.nodes[i].name) })
	if !ok {
		return nil
	}
	return &d.nodes[i]
}

// Add returns the tree with one more layer on top. It fails if the index is not what a layer's index must be:
// in tree order, each directory before what is in it, hard links to names of the same layer.
func (t *Tree) Add(im *layer.Image) (*Tree, error) {
	number := t.layers + 1
	out := &Tree{root: t.root, layers: number}
	entries := im.Index.Entries
	if len(entries) == 0 {
		return out, nil
	}
	if entries[0].Path != "." || entries[0].Kind != tree.Dir {
		return nil, fmt.Errorf("index of layer %d does not start with its root directory", number)
	}
	m := merger{src: &source{image: im, number: number}}
	if err := m.link(entries); err != nil {
		return nil, fmt.Errorf("index of layer %d: %w", number, err)
	}
	root, rest, err := m.directory(&t.root, entries)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%s is out of order", rest[0].Path)
	}
	if err != nil {
		return nil, fmt.Errorf("index of layer %d: %w", number, err)
	}
	// What a layer says about the root directory itself counts for nobody: containerd and BuildKit leave it out.
	root.name, root.entry, root.from = ".", t.root.entry, nil
	out.root = root
	return out, nil
}

// merger puts one layer onto a tree.
type merger struct {
	src *source
	// first finds the entry that a hard link's name stands for.
	first map[string]*layer.IndexEntry
}

// link finds the files of the layer with more than one name.
func (m *merger) link(entries []layer.IndexEntry) error {
	for i := range entries {
		if entries[i].Kind == tree.Hardlink {
			if m.first == nil {
				m.first = map[string]*layer.IndexEntry{}
			}
			m.first[entries[i].Linkname] = nil
		}
	}
	if m.first == nil {
		return nil
	}
	m.src.links = make(map[*layer.IndexEntry]link, len(m.first))
	for i := range entries {
		e := &entries[i]
		if e.Kind == tree.Hardlink {
			first := m.first[e.Linkname]
			if first == nil {
				return fmt.Errorf("hard link %s comes before its first name %s", e.Path, e.Linkname)
			}
			l := m.src.links[first]
			l.names++
			m.src.links[first] = l
			continue
		}
		if _, ok := m.first[e.Path]; !ok {
			continue
		}
		if e.Kind == tree.Dir || e.Kind == tree.Whiteout {
			return fmt.Errorf("%s has hard links and is no file", e.Path)
		}
		m.first[e.Path] = e
		m.src.links[e] = link{inode: uint64(m.src.number)<<32 | uint64(i), names: 1} //nolint:gosec // not negative
	}
	return nil
}

// directory merges the directory entries[0] and what is in it onto below, which may be nil or no directory.
// It returns the entries that are left.
func (m *merger) directory(below *node, entries []layer.IndexEntry) (node, []layer.IndexEntry, error) {
	e := &entries[0]
	n := node{name: base(e.Path), entry: e, from: m.src, dir: &directory{}}
	var old []node
	if below != nil && below.dir != nil {
		if e.Implied {
			n.entry, n.from = below.entry, below.from
		}
		if !e.Opaque {
			old = below.dir.nodes
		}
	}
	rest := entries[1:]
	out := make([]node, 0, len(old)+8) // most layers add little to a directory
	last := ""
	for len(rest) > 0 && inside(rest[0].Path, e.Path) {
		name := base(rest[0].Path)
		if name <= last {
			return node{}, nil, fmt.Errorf("%s is out of order", rest[0].Path)
		}
		last = name
		i, found := sort.Find(len(old), func(i int) int { return strings.Compare(name, old[i].name) })
		out = append(out, old[:i]...)
		old = old[i:]
		var hidden *node
		if found {
			hidden, old = &old[0], old[1:]
		}
		var err error
		if out, rest, err = m.child(out, hidden, rest); err != nil {
			return node{}, nil, err
		}
	}
	out = append(out, old...)
	n.dir.nodes = slices.Clone(out) // exactly as long as it has to be
	return n, rest, nil
}

// child appends what rest[0] is, over hidden, which may be nil.
func (m *merger) child(out []node, hidden *node, rest []layer.IndexEntry) ([]node, []layer.IndexEntry, error) {
	e := &rest[0]
	switch e.Kind {
	case tree.Dir:
		n, left, err := m.directory(hidden, rest)
		return append(out, n), left, err
	case tree.Whiteout:
		return out, rest[1:], nil
	case tree.Hardlink:
		return append(out, node{name: base(e.Path), entry: m.first[e.Linkname], from: m.src}), rest[1:], nil
	default:
		return append(out, node{name: base(e.Path), entry: e, from: m.src}), rest[1:], nil
	}
}

// inside tells whether path is directly in dir. Both are clean.
func inside(path, dir string) bool {
	if dir == "." {
		return path != "." && !strings.Contains(path, "/")
	}
	return len(path) > len(dir)+1 && path[len(dir)] == '/' && strings.HasPrefix(path, dir) &&
		strings.IndexByte(path[len(dir)+1:], '/') < 0
}

// base is the last component of a clean path; it shares its bytes.
func base(path string) string {
	return path[strings.LastIndexByte(path, '/')+1:]
}
