package gittree

import (
	"context"
	"errors"
	"path"
	"strings"

	"hako/internal/event"
	"hako/internal/gitpack"
	"hako/internal/gitwire"
	"hako/internal/tree"
)

// Of a repository of which only one directory is wanted, the directories are fetched first, and then the files that are
// below it, by their ids: two requests, and nothing of the rest. Servers have to allow that (uploadpack.allowFilter), as
// all large hosts do; others send everything.

// partial says whether only what is below the wanted directory is fetched.
func (f *fetcher) partial(s *gitwire.Session, r *repository) bool {
	return f.subdir() != "" && r.parent == nil && s.CanPick()
}

// subdir is the directory that is wanted, relative and clean; empty for all.
func (f *fetcher) subdir() string { return strings.Trim(path.Join("/", f.spec.Subdir), "/") }

// needed collects the files that are to be fetched.
type needed struct {
	ctx  context.Context //nolint:containedctx // lives as long as the call it serves
	repo *repository
	ids  map[gitpack.ID]bool
	seen map[gitpack.ID]bool // directories
}

// fetchFiles fetches the files of a repository that was fetched without any.
func (f *fetcher) fetchFiles(ctx context.Context, s *gitwire.Session, r *repository) error {
	n := &needed{ctx: ctx, repo: r, ids: map[gitpack.ID]bool{}, seen: map[gitpack.ID]bool{}}
	top, err := n.path(f.subdir())
	if err == nil && !top.IsZero() {
		err = n.below(top, 1)
	}
	if err != nil {
		return err
	}
	r.below = &top
	if len(n.ids) == 0 {
		return nil
	}
	req := gitwire.Request{}
	for id := range n.ids {
		req.Wants = append(req.Wants, id)
	}
	files, _, err := f.readPack(ctx, s, r, req)
	if errors.Is(err, gitwire.ErrRefused) {
		f.options.Events.Emit(event.Debug{Message: r.title() + ": the server does not give out single files, so all are fetched"})
		return f.fetchAll(ctx, r)
	}
	r.files = files
	return err
}

// fetchAll fetches the commit with all its files.
func (f *fetcher) fetchAll(ctx context.Context, r *repository) error {
	s, err := f.options.Client.Open(ctx, r.remote, f.spec.Remote)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // nothing was written
	r.below = nil
	return f.fetchPack(ctx, s, r, gitwire.Request{Wants: []gitpack.ID{r.want}, Depth: 1})
}

// add takes the files of those names in a directory.
func (n *needed) add(d *dir, names ...string) {
	for _, name := range names {
		if e, ok := d.find(name); ok && (e.kind == file || e.kind == executable) {
			n.ids[e.id] = true
		}
	}
}

// path goes to the wanted directory and takes what has to be known of those above it. It is zero if there is none: what is
// wrong with it is said by whoever looks for it.
func (n *needed) path(to string) (gitpack.ID, error) {
	at := n.repo.commit.tree
	for i, name := range strings.Split(to, "/") {
		d, err := n.repo.readDir(n.ctx, at)
		if err != nil {
			return at, err
		}
		n.add(d, attributesName)
		n.repo.attrs = n.repo.attrs || d.attributes
		if i == 0 {
			n.add(d, modulesName, lfsConfigName)
		}
		e, ok := d.find(name)
		if !ok || e.kind != directory {
			return gitpack.ID{}, nil
		}
		at = e.id
	}
	return at, nil
}

// below takes all files of a directory. What is wrong with it is said by whoever measures it.
func (n *needed) below(id gitpack.ID, depth int) error {
	if n.seen[id] || depth > maxDepth {
		return nil
	}
	n.seen[id] = true
	if n.ctx.Err() != nil {
		return context.Cause(n.ctx)
	}
	d, err := n.repo.readDir(n.ctx, id)
	if err != nil {
		return (&measurer{repo: n.repo}).fail("", err)
	}
	for _, e := range d.entries {
		switch e.kind {
		case directory:
			if err := n.below(e.id, depth+1); err != nil {
				return err
			}
		case file, executable, symlink:
			n.ids[e.id] = true
		}
	}
	return nil
}

// wanted says whether something at p can be in the tree, or leads to it.
func (f *fetcher) wanted(r *repository, p string) bool {
	sub := f.subdir()
	return sub == "" || r.parent != nil || tree.Within(p, sub) || tree.Within(sub, p)
}

// content is where the files of a repository are.
func (r *repository) content() *gitpack.Pack {
	if r.files != nil {
		return r.files
	}
	return r.pack
}
