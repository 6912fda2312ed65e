// Package treetest holds trees for tests, written as text with one entry per line:
//
//	etc/                     a directory; parents that have no line are made, 0755
//	etc/passwd 0600 1:2 @9 = root:x:0:0\n
//	                         a file with mode, owner, time in seconds and content, with the escapes of Go
//	bin -> usr/bin           a symbolic link
//	b => a                   a further name of the file a
//	dev/null c1:3            devices: c and b; fifo, socket
//	ping x:security.capability=\x01 = ...
//	                         an extended attribute
//	gone whiteout            for layers only, as is the word opaque after a directory
//
// What is left out is 0755, 0644 or 0777, 0:0, @0 and no content. A name with spaces is quoted.
package treetest

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"hako/internal/tree"
)

// Tree is a tree in memory. It is immutable and may be used from many goroutines.
type Tree struct {
	files map[string]*file
}

type file struct {
	entry   tree.Entry
	content string
}

var _ tree.Tree = (*Tree)(nil)

// New reads a tree from its text form; what is wrong with the text ends the test.
func New(t testing.TB, text string) *Tree {
	t.Helper()
	tr, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// Parse reads a tree from its text form.
func Parse(text string) (*Tree, error) {
	t := &Tree{files: map[string]*file{".": {entry: directory(".")}}}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		e, content, err := ParseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		if err := t.add(e, content); err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
	}
	return t, nil
}

func directory(p string) tree.Entry {
	return tree.Entry{Path: p, Kind: tree.Dir, Mode: 0o755, ModTime: time.Unix(0, 0)}
}

func (t *Tree) add(e tree.Entry, content string) error {
	for p := path.Dir(e.Path); p != "."; p = path.Dir(p) {
		if t.files[p] == nil {
			t.files[p] = &file{entry: directory(p)}
		} else if t.files[p].entry.Kind != tree.Dir {
			return fmt.Errorf("%s is not a directory", p)
		}
	}
	if e.Kind != tree.Hardlink {
		t.files[e.Path] = &file{entry: e, content: content}
		return nil
	}
	first := t.files[e.Linkname]
	if first == nil {
		return fmt.Errorf("%s: there is no %s before it", e.Path, e.Linkname)
	}
	if first.entry.Links == 0 {
		first.entry.Links, first.entry.Inode = 1, uint64(len(t.files)) //nolint:gosec // not negative
	}
	t.files[e.Path] = &file{entry: first.entry, content: first.content}
	t.files[e.Path].entry.Path = e.Path
	inode, links := first.entry.Inode, first.entry.Links+1
	for _, f := range t.files {
		if f.entry.Inode == inode {
			f.entry.Links = links
		}
	}
	return nil
}

// ParseLine reads one entry and its content.
func ParseLine(line string) (tree.Entry, string, error) {
	name, rest, err := cutName(line)
	if err != nil {
		return tree.Entry{}, "", err
	}
	e := tree.Entry{Path: path.Clean(name), Kind: tree.Regular, Mode: 0o644, ModTime: time.Unix(0, 0)}
	if strings.HasSuffix(name, "/") || name == "." {
		e.Kind, e.Mode = tree.Dir, 0o755
	}
	var content string
	for rest = strings.TrimLeft(rest, " \t"); rest != ""; rest = strings.TrimLeft(rest, " \t") {
		word, after, _ := strings.Cut(rest, " ")
		switch word {
		case "=":
			if content, err = unescape(after); err != nil {
				return e, "", err
			}
			e.Size = int64(len(content))
			return e, content, nil
		case "->":
			e.Kind, e.Mode, e.Linkname = tree.Symlink, 0o777, strings.TrimSpace(after)
			return e, "", nil
		case "=>":
			e.Kind, e.Linkname = tree.Hardlink, strings.TrimSpace(after)
			return e, "", nil
		}
		if err := attribute(&e, word); err != nil {
			return e, "", fmt.Errorf("%s: %w", name, err)
		}
		rest = after
	}
	return e, content, nil
}

func cutName(line string) (name, rest string, err error) {
	if !strings.HasPrefix(line, `"`) {
		name, rest, _ = strings.Cut(line, " ")
		return name, rest, nil
	}
	quoted, err := strconv.QuotedPrefix(line)
	if err != nil {
		return "", "", fmt.Errorf("name in %q: %w", line, err)
	}
	name, err = strconv.Unquote(quoted)
	return name, line[len(quoted):], err
}

func unescape(s string) (string, error) {
	out, err := strconv.Unquote(`"` + strings.ReplaceAll(s, `"`, `\"`) + `"`)
	if err != nil {
		return "", fmt.Errorf("content %q: %w", s, err)
	}
	return out, nil
}

// attribute reads one word that says something about e.
func attribute(e *tree.Entry, word string) error {
	switch word {
	case "fifo":
		e.Kind = tree.Fifo
		return nil
	case "socket":
		e.Kind = tree.Socket
		return nil
	case "whiteout":
		e.Kind, e.Mode = tree.Whiteout, 0
		return nil
	case "opaque":
		e.Opaque = true
		return nil
	}
	if x, ok := strings.CutPrefix(word, "x:"); ok {
		name, value, _ := strings.Cut(x, "=")
		value, err := unescape(value)
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[name] = value
		return err
	}
	if s, ok := strings.CutPrefix(word, "@"); ok {
		n, err := strconv.ParseInt(s, 10, 64)
		e.ModTime = time.Unix(n, 0)
		return err
	}
	return numbers(e, word)
}

