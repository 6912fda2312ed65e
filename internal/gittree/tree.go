package gittree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"hako/internal/diag"
	"hako/internal/gitpack"
	"hako/internal/tree"
)

const (
	// maxPlaces and maxDirs bound how many directories are kept at hand.
	maxPlaces = 1 << 12
	maxDirs   = 1 << 10
	// maxConverted is the largest file whose lines or encoding are changed on the way.
	maxConverted = 256 << 20 // 256 MiB
)

// Tree is the file tree of a commit. It may be used from many goroutines.
type Tree struct {
	ctx     context.Context //nolint:containedctx // tree.Tree has no place for it; a Tree lives as long as a build
	fetcher *fetcher
	top     *repository
	root    *place
	time    time.Time
	gitDir  *gitDir   // nil if there is none
	lfs     *lfsFiles // nil if pointers stay as they are

	mu     sync.Mutex // guards what follows
	places map[string]*place
	dirs   map[dirKey]*dir
	sizes  map[string]int64 // of files that are converted
}

type dirKey struct {
	repo *repository
	id   gitpack.ID
}

// place is a directory of the tree.
type place struct {
	repo *repository // nil for a submodule that is not there: an empty directory
	id   gitpack.ID
	at   string // its path in repo
	// rules are the attributes that count here; nil if there are none.
	rules *ruleSet
}

var _ tree.Tree = (*Tree)(nil)

// newTree makes a tree of what was fetched.
func newTree(ctx context.Context, f *fetcher, top *repository) (*Tree, error) {
	t := &Tree{
		ctx: ctx, fetcher: f, top: top, time: f.options.Now,
		places: map[string]*place{}, dirs: map[dirKey]*dir{}, sizes: map[string]int64{},
	}
	if f.spec.CommitTimes {
		t.time = top.commit.time
	}
	if f.spec.LFS {
		t.lfs = newLFSFiles(ctx, t)
	}
	root, err := t.newPlace(top, top.commit.tree, ".", nil)
	if err != nil {
		return nil, err
	}
	sub := strings.Trim(path.Join("/", f.spec.Subdir), "/")
	if sub == "" {
		t.root = root
		if f.spec.KeepGitDir {
			t.gitDir, err = newGitDir(ctx, t)
		}
		return t, err
	}
	for name := range strings.SplitSeq(sub, "/") {
		if root, err = t.below(root, name); err != nil {
			return nil, &diag.Error{
				What: fmt.Sprintf("%s: directory %s", top.title(), clip(sub)), Cause: &SubdirError{reason(err)},
				Hint: "Name a directory of the repository, without symbolic links on the way.",
			}
		}
	}
	t.root = root
	return t, nil
}

// SubdirError says that [Spec].Subdir is no directory of the repository.
type SubdirError struct{ err error }

// Error is what is wrong with it.
func (e *SubdirError) Error() string { return e.err.Error() }

// Unwrap returns the cause.
func (e *SubdirError) Unwrap() error { return e.err }

// reason is what is wrong with a path, without the path.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// Commit is the id of the commit, in hexadecimal digits.
func (t *Tree) Commit() string { return t.top.id.String() }

// Format is the kind of hash that ids are: "sha1" or "sha256".
func (t *Tree) Format() string { return t.top.pack.Format().String() }

// Time is when the commit was made.
func (t *Tree) Time() time.Time { return t.top.commit.time }

// Close frees all that was fetched. The tree must not be used any more.
func (t *Tree) Close() error {
	var err error
	if t.lfs != nil {
		err = t.lfs.close()
	}
	return errors.Join(err, t.fetcher.close())
}

// Lstat implements [tree.Tree].
func (t *Tree) Lstat(p string) (tree.Entry, error) {
	e, err := t.lstat(p)
	if err != nil {
		return tree.Entry{}, &fs.PathError{Op: "lstat", Path: p, Err: err}
	}
	return e, nil
}

func (t *Tree) lstat(p string) (tree.Entry, error) {
	if p == "." {
		return tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755, ModTime: t.time}, nil
	}
	if t.gitDir != nil {
		if e, ok := t.gitDir.lstat(p); ok {
			return e, nil
		}
	}
	in, e, err := t.find(p)
	if err != nil {
		return tree.Entry{}, err
	}
	out := entryOf(e, p, t.time)
	switch e.kind {
	case file, executable:
		out.Size, err = t.size(in, e, p)
	case symlink:
		var data []byte
		data, err = in.repo.content().Bytes(t.ctx, e.id, gitpack.Blob, maxLink)
		out.Linkname = string(data)
		if err == nil && (len(data) == 0 || bytes.IndexByte(data, 0) >= 0) {
			err = errors.New("the target of the symbolic link is damaged")
		}
	}
	return out, err
}

// size is that of a file as it is read.
func (t *Tree) size(in *place, e entry, p string) (int64, error) {
	if ptr, ok, err := t.pointer(in, e); ok || err != nil {
		return ptr.Size, err
	}
	c := t.conversion(in, e)
	if c == nil {
		_, n, err := in.repo.content().Stat(e.id)
		return n, err
	}
	t.mu.Lock()
	n, ok := t.sizes[p]
	t.mu.Unlock()
	if ok {
		return n, nil
	}
	data, err := t.converted(in, e, c)
	if err != nil {
		return 0, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sizes[p] = int64(len(data))
	return int64(len(data)), nil
}

// ReadDir implements [tree.Tree].
func (t *Tree) ReadDir(p string) ([]string, error) {
	names, err := t.readDir(p)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: err}
	}
	return names, nil
}

