// Package buildcontext opens the build context: where COPY and ADD find their files, and where the Dockerfile is.
//
// A context is a tree.Tree without host paths. It cannot be left: no look-up follows a symbolic link, whatever the
// context has in it and whoever changes it meanwhile. It is only ever read. What .dockerignore leaves out is not there.
package buildcontext

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	// SubPath is a directory in it that takes its place; empty for none.
	SubPath string
	// Dockerfile is a path that is looked up in Cwd, then in the context. Empty means "Dockerfile" in the context,
	// then in Cwd.
	Dockerfile string
	// Cwd is the absolute directory that relative paths are relative to.
	Cwd string
	// Exclude are absolute paths to leave out if they are in the context: the builder's own work directory.
	Exclude []string
	// Now is the time of the context's root directory; the zero value means its own.
	Now time.Time
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

	tree tree.Tree
	dir  *dir
}

// Tree is the context's tree. Its files belong to root, whoever owns them. It must not be used after Close.
func (c *Context) Tree() tree.Tree { return c.tree }

// Close frees what the tree holds. It is idempotent.
func (c *Context) Close() error {
	if err := c.dir.close(); err != nil {
		return fmt.Errorf("close the build context: %w", err)
	}
	return nil
}

// Open opens a build context and reads its Dockerfile and ignore patterns. What the user can mend is a *diag.Error.
func Open(ctx context.Context, o Options) (*Context, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	path, err := locate(&o)
	if err != nil {
		return nil, err
	}
	d, err := openDir(path, o.Now)
	if err != nil {
		return nil, o.openError(err)
	}
	c := &Context{dir: d}
	if err := c.load(&o, path); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return c, nil
}

// OpenTree opens a further context, one without a Dockerfile of its own: only its .dockerignore counts.
// Options.Dockerfile has no meaning here. What the user can mend is a *diag.Error.
func OpenTree(ctx context.Context, o Options) (*Context, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	path, err := locate(&o)
	if err != nil {
		return nil, err
	}
	d, err := openDir(path, o.Now)
	if err != nil {
		return nil, o.openError(err)
	}
	c := &Context{dir: d}
	content, err := readIn(d, ignoreName)
	if err == nil {
		c.IgnoreName = ignoreName
	} else if missing(err) {
		err = nil
	}
	if err == nil {
		err = c.filter(content, within(path, o.Exclude))
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return c, nil
}

// load reads the Dockerfile and what is to be left out.
func (c *Context) load(o *Options, path string) error {
	file, err := findDockerfile(c.dir, o, path)
	if err != nil {
		return err
	}
	c.Dockerfile, c.DockerfileName = file.content, file.name
	content, err := c.ignoreFile(file)
	if err != nil {
		return err
	}
	return c.filter(content, within(path, o.Exclude))
}

// filter makes the tree: the directory without the paths in exclude and what the patterns of an ignore file say.
func (c *Context) filter(ignore []byte, exclude []string) error {
	c.tree = c.dir
	c.dir.exclude(exclude)
	patterns, err := parseIgnore(ignore)
	if err != nil {
		return fmt.Errorf("read %s: %w", c.IgnoreName, err)
	}
	c.IgnorePatterns = patterns
	if len(patterns) == 0 {
		return nil
	}
	m, err := newMatcher(patterns)
	if err != nil {
		return &diag.Error{What: "read " + c.IgnoreName, Cause: err, Hint: "Mend the pattern; see the rules of path/filepath.Match."}
	}
	c.tree = newFiltered(c.dir, m, c.IgnoreName)
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
		content, err = readIn(c.dir, ignoreName)
		c.IgnoreName = ignoreName
	}
	if missing(err) {
		c.IgnoreName = ""
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the ignore patterns: %w", err)
	}
	return content, nil
}

// locate finds the directory of the context.
func locate(o *Options) (string, error) {
	source := o.Source
	if scheme, rest, ok := strings.Cut(source, "://"); ok {
		if scheme != "dir" {
			return "", &diag.Error{
				What: fmt.Sprintf("%s %s://…: this kind of context is not supported yet", o.title(), scheme),
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

// subDirectory finds a directory inside the context, through links that do not leave it.
func subDirectory(path string, o *Options) (string, error) {
	root, err := openDir(path, time.Time{})
	if err != nil {
		return "", o.openError(err)
	}
	defer root.close() //nolint:errcheck // nothing was written
	outside := &diag.Error{
		What: fmt.Sprintf("--context-sub-path %s leaves the build context", o.SubPath),
		Hint: "Give the path of a directory inside the context.",
	}
	if !filepath.IsLocal(strings.TrimLeft(o.SubPath, "/")) {
		return "", outside
	}
	at, err := tree.Resolve(root, o.SubPath, true)
	if err == nil {
		var e tree.Entry
		if e, err = root.Lstat(at); err == nil && e.Kind != tree.Dir {
			err = syscall.ENOTDIR
		}
	}
	if err == nil {
		return filepath.Join(path, at), nil
	}
	return "", &diag.Error{
		What: "--context-sub-path " + o.SubPath, Cause: reason(err),
		Hint: "Give the path of a directory inside the context.",
	}
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
	return out
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
