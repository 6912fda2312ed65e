// Package registrytest serves a container registry inside a test's process and makes it misbehave as told:
// it asks for credentials, fails, stalls, cuts connections and lies about content, and it counts requests.
//
// The registry itself is go-containerregistry's, kept in memory; what that lacks is added here:
// blobs belong to one repository, and can be mounted into another.
package registrytest

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
)

// Registry is a registry that can be told to fail. It is an http.Handler and may be used from many goroutines.
type Registry struct {
	// Auth is what the registry asks for; its zero value is nothing. Set it before the first request.
	Auth Auth
	// NoMount makes the registry start an upload instead of mounting, as some do.
	NoMount bool
	// KnowsUploads makes the registry say how much of an upload has arrived; not all do.
	KnowsUploads bool

	inner http.Handler

	mu       sync.Mutex // guards what follows
	faults   []*Fault
	requests []Request
	came     chan struct{}              // closed, and replaced, when there is a request more
	blobs    map[string]map[string]bool // repository, digest
	tokens   map[string]token
	arrived  map[string]string // ranges by the path of the upload
}

// Request is one request that the registry got.
type Request struct {
	Method, Path, Query string
	// User is who sent it, as far as the credentials are right.
	User string
	// UserAgent and Range are the headers of these names.
	UserAgent, Range string
}

// New returns an empty registry that does nothing wrong yet. It does not know referrers.
func New() *Registry { return newRegistry(false) }

// NewWithReferrers returns a registry that has the referrers API.
func NewWithReferrers() *Registry { return newRegistry(true) }

func newRegistry(referrers bool) *Registry {
	return &Registry{
		inner:  registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(referrers)),
		came:   make(chan struct{}),
		blobs:  map[string]map[string]bool{},
		tokens: map[string]token{}, arrived: map[string]string{},
	}
}

// Start serves r over plain HTTP until the test ends and returns host and port.
func (r *Registry) Start(t testing.TB) string {
	t.Helper()
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

// StartTLS is Start over TLS, with a certificate that nobody trusts but the server's own client.
func (r *Registry) StartTLS(t testing.TB) (host string, server *httptest.Server) {
	t.Helper()
	s := httptest.NewUnstartedServer(r)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://"), s
}

// Inject adds a fault. Of several that match a request, the first added that is not used up acts.
func (r *Registry) Inject(f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, &f)
}

// Requests returns what the registry was asked, in order, without the requests for tokens.
func (r *Registry) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Count says how many requests had the method and the text in their path. Empty stands for any.
func (r *Registry) Count(method, path string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.countLocked(method, path)
}

func (r *Registry) countLocked(method, path string) int {
	n := 0
	for _, q := range r.requests {
		if (method == "" || q.Method == method) && strings.Contains(q.Path, path) {
			n++
		}
	}
	return n
}

// Wait returns when Count is not zero: such a request has come, but may not have been answered. It returns ctx's cause if ctx ends first.
func (r *Registry) Wait(ctx context.Context, method, path string) error {
	for {
		r.mu.Lock()
		n, came := r.countLocked(method, path), r.came
		r.mu.Unlock()
		if n > 0 {
			return nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// ServeHTTP answers like a registry, after the faults have had their turn.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if req.URL.Path == tokenPath {
		r.serveToken(w, req)
		return
	}
	user, ok := r.authorized(req)
	r.record(req, user)
	if f := r.fault(req); f != nil {
		f.act(w, req, r.answer)
		return
	}
	if !ok {
		r.challenge(w, req)
		return
	}
	r.answer(w, req)
}

func (r *Registry) record(req *http.Request, user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, Request{
		Method:    req.Method,
		Path:      req.URL.Path,
		Query:     req.URL.RawQuery,
		User:      user,
		UserAgent: req.UserAgent(),
		Range:     req.Header.Get("Range"),
	})
	close(r.came)
	r.came = make(chan struct{})
}

// answer is the well-behaved registry.
func (r *Registry) answer(w http.ResponseWriter, req *http.Request) {
	repo, kind, rest := split(req.URL.Path)
	switch {
	case kind == "blobs" && strings.HasPrefix(rest, "uploads/"):
		r.upload(w, req, repo)
	case kind == "blobs" && !r.has(repo, rest):
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry"}]}`) // a test's client
	case kind == "manifests" && req.Method == http.MethodPut:
		r.put(w, req)
	default:
		r.inner.ServeHTTP(w, req)
	}
}

// put takes a manifest that has arrived whole: the inner registry would keep what a client sent before it was killed.
func (r *Registry) put(w http.ResponseWriter, req *http.Request) {
	data, err := io.ReadAll(req.Body)
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(data))
	r.inner.ServeHTTP(w, req)
}

// upload adds to the inner registry: mounts, cancelled uploads, and a note of what the repository has.
func (r *Registry) upload(w http.ResponseWriter, req *http.Request, repo string) {
	query := req.URL.Query()
	switch {
	case req.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case req.Method == http.MethodPost && query.Get("mount") != "" && !r.NoMount && r.has(query.Get("from"), query.Get("mount")):
		r.add(repo, query.Get("mount"))
		w.Header().Set("Location", "/v2/"+repo+"/blobs/"+query.Get("mount"))
		w.WriteHeader(http.StatusCreated)
	case req.Method == http.MethodPut:
		status := &statusWriter{ResponseWriter: w}
		r.inner.ServeHTTP(status, req)
		if status.code == http.StatusCreated {
			r.add(repo, query.Get("digest"))
		}
	case req.Method == http.MethodPatch:
		r.inner.ServeHTTP(w, req)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.arrived[req.URL.Path] = w.Header().Get("Range")
	case req.Method == http.MethodGet && r.KnowsUploads:
		r.mu.Lock()
		defer r.mu.Unlock()
		w.Header().Set("Range", r.arrived[req.URL.Path])
		w.Header().Set("Location", req.URL.Path)
		w.WriteHeader(http.StatusNoContent)
	default:
		r.inner.ServeHTTP(w, req)
	}
}

type statusWriter struct {
	http.ResponseWriter
	code int
}

func (s *statusWriter) WriteHeader(code int) {
	s.code = code
	s.ResponseWriter.WriteHeader(code)
}

func (r *Registry) has(repo, digest string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.blobs[repo][digest]
}

func (r *Registry) add(repo, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.blobs[repo] == nil {
		r.blobs[repo] = map[string]bool{}
	}
	r.blobs[repo][digest] = true
}

// split takes "/v2/a/b/blobs/uploads/1" apart: "a/b", "blobs", "uploads/1".
func split(path string) (repo, kind, rest string) {
	path = strings.TrimPrefix(path, "/v2/")
	for _, kind := range []string{"blobs", "manifests", "tags"} {
		if i := strings.LastIndex(path, "/"+kind+"/"); i >= 0 {
			return path[:i], kind, path[i+len(kind)+2:]
		}
	}
	return "", "", path
}

// queryScopes lists the scopes asked for: "repository:a/b:pull,push".
func queryScopes(query url.Values) []string {
	var out []string
	for _, s := range query["scope"] {
		out = append(out, strings.Fields(s)...)
	}
	return out
}
