package gittree

import (
	"context"
	"errors"
	"fmt"

	"hako/internal/diag"
	"hako/internal/gitpack"
)

// maxDepth is how deep directories may be: what a path of Linux can name (PATH_MAX), each with a name of one letter.
const maxDepth = 2048

// extent is what is in a directory, all that is below it counted as often as it appears.
type extent struct {
	entries, bytes int64
	height         int
}

// measurer walks through the directories of a commit, each different one once: the same directory can appear in many
// places, and a small repository can so hold more files than any disk.
type measurer struct {
	ctx    context.Context //nolint:containedctx // lives as long as the call it serves
	repo   *repository
	limits Limits
	done   map[gitpack.ID]extent
}

// measure makes sure that all of the commit is there and is no more than allowed.
func (f *fetcher) measure(ctx context.Context, r *repository) error {
	m := &measurer{ctx: ctx, repo: r, limits: f.options.Limits, done: map[gitpack.ID]extent{}}
	top := r.commit.tree
	if r.below != nil {
		top = *r.below
	}
	if top.IsZero() {
		return nil
	}
	_, err := m.dir(top, "", 1)
	return err
}

// dir measures the directory with the id, which lies at path.
func (m *measurer) dir(id gitpack.ID, path string, depth int) (extent, error) {
	if x, ok := m.done[id]; ok {
		if depth+x.height > maxDepth {
			return x, m.fail(path, errTooDeep)
		}
		return x, nil
	}
	if m.ctx.Err() != nil {
		return extent{}, context.Cause(m.ctx)
	}
	if depth > maxDepth {
		return extent{}, m.fail(path, errTooDeep)
	}
	d, err := m.repo.readDir(m.ctx, id)
	if err != nil {
		return extent{}, m.fail(path, err)
	}
	m.repo.attrs = m.repo.attrs || d.attributes
	var x extent
	for _, e := range d.entries {
		one, err := m.entry(e, path+"/"+e.name, depth)
		if err != nil {
			return extent{}, err
		}
		x.entries += 1 + one.entries
		x.bytes += one.bytes
		x.height = max(x.height, one.height+1)
		if x.entries > m.limits.Entries || x.bytes > m.limits.Bytes {
			return extent{}, &diag.Error{What: fmt.Sprintf(
				"%s: it holds more than %d files or %d bytes", m.repo.title(), m.limits.Entries, m.limits.Bytes)}
		}
	}
	m.done[id] = x
	return x, nil
}

var (
	errTooDeep  = fmt.Errorf("directories are more than %d deep", maxDepth)
	errNotBlob  = errors.New("it is not a file's content")
	errLongLink = errors.New("the target of the symbolic link is too long")
)

func (m *measurer) entry(e entry, path string, depth int) (extent, error) {
	switch e.kind {
	case directory:
		return m.dir(e.id, path, depth+1)
	case gitlink:
		return extent{}, nil
	}
	kind, size, err := m.repo.content().Stat(e.id)
	switch {
	case err != nil:
		return extent{}, incomplete(m.repo, fmt.Errorf("%s: %w", clip(path[1:]), err))
	case kind != gitpack.Blob:
		return extent{}, m.fail(path, errNotBlob)
	case e.kind == symlink && size > maxLink:
		return extent{}, m.fail(path, errLongLink)
	}
	return extent{bytes: size}, nil
}

// fail says where something is wrong.
func (m *measurer) fail(path string, err error) error {
	if errors.Is(err, gitpack.ErrMissing) {
		return incomplete(m.repo, err)
	}
	if path == "" {
		path = "/."
	}
	return &diag.Error{What: fmt.Sprintf("%s: %s", m.repo.title(), clip(path[1:])), Cause: err}
}

// readDir reads a directory of the commit.
func (r *repository) readDir(ctx context.Context, id gitpack.ID) (*dir, error) {
	data, err := r.pack.Bytes(ctx, id, gitpack.Tree, maxTree)
	if err != nil {
		return nil, err
	}
	return parseDir(r.pack.Format(), data)
}
