package gittree

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/gitpack"
	"hako/internal/gitwire"
	"hako/internal/web"
)

const (
	// maxTries is how often a fetch is begun that was cut.
	maxTries = 4
	// maxTags is how many tags may stand for each other.
	maxTags = 10
)

// fetcher fetches a repository and its submodules.
type fetcher struct {
	options Options
	spec    Spec
	// onlyFind says to fetch nothing.
	onlyFind bool

	mu    sync.Mutex // guards packs and count
	packs []*gitpack.Pack
	count int // of submodules
}

// close frees all packs.
func (f *fetcher) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, p := range f.packs {
		errs = append(errs, p.Close())
	}
	f.packs = nil
	return errors.Join(errs...)
}

// target is a commit of a repository that is to be fetched.
type target struct {
	remote, ref, checksum string
	byCommit              bool
	// parent is the repository whose submodule this is, at path; nil for the first one.
	parent *repository
	path   string
}

// repository is a commit of a repository.
type repository struct {
	target
	pack    *gitpack.Pack
	files   *gitpack.Pack // the files if they are not in pack
	below   *gitpack.ID   // the directory whose files were fetched, zero for none; nil if all were
	want    gitpack.ID    // the commit, or the tag that stands for it
	id      gitpack.ID    // of the commit
	commit  *commit
	name    string // full name of the reference, empty if it was fetched by its id
	shallow []gitpack.ID
	subs    map[string]*repository // submodules by path; nil for one that stays empty
	attrs   bool                   // there is a .gitattributes file somewhere
	final   string                 // the remote, after redirects
	lfsURL  string                 // the server of large files that .lfsconfig names, or empty
}

// title is what people call the repository.
func (t *target) title() string { return "git repository " + gitwire.Redact(t.remote) }

// repository fetches a commit and checks all that belongs to it.
func (f *fetcher) repository(ctx context.Context, t target) (*repository, error) {
	for try := 1; ; try++ {
		r, err := f.once(ctx, t)
		if err == nil || try == maxTries || ctx.Err() != nil || !web.Temporary(err) {
			return r, explain(ctx, &t, err)
		}
		f.options.Events.Emit(event.Debug{Message: fmt.Sprintf("fetch %s again: %v", t.title(), err)})
		if err := web.Sleep(ctx, f.options.RetryDelay<<(try-1)); err != nil {
			return nil, err
		}
	}
}

// explain turns an error into one for people.
func explain(ctx context.Context, t *target, err error) error {
	var known *diag.Error
	var wire *gitwire.Error
	e := &diag.Error{What: t.title(), Cause: err}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &known):
		*e = *known
	case errors.As(err, &wire):
		e.Cause, e.Hint = wire.Err, gitwire.Hint(err)
	default:
		e.Hint = gitwire.Hint(err)
	}
	if t.parent != nil {
		e.What = fmt.Sprintf("submodule %s of %s: %s", clip(t.path), gitwire.Redact(t.parent.remote), e.What)
	}
	return e
}

// once fetches t without a second try.
func (f *fetcher) once(ctx context.Context, t target) (*repository, error) {
	s, err := f.options.Client.Open(ctx, t.remote, f.spec.Remote)
	if err != nil {
		return nil, err
	}
	r := &repository{target: t, subs: map[string]*repository{}}
	defer s.Close() //nolint:errcheck // nothing was written
	r.final = s.Remote()
	if err := f.find(ctx, s, r); err != nil || f.onlyFind {
		return r, err
	}
	if err := f.fetch(ctx, s, r); err != nil {
		return nil, err
	}
	if err := f.check(ctx, s, r); err != nil {
		return nil, err
	}
	return r, nil
}

// find finds out which object is wanted. It stays zero if that is known only once the history is here.
func (f *fetcher) find(ctx context.Context, s *gitwire.Session, r *repository) error {
	if r.byCommit {
		id, err := gitpack.ParseID(s.Format(), r.checksum)
		r.want = id
		return err
	}
	if id, err := gitpack.ParseID(s.Format(), r.ref); err == nil {
		r.want = id
		return nil
	}
	ref, err := findRef(ctx, s, r.ref)
	switch {
	case err != nil:
		return err
	case ref != nil:
		r.want, r.name = ref.ID, ref.Name
		return checkSum(r, ref.ID, ref.Peeled)
	case isShort(r.ref):
		return f.findShort(ctx, s, r)
	}
	return f.noRef(ctx, s, r)
}