func (t *Tree) readDir(p string) ([]string, error) {
	var more []string
	if t.gitDir != nil {
		names, own := t.gitDir.readDir(p)
		if own {
			return names, nil
		}
		more = names
	}
	in, err := t.place(p)
	if err != nil {
		return nil, err
	}
	d, err := t.dir(in)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(d.entries)+len(more))
	for _, e := range d.entries {
		names = append(names, e.name)
	}
	if len(more) > 0 {
		names = append(names, more...)
		slices.Sort(names)
	}
	return names, nil
}

// Open implements [tree.Tree].
func (t *Tree) Open(p string) (io.ReadCloser, error) {
	r, err := t.open(p)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	return r, nil
}

func (t *Tree) open(p string) (io.ReadCloser, error) {
	if t.gitDir != nil {
		if r, ok := t.gitDir.open(p); ok {
			return r, nil
		}
	}
	in, e, err := t.find(p)
	if err != nil {
		return nil, err
	}
	if e.kind != file && e.kind != executable {
		return nil, errors.New("it is not a regular file")
	}
	ptr, ok, err := t.pointer(in, e)
	switch {
	case err != nil:
		return nil, err
	case ok:
		return t.lfs.open(in.repo, ptr)
	}
	c := t.conversion(in, e)
	if c == nil {
		return in.repo.content().Open(t.ctx, e.id)
	}
	data, err := t.converted(in, e, c)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// conversion is what becomes of a file's content, or nil.
func (t *Tree) conversion(in *place, e entry) *conversion {
	if in.rules == nil {
		return nil
	}
	return newConversion(in.rules.of(path.Join(in.at, e.name)))
}

// converted is the content of a file as it is read.
func (t *Tree) converted(in *place, e entry, c *conversion) ([]byte, error) {
	data, err := in.repo.content().Bytes(t.ctx, e.id, gitpack.Blob, maxConverted)
	if err != nil {
		return nil, err
	}
	return c.apply(data, e.id)
}

// find returns the entry at p, and the directory that it is in.
func (t *Tree) find(p string) (*place, entry, error) {
	if p == "" || p[0] == '/' || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") {
		return nil, entry{}, fs.ErrNotExist
	}
	in, err := t.place(path.Dir(p))
	if err != nil {
		return nil, entry{}, err
	}
	d, err := t.dir(in)
	if err != nil {
		return nil, entry{}, err
	}
	e, ok := d.find(path.Base(p))
	if !ok {
		return nil, entry{}, fs.ErrNotExist
	}
	return in, e, nil
}

// place is the directory at p.
func (t *Tree) place(p string) (*place, error) {
	if p == "." {
		return t.root, nil
	}
	t.mu.Lock()
	in := t.places[p]
	t.mu.Unlock()
	if in != nil {
		return in, nil
	}
	above, err := t.place(path.Dir(p))
	if err != nil {
		return nil, err
	}
	if in, err = t.below(above, path.Base(p)); err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.places) >= maxPlaces {
		clear(t.places)
	}
	t.places[p] = in
	return in, nil
}

var errNotDir = errors.New("it is not a directory")

// below is the directory of that name in a directory.
func (t *Tree) below(in *place, name string) (*place, error) {
	d, err := t.dir(in)
	if err != nil {
		return nil, err
	}
	e, ok := d.find(name)
	if !ok {
		return nil, fs.ErrNotExist
	}
	at := path.Join(in.at, name)
	switch e.kind {
	case directory:
		return t.newPlace(in.repo, e.id, at, in.rules)
	case gitlink:
		sub := in.repo.subs[at]
		if sub == nil {
			return &place{}, nil
		}
		return t.newPlace(sub, sub.commit.tree, ".", nil)
	}
	return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, errNotDir)
}

// newPlace reads the attributes of a directory.
func (t *Tree) newPlace(repo *repository, id gitpack.ID, at string, rules *ruleSet) (*place, error) {
	in := &place{repo: repo, id: id, at: at, rules: rules}
	if !repo.attrs {
		return in, nil
	}
	d, err := t.dir(in)
	if err != nil || !d.attributes {
		return in, err
	}
	e, _ := d.find(attributesName)
	data, err := repo.content().Bytes(t.ctx, e.id, gitpack.Blob, maxAttributes)
	if err != nil {
		return nil, err
	}
	in.rules = parseAttributes(at, string(data), rules)
	return in, nil
}

// dir reads a directory.
func (t *Tree) dir(in *place) (*dir, error) {
	if in.repo == nil {
		return &dir{}, nil
	}
	key := dirKey{in.repo, in.id}
	t.mu.Lock()
	d := t.dirs[key]
	t.mu.Unlock()
	if d != nil {
		return d, nil
	}
	d, err := in.repo.readDir(t.ctx, in.id)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.dirs) >= maxDirs {
		clear(t.dirs)
	}
	t.dirs[key] = d
	return d, nil
}