// numbers reads an octal mode, an owner or the number of a device.
func numbers(e *tree.Entry, word string) error {
	var a, b uint32
	if strings.HasPrefix(word, "0") && !strings.Contains(word, ":") {
		_, err := fmt.Sscanf(word, "%o", &e.Mode)
		return err
	}
	if n, err := fmt.Sscanf(strings.TrimLeft(word, "cb"), "%d:%d", &a, &b); n != 2 {
		return fmt.Errorf("%q is no attribute: %w", word, err)
	}
	switch word[0] {
	case 'c':
		e.Kind, e.Major, e.Minor = tree.CharDevice, a, b
	case 'b':
		e.Kind, e.Major, e.Minor = tree.BlockDevice, a, b
	default:
		e.UID, e.GID = a, b
	}
	return nil
}

// Lstat describes the entry at p.
func (t *Tree) Lstat(p string) (tree.Entry, error) {
	f := t.files[p]
	if f == nil {
		return tree.Entry{}, &fs.PathError{Op: "lstat", Path: p, Err: fs.ErrNotExist}
	}
	return f.entry, nil
}

// ReadDir returns the names in the directory at p.
func (t *Tree) ReadDir(p string) ([]string, error) {
	if f := t.files[p]; f == nil || f.entry.Kind != tree.Dir {
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: fs.ErrNotExist}
	}
	var out []string
	for name := range t.files {
		if name != "." && path.Dir(name) == p {
			out = append(out, path.Base(name))
		}
	}
	slices.Sort(out)
	return out, nil
}

// Open reads the regular file at p.
func (t *Tree) Open(p string) (io.ReadCloser, error) {
	f := t.files[p]
	if f == nil || f.entry.Kind != tree.Regular {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return io.NopCloser(strings.NewReader(f.content)), nil
}

// Paths returns all paths in tree order, without the root.
func (t *Tree) Paths() []string {
	out := slices.SortedFunc(maps.Keys(t.files), tree.Compare)
	return out[1:]
}

// Dump is the text form of all of t but its root's metadata, each entry in full.
// Names of one file are written as hard links to the first of them.
func Dump(t tree.Tree) (string, error) {
	var b strings.Builder
	first := map[uint64]string{}
	err := dump(&b, t, ".", first)
	return b.String(), err
}

func dump(b *strings.Builder, t tree.Tree, dir string, first map[uint64]string) error {
	names, err := t.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		p := path.Join(dir, name)
		e, err := t.Lstat(p)
		if err != nil {
			return err
		}
		if e.Links > 1 && first[e.Inode] != "" {
			e.Kind, e.Linkname = tree.Hardlink, first[e.Inode]
		} else if e.Links > 1 {
			first[e.Inode] = p
		}
		var content []byte
		if e.Kind == tree.Regular {
			if content, err = ReadAll(t, p); err != nil {
				return err
			}
		}
		b.WriteString(Line(e, content) + "\n")
		if e.Kind == tree.Dir {
			if err := dump(b, t, p, first); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReadAll reads the regular file at p.
func ReadAll(t tree.Tree, p string) ([]byte, error) {
	r, err := t.Open(p)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // nothing was written
	return io.ReadAll(r)
}

// Line is the text form of one entry, in full.
func Line(e tree.Entry, content []byte) string {
	name := e.Path
	if e.Kind == tree.Dir {
		name += "/"
	}
	if strings.ContainsAny(name, " \"\n") {
		name = strconv.Quote(name)
	}
	switch e.Kind {
	case tree.Whiteout:
		return name + " whiteout"
	case tree.Hardlink:
		return name + " => " + e.Linkname
	}
	words := []string{name}
	if e.Kind != tree.Symlink {
		words = append(words, fmt.Sprintf("0%o", e.Mode))
	}
	words = append(words, fmt.Sprintf("%d:%d", e.UID, e.GID), fmt.Sprintf("@%d", e.ModTime.Unix()))
	if e.Opaque {
		words = append(words, "opaque")
	}
	for _, k := range slices.Sorted(maps.Keys(e.Xattrs)) {
		words = append(words, "x:"+k+"="+strings.ReplaceAll(escape([]byte(e.Xattrs[k])), " ", `\x20`))
	}
	switch e.Kind {
	case tree.Symlink:
		words = append(words, "->", e.Linkname)
	case tree.CharDevice:
		words = append(words, fmt.Sprintf("c%d:%d", e.Major, e.Minor))
	case tree.BlockDevice:
		words = append(words, fmt.Sprintf("b%d:%d", e.Major, e.Minor))
	case tree.Fifo:
		words = append(words, "fifo")
	case tree.Socket:
		words = append(words, "socket")
	case tree.Regular:
		if len(content) > 0 {
			words = append(words, "=", escape(content))
		}
	}
	return strings.Join(words, " ")
}

func escape(content []byte) string {
	q := strconv.Quote(string(content))
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}
