package gittree

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"hako/internal/gitpack"
	"hako/internal/tree"
)

const (
	maxCommit = 16 << 20 // 16 MiB: commits and tags hold messages and signatures
	maxTree   = 64 << 20 // 64 MiB: about a million entries
	maxLink   = 4095     // PATH_MAX of Linux, without the zero
	maxName   = 255      // NAME_MAX of Linux
)

// header is the part of a commit or a tag before its message.
type header struct{ lines []string }

// parseHeader cuts off the message.
func parseHeader(data []byte) header {
	head, _, _ := bytes.Cut(data, []byte("\n\n"))
	return header{lines: strings.Split(string(head), "\n")}
}

// value is what stands after the first line's word of that name.
func (h header) value(name string) string {
	for _, l := range h.lines {
		if v, ok := strings.CutPrefix(l, name+" "); ok {
			return v
		}
	}
	return ""
}

// commit is what a tree needs of a commit.
type commit struct {
	tree gitpack.ID
	time time.Time // of the committer
}

func parseCommit(f gitpack.Format, data []byte) (*commit, error) {
	h := parseHeader(data)
	id, err := gitpack.ParseID(f, h.value("tree"))
	if err != nil {
		return nil, fmt.Errorf("the commit is damaged: %w", err)
	}
	c := &commit{tree: id, time: time.Unix(0, 0)}
	words := strings.Fields(h.value("committer"))
	if len(words) >= 2 {
		if sec, err := strconv.ParseInt(words[len(words)-2], 10, 64); err == nil && sec >= 0 && sec < 1<<40 {
			c.time = time.Unix(sec, 0)
		}
	}
	return c, nil
}

// parseTag returns what a tag stands for.
func parseTag(f gitpack.Format, data []byte) (gitpack.ID, error) {
	id, err := gitpack.ParseID(f, parseHeader(data).value("object"))
	if err != nil {
		return id, fmt.Errorf("the tag is damaged: %w", err)
	}
	return id, nil
}

// entry is one name in a directory of a commit.
type entry struct {
	name string
	kind entryKind
	id   gitpack.ID
}

// entryKind is what git has in its trees.
type entryKind uint8

const (
	file entryKind = iota + 1
	executable
	symlink
	directory
	gitlink // a commit of another repository
)

// dir is a directory of a commit, sorted by name.
type dir struct {
	entries []entry
	// attributes says that there is a .gitattributes file.
	attributes bool
}

// find returns the entry of that name.
func (d *dir) find(name string) (entry, bool) {
	i, ok := slices.BinarySearchFunc(d.entries, name, func(e entry, n string) int { return strings.Compare(e.name, n) })
	if !ok {
		return entry{}, false
	}
	return d.entries[i], true
}

// attributesName is the file with rules for how files are written.
const attributesName = ".gitattributes"

var errDamaged = errors.New("the directory is damaged")

// parseDir reads a tree object. What git would not write to a disk is an error.
func parseDir(f gitpack.Format, data []byte) (*dir, error) {
	d := &dir{}
	text := string(data) // the names are pieces of it
	for len(text) > 0 {
		mode, rest, ok := strings.Cut(text, " ")
		name, rest, ok2 := strings.Cut(rest, "\x00")
		if !ok || !ok2 || len(rest) < f.Size() {
			return nil, errDamaged
		}
		kind, err := parseMode(mode)
		if err != nil {
			return nil, err
		}
		if err := checkName(name); err != nil {
			return nil, err
		}
		d.entries = append(d.entries, entry{name: name, kind: kind, id: gitpack.NewID([]byte(rest[:f.Size()]))})
		d.attributes = d.attributes || name == attributesName && (kind == file || kind == executable)
		text = rest[f.Size():]
	}
	slices.SortFunc(d.entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	for i := 1; i < len(d.entries); i++ {
		if d.entries[i].name == d.entries[i-1].name {
			return nil, fmt.Errorf("%w: it has %q twice", errDamaged, clip(d.entries[i].name))
		}
	}
	return d, nil
}

// parseMode reads the mode of an entry. Of a file's, git keeps only whether its owner may execute it.
func parseMode(s string) (entryKind, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return 0, errDamaged
	}
	const mask, isDir, isFile, isLink, isCommit = 0o170000, 0o040000, 0o100000, 0o120000, 0o160000
	switch n & mask {
	case isDir:
		return directory, nil
	case isLink:
		return symlink, nil
	case isCommit:
		return gitlink, nil
	case isFile:
		if n&0o100 != 0 {
			return executable, nil
		}
		return file, nil
	}
	return 0, fmt.Errorf("%w: an entry has the mode %s", errDamaged, clip(s))
}

// checkName refuses names that would lead out of the tree, or into a repository's own files.
func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..", strings.Contains(name, "/"), strings.EqualFold(name, ".git"):
		return fmt.Errorf("the name %q is not allowed in a repository", clip(name))
	case len(name) > maxName:
		return fmt.Errorf("the name %q is longer than Linux allows", clip(name))
	}
	return nil
}

// clip keeps a hostile name from flooding the log.
func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// entryOf describes e as a tree does, but for its size and the target of a link.
func entryOf(e entry, path string, at time.Time) tree.Entry {
	out := tree.Entry{Path: path, Mode: 0o644, Kind: tree.Regular, ModTime: at}
	switch e.kind {
	case executable:
		out.Mode = 0o755
	case symlink:
		out.Kind, out.Mode = tree.Symlink, 0o777
	case directory, gitlink:
		out.Kind, out.Mode = tree.Dir, 0o755
	}
	return out
}
