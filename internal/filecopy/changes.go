package filecopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"hako/internal/diag"
	"hako/internal/layer"
	"hako/internal/spool"
	"hako/internal/tree"
)

// Changes is what an instruction changes, in normal form. It is not safe for concurrent use.
type Changes struct {
	name     string // the instruction
	draft    *draft
	spool    *spool.Spool
	warnings []string
	read     bool
}

var _ layer.Changes = (*Changes)(nil)

var errReadTwice = errors.New("changes can be read once only")

// Each calls fn for every change in order. See layer.Changes.
func (c *Changes) Each(ctx context.Context, fn func(e tree.Entry, content io.Reader) error) error {
	if c.read {
		return errReadTwice
	}
	c.read = true
	w := &writer{ctx: ctx, draft: c.draft, name: c.name, emit: fn, written: map[*inode]string{}}
	return w.directory(c.draft.root, ".")
}

// Warnings says what the user should know although the instruction succeeds: patterns that match nothing.
func (c *Changes) Warnings() []string { return c.warnings }

// Close frees what the changes hold. It is idempotent.
func (c *Changes) Close() error {
	c.read = true
	if err := c.spool.Close(); err != nil {
		return fmt.Errorf("%s: close the content of archives: %w", c.name, err)
	}
	return nil
}

// whiteoutPrefix starts the names that mean in a layer that something is gone, OCI image specification, layer.md.
const whiteoutPrefix = ".wh."

// writer walks a draft and writes what differs from the tree below.
type writer struct {
	ctx   context.Context //nolint:containedctx // a writer lives as long as the call it serves
	draft *draft
	name  string
	emit  func(e tree.Entry, content io.Reader) error
	// parents are the directories on the way, outermost first; the first shown of them have been written.
	parents []tree.Entry
	shown   int
	// written is the first name of each file with several names that has been written.
	written map[*inode]string
}

// directory writes what changed in the directory n.
func (w *writer) directory(n *node, p string) error {
	var below []string
	if n.fresh && w.draft.below != nil {
		if e, err := w.lower(p); err != nil {
			return err
		} else if e != nil && e.Kind == tree.Dir {
			if below, err = w.draft.below.ReadDir(p); err != nil {
				return fmt.Errorf("%s: read directory /%s of the stage: %w", w.name, p, err)
			}
		}
	}
	names := slices.AppendSeq(below, maps.Keys(n.children))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if err := w.child(n.children[name], join(p, name)); err != nil {
			return err
		}
		delete(n.children, name) // it is written, and may be one of millions
	}
	return nil
}

// child writes n, which is nil if nothing is at p any more.
func (w *writer) child(n *node, p string) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if n != nil && n.lower && !n.touched && !n.isDir() && len(n.names) < 2 {
		return nil // looked up only
	}
	lower, err := w.lower(p)
	if err != nil {
		return err
	}
	switch {
	case n == nil && lower == nil:
		return nil
	case n == nil:
		return w.write(tree.Entry{Path: p, Kind: tree.Whiteout}, nil)
	case n.isDir():
		e := n.meta.entry(p)
		w.parents = append(w.parents, e)
		if lower == nil || n.touched && !sameDirectory(&e, lower) {
			if err := w.showParents(); err != nil {
				return err
			}
		}
		err := w.directory(n, p)
		w.parents = w.parents[:len(w.parents)-1]
		w.shown = min(w.shown, len(w.parents))
		return err
	}
	return w.file(n, p, lower)
}

// lower describes what is at p in the tree below, nil if there is nothing.
func (w *writer) lower(p string) (*tree.Entry, error) {
	if w.draft.below == nil {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	e, err := w.draft.below.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	if err != nil {
		return nil, fmt.Errorf("%s: look up /%s in the stage: %w", w.name, p, err)
	}
	return &e, nil
}

// write passes an entry on, after the directories that it is in.
func (w *writer) write(e tree.Entry, content io.Reader) error {
	if err := w.showParents(); err != nil {
		return err
	}
	return w.pass(e, content)
}

func (w *writer) showParents() error {
	for w.shown < len(w.parents) {
		e := w.parents[w.shown]
		w.shown++
		if err := w.pass(e, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) pass(e tree.Entry, content io.Reader) error {
	if base := e.Path[strings.LastIndexByte(e.Path, '/')+1:]; strings.HasPrefix(base, whiteoutPrefix) {
		return &diag.Error{
			What: fmt.Sprintf("%s: /%s cannot be part of an image: names with %q mark deleted files", w.name, e.Path, whiteoutPrefix),
			Hint: "Rename the file, or leave it out with .dockerignore.",
		}
	}
	return w.emit(e, content)
}

// file writes a file that is not below's, or one of below's that has got a further name. A name that is equal to the
// one below does not come, so that the first name that does has the data.
func (w *writer) file(n *node, p string, lower *tree.Entry) error {
	e := n.meta.entry(p)
	if lower != nil {
		same, err := w.same(n, &e, lower)
		if err != nil || same {
			return err
		}
	}
	if len(n.names) > 1 {
		if first, ok := w.written[n.inode]; ok {
			e.Kind, e.Linkname, e.Size = tree.Hardlink, first, 0
			return w.write(e, nil)
		}
		w.written[n.inode] = p
	}
	if e.Kind != tree.Regular {
		return w.write(e, nil)
	}
	if e.Size == 0 {
		return w.write(e, bytes.NewReader(nil))
	}
	r := &exact{from: n.content, left: e.Size}
	err := w.write(e, r)
	return w.contentError(p, errors.Join(err, r.finish()))
}

// contentError is err, with advice if it is about reading the source.
func (w *writer) contentError(p string, err error) error {
	var r *sourceReadError
	if !errors.As(err, &r) {
		return err
	}
	e := &diag.Error{What: fmt.Sprintf("%s: read the file for /%s", w.name, p), Cause: r.err}
	switch {
	case errors.Is(err, errSizeChanged), errors.Is(err, fs.ErrNotExist):
		e.Hint = "Do not change the files while they are copied."
	case errors.Is(err, fs.ErrPermission):
		e.Hint = "Make it readable for the user that runs the build, or leave it out with .dockerignore."
	}
	return e
}

// same tells whether the file e is equal to lower. Content is read only if everything else is equal.
func (w *writer) same(n *node, e, lower *tree.Entry) (bool, error) {
	if e.Kind != lower.Kind || !sameMeta(e, lower) || e.Size != lower.Size || e.Linkname != lower.Linkname ||
		e.Major != lower.Major || e.Minor != lower.Minor || e.ModTime.Unix() != lower.ModTime.Unix() {
		return false, nil
	}
	if o, ok := n.content.(treeOpener); e.Kind != tree.Regular || e.Size == 0 || n.lower && ok && o.path == e.Path {
		return true, nil
	}
	a := &exact{from: n.content, left: e.Size}
	b := &exact{from: treeOpener{from: w.draft.below, path: lower.Path}, left: e.Size}
	same, err := sameContent(a, b)
	if err = errors.Join(err, a.finish(), b.finish()); err != nil {
		return false, w.contentError(e.Path, err)
	}
	return same, nil
}

// sameDirectory compares all but the time: a directory's time is recorded only together with something else,
// because it changes whenever a name in it comes and goes.
func sameDirectory(e, lower *tree.Entry) bool {
	return lower.Kind == tree.Dir && sameMeta(e, lower)
}

func sameMeta(a, b *tree.Entry) bool {
	return (a.Mode == b.Mode || a.Kind == tree.Symlink) && a.UID == b.UID && a.GID == b.GID && maps.Equal(a.Xattrs, b.Xattrs)
}
