// Package buildcontext opens the build context: where COPY and ADD find their files, and where the Dockerfile is.
//
// A context is a tree.Tree without host paths. It cannot be left: no look-up follows a symbolic link, whatever the
// context has in it and whoever changes it meanwhile. It is only ever read. What .dockerignore leaves out is not there.
package buildcontext

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"hako/internal/diag"
	"hako/internal/tree"
)

// Options says what to open.
type Options struct {
	// Name is what people call a named context ("context docs"); empty for the build context itself.
	Name string
	// Source is a path or "dir://" and a path. A relative one is looked up in Cwd, then in "/".
	Source string
	// Tree, if not nil, is the context, from wherever it comes; Source is then only what people call it.
	Tree tree.Tree
	// Given, if not nil, is the Dockerfile, which is then not looked up.
	Given *File
	// SubPath is a directory in it that takes its place; empty for none.
	SubPath string
	// Dockerfile is a path that is looked up in Cwd, then in the context. Empty means "Dockerfile" in the context,
	// then in Cwd.
	Dockerfile string
	// Cwd is the absolute directory that relative paths are relative to.
	Cwd string
	// Exclude are absolute paths to leave out if they are in the context: what the builder itself reads and writes.
	Exclude []string
	// Plain says that OpenTree does not look at the tree's .dockerignore.
	Plain bool
	// Now is the time of the context's root directory; the zero value means its own.
	Now time.Time
}

// File is a file that was read before the context was opened.
type File struct {
	// Name is how the user knows it.
	Name    string
	Content []byte
}

// Context is an open build context.
type Context struct {
	// Dockerfile is the content of the Dockerfile, DockerfileName its name as the user knows it.
	Dockerfile     []byte
	DockerfileName string
	// IgnoreName is the file with the ignore patterns, empty if there is none.
	IgnoreName string
	// IgnorePatterns are the patterns in it.
	IgnorePatterns []string
	// Excluded are those of Options.Exclude that the context has, relative to it.
	Excluded []string

	tree tree.Tree
	root *root
}

// Tree is the context's tree. Its files belong to root, whoever owns them. It must not be used after Close.
func (c *Context) Tree() tree.Tree { return c.tree }

// Close frees what the tree holds, but not a tree that was given. It is idempotent.
func (c *Context) Close() error {
	if err := c.root.close(); err != nil {
		return fmt.Errorf("close the build context: %w", err)
	}
	return nil
}

// Open opens a build context and reads its Dockerfile and ignore patterns. What the user can mend is a *diag.Error.
//
// A directory that does not exist is an error only if the Dockerfile is not elsewhere; reads of the tree fail then.
func Open(ctx context.Context, o Options) (*Context, error) { return open(ctx, &o, (*Context).load) }

// OpenTree opens a further context, one without a Dockerfile of its own: only its .dockerignore counts.
// Options.Dockerfile and Given have no meaning here. What the user can mend is a *diag.Error.
func OpenTree(ctx context.Context, o Options) (*Context, error) {
	return open(ctx, &o, (*Context).loadTree)
}

// OpenSent opens a context as it is sent elsewhere to be built there: without what its ignore file leaves out, but with that
// file and the Dockerfile. There need not be a Dockerfile in it: its name is empty then. What the user can mend is a *diag.Error.
func OpenSent(ctx context.Context, o Options) (*Context, error) {
	return open(ctx, &o, (*Context).loadSent)
}

// open opens the root, of which load reads what it needs.
func open(ctx context.Context, o *Options, load func(*Context, context.Context, *Options) error) (*Context, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r, err := openRoot(o)
	if err != nil {
		return nil, err
	}
	c := &Context{root: r}
	if err := load(c, ctx, o); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return c, nil
}

// loadTree reads the ignore file.
func (c *Context) loadTree(ctx context.Context, o *Options) error {
	if c.root.absent != nil {
		return c.root.absent
	}
	if o.Plain {
		return c.filter(ctx, nil, o)
	}
	content, err := readIn(c.root.tree, ignoreName)
	switch {
	case err == nil:
		c.IgnoreName = ignoreName
	case !missing(err):
		return err
	}
	return c.filter(ctx, content, o)
}

