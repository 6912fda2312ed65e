// Package gitlfs fetches the large files of git repositories that git itself has only pointers to (Git LFS): it asks the
// server beside the repository where they are, and gets them from there, checked by the digest in the pointer.
//
// The server is found as the program git-lfs finds it: by .lfsconfig, by the address of the repository, or by asking an ssh
// server. Logins are those of the repository; they do not follow to other servers, which get what the first one says.
package gitlfs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
	"hako/internal/download"
	"hako/internal/gitwire"
	"hako/internal/web"
)

const (
	mediaType = "application/vnd.git-lfs+json"
	// margin is how long before its end an answer is not used any more.
	margin = 10 * time.Second
)

// BatchSize is how many files a server is asked about at once: what the programs of servers allow at least.
const BatchSize = 100

// Options says whose files are wanted.
type Options struct {
	// Git and Download reach servers. They must be set.
	Git      *gitwire.Client
	Download *download.Client
	// Remote is the repository, after redirects. Named is the one that somebody asked for: another one for a submodule.
	Remote, Named string
	// URL is the server that the repository's .lfsconfig names; empty if none.
	URL string
	// Ref is the full name of the reference that was fetched; empty if there is none.
	Ref string
	// Now is the clock.
	Now func() time.Time
}

// Server is where the large files of a repository are. It may be used from many goroutines.
type Server struct {
	options Options
	named   *url.URL

	asking  sync.Mutex // held while the server is asked
	mu      sync.Mutex // guards what follows
	at      *place     // nil until it is known
	actions map[string]action
}

// place is a server and what it wants to see.
type place struct {
	url     *url.URL
	header  http.Header
	expires time.Time // zero for never
}

// action is where a file is.
type action struct {
	url     *url.URL
	header  http.Header
	expires time.Time // zero for never
	err     error     // why there is none
}

// New returns the server of a repository. It is not asked anything before the first file is wanted.
func New(o Options) *Server {
	s := &Server{options: o, actions: map[string]action{}}
	if u, err := url.Parse(o.Named); err == nil {
		s.named = u
	}
	return s
}

// Fetch gets a file. near are others that will be wanted: the server is asked for them at the same time, if it is asked.
// What is wrong is a *diag.Error without a position. When ctx ends, Fetch returns its cause. The caller closes the result.
func (s *Server) Fetch(ctx context.Context, p Pointer, near []Pointer) (*download.File, error) {
	f, err := s.fetch(ctx, p, near)
	switch {
	case err == nil:
		return f, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	e := &diag.Error{What: fmt.Sprintf("fetch the LFS file %s of %s", p.OID, gitwire.Redact(s.options.Remote)), Cause: err, Hint: hint(err)}
	var known *diag.Error
	if errors.As(err, &known) && known.Hint != "" {
		e.Hint = known.Hint
	}
	return nil, e
}

func (s *Server) fetch(ctx context.Context, p Pointer, near []Pointer) (*download.File, error) {
	if p.Extended {
		return nil, errors.New("it went through an extension of git-lfs, which would have to undo that")
	}
	a, fresh, err := s.action(ctx, p, near)
	if err != nil {
		return nil, err
	}
	f, err := s.get(ctx, p, a)
	var answer *download.StatusError
	if err == nil || fresh || !errors.As(err, &answer) {
		return f, err
	}
	// What the server said some time ago is not true any more.
	s.forget(p)
	if a, _, err = s.action(ctx, p, near); err != nil {
		return nil, err
	}
	return s.get(ctx, p, a)
}

// get downloads a file.
func (s *Server) get(ctx context.Context, p Pointer, a action) (*download.File, error) {
	f, err := s.options.Download.Fetch(ctx, download.Request{
		URL: a.url.String(), Header: a.header, Checksum: digest.NewDigestFromEncoded(digest.SHA256, p.OID), MaxBytes: max(p.Size, 1),
	})
	if err == nil && f.Size != p.Size {
		err = errors.Join(fmt.Errorf("it has %d bytes, not %d", f.Size, p.Size), f.Close())
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

// forget drops what the server said about a file.
func (s *Server) forget(p Pointer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.actions, p.OID)
}

// known is what the server said about a file, if that is still true.
func (s *Server) known(oid string) (action, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.actions[oid]
	if ok && !a.expires.IsZero() && s.options.Now().After(a.expires.Add(-margin)) {
		return a, false
	}
	return a, ok
}

// action asks where a file is. fresh says that the answer is new.
func (s *Server) action(ctx context.Context, p Pointer, near []Pointer) (_ action, fresh bool, err error) {
	if a, ok := s.known(p.OID); ok {
		return a, false, a.err
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	if a, ok := s.known(p.OID); ok {
		return a, false, a.err
	}
	wanted := []Pointer{p}
	for _, n := range near {
		same := func(w Pointer) bool { return w.OID == n.OID }
		if _, ok := s.known(n.OID); !ok && !n.Extended && len(wanted) < BatchSize && !slices.ContainsFunc(wanted, same) {
			wanted = append(wanted, n)
		}
	}
	if err := s.batch(ctx, wanted); err != nil {
		return action{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a, ok := s.actions[p.OID]
	if !ok {
		return action{}, false, errors.New("the server does not answer for it")
	}
	return a, true, a.err
}

// endpoint is the server of a repository that is not reached by ssh (git-lfs, docs/api/server-discovery.md).
func endpoint(remote string) (*url.URL, error) {
	u, err := url.Parse(remote)
	if err != nil {
		return nil, errors.New("its address is not valid")
	}
	out := *u
	if out.Scheme == "git" {
		out.Scheme, out.Host, out.User = "https", out.Hostname(), nil
	}
	p := strings.TrimRight(out.Path, "/")
	if !strings.HasSuffix(p, ".git") {
		p += ".git"
	}
	out.Path, out.RawPath, out.RawQuery, out.Fragment = p+"/info/lfs", "", "", ""
	return &out, nil
}

// hint is what to do about err.
func hint(err error) string {
	var answer *answerError
	var file *download.StatusError
	const leave = " --git lfs=false takes the pointers as they are."
	switch {
	case errors.As(err, &answer):
		switch {
		case answer.status == http.StatusUnauthorized, answer.status == http.StatusForbidden:
			return "Give credentials that may read the repository's LFS files (GIT_TOKEN, or a secret GIT_AUTH_TOKEN)." + leave
		case answer.status == http.StatusNotFound:
			return "The server has no LFS at this address, or wants credentials for it." + leave
		case web.TemporaryStatus(answer.status):
			return "The server has a problem of its own: try again later."
		}
		return "Push the file to the server with git lfs push." + leave
	case errors.As(err, &file):
		return "The server that the repository's LFS server names does not give the file out." + leave
	}
	if h := gitwire.Hint(err); h != "" {
		return h
	}
	return "Leave LFS alone with --git lfs=false, which takes the pointers as they are."
}
