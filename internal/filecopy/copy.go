// Package filecopy turns COPY, ADD and WORKDIR into changes: it works out what the instruction makes of the stage's
// tree and streams it in the normal form of layer.Changes. Nothing is mounted, no privilege is needed, and no content
// is read before it is written out.
//
// The meaning is BuildKit's to the letter, odd corners included: the instruction is carried out step by step,
// as a privileged builder would in a mounted root, on a draft in memory.
package filecopy

import (
	"context"
	"fmt"
	"os"
	"path"
	"strings"
	"time"

	"hako/internal/diag"
	"hako/internal/spool"
	"hako/internal/tree"
)

// Request is one COPY or ADD instruction.
type Request struct {
	// Below is the stage so far; nil if it is empty (FROM scratch).
	Below tree.Tree
	// From is where Paths are looked up. It may be nil if there are none.
	From tree.Tree
	// Sparse says that From is to be taken for a tree that has only what the sources name, as the build context
	// that is sent to BuildKit has: directories that wildcards of --parents find are there if something in them matches.
	Sparse bool
	// FromName is From for people: "the build context", "stage build", "image debian:12".
	FromName string
	// Paths are the source patterns, in order. Inline are copied after them.
	Paths  []string
	Inline []Inline
	// Fetched, if there are any, say for each of Paths where it is looked up instead of From; nil is From.
	// Such a path is no pattern, and stands for itself if it is a symbolic link.
	Fetched []*Source
	// Parents, if there are any, say for each of Paths what is taken of that directory, together with the directories
	// on the way to it (--parents).
	Parents []Part
	// Exclude are patterns, as in a .dockerignore, of what is left out of directories. They are relative to each source.
	Exclude []string
	// Dest is absolute; a trailing slash, which makes it a directory, counts.
	Dest string
	// Chown is "user[:group]" by name or number in Below; empty keeps the owners of From.
	Chown string
	// Chmod is octal or symbolic text, or empty.
	Chmod string
	// Add marks ADD, for messages.
	Add bool
	// Unpack says that archives among the sources are unpacked.
	Unpack bool
	// Now is the time of what is made but not copied.
	Now time.Time
	// Spool makes an empty file, with no name, for the content of compressed archives; only ADD needs it.
	Spool func() (*os.File, error)
	// MaxUnpacked bounds what the archives of one ADD may hold together, in bytes; 0 means 1 TiB.
	MaxUnpacked int64
}

const (
	defaultMaxUnpacked = 1 << 40 // 1 TiB
	maxPath            = 4096    // PATH_MAX of Linux
)

// Source is a tree that is copied from.
type Source struct {
	Tree tree.Tree
	// Name is the tree for people.
	Name string
	// Unpack says that archives in it are unpacked.
	Unpack bool
}

// Part is the part of a directory that --parents takes.
type Part struct {
	// Pattern is relative to the directory, as in a .dockerignore.
	Pattern string
	// Required says that something has to match.
	Required bool
}

// Inline is a heredoc: a file whose content is in the Dockerfile.
type Inline struct {
	Name string
	Data []byte
}

// Copy works out what the instruction changes. The changes read from the request's trees when they are streamed,
// and have to be closed. What the user can mend is a *diag.Error without a position.
func Copy(ctx context.Context, req *Request) (*Changes, error) {
	c, err := newCopier(ctx, req)
	if err != nil {
		return nil, err
	}
	if err = c.run(); err == nil {
		if err = c.spool.Finish(); err != nil {
			err = fmt.Errorf("%s: write the content of archives: %w", c.name, err)
		}
	}
	if err != nil {
		c.spool.Close() //nolint:errcheck // it was only written to
		return nil, err
	}
	return &Changes{name: c.name, draft: c.draft, spool: c.spool, warnings: c.warnings}, nil
}

// MkdirRequest is a WORKDIR whose directory has to exist.
type MkdirRequest struct {
	// Below is the stage so far; nil if it is empty.
	Below tree.Tree
	// Path is absolute.
	Path string
	// User is the USER text that owns what is made; empty for root.
	User string
	// Now is the time of what is made, and of what it is made in.
	Now time.Time
	// Created, if not nil, is that of the directory itself if it is made. Its parents have Now in any case: as in BuildKit,
	// they change when it is made in them.
	Created *time.Time
}

// Mkdir makes a directory and all its parents that are missing, 0755 and owned by the user. What exists stays as it is.
func Mkdir(ctx context.Context, req *MkdirRequest) (*Changes, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	d, err := newDraft(req.Below, req.Now)
	if err != nil {
		return nil, fmt.Errorf("WORKDIR %s: %w", req.Path, err)
	}
	own, err := workdirOwner(req.Below, req.User)
	if err != nil {
		return nil, &diag.Error{What: "WORKDIR " + req.Path, Cause: err}
	}
	p, err := tree.Resolve(d, req.Path, true)
	if err == nil {
		err = d.workdir(p, own, req.Created)
	}
	if err != nil {
		return nil, &diag.Error{
			What: "WORKDIR " + req.Path, Cause: err, Hint: "Choose a path with nothing but directories on the way.",
		}
	}
	return &Changes{name: "WORKDIR", draft: d, spool: &spool.Spool{}}, nil
}

// run copies all sources.
func (c *copier) run() error {
	for i, pattern := range c.req.Paths {
		var part *Part
		if len(c.req.Parents) > 0 {
			part = &c.req.Parents[i]
		}
		if len(c.req.Fetched) > 0 && c.req.Fetched[i] != nil {
			if err := c.fetched(pattern, c.req.Fetched[i]); err != nil {
				return err
			}
			continue
		}
		if err := c.pattern(pattern, part); err != nil {
			return err
		}
	}
	for i := range c.req.Inline {
		if err := c.inline(&c.req.Inline[i]); err != nil {
			return err
		}
	}
	return nil
}