// findRef looks a name up as git fetch does: as it is, then as a branch, then as a tag. It returns nil if there is none.
func findRef(ctx context.Context, s *gitwire.Session, name string) (*gitwire.Ref, error) {
	if name == "" {
		name = "HEAD"
	}
	candidates := []string{
		"refs/" + strings.TrimPrefix(name, "refs/"),
		"refs/heads/" + strings.TrimPrefix(name, "refs/heads/"),
		"refs/tags/" + strings.TrimPrefix(name, "refs/tags/"),
	}
	if name == "HEAD" {
		candidates = append([]string{name}, candidates...)
	}
	refs, err := s.Refs(ctx, candidates...)
	if err != nil {
		return nil, err
	}
	byName := map[string]*gitwire.Ref{}
	for i := range refs {
		byName[refs[i].Name] = &refs[i]
	}
	for _, c := range candidates {
		if ref := byName[c]; ref != nil {
			if ref.Target != "" {
				out := *ref
				out.Name = ref.Target
				return &out, nil
			}
			return ref, nil
		}
	}
	return nil, nil //nolint:nilnil // none is an answer here
}

// checkSum compares the ids with what the user expects.
func checkSum(r *repository, ids ...gitpack.ID) error {
	if r.checksum == "" {
		return nil
	}
	var have []string
	for _, id := range ids {
		if id.IsZero() {
			continue
		}
		if strings.HasPrefix(id.String(), strings.ToLower(r.checksum)) {
			return nil
		}
		have = append(have, id.String())
	}
	what := r.ref
	if what == "" {
		what = "HEAD"
	}
	return &diag.Error{
		What: fmt.Sprintf("%s: %s is the commit %s, not %s", r.title(), what, strings.Join(have, " or "), r.checksum),
		Hint: "The repository is not what the checksum was made of: look at it before you change the checksum.",
	}
}

// isShort says whether a name can be the beginning of a commit's id.
func isShort(name string) bool {
	return len(name) >= 4 && len(name) < 64 && strings.Trim(name, "0123456789abcdefABCDEF") == ""
}

// findShort looks for a commit whose id begins with the digits: among the references, then in the whole history.
func (f *fetcher) findShort(ctx context.Context, s *gitwire.Session, r *repository) error {
	refs, err := s.Refs(ctx)
	if err != nil {
		return err
	}
	found := map[gitpack.ID]bool{}
	for _, ref := range refs {
		for _, id := range []gitpack.ID{ref.ID, ref.Peeled} {
			if strings.HasPrefix(id.String(), strings.ToLower(r.ref)) {
				found[id] = true
			}
		}
	}
	switch len(found) {
	case 0:
		return nil // fetch looks for it in the history
	case 1:
		for id := range found {
			r.want = id
		}
		return checkSum(r, r.want)
	}
	return ambiguous(r)
}

func ambiguous(r *repository) error {
	return &diag.Error{What: fmt.Sprintf("%s: the digits %s are the beginning of several ids", r.title(), r.ref), Hint: "Give more digits."}
}

// noRef says that there is no such reference, and which is like it.
func (f *fetcher) noRef(ctx context.Context, s *gitwire.Session, r *repository) error {
	if r.ref == "" {
		return &diag.Error{What: r.title() + ": it has no default branch", Hint: "Name a branch or a tag: #name after the URL."}
	}
	e := &diag.Error{What: fmt.Sprintf("%s: it has no branch or tag %q", r.title(), clip(r.ref))}
	refs, err := s.Refs(ctx, "refs/heads/", "refs/tags/")
	if err != nil {
		return e //nolint:nilerr // the first error says more
	}
	var names []string
	for _, ref := range refs {
		name := strings.TrimPrefix(strings.TrimPrefix(ref.Name, "refs/heads/"), "refs/tags/")
		names = append(names, name)
	}
	switch near, ok := diag.Nearest(r.ref, names); {
	case ok:
		e.Hint = fmt.Sprintf("Did you mean %s?", near)
	case len(names) == 0:
		e.Hint = "The repository is empty."
	default:
		const few = 10
		list := strings.Join(names[:min(few, len(names))], ", ")
		if len(names) > few {
			list += ", …"
		}
		e.Hint = fmt.Sprintf("It has %s.", list)
	}
	return e
}

// fetch gets the pack with what is wanted, or else the whole history.
func (f *fetcher) fetch(ctx context.Context, s *gitwire.Session, r *repository) error {
	if !r.want.IsZero() {
		req := gitwire.Request{Wants: []gitpack.ID{r.want}, Depth: 1}
		if f.partial(s, r) {
			req.Filter, r.below = "blob:none", &gitpack.ID{}
		}
		err := f.fetchPack(ctx, s, r, req)
		if !errors.Is(err, gitwire.ErrRefused) {
			return err
		}
		if r.byCommit {
			return &diag.Error{What: r.title(), Cause: err, Hint: "The server does not take fetch-by-commit: name a branch or a tag."}
		}
	}
	r.below = nil
	return f.fetchHistory(ctx, r)
}

