package gittree

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"

	"hako/internal/diag"
	"hako/internal/gitpack"
	"hako/internal/gitwire"
)

const (
	modulesName = ".gitmodules"
	maxModules  = 4 << 20 // 4 MiB: the size of a .gitmodules file
	// maxNesting is how deep submodules may have submodules.
	maxNesting = 20
	parallel   = 4
)

// module is a submodule as .gitmodules describes it.
type module struct {
	name, path, url string
	// skip says that "git submodule update" would leave it alone.
	skip bool
}

// submodules fetches the submodules of r and theirs.
func (f *fetcher) submodules(ctx context.Context, r *repository) error {
	links, err := r.gitlinks(ctx, func(p string) bool { return f.wanted(r, p) })
	if err != nil || len(links) == 0 {
		return err
	}
	modules, err := r.modules(ctx)
	if err != nil {
		return err
	}
	if err := f.countSubmodules(r, len(links)); err != nil {
		return err
	}
	subs := make([]*repository, len(links))
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i, l := range links {
		m, ok := modules[l.path]
		if !ok {
			return &diag.Error{
				What: fmt.Sprintf("%s: the submodule %s has no URL in .gitmodules", r.title(), clip(l.path)),
				Hint: "Mend the repository, or leave out submodules: ?submodules=false in the URL.",
			}
		}
		if m.skip {
			continue
		}
		group.Go(func() error {
			sub, err := f.submodule(gctx, r, m, l.id)
			subs[i] = sub
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, l := range links {
		r.subs[l.path] = subs[i]
		if subs[i] == nil {
			continue
		}
		if err := f.submodules(ctx, subs[i]); err != nil {
			return err
		}
	}
	return nil
}

// countSubmodules refuses too many of them.
func (f *fetcher) countSubmodules(r *repository, n int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.count += n; f.count > f.options.Limits.Submodules {
		return &diag.Error{What: fmt.Sprintf("%s: it has more than %d submodules", r.title(), f.options.Limits.Submodules), Hint: "Leave them out: ?submodules=false in the URL."}
	}
	return nil
}

// submodule fetches the commit id of m.
func (f *fetcher) submodule(ctx context.Context, r *repository, m module, id gitpack.ID) (*repository, error) {
	remote, err := resolveURL(r.remote, m.url)
	if err != nil {
		return nil, &diag.Error{What: fmt.Sprintf("%s: the submodule %s", r.title(), clip(m.path)), Cause: err,
			Hint: "Leave submodules out with ?submodules=false in the URL."}
	}
	depth := 1
	for p := r; p != nil; p = p.parent {
		if depth++; depth > maxNesting {
			return nil, &diag.Error{What: fmt.Sprintf("%s: submodules are nested more than %d deep", f.spec.title(), maxNesting)}
		}
		if p.remote == remote && p.id == id {
			return nil, &diag.Error{What: fmt.Sprintf("%s: the submodule %s holds itself", r.title(), clip(m.path))}
		}
	}
	return f.repository(ctx, target{remote: remote, ref: id.String(), parent: r, path: m.path})
}

// title is what people call the repository.
func (s *Spec) title() string { return "git repository " + gitwire.Redact(s.Remote) }

// link is a place where a submodule goes.
type link struct {
	path string
	id   gitpack.ID
}

// gitlinks lists the submodules of a commit whose paths are wanted. Of the rest, nothing is known but that it is there.
func (r *repository) gitlinks(ctx context.Context, wanted func(string) bool) ([]link, error) {
	w := &linkFinder{ctx: ctx, repo: r, wanted: wanted, none: map[gitpack.ID]bool{}}
	_, err := w.dir(r.commit.tree, "")
	return w.links, err
}

// linkFinder walks through a commit and remembers the directories without submodules.
type linkFinder struct {
	ctx    context.Context //nolint:containedctx // lives as long as the call it serves
	repo   *repository
	wanted func(string) bool
	none   map[gitpack.ID]bool
	links  []link
}

func (w *linkFinder) dir(id gitpack.ID, at string) (some bool, err error) {
	if w.none[id] {
		return false, nil
	}
	if w.ctx.Err() != nil {
		return false, context.Cause(w.ctx)
	}
	d, err := w.repo.readDir(w.ctx, id)
	if err != nil {
		return false, err
	}
	for _, e := range d.entries {
		p := path.Join(at, e.name)
		if !w.wanted(p) {
			some = true // the directory is not to be taken for one without submodules
			continue
		}
		switch e.kind {
		case gitlink:
			w.links = append(w.links, link{path: p, id: e.id})
			some = true
		case directory:
			below, err := w.dir(e.id, p)
			if err != nil {
				return false, err
			}
			some = some || below
		}
		if len(w.links) > 1_000_000 {
			return false, &diag.Error{What: w.repo.title() + ": it has too many submodules"}
		}
	}
	w.none[id] = !some
	return some, nil
}

// modules reads .gitmodules, by path. It must be a file: git does not follow a link there.
func (r *repository) modules(ctx context.Context) (map[string]module, error) {
	top, err := r.readDir(ctx, r.commit.tree)
	if err != nil {
		return nil, err
	}
	out := map[string]module{}
	e, ok := top.find(modulesName)
	if !ok || e.kind != file && e.kind != executable {
		return out, nil
	}
	data, err := r.content().Bytes(ctx, e.id, gitpack.Blob, maxModules)
	if err != nil {
		return nil, err
	}
	byName := map[string]*module{}
	err = parseConfig(string(data), func(v configValue) {
		if v.section != "submodule" || v.sub == "" {
			return
		}
		m := byName[v.sub]
		if m == nil {
			m = &module{name: v.sub}
			byName[v.sub] = m
		}
		switch v.key {
		case "path":
			m.path = path.Clean(v.value)
		case "url":
			m.url = v.value
		case "update":
			m.skip = v.value == "none"
		}
	})
	if err != nil {
		return nil, &diag.Error{What: r.title() + ": " + modulesName, Cause: err}
	}
	for _, m := range byName {
		if m.path != "" && m.url != "" {
			out[m.path] = *m
		}
	}
	return out, nil
}

// resolveURL is the address of a submodule, which can be relative to that of its repository (git-submodule(1), "add").
// A relative one, or one of the same server, keeps the login of the repository.
func resolveURL(parent, text string) (string, error) {
	switch {
	case strings.HasPrefix(text, "./"), strings.HasPrefix(text, "../"):
		return relativeURL(parent, text)
	case strings.Contains(text, "::"), strings.HasPrefix(text, "-"):
		return "", fmt.Errorf("the URL %q is not supported", clip(text))
	case !strings.Contains(text, "://"):
		if user, rest, ok := strings.Cut(text, "@"); ok && user != "" && !strings.Contains(user, "/") && strings.Contains(rest, ":") {
			return text, nil
		}
		return "", fmt.Errorf("the URL %q is a path of a machine that is not this one", clip(text))
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", errors.New("its URL is not valid")
	}
	switch strings.ToLower(u.Scheme) {
	case "http", "https", "ssh", "git":
	default:
		return "", fmt.Errorf("its URL has the scheme %q, which is not supported", clip(u.Scheme))
	}
	if p, err := url.Parse(parent); err == nil && u.User == nil && p.Scheme == u.Scheme && strings.EqualFold(p.Host, u.Host) {
		u.User = p.User
	}
	return u.String(), nil
}

// relativeURL goes up and down from the parent's path. It does not leave the parent's server.
func relativeURL(parent, text string) (string, error) {
	prefix, at := "", ""
	if scheme, rest, ok := strings.Cut(parent, "://"); ok {
		host, p, _ := strings.Cut(rest, "/")
		prefix, at = scheme+"://"+host+"/", p
	} else {
		host, p, ok := strings.Cut(parent, ":")
		if !ok {
			return "", errors.New("its URL is relative to something that is no URL")
		}
		prefix, at = host+":", p
	}
	parts := strings.Split(strings.Trim(at, "/"), "/")
	for step := range strings.SplitSeq(strings.Trim(text, "/"), "/") {
		switch step {
		case ".", "":
		case "..":
			if len(parts) == 0 {
				return "", fmt.Errorf("its URL %q leads out of the server", clip(text))
			}
			parts = parts[:len(parts)-1]
		default:
			parts = append(parts, step)
		}
	}
	if len(parts) == 0 {
		return "", fmt.Errorf("its URL %q has no path", clip(text))
	}
	if strings.HasPrefix(at, "/") && prefix[len(prefix)-1] == ':' {
		prefix += "/"
	}
	return prefix + strings.Join(parts, "/"), nil
}
