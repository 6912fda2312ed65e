package buildcontext

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
	"hako/internal/tree"
)

// root is a context before anything is left out.
type root struct {
	tree tree.Tree
	// dir and path are those of a directory of the machine; nil and empty if it is from elsewhere.
	dir  *dir
	path string
	// absent is why the directory could not be opened; nil if it could.
	absent error
}

// openRoot opens the context, or the part of it that takes its place.
func openRoot(o *Options) (*root, error) {
	if o.Tree != nil {
		return openGiven(o)
	}
	path, err := locate(o)
	if err != nil {
		return nil, err
	}
	d, err := openDir(path, o.Now)
	if missing(err) {
		err = o.openError(errors.New(reason(err).Error())) // that there is no context is not that a file in it is missing
		return &root{tree: noContext{err}, path: path, absent: err}, nil
	}
	if err != nil {
		return nil, o.openError(err)
	}
	return &root{tree: d, dir: d, path: path}, nil
}

// openGiven takes the tree of the options, or the part of it that takes its place.
func openGiven(o *Options) (*root, error) {
	if o.SubPath == "" {
		return &root{tree: o.Tree}, nil
	}
	at, err := findSubPath(o.Tree, o.SubPath)
	if err != nil {
		return nil, err
	}
	if at == "." {
		return &root{tree: o.Tree}, nil
	}
	return &root{tree: &part{whole: o.Tree, at: at, now: o.Now}}, nil
}

// lacks tells whether err is about a path that does not exist.
func (r *root) lacks(err error) bool {
	return missing(err) || r.absent != nil && errors.Is(err, r.absent)
}

// close frees what openRoot opened.
func (r *root) close() error {
	if r.dir == nil {
		return nil
	}
	return r.dir.close()
}

// noContext is the tree of a directory that does not exist.
type noContext struct{ err error }

var _ tree.Tree = noContext{}

// Lstat says that there is no context.
func (n noContext) Lstat(string) (tree.Entry, error) { return tree.Entry{}, n.err }

// ReadDir says that there is no context.
func (n noContext) ReadDir(string) ([]string, error) { return nil, n.err }

// Open says that there is no context.
func (n noContext) Open(string) (io.ReadCloser, error) { return nil, n.err }

// part is a directory of a tree as a tree.
type part struct {
	whole tree.Tree
	at    string
	now   time.Time // of the root
}

var _ tree.Tree = (*part)(nil)

// inside is the path in the whole tree.
func (t *part) inside(op, p string) (string, error) {
	if !valid(p) {
		return "", &fs.PathError{Op: op, Path: p, Err: fs.ErrNotExist}
	}
	if p == "." {
		return t.at, nil
	}
	return t.at + "/" + p, nil
}

// Lstat describes the entry at p.
func (t *part) Lstat(p string) (tree.Entry, error) {
	if p == "." {
		return tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755, ModTime: t.now}, nil
	}
	at, err := t.inside("lstat", p)
	if err != nil {
		return tree.Entry{}, err
	}
	e, err := t.whole.Lstat(at)
	e.Path = p
	return e, err
}

// ReadDir returns the names in the directory at p.
func (t *part) ReadDir(p string) ([]string, error) {
	at, err := t.inside("readdir", p)
	if err != nil {
		return nil, err
	}
	return t.whole.ReadDir(at)
}

// Open reads the regular file at p.
func (t *part) Open(p string) (io.ReadCloser, error) {
	at, err := t.inside("open", p)
	if err != nil {
		return nil, err
	}
	return t.whole.Open(at)
}

// ContentDigest is the digest of the file at p, if the whole tree knows it without reading the file.
func (t *part) ContentDigest(p string) (digest.Digest, bool) {
	at, err := t.inside("digest", p)
	if err != nil {
		return "", false
	}
	return contentDigest(t.whole, at)
}

// locate finds the directory of the context.
func locate(o *Options) (string, error) {
	source := o.Source
	if scheme, rest, ok := strings.Cut(source, "://"); ok {
		if scheme != "dir" {
			return "", &diag.Error{
				What: fmt.Sprintf("%s %s://…: there is no such kind of context", o.title(), scheme),
				Hint: fmt.Sprintf("Give a directory with %s.", o.flag()),
			}
		}
		source = rest
	}
	if source == "" {
		return "", &diag.Error{What: "there is no build context", Hint: "Give a directory with --context."}
	}
	path := source
	if !filepath.IsAbs(path) {
		path = filepath.Join(o.Cwd, source)
		if _, err := os.Stat(path); missing(err) {
			if top := filepath.Join("/", source); isDirectory(top) {
				path = top
			}
		}
	}
	if o.SubPath == "" {
		return path, nil
	}
	return subDirectory(path, o)
}

// subDirectory finds a directory inside the context's directory.
func subDirectory(path string, o *Options) (string, error) {
	d, err := openDir(path, time.Time{})
	if err != nil {
		return "", o.openError(err)
	}
	defer d.close() //nolint:errcheck // nothing was written
	at, err := findSubPath(d, o.SubPath)
	if err != nil {
		return "", err
	}
	return filepath.Join(path, at), nil
}

// findSubPath finds a directory inside a context, through links that do not leave it.
func findSubPath(whole tree.Tree, sub string) (string, error) {
	const hint = "Give the path of a directory inside the context."
	if !filepath.IsLocal(strings.TrimLeft(sub, "/")) {
		return "", &diag.Error{What: fmt.Sprintf("--context-sub-path %s leaves the build context", sub), Hint: hint}
	}
	at, err := tree.Resolve(whole, sub, true)
	if err == nil {
		var e tree.Entry
		if e, err = whole.Lstat(at); err == nil && e.Kind != tree.Dir {
			err = syscall.ENOTDIR
		}
	}
	if err != nil {
		return "", &diag.Error{What: "--context-sub-path " + sub, Cause: reason(err), Hint: hint}
	}
	return at, nil
}

// openError says which context could not be opened.
func (o *Options) openError(err error) error {
	return &diag.Error{
		What: fmt.Sprintf("open %s %s", o.title(), o.Source), Cause: reason(err),
		Hint: fmt.Sprintf("Give a directory that exists and can be read with %s.", o.flag()),
	}
}

// title is what people call the context.
func (o *Options) title() string {
	if o.Name != "" {
		return o.Name
	}
	return "build context"
}

// flag is where the context was given.
func (o *Options) flag() string {
	if o.Name != "" {
		return "--build-context"
	}
	return "--context"
}
