package conformance

import (
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

const (
	// filesAddress is where the Dockerfiles of all cases think that their server is.
	filesAddress = "127.0.0.1:5988"
	// filesWord stands in a Dockerfile, or in args, for the URL of the case's own directory on that server.
	filesWord = "{files}"
	// gitSection starts the name of a section that describes a git repository.
	gitSection = "git:"
	// besideMark starts the names of files that lie in a directory beside the context: "@name/file".
	// The directory "@files" is what the server has.
	besideMark = "@"
)

// Server serves the directories and git repositories of cases, each below the case's name.
type Server struct {
	mu    sync.Mutex // guards cases
	cases map[string]*servedCase
}

// servedCase is what one case serves.
type servedCase struct {
	dir, git string
	rules    map[string]*rule

	mu   sync.Mutex // guards seen
	seen map[string]int
}

// rule says how one path is served.
type rule struct {
	status   int
	redirect string
	login    string // user:password
	busy     int    // how often the answer is 503 at first
	gzip     bool
	headers  map[string]string
}

// NewServer returns a server without cases.
func NewServer() *Server { return &Server{cases: map[string]*servedCase{}} }

// Add serves what job's case has.
func (s *Server) Add(job Job) error {
	c := &servedCase{dir: pathIn(job.Context, besideMark+"files"), git: pathIn(job.Context, besideMark+"git"), rules: map[string]*rule{}, seen: map[string]int{}}
	for _, l := range job.Case.rules {
		r, err := parseRule(l.words[2:])
		if err != nil {
			return fmt.Errorf("serve %s: %w", l.words[1], err)
		}
		c.rules[l.words[1]] = r
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cases[job.Case.Name] = c
	return nil
}

func parseRule(words []string) (*rule, error) {
	r := &rule{headers: map[string]string{}}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fmt.Errorf("%q has no value", w)
		}
		var err error
		switch key {
		case "status":
			r.status, err = strconv.Atoi(value)
		case "busy":
			r.busy, err = strconv.Atoi(value)
		case "gzip":
			r.gzip, err = strconv.ParseBool(value)
		case "redirect":
			r.redirect = value
		case "login":
			r.login = value
		default:
			r.headers[key] = value
		}
		if err != nil {
			return nil, err
		}
	}
	return r, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	s.mu.Lock()
	c := s.cases[name]
	s.mu.Unlock()
	if c == nil {
		http.NotFound(w, r)
		return
	}
	path, _, isGit := strings.Cut(rest, ".git/")
	if isGit {
		path += ".git"
	}
	if rule := c.rules[path]; rule != nil && !c.apply(rule, w, r) {
		return
	}
	if isGit {
		c.serveGit(w, r, "/"+rest)
		return
	}
	f, err := os.Open(filepath.Join(c.dir, filepath.Clean("/"+rest)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close() // only read
	fi, err := f.Stat()
	if err != nil || fi.IsDir() {
		http.NotFound(w, r)
		return
	}
	http.ServeContent(w, r, "", fi.ModTime(), f)
}

// apply does what the rule says, and tells whether the file shall be served after that.
func (c *servedCase) apply(rule *rule, w http.ResponseWriter, r *http.Request) bool {
	c.mu.Lock()
	c.seen[r.URL.Path]++
	n := c.seen[r.URL.Path]
	c.mu.Unlock()
	user, password, _ := r.BasicAuth()
	for k, v := range rule.headers {
		w.Header().Set(k, v)
	}
	switch {
	case n <= rule.busy:
		w.WriteHeader(http.StatusServiceUnavailable)
	case rule.login != "" && user+":"+password != rule.login:
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
	case rule.redirect != "":
		w.Header().Set("Location", rule.redirect)
		w.WriteHeader(http.StatusFound)
	case rule.status != 0:
		w.WriteHeader(rule.status)
	case rule.gzip:
		c.serveGzip(w, r)
	default:
		return true
	}
	return false
}

// serveGzip serves a file in the content encoding gzip.
func (c *servedCase) serveGzip(w http.ResponseWriter, r *http.Request) {
	_, rest, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	b, err := os.ReadFile(filepath.Join(c.dir, filepath.Clean("/"+rest)))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_, _ = z.Write(b) // the client may be gone
	_ = z.Close()     // likewise
}

// serveGit lets git answer.
func (c *servedCase) serveGit(w http.ResponseWriter, r *http.Request, path string) {
	git, err := exec.LookPath("git")
	if err != nil {
		http.Error(w, "no git here", http.StatusNotImplemented)
		return
	}
	r = r.Clone(r.Context())
	r.URL.Path = path
	h := &cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Root: "/",
		Env: append(gitEnv(c.git), "GIT_PROJECT_ROOT="+c.git, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=", "GIT_PROTOCOL="+r.Header.Get("Git-Protocol")),
	}
	h.ServeHTTP(w, r)
}
