// Package gittree gives a git repository at one commit as a file tree, without a working copy and without the program git:
// the pack of that commit is fetched, and files are read out of it when somebody asks.
//
// Submodules are part of the tree. Files are as git would write them: modes 0644 and 0755, owned by root, line ends and
// encodings as .gitattributes says. Whatever a repository holds, nothing leads out of the tree, and what it can make us
// read and keep is bounded.
package gittree

import (
	"context"
	"errors"
	"os"
	"time"

	"hako/internal/download"
	"hako/internal/event"
	"hako/internal/gitpack"
	"hako/internal/gitwire"
)

// Spec says which tree is wanted.
type Spec struct {
	// Remote is an http, https, ssh or git URL without fragment, or "user@host:path".
	Remote string
	// Ref is a branch, a tag, a full name of a reference, or a commit, whole or its first digits;
	// empty is the remote's default branch.
	Ref string
	// Subdir is a directory that takes the root's place; empty for none.
	Subdir string
	// Checksum is a commit, or the first digits of one, that Ref has to stand for; empty if any will do.
	Checksum string
	// KeepGitDir adds a .git directory, so that git works in the tree. It has no effect if there is a Subdir.
	KeepGitDir bool
	// SkipSubmodules leaves the directories of submodules empty.
	SkipSubmodules bool
	// CommitTimes gives all files the time of the commit, and not Options.Now.
	CommitTimes bool
	// FetchByCommit fetches Checksum, a whole commit, without asking what Ref stands for.
	FetchByCommit bool
	// LFS says that files which are pointers of Git LFS are the files that they point to, where .gitattributes says so.
	LFS bool
}

// Options says how repositories are fetched.
type Options struct {
	// Client reaches servers. It must be set.
	Client *gitwire.Client
	// File makes an empty file without a name. It must be set.
	File func(name string) (*os.File, error)
	// Now is the time of all files.
	Now time.Time
	// Download gets large files of Git LFS. It must be set if [Spec].LFS is; Clock is the time then, time.Now if nil.
	Download *download.Client
	Clock    func() time.Time
	// Events receives progress and warnings; nil drops them.
	Events event.Sink
	// RetryDelay is the first pause before a fetch that was cut is tried again; zero means one second.
	RetryDelay time.Duration
	// Workers is how much is done at the same time; zero means one.
	Workers int
	// Limits bound what the tree may hold.
	Limits Limits
}

// Limits bound what a repository may make us do. The zero value means the defaults.
type Limits struct {
	Pack gitpack.Limits
	// Entries is the largest number of files and directories, 0 means 5 million; Bytes is what all files hold together, 0 means 1 TiB.
	Entries, Bytes int64
	// Submodules is the largest number of submodules, 0 means 1000.
	Submodules int
}

func (l Limits) orDefault() Limits {
	if l.Entries == 0 {
		l.Entries = 5_000_000 // as many as a layer
	}
	if l.Bytes == 0 {
		l.Bytes = 1 << 40
	}
	if l.Submodules == 0 {
		l.Submodules = 1000
	}
	return l
}

// Fetch fetches the tree that s describes. What the user can mend is a *diag.Error without a position; no secret is in it.
// When ctx ends, Fetch returns its cause. The caller closes the tree, whose reads end with ctx, too.
func Fetch(ctx context.Context, o Options, s Spec) (_ *Tree, err error) {
	f := newFetcher(o, s)
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	top, err := f.repository(ctx, s.target())
	if err != nil {
		return nil, err
	}
	if !s.SkipSubmodules {
		if err := f.submodules(ctx, top); err != nil {
			return nil, err
		}
	}
	return newTree(ctx, f, top)
}

// Resolve finds out which commit, or tag that stands for one, s means at the moment, and fetches nothing. It is empty if only the
// history tells: of the first digits of a commit. What the user can mend is a *diag.Error.
func Resolve(ctx context.Context, o Options, s Spec) (string, error) {
	f := newFetcher(o, s)
	f.onlyFind = true
	r, err := f.repository(ctx, s.target())
	if err != nil || r.want.IsZero() {
		return "", err
	}
	return r.want.String(), nil
}

func newFetcher(o Options, s Spec) *fetcher {
	if o.Events == nil {
		o.Events = event.Discard{}
	}
	if o.RetryDelay == 0 {
		o.RetryDelay = time.Second
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	o.Limits = o.Limits.orDefault()
	return &fetcher{options: o, spec: s}
}

// target is the commit that is wanted.
func (s *Spec) target() target {
	return target{remote: s.Remote, ref: s.Ref, checksum: s.Checksum, byCommit: s.FetchByCommit}
}
