package buildcontext

import (
	"errors"
	"io"
	"io/fs"
	"path"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// filtered is a tree without what patterns leave out. A directory that is left out is there if something in it is not.
type filtered struct {
	under tree.Tree
	match *matcher
	name  string // of the file with the patterns
	// always are paths that are there whatever the patterns say.
	always []string

	mu    sync.Mutex // guards holds
	holds map[string]bool
}

var _ tree.Tree = (*filtered)(nil)

func newFiltered(under tree.Tree, m *matcher, name string) *filtered {
	return &filtered{under: under, match: m, name: name, holds: map[string]bool{}}
}

// Lstat describes the entry at p.
func (f *filtered) Lstat(p string) (tree.Entry, error) {
	if err := f.check("lstat", p); err != nil {
		return tree.Entry{}, err
	}
	return f.under.Lstat(p)
}

// Open reads the regular file at p.
func (f *filtered) Open(p string) (io.ReadCloser, error) {
	if err := f.check("open", p); err != nil {
		return nil, err
	}
	return f.under.Open(p)
}

// ReadDir returns the names in the directory at p.
func (f *filtered) ReadDir(p string) ([]string, error) {
	if err := f.check("readdir", p); err != nil {
		return nil, err
	}
	names, err := f.under.ReadDir(p)
	if err != nil {
		return nil, err
	}
	out := names[:0]
	for _, name := range names {
		ok, err := f.shows(path.Join(p, name))
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, name)
		}
	}
	return out, nil
}

// Excluded returns the pattern that leaves p out, and the file that it is in.
func (f *filtered) Excluded(p string) (pattern, file string, ok bool) {
	if _, err := f.under.Lstat(p); err != nil {
		return "", "", false
	}
	pattern = f.match.cause(p)
	return pattern, f.name, pattern != ""
}

func (f *filtered) check(op, p string) error {
	ok, err := f.shows(p)
	if err != nil {
		return err
	}
	if !ok {
		return &fs.PathError{Op: op, Path: p, Err: fs.ErrNotExist}
	}
	return nil
}

// shows tells whether the tree has p, if the tree under it has.
func (f *filtered) shows(p string) (bool, error) {
	if p == "." || slices.ContainsFunc(f.always, func(a string) bool { return tree.Within(a, p) }) {
		return true, nil
	}
	out, err := f.match.excluded(p)
	if err != nil || !out {
		return err == nil, err
	}
	if !f.match.mayHold(p) {
		return false, nil
	}
	e, err := f.under.Lstat(p)
	if err != nil || e.Kind != tree.Dir {
		return false, ignoreMissing(err)
	}
	return f.holdsSomething(p)
}

// holdsSomething tells whether anything in the directory dir, which is left out, comes back.
func (f *filtered) holdsSomething(dir string) (bool, error) {
	f.mu.Lock()
	known, ok := f.holds[dir]
	f.mu.Unlock()
	if ok {
		return known, nil
	}
	names, err := f.under.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrPermission) { // what cannot be read and is left out does not matter
		return false, ignoreMissing(err)
	}
	found := false
	for _, name := range names {
		if found, err = f.shows(path.Join(dir, name)); err != nil {
			return false, err
		}
		if found {
			break
		}
	}
	f.mu.Lock()
	f.holds[dir] = found
	f.mu.Unlock()
	return found, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// ContentDigest is the digest of the file at p, if the tree under this one knows it without reading the file.
func (f *filtered) ContentDigest(p string) (digest.Digest, bool) {
	if f.check("digest", p) != nil {
		return "", false
	}
	return contentDigest(f.under, p)
}

// contentDigest asks a tree for the digest of a file, which it need not read for that.
func contentDigest(t tree.Tree, p string) (digest.Digest, bool) {
	d, ok := t.(interface {
		ContentDigest(path string) (digest.Digest, bool)
	})
	if !ok {
		return "", false
	}
	return d.ContentDigest(p)
}
