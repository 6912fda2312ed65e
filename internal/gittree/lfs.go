package gittree

import (
	"context"
	"errors"
	"io"
	"path"
	"sync"

	"github.com/opencontainers/go-digest"

	"hako/internal/download"
	"hako/internal/gitlfs"
	"hako/internal/gitpack"
)

const (
	lfsFilter     = "lfs"
	lfsConfigName = ".lfsconfig"
	// lfsAhead is how many of the files that follow are fetched while one is read, if they have at most lfsAheadBytes.
	lfsAhead      = 4
	lfsAheadBytes = 16 << 20 // 16 MiB
)

// lfsFiles are the large files of a tree that a server beside the repository has. Each is fetched when it is read for the
// first time, and kept until the tree is closed.
type lfsFiles struct {
	tree *Tree
	ctx  context.Context //nolint:containedctx // the tree's, ended by close
	end  context.CancelCauseFunc

	once  sync.Once // guards what follows
	err   error
	order []lfsFile      // as they lie in the tree, each once
	index map[string]int // by object

	mu      sync.Mutex // guards what follows
	servers map[*repository]*gitlfs.Server
	opened  map[string]*lfsOpening
	running sync.WaitGroup
}

// lfsFile is a pointer and the repository that it is in.
type lfsFile struct {
	gitlfs.Pointer
	repo *repository
}

// lfsOpening is a file that is or was fetched. Its fields may be read once done is closed.
type lfsOpening struct {
	done chan struct{}
	file *download.File
	err  error
}

func newLFSFiles(ctx context.Context, t *Tree) *lfsFiles {
	l := &lfsFiles{tree: t, servers: map[*repository]*gitlfs.Server{}, opened: map[string]*lfsOpening{}}
	l.ctx, l.end = context.WithCancelCause(ctx)
	return l
}

var errClosed = errors.New("the tree is closed")

// pointer says whether the file e in the directory in is a pointer to a large file.
func (t *Tree) pointer(in *place, e entry) (gitlfs.Pointer, bool, error) {
	if t.lfs == nil || in.rules == nil || e.kind != file && e.kind != executable {
		return gitlfs.Pointer{}, false, nil
	}
	filter := in.rules.of(path.Join(in.at, e.name))["filter"]
	if filter.state != valued || filter.value != lfsFilter {
		return gitlfs.Pointer{}, false, nil
	}
	_, n, err := in.repo.content().Stat(e.id)
	if err != nil || n >= gitlfs.MaxPointer {
		return gitlfs.Pointer{}, false, err
	}
	data, err := in.repo.content().Bytes(t.ctx, e.id, gitpack.Blob, gitlfs.MaxPointer)
	if err != nil {
		return gitlfs.Pointer{}, false, err
	}
	p, ok := gitlfs.ParsePointer(data)
	return p, ok, nil
}

// ContentDigest is the digest of a large file, which need not be fetched for it. Of other files it is not known.
func (t *Tree) ContentDigest(p string) (digest.Digest, bool) {
	if t.lfs == nil {
		return "", false
	}
	in, e, err := t.find(p)
	if err != nil {
		return "", false
	}
	ptr, ok, err := t.pointer(in, e)
	if !ok || err != nil || ptr.Extended {
		return "", false
	}
	return digest.NewDigestFromEncoded(digest.SHA256, ptr.OID), true
}

// open reads a large file, and begins to fetch those that follow it in the tree.
func (l *lfsFiles) open(repo *repository, p gitlfs.Pointer) (io.ReadCloser, error) {
	l.once.Do(l.list)
	if l.err != nil {
		return nil, l.err
	}
	o := l.start(lfsFile{p, repo})
	at := l.index[p.OID] + 1
	for _, next := range l.order[at:min(at+lfsAhead, len(l.order))] {
		if next.Size <= lfsAheadBytes && !next.Extended {
			l.start(next)
		}
	}
	select {
	case <-o.done:
	case <-l.ctx.Done():
		return nil, context.Cause(l.ctx)
	}
	if o.err != nil {
		return nil, o.err
	}
	return o.file.Reader(), nil
}

// start begins to fetch a file, unless somebody else has.
func (l *lfsFiles) start(f lfsFile) *lfsOpening {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.opened[f.OID]
	if o != nil {
		return o
	}
	o = &lfsOpening{done: make(chan struct{})}
	l.opened[f.OID] = o
	server := l.serverLocked(f.repo)
	l.running.Go(func() {
		defer close(o.done)
		o.file, o.err = server.Fetch(l.ctx, f.Pointer, l.near(f))
	})
	return o
}

// near are the files that the server is asked about together with f: the same ones for each of them, so that it does not
// matter which is wanted first.
func (l *lfsFiles) near(f lfsFile) []gitlfs.Pointer {
	var out []gitlfs.Pointer
	found := false
	for _, n := range l.order {
		if n.repo != f.repo {
			continue
		}
		if len(out) == gitlfs.BatchSize {
			if found {
				return out
			}
			out = out[:0]
		}
		out = append(out, n.Pointer)
		found = found || n.OID == f.OID
	}
	return out
}

// serverLocked is the server of a repository.
func (l *lfsFiles) serverLocked(r *repository) *gitlfs.Server {
	s := l.servers[r]
	if s == nil {
		o := &l.tree.fetcher.options
		s = gitlfs.New(gitlfs.Options{
			Git: o.Client, Download: o.Download, Remote: r.final, Named: l.tree.fetcher.spec.Remote, URL: r.lfsURL, Ref: r.name, Now: o.Clock,
		})
		l.servers[r] = s
	}
	return s
}

// list finds all large files of the tree.
func (l *lfsFiles) list() {
	l.index = map[string]int{}
	l.err = l.listDir(l.tree.root)
}

func (l *lfsFiles) listDir(in *place) error {
	d, err := l.tree.dir(in)
	if err != nil {
		return err
	}
	for _, e := range d.entries {
		switch e.kind {
		case directory, gitlink:
			below, err := l.tree.below(in, e.name)
			if err == nil {
				err = l.listDir(below)
			}
			if err != nil {
				return err
			}
		case file, executable:
			p, ok, err := l.tree.pointer(in, e)
			if err != nil {
				return err
			}
			if _, twice := l.index[p.OID]; ok && !twice {
				l.index[p.OID] = len(l.order)
				l.order = append(l.order, lfsFile{p, in.repo})
			}
		}
	}
	return nil
}

// close frees what was fetched.
func (l *lfsFiles) close() error {
	l.end(errClosed)
	l.running.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, o := range l.opened {
		if o.file != nil {
			errs = append(errs, o.file.Close())
		}
	}
	clear(l.opened)
	return errors.Join(errs...)
}

// readLFSConfig finds the address of the server with the large files in .lfsconfig (git-lfs-config(5)).
func (r *repository) readLFSConfig(ctx context.Context) error {
	const most = 1 << 20 // 1 MiB
	top, err := r.readDir(ctx, r.commit.tree)
	if err != nil {
		return err
	}
	e, ok := top.find(lfsConfigName)
	if !ok || e.kind != file && e.kind != executable {
		return nil
	}
	data, err := r.content().Bytes(ctx, e.id, gitpack.Blob, most)
	if err != nil {
		return err
	}
	var own, origin string
	err = parseConfig(string(data), func(v configValue) {
		switch {
		case v.section == "lfs" && v.sub == "" && v.key == "url":
			own = v.value
		case v.section == "remote" && v.sub == "origin" && v.key == "lfsurl":
			origin = v.value
		}
	})
	r.lfsURL = own
	if own == "" {
		r.lfsURL = origin
	}
	return err
}