// fetchHistory gets everything that branches and tags lead to. It uses a session of its own: the last one may have
// ended with an error.
func (f *fetcher) fetchHistory(ctx context.Context, r *repository) error {
	s, err := f.options.Client.Open(ctx, r.remote, f.spec.Remote)
	if err != nil {
		return err
	}
	defer s.Close() //nolint:errcheck // nothing was written
	refs, err := s.Refs(ctx)
	if err != nil {
		return err
	}
	req := gitwire.Request{}
	seen := map[gitpack.ID]bool{}
	for _, ref := range refs {
		if !seen[ref.ID] && !ref.ID.IsZero() {
			seen[ref.ID] = true
			req.Wants = append(req.Wants, ref.ID)
		}
	}
	what := r.ref
	if what == "" {
		what = r.want.String()
	}
	if len(req.Wants) == 0 {
		return noCommit(r, what)
	}
	f.options.Events.Emit(event.Warning{Message: fmt.Sprintf("%s: the server does not give out %s by itself, so the whole history is fetched", r.title(), what)})
	if err := f.fetchPack(ctx, s, r, req); err != nil {
		return err
	}
	if !r.want.IsZero() {
		if _, _, err := r.pack.Stat(r.want); err != nil {
			return noCommit(r, what)
		}
		return nil
	}
	found := r.pack.WithPrefix(gitpack.Commit, strings.ToLower(r.ref))
	switch len(found) {
	case 0:
		return noCommit(r, what)
	case 1:
		r.want = found[0]
		return checkSum(r, r.want)
	}
	return ambiguous(r)
}

func noCommit(r *repository, what string) error {
	return &diag.Error{
		What: fmt.Sprintf("%s: it has no commit %s", r.title(), what),
		Hint: "Check the id, and that a branch or a tag leads to the commit.",
	}
}

// fetchPack reads a pack into r.
func (f *fetcher) fetchPack(ctx context.Context, s *gitwire.Session, r *repository, req gitwire.Request) (err error) {
	r.pack, r.shallow, err = f.readPack(ctx, s, r, req)
	return err
}

// readPack fetches a pack of r.
func (f *fetcher) readPack(ctx context.Context, s *gitwire.Session, r *repository, req gitwire.Request) (_ *gitpack.Pack, shallow []gitpack.ID, err error) {
	got, err := s.Fetch(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, got.Close()) }()
	what := "fetch " + gitwire.Redact(r.remote)
	counter := event.NewCounter(got, f.options.Events, event.Progress{ID: what + " " + r.path, What: what})
	defer counter.Finish()
	p, err := gitpack.Read(ctx, counter, gitpack.Options{
		File: f.options.File, Format: s.Format(), Limits: f.options.Limits.Pack, Workers: f.options.Workers,
	})
	if err != nil {
		return nil, nil, &gitwire.Error{Remote: gitwire.Redact(r.remote), Err: err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.packs = append(f.packs, p)
	return p, got.Shallow, nil
}

// check finds the commit and walks through all of its tree, so that nothing can be missing or wrong later.
func (f *fetcher) check(ctx context.Context, s *gitwire.Session, r *repository) error {
	if err := f.readCommit(ctx, r); err != nil {
		return err
	}
	if r.below != nil {
		if err := f.fetchFiles(ctx, s, r); err != nil {
			return err
		}
	}
	if f.spec.LFS {
		if err := r.readLFSConfig(ctx); err != nil {
			return &diag.Error{What: r.title() + ": " + lfsConfigName, Cause: err}
		}
	}
	return f.measure(ctx, r)
}

// readCommit finds the commit, behind tags if need be.
func (f *fetcher) readCommit(ctx context.Context, r *repository) error {
	id := r.want
	for n := 0; ; n++ {
		kind, _, err := r.pack.Stat(id)
		if err != nil {
			return incomplete(r, err)
		}
		if kind == gitpack.Commit {
			break
		}
		if kind != gitpack.Tag || n == maxTags {
			return &diag.Error{What: fmt.Sprintf("%s: %s is a %s, not a commit", r.title(), id, kind), Hint: "Name a branch, a tag or a commit."}
		}
		data, err := r.pack.Bytes(ctx, id, gitpack.Tag, maxCommit)
		if err != nil {
			return err
		}
		if id, err = parseTag(r.pack.Format(), data); err != nil {
			return err
		}
	}
	r.id = id
	if err := checkSum(r, r.want, r.id); err != nil {
		return err
	}
	data, err := r.pack.Bytes(ctx, id, gitpack.Commit, maxCommit)
	if err != nil {
		return err
	}
	r.commit, err = parseCommit(r.pack.Format(), data)
	return err
}

func incomplete(r *repository, err error) error {
	return &gitwire.Error{Remote: gitwire.Redact(r.remote), Err: fmt.Errorf("the server's pack is incomplete: %w", err)}
}
