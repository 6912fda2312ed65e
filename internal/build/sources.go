package build

import (
	"context"
	"errors"
	"sync"

	"hako/internal/buildcontext"
	"hako/internal/contextsource"
	"hako/internal/download"
	"hako/internal/gittree"
	"hako/internal/plan"
	"hako/internal/solve"
	"hako/internal/tree"
)

// trees opens the sources of a build, each once.
type trees struct {
	life    context.Context //nolint:containedctx // sources are read as long as the build runs
	options contextsource.Options
	exclude []string // as of buildcontext.Options
	own     []string // the same for what nothing else is left out of
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows
	opened  map[sourceKey]*opening
	digests map[sourceKey]string
	closers []func() error
}

var _ solve.Sources = (*trees)(nil)

// sourceKey is a source by value; its name does not count.
type sourceKey struct {
	context string
	machine string
	http    plan.HTTPSource
	git     plan.GitSource
}

// opening is a source that is opened or being opened. Its fields may be read once done is closed.
type opening struct {
	done chan struct{}
	tree tree.Tree
	err  error
}

func newTrees(life context.Context, o contextsource.Options, exclude, own []string) *trees {
	return &trees{life: life, options: o, exclude: exclude, own: own, opened: map[sourceKey]*opening{}, digests: map[sourceKey]string{}}
}

func keyOf(s *plan.Source) sourceKey {
	key := sourceKey{context: s.Context, machine: s.Machine}
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
	o := t.start(s)
	select {
	case <-o.done:
		return o.tree, o.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// start begins to open a source, unless somebody else has.
func (t *trees) start(s *plan.Source) *opening {
	key := keyOf(s)
	t.mu.Lock()
	o, ok := t.opened[key]
	if !ok {
		o = &opening{done: make(chan struct{})}
		t.opened[key] = o
	}
	t.mu.Unlock()
	if !ok {
		t.running.Go(func() {
			o.tree, o.err = t.open(t.life, s)
			close(o.done)
		})
	}
	return o
}

// open opens a source.
func (t *trees) open(ctx context.Context, s *plan.Source) (tree.Tree, error) {
	switch {
	case s.HTTP != nil:
		return t.fetch(ctx, s.HTTP)
	case s.Git != nil:
		return t.clone(ctx, s.Git)
	case s.Machine != "":
		return t.machine(ctx, s)
	}
	return t.named(ctx, s)
}

// named opens a named context.
func (t *trees) named(ctx context.Context, s *plan.Source) (tree.Tree, error) {
	o := t.options
	src, err := contextsource.Open(ctx, o, contextsource.Request{Place: s.Context, Title: s.Name, Flag: "--build-context", Further: true})
	if err != nil {
		return nil, err
	}
	t.closes(src.Close)
	t.found(s, src.Digest)
	c, err := buildcontext.OpenTree(ctx, buildcontext.Options{
		Name: s.Name, Source: firstOf(src.Directory, src.Name), Tree: src.Tree, Cwd: o.Cwd, Now: o.Now, Exclude: t.exclude,
	})
	if err != nil {
		return nil, err
	}
	t.closes(c.Close)
	return c.Tree(), nil
}

// machine opens a directory of this machine.
func (t *trees) machine(ctx context.Context, s *plan.Source) (tree.Tree, error) {
	c, err := buildcontext.OpenTree(ctx, buildcontext.Options{Name: s.Name, Source: s.Machine, Cwd: t.options.Cwd, Plain: true, Exclude: t.own})
	if err != nil {
		return nil, err
	}
	t.closes(c.Close)
	return c.Tree(), nil
}

// fetch downloads a file.
func (t *trees) fetch(ctx context.Context, s *plan.HTTPSource) (tree.Tree, error) {
	f, err := t.options.Download.Fetch(ctx, download.Request{URL: s.URL, Checksum: s.Checksum})
	if err != nil {
		return nil, err
	}
	t.closes(f.Close)
	t.found(&plan.Source{HTTP: s}, f.Digest.String())
	return f.Tree(s.Filename, t.options.Now), nil
}

// clone fetches a git repository.
func (t *trees) clone(ctx context.Context, s *plan.GitSource) (tree.Tree, error) {
	g, err := gittree.Fetch(ctx, t.options.Git, gittree.Spec{
		Remote: s.Remote, Ref: s.Ref, Subdir: s.Subdir, Checksum: s.Checksum, KeepGitDir: s.KeepGitDir,
		SkipSubmodules: s.SkipSubmodules, CommitTimes: s.CommitTimes, FetchByCommit: s.FetchByCommit,
	})
	if err != nil {
		return nil, err
	}
	t.closes(g.Close)
	t.found(&plan.Source{Git: s}, g.Format()+":"+g.Commit())
	return g, nil
}

// prefetch opens all sources of the graphs at once. What is wrong with one is said by the step that needs it.
func (t *trees) prefetch(graphs []*plan.Graph) {
	for _, g := range graphs {
		for _, s := range g.Sources() {
			t.start(s)
		}
	}
}

// closes remembers what close has to call.
func (t *trees) closes(closer func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closers = append(t.closers, closer)
}

// close closes all trees, after those that are being opened.
func (t *trees) close() error {
	t.running.Wait()
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
