package build

import (
	"context"
	"errors"
	"sync"

	"hako/internal/buildcontext"
	"hako/internal/diag"
	"hako/internal/download"
	"hako/internal/plan"
	"hako/internal/solve"
	"hako/internal/tree"
)

// trees opens the sources of a build, each once.
type trees struct {
	options  buildcontext.Options // of named contexts; their Source is missing
	download *download.Client

	mu      sync.Mutex // guards what follows
	opened  map[sourceKey]*opening
	digests map[sourceKey]string
	closers []func() error
}

var _ solve.Sources = (*trees)(nil)

// sourceKey is a source by value; its name does not count.
type sourceKey struct {
	context string
	http    plan.HTTPSource
	git     plan.GitSource
}

// opening is a source that is opened or being opened. Its fields may be read once done is closed.
type opening struct {
	done chan struct{}
	tree tree.Tree
	err  error
}

func newTrees(o buildcontext.Options, d *download.Client) *trees {
	return &trees{options: o, download: d, opened: map[sourceKey]*opening{}, digests: map[sourceKey]string{}}
}

func keyOf(s *plan.Source) sourceKey {
	key := sourceKey{context: s.Context}
	if s.HTTP != nil {
		key.http = *s.HTTP
	}
	if s.Git != nil {
		key.git = *s.Git
	}
	return key
}

// resolved is what a source that has been opened turned out to be: "sha256:…" of a file, "sha1:…" of a commit;
// empty if that is not known.
func (t *trees) resolved(s *plan.Source) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.digests[keyOf(s)]
}

// found notes what a source turned out to be.
func (t *trees) found(s *plan.Source, digest string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.digests[keyOf(s)] = digest
}

// Tree implements [solve.Sources].
func (t *trees) Tree(ctx context.Context, s *plan.Source) (tree.Tree, error) {
	key := keyOf(s)
	t.mu.Lock()
	o, ok := t.opened[key]
	if !ok {
		o = &opening{done: make(chan struct{})}
		t.opened[key] = o
	}
	t.mu.Unlock()
	if !ok {
		o.tree, o.err = t.open(ctx, s)
		close(o.done)
	}
	select {
	case <-o.done:
		return o.tree, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// open opens a source.
func (t *trees) open(ctx context.Context, s *plan.Source) (tree.Tree, error) {
	switch {
	case s.HTTP != nil:
		return t.fetch(ctx, s.HTTP)
	case s.Git != nil:
		return nil, &diag.Error{What: "a git repository as a context is not supported yet"}
	}
	o := t.options
	o.Source, o.Name = s.Context, s.Name
	c, err := buildcontext.OpenTree(ctx, o)
	if err != nil {
		return nil, err
	}
	t.own(c.Close)
	return c.Tree(), nil
}

// fetch downloads a file.
func (t *trees) fetch(ctx context.Context, s *plan.HTTPSource) (tree.Tree, error) {
	f, err := t.download.Fetch(ctx, download.Request{URL: s.URL, Checksum: s.Checksum})
	if err != nil {
		return nil, err
	}
	t.own(f.Close)
	t.found(&plan.Source{HTTP: s}, f.Digest.String())
	return f.Tree(s.Filename, t.options.Now), nil
}

// own remembers what close has to call.
func (t *trees) own(closer func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closers = append(t.closers, closer)
}

// close closes all trees.
func (t *trees) close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, c := range t.closers {
		errs = append(errs, c())
	}
	t.closers = nil
	return errors.Join(errs...)
}

// contexts are the named contexts by plan.ContextName; the last one of a name counts.
func (r *Request) contexts() (map[string]string, error) {
	out := map[string]string{}
	for _, c := range r.NamedContexts {
		name, err := plan.ContextName(c.Key)
		if err != nil {
			return nil, err
		}
		out[name] = c.Value
	}
	return out, nil
}
