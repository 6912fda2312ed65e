package filecopy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"hako/internal/diag"
	"hako/internal/layer"
	"hako/internal/tree"
)

// Find follows the symbolic links of p inside from, and returns the literal path of what is there.
// name is from for people. That there is nothing is a *diag.Error without a position.
func Find(from tree.Tree, name, p string) (string, error) {
	at, err := tree.Resolve(from, p, true)
	if err == nil {
		_, err = from.Lstat(at)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", &diag.Error{What: fmt.Sprintf("/%s is not in %s", literal(p), name), Hint: hint(from, literal(p))}
	}
	if err != nil {
		return "", fmt.Errorf("find /%s in %s: %w", literal(p), name, err)
	}
	return at, nil
}

// Subtree returns the changes that make a tree of what is at the literal path p of from, with the directories on the way to it.
// name is from for people. They read from the tree when they are streamed.
func Subtree(from tree.Tree, name, p string) layer.Changes {
	return &subtree{from: from, name: name, path: p}
}

type subtree struct {
	from tree.Tree
	name string
	path string
}

// Each calls fn for every entry in order. See layer.Changes.
func (p *subtree) Each(ctx context.Context, fn func(e tree.Entry, content io.Reader) error) error {
	read := &subtreeReader{subtree: p}
	err := layer.Diff(read, nothing{}).Each(ctx, fn)
	if read.failed != nil && err != nil && context.Cause(ctx) == nil {
		c := copier{name: "RUN --mount", req: &Request{FromName: p.name}}
		return c.readError(read.failed.path, read.failed.err)
	}
	return err
}

// subtreeReader is a part as a tree. It notes what could not be read. It is not safe for concurrent use.
type subtreeReader struct {
	*subtree
	failed *failure
}

type failure struct {
	path string
	err  error
}

var _ tree.Tree = (*subtreeReader)(nil)

func (t *subtreeReader) note(p string, err error) error {
	if err != nil && t.failed == nil {
		t.failed = &failure{p, err}
	}
	return err
}

// Lstat describes the entry at p, which ReadDir named.
func (t *subtreeReader) Lstat(p string) (tree.Entry, error) {
	e, err := t.from.Lstat(p)
	return e, t.note(p, err)
}

// Open reads the file at p.
func (t *subtreeReader) Open(p string) (io.ReadCloser, error) {
	r, err := t.from.Open(p)
	return r, t.note(p, err)
}

// ReadDir returns the names in the directory at p: on the way to the part, just the next one.
func (t *subtreeReader) ReadDir(p string) ([]string, error) {
	if p != t.path && tree.Within(t.path, p) {
		next := t.path
		for path.Dir(next) != p {
			next = path.Dir(next)
		}
		return []string{path.Base(next)}, nil
	}
	names, err := t.from.ReadDir(p)
	return names, t.note(p, err)
}

// nothing is a tree without any entry but its root.
type nothing struct{}

func (nothing) Lstat(p string) (tree.Entry, error) {
	if p == "." {
		return tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755}, nil
	}
	return tree.Entry{}, &fs.PathError{Op: "lstat", Path: p, Err: fs.ErrNotExist}
}

func (nothing) ReadDir(string) ([]string, error) { return nil, nil }

func (nothing) Open(p string) (io.ReadCloser, error) {
	return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
}
