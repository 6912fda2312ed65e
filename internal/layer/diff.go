package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"

	"hako/internal/tree"
)

// Diff returns, in normal form, the changes that lead from lower to upper on top of lower.
//
// upper is what an overlay file system's upper directory holds: changed and new entries with all their parents,
// Whiteouts, and directories marked Opaque. It may also hold what is no change: files that were copied up and left
// alone, whiteouts of what never was below. It costs time in proportion to upper; of lower only the same paths are
// looked at, and what an opaque directory hides.
//
// As in BuildKit, the root itself never comes, and a directory of which only the time changed comes only
// as the parent of something else.
func Diff(upper, lower tree.Tree) Changes { return &diff{upper: upper, lower: lower} }

type diff struct{ upper, lower tree.Tree }

// Each is Changes.Each.
func (d *diff) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	w := &diffWalk{diff: d, ctx: ctx, fn: fn, links: map[uint64]string{}}
	root, err := d.upper.Lstat(".")
	if err != nil {
		return fmt.Errorf("examine changed root: %w", err)
	}
	err = w.dir(level{path: ".", below: true, opaque: root.Opaque})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// diffWalk is one run of a diff.
type diffWalk struct {
	*diff
	ctx     context.Context //nolint:containedctx // lives as long as one call
	fn      func(tree.Entry, io.Reader) error
	pending []tree.Entry      // unchanged directories on the way to where we are, outermost first
	links   map[uint64]string // by inode: the name that came first
}

// level is one directory of the walk.
type level struct {
	path string
	// below says that lower has a directory here; opaque says that upper hides what is in it.
	below, opaque bool
}

// dir walks one directory of upper.
func (w *diffWalk) dir(l level) error {
	names, err := w.upper.ReadDir(l.path)
	if err != nil {
		return fmt.Errorf("read changed directory %s: %w", l.path, err)
	}
	var hidden []string
	if l.below && l.opaque {
		if hidden, err = w.lower.ReadDir(l.path); err != nil {
			return fmt.Errorf("read directory %s below: %w", l.path, err)
		}
	}
	for len(names) > 0 || len(hidden) > 0 {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		var err error
		switch {
		case len(names) == 0 || len(hidden) > 0 && hidden[0] < names[0]:
			err = w.emit(tree.Entry{Path: join(l.path, hidden[0]), Kind: tree.Whiteout}, nil)
			hidden = hidden[1:]
		default:
			if len(hidden) > 0 && hidden[0] == names[0] {
				hidden = hidden[1:]
			}
			err = w.name(l, join(l.path, names[0]))
			names = names[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func join(dir, name string) string {
	if dir == "." {
		return name
	}
	return dir + "/" + name
}

// name handles one name of upper.
func (w *diffWalk) name(l level, path string) error {
	up, err := w.upper.Lstat(path)
	if err != nil {
		return fmt.Errorf("examine changed file %s: %w", path, err)
	}
	up.Path = path
	var low *tree.Entry
	if l.below {
		if low, err = w.lookBelow(path); err != nil {
			return err
		}
	}
	switch up.Kind {
	case tree.Whiteout, tree.Socket:
		if low == nil {
			return nil
		}
		return w.emit(tree.Entry{Path: path, Kind: tree.Whiteout}, nil)
	case tree.Dir:
		return w.subdir(l, up, low)
	}
	if low != nil {
		same, err := w.same(&up, low)
		if same || err != nil {
			return err
		}
	}
	return w.file(up)
}

func (w *diffWalk) lookBelow(path string) (*tree.Entry, error) {
	e, err := w.lower.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // absence is an answer here
	}
	if err != nil {
		return nil, fmt.Errorf("examine %s below: %w", path, err)
	}
	return &e, nil
}

func (w *diffWalk) subdir(l level, up tree.Entry, low *tree.Entry) error {
	next := level{path: up.Path, below: low != nil && low.Kind == tree.Dir}
	next.opaque = next.below && (l.opaque || up.Opaque)
	up.Opaque = false
	if next.below && sameMeta(&up, low) {
		depth := len(w.pending)
		w.pending = append(w.pending, up)
		err := w.dir(next)
		w.pending = w.pending[:min(depth, len(w.pending))]
		return err
	}
	if err := w.emit(up, nil); err != nil {
		return err
	}
	return w.dir(next)
}

// file emits a changed entry that is no directory: the first time with its data, then as a further name.
func (w *diffWalk) file(up tree.Entry) error {
	if up.Inode != 0 && up.Links > 1 {
		first, ok := w.links[up.Inode]
		if ok {
			up.Kind, up.Linkname, up.Size = tree.Hardlink, first, 0
			return w.emit(up, nil)
		}
		w.links[up.Inode] = up.Path
	}
	if up.Kind != tree.Regular {
		return w.emit(up, nil)
	}
	content, err := w.upper.Open(up.Path)
	if err != nil {
		return fmt.Errorf("read changed file %s: %w", up.Path, err)
	}
	defer content.Close() //nolint:errcheck // only read
	return w.emit(up, &exactReader{r: content, left: up.Size})
}

// emit passes e on, after the directories that it lies in.
func (w *diffWalk) emit(e tree.Entry, content io.Reader) error {
	for _, dir := range w.pending {
		if err := w.fn(dir, nil); err != nil {
			return err
		}
	}
	w.pending = w.pending[:0]
	return w.fn(e, content)
}

// same tells whether an entry of upper equals that of lower.
func (w *diffWalk) same(up, low *tree.Entry) (bool, error) {
	if !sameMeta(up, low) || up.Size != low.Size || headerTime(up.ModTime).Unix() != headerTime(low.ModTime).Unix() {
		return false, nil
	}
	if up.Kind != tree.Regular || up.Size == 0 {
		return true, nil
	}
	a, err := w.upper.Open(up.Path)
	if err != nil {
		return false, fmt.Errorf("read changed file %s: %w", up.Path, err)
	}
	defer a.Close() //nolint:errcheck // only read
	b, err := w.lower.Open(up.Path)
	if err != nil {
		return false, fmt.Errorf("read file %s below: %w", up.Path, err)
	}
	defer b.Close() //nolint:errcheck // only read
	return sameContent(w.ctx, a, b)
}

// sameMeta compares what all kinds of entries have but the time.
func sameMeta(a, b *tree.Entry) bool {
	return a.Kind == b.Kind && (a.Mode == b.Mode || a.Kind == tree.Symlink) && a.UID == b.UID && a.GID == b.GID &&
		a.Linkname == b.Linkname && a.Major == b.Major && a.Minor == b.Minor && maps.Equal(imageXattrs(a), imageXattrs(b))
}

// imageXattrs are the extended attributes that an image can hold.
func imageXattrs(e *tree.Entry) map[string]string {
	for name := range e.Xattrs {
		if overlayXattr(name) {
			kept := maps.Clone(e.Xattrs)
			maps.DeleteFunc(kept, func(name, _ string) bool { return overlayXattr(name) })
			return kept
		}
	}
	return e.Xattrs
}

func sameContent(ctx context.Context, a, b io.Reader) (bool, error) {
	const bufSize = 64 << 10
	bufA, bufB := make([]byte, bufSize), make([]byte, bufSize)
	for {
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		endA, endB := atEnd(errA), atEnd(errB)
		if endA && endB {
			return true, nil
		}
		if err := errors.Join(notEnd(errA), notEnd(errB)); err != nil {
			return false, fmt.Errorf("compare contents: %w", err)
		}
	}
}

func atEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func notEnd(err error) error {
	if atEnd(err) {
		return nil
	}
	return err
}