// pattern copies what a source pattern stands for, or the part of it if that is not nil.
func (c *copier) pattern(pattern string, part *Part) error {
	f, err := c.newFilter(part)
	if err != nil {
		return err
	}
	if part != nil && part.Required {
		if err := c.checkPivot(pattern, part); err != nil {
			return err
		}
	}
	matches, err := c.matches(pattern)
	if err != nil {
		return err
	}
	if part != nil && part.Pattern != "" && c.req.Sparse && hasWildcard(pattern) {
		if matches, err = c.pivots(matches, f); err != nil {
			return err
		}
	}
	taken := part == nil && len(matches) > 0
	for _, src := range matches {
		some, err := c.match(src, f)
		if err != nil {
			return err
		}
		taken = taken || some
	}
	switch {
	case taken:
	case part != nil && part.Required:
		return c.partError(pattern, part)
	default:
		if part != nil {
			pattern = path.Join(pattern, part.Pattern)
		}
		c.warnings = append(c.warnings, fmt.Sprintf("%s: no file matches %q in %s", c.name, pattern, c.source.Name))
	}
	return nil
}

// fetched copies a path of another source than From. A directory that is not there yet gets the metadata of the source,
// where a COPY would make a new one.
func (c *copier) fetched(src string, from *Source) error {
	before := c.source
	c.source = *from
	defer func() { c.source = before }()
	f, err := c.newFilter(nil)
	if err != nil {
		return err
	}
	p := literal(src)
	old, err := c.atDest()
	if err != nil {
		return err
	}
	if _, err := c.take(src, p, f); err != nil || old != nil {
		return err
	}
	e, err := c.source.Tree.Lstat(p)
	if err != nil || e.Kind != tree.Dir {
		return err
	}
	at, err := c.atDest()
	if err == nil && at != nil {
		c.finish(at, e)
	}
	return err
}

// atDest is what is at the destination, through symbolic links; nil if nothing is there.
func (c *copier) atDest() (*node, error) {
	dst, err := tree.Resolve(c.draft, path.Clean(c.dest), true)
	if err != nil {
		return nil, c.destError(err)
	}
	at, err := c.draft.find(dst)
	if err != nil {
		return nil, c.destError(err)
	}
	return at, nil
}

// match copies or unpacks one path that a pattern stands for, and tells whether something was taken.
func (c *copier) match(src string, f *filter) (taken bool, err error) {
	p, err := tree.Resolve(c.source.Tree, src, true)
	if err != nil {
		return false, c.sourceError(src, err)
	}
	return c.take(src, p, f)
}

// take copies or unpacks what is at the literal path p, which was written as src.
func (c *copier) take(src, p string, f *filter) (taken bool, err error) {
	e, err := c.source.Tree.Lstat(p)
	if err != nil {
		return false, c.sourceError(src, err)
	}
	if c.source.Unpack && e.Kind == tree.Regular {
		done, err := c.unpack(src, p)
		if err != nil || done {
			return true, err
		}
	}
	name := path.Base(literal(src))
	dst, err := c.target(name, e.Kind == tree.Dir)
	if err != nil {
		return false, c.destError(err)
	}
	one := &oneCopy{copier: c, from: c.source.Tree, inodes: map[uint64]*node{}, filter: f}
	err = one.copy(p, dst)
	return one.taken || e.Kind != tree.Dir, err
}

// inline copies a heredoc.
func (c *copier) inline(in *Inline) error {
	name := path.Base(literal(in.Name))
	dst, err := c.target(name, false)
	if err != nil {
		return c.destError(err)
	}
	e := tree.Entry{Kind: tree.Regular, Mode: 0o644, Size: int64(len(in.Data)), ModTime: c.req.Now}
	n, err := c.replace(dst, "the heredoc "+in.Name)
	if err != nil {
		return err
	}
	c.finish(c.draft.put(n.dir, n.name, &inode{content: bytesOpener(in.Data)}), e)
	return nil
}

// target makes the directories that a source needs and returns where exactly it goes.
// A directory goes onto the destination, a file into it if it is a directory.
func (c *copier) target(name string, isDir bool) (string, error) {
	parents := c.dest
	if !strings.HasSuffix(c.dest, "/") && !strings.HasSuffix(c.dest, "/.") {
		parents = path.Dir(c.dest)
	}
	if _, err := c.makeDir(parents); err != nil {
		return "", err
	}
	dst, err := tree.Resolve(c.draft, path.Clean(c.dest), true)
	if err != nil {
		return "", err
	}
	at, err := c.draft.find(dst)
	if err != nil {
		return "", err
	}
	if !isDir && at != nil && at.isDir() {
		return join(dst, name), nil
	}
	if isDir && at == nil {
		_, err = c.draft.mkdirAll(dst, c.dirMode, c.owner)
	} else {
		_, err = c.draft.mkdirAll(path.Dir(dst), c.dirMode, c.owner)
	}
	return dst, err
}

// makeDir makes a directory of the stage, through symbolic links, and its parents.
func (c *copier) makeDir(p string) (*node, error) {
	at, err := tree.Resolve(c.draft, p, true)
	if err != nil {
		return nil, err
	}
	return c.draft.mkdirAll(at, c.dirMode, c.owner)
}