// loadSent reads what is to be left out.
func (c *Context) loadSent(ctx context.Context, o *Options) error {
	if c.root.absent != nil {
		return c.root.absent
	}
	names := []string{ignoreName}
	for _, f := range spellings(path.Clean("/" + cmp.Or(o.Dockerfile, defaultName))[1:]) {
		names = append(names, f, f+ignoreName)
		if text, err := readIn(c.root.tree, f); err == nil && c.DockerfileName == "" {
			c.Dockerfile, c.DockerfileName = text, f
		}
		if c.IgnoreName == "" {
			if _, err := readIn(c.root.tree, f+ignoreName); err == nil {
				c.IgnoreName = f + ignoreName
			}
		}
	}
	if c.IgnoreName == "" {
		c.IgnoreName = ignoreName
	}
	content, err := readIn(c.root.tree, c.IgnoreName)
	if missing(err) {
		c.IgnoreName, err = "", nil
	}
	if err == nil {
		err = c.filter(ctx, content, o)
	}
	if f, ok := c.tree.(*filtered); ok && err == nil {
		f.always = reached(c.root.tree, names)
	}
	return err
}

// reached are those of the paths that are there, with what they are links to.
func reached(t tree.Tree, paths []string) []string {
	var out []string
	for _, p := range paths {
		if _, err := t.Lstat(p); err != nil {
			continue
		}
		out = append(out, p)
		if at, err := tree.Resolve(t, p, true); err == nil && at != p {
			out = append(out, at)
		}
	}
	return out
}

// load reads the Dockerfile and what is to be left out.
func (c *Context) load(ctx context.Context, o *Options) error {
	file, err := findDockerfile(c.root, o)
	if err != nil {
		return err
	}
	c.Dockerfile, c.DockerfileName = file.content, file.name
	content, err := c.ignoreFile(file)
	if err != nil {
		return err
	}
	return c.filter(ctx, content, o)
}

// filter makes the tree: the context without what the options and the patterns of an ignore file leave out.
func (c *Context) filter(ctx context.Context, ignore []byte, o *Options) error {
	c.tree = c.root.tree
	if c.root.dir != nil {
		paths := within(c.root.path, o.Exclude)
		for _, p := range paths {
			if _, err := c.root.dir.lstat(p); err == nil {
				c.Excluded = append(c.Excluded, p)
			}
		}
		c.root.dir.exclude(paths)
	}
	patterns, err := parseIgnore(ignore)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.IgnoreName, err)
	}
	c.IgnorePatterns = patterns
	if len(patterns) == 0 {
		return nil
	}
	m, err := newMatcher(ctx, patterns)
	if err != nil {
		return &diag.Error{What: "read " + c.IgnoreName, Cause: err, Hint: "Mend the pattern; see the rules of path/filepath.Match."}
	}
	c.tree = newFiltered(c.root.tree, m, c.IgnoreName)
	return nil
}

// ignoreName is the file that says what is left out of a context.
const ignoreName = ".dockerignore"

// ignoreFile reads the Dockerfile's own ignore file, or .dockerignore. It returns nil if there is none.
func (c *Context) ignoreFile(d *dockerfile) ([]byte, error) {
	content, err := d.sibling(d.name + ignoreName)
	if err == nil {
		c.IgnoreName = d.name + ignoreName
	} else if errors.Is(err, fs.ErrNotExist) {
		content, err = readIn(c.root.tree, ignoreName)
		c.IgnoreName = ignoreName
	}
	if c.root.lacks(err) {
		c.IgnoreName = ""
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the ignore patterns: %w", err)
	}
	return content, nil
}

// reason is what the system said, without the name of the call.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// missing tells whether err is about a path that does not exist.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func isDirectory(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

// within returns those of the absolute paths that are inside dir, relative to it.
func within(dir string, paths []string) []string {
	root := realPath(dir)
	var out []string
	for _, p := range paths {
		rel, err := filepath.Rel(root, realPath(p))
		if err == nil && filepath.IsLocal(rel) && rel != "." {
			out = append(out, rel)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// realPath follows the links of a path as far as it exists.
func realPath(p string) string {
	for tail := ""; ; {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			return filepath.Join(real, tail)
		}
		dir := filepath.Dir(p)
		if dir == p {
			return filepath.Join(p, tail)
		}
		p, tail = dir, filepath.Join(filepath.Base(p), tail)
	}
}
