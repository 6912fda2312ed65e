package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"hako/internal/diag"
	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/solve"
	"hako/internal/tree"
)

// Steps see what is at an ignored path as they see everything, those of other stages too; it is only left out of the layers
// of the result. So nothing depends on which steps ran and which came from a cache. (In kaniko such files are there as long
// as the process lives, and not when a step comes from the cache.)

// ignored are the paths to leave out, each as the patterns of its elements.
type ignored [][]string

// parseIgnored reads paths, whose elements may be patterns of path.Match.
func parseIgnored(paths []string) (ignored, error) {
	var out ignored
	for _, p := range paths {
		if p == "" { // a template that was not filled in
			continue
		}
		clean := strings.TrimPrefix(path.Join("/", p), "/")
		if _, err := path.Match(clean, ""); err != nil {
			return nil, &diag.Error{What: fmt.Sprintf("--ignore-path %q", p), Cause: err, Hint: "Mend the pattern; \\[ stands for a bracket."}
		}
		if clean == "" {
			return nil, &diag.Error{What: fmt.Sprintf("--ignore-path %q would leave everything out", p), Hint: "Give a path below the root."}
		}
		out = append(out, strings.Split(clean, "/"))
	}
	return out, nil
}

// has says whether p, which is clean and relative, is at or below an ignored path.
func (g ignored) has(p string) bool {
	elements := strings.Split(p, "/")
	return slices.ContainsFunc(g, func(patterns []string) bool {
		if len(elements) < len(patterns) {
			return false
		}
		for i, pattern := range patterns {
			if ok, err := path.Match(pattern, elements[i]); err != nil || !ok {
				return false
			}
		}
		return true
	})
}

// changes are those from one tree to another, without what is ignored.
func (b *builder) changes(from, to *rootfs.Tree) layer.Changes {
	all := rootfs.Changes(from, to)
	if len(b.ignored) == 0 {
		return all
	}
	return &without{Changes: all, ignored: b.ignored, to: to, moved: map[string]string{}}
}

// without are changes that lead to a tree, but for what is ignored.
type without struct {
	layer.Changes
	ignored ignored
	to      *rootfs.Tree
	// moved are names that were left out and had the data of hard links, and the first of their other names.
	moved map[string]string
}

// Each is Changes.Each.
func (w *without) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	return w.Changes.Each(ctx, func(e tree.Entry, content io.Reader) error {
		switch {
		case w.ignored.has(e.Path):
			return nil
		case e.Kind == tree.Hardlink && w.ignored.has(e.Linkname):
			return w.link(e, fn)
		}
		return fn(e, content)
	})
}

// link passes on a name of a file whose first name was left out: the first such name becomes the file.
func (w *without) link(e tree.Entry, fn func(tree.Entry, io.Reader) error) (err error) {
	if first, ok := w.moved[e.Linkname]; ok {
		e.Linkname = first
		return fn(e, nil)
	}
	w.moved[e.Linkname] = e.Path
	file, err := w.to.Lstat(e.Path)
	if err != nil {
		return err
	}
	if file.Kind != tree.Regular {
		return fn(file, nil)
	}
	content, err := w.to.Open(e.Path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	return fn(file, content)
}

// touches says whether changes have something that is ignored.
func (g ignored) touches(ctx context.Context, changes layer.Changes) (bool, error) {
	found := errors.New("found")
	err := changes.Each(ctx, func(e tree.Entry, _ io.Reader) error {
		if g.has(e.Path) {
			return found
		}
		return nil
	})
	if errors.Is(err, found) {
		return true, nil
	}
	return false, err
}

// leaveOut makes the new layers of f anew that have something to be ignored.
func (b *builder) leaveOut(ctx context.Context, f *finished) error {
	if len(b.ignored) == 0 {
		return nil
	}
	m := b.maker()
	m.opts = b.req.layers()
	layers := slices.Clone(f.layers)
	for i, l := range layers {
		if l.Base {
			continue
		}
		from, err := f.files.Lowest(i).Tree(ctx)
		if err != nil {
			return err
		}
		to, err := f.files.Lowest(i + 1).Tree(ctx)
		if err != nil {
			return err
		}
		touched, err := b.ignored.touches(ctx, rootfs.Changes(from, to))
		if err != nil || !touched {
			if err != nil {
				return err
			}
			continue
		}
		if layers[i], err = m.Make(ctx, b.changes(from, to), solve.MakeOptions{Keep: true}); err != nil {
			return fmt.Errorf("leave --ignore-path out of a layer: %w", err)
		}
	}
	f.layers, f.files = layers, stackOf(layers)
	return nil
}

// stackOf is the tree of layers.
func stackOf(layers []solve.Layer) *rootfs.Stack {
	sources := make([]rootfs.Source, len(layers))
	for i, l := range layers {
		sources[i] = l.Source
	}
	return rootfs.NewStack(sources...)
}
