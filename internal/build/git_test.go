package build_test

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/ssh/agent"

	"hako/internal/attest"
	"hako/internal/build"
	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/gittree/gittest"
	"hako/internal/web/webtest"
)

// gitWorld is a directory of repositories, git's own servers for them, and the same files in a directory.
type gitWorld struct {
	dir      string
	home     string // of the builder
	web      *httptest.Server
	daemon   string
	sshd     string // user@host:port
	commit   string
	logged   *said
	variable map[string]string
	cuts     atomic.Int64 // how many answers are cut
}

// said collects what users read.
type said struct{ lines chan string }

// Emit takes an event.
func (s *said) Emit(e event.Event) {
	switch e := e.(type) {
	case event.Warning:
		s.lines <- "warning: " + e.Message
	case event.Info:
		s.lines <- e.Message
	}
}

// text is what was said so far.
func (s *said) text() string {
	var b strings.Builder
	for {
		select {
		case l := <-s.lines:
			b.WriteString(l + "\n")
		default:
			return b.String()
		}
	}
}

const gitDockerfile = "FROM scratch\nCOPY . /all/\nCOPY d/x /x\n"

func newGitWorld(t *testing.T) *gitWorld {
	t.Helper()
	w := &gitWorld{dir: t.TempDir(), home: t.TempDir(), logged: &said{make(chan string, 10000)}, variable: map[string]string{}}
	gittest.Configure(t, w.dir)
	git := func(at string, args ...string) string { return gittest.Git(t, w.dir, at, args...) }
	write := func(name, text string, mode os.FileMode) {
		p := filepath.Join(w.dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), mode), os.Chmod(p, mode)); err != nil {
			t.Fatal(err)
		}
	}
	git("", "init", "-q", "m")
	write("m/in-module", "module", 0o644)
	git("m", "add", "-A")
	git("m", "commit", "-qm", "m")
	git("", "init", "-q", "r")
	write("r/Dockerfile", gitDockerfile, 0o644)
	write("r/.dockerignore", "ignored\n", 0o644)
	write("r/ignored", "ignored", 0o644)
	write("r/d/x", "run", 0o755)
	write("r/d/Dockerfile", "FROM scratch\nCOPY x /from-d\n", 0o644)
	write("r/ü\xff", "a name that is not UTF-8", 0o644)
	if err := os.Symlink("d", filepath.Join(w.dir, "r/link")); err != nil {
		t.Fatal(err)
	}
	git("r", "add", "-A")
	git("r", "commit", "-qm", "one")
	git("r", "tag", "v1")
	git("r", "update-ref", "refs/pull/7/head", "HEAD")
	git("r", "checkout", "-qb", "with-module")
	git("r", "submodule", "--quiet", "add", "../m", "mod")
	git("r", "config", "-f", ".gitmodules", "submodule.mod.url", "../m.git")
	git("r", "add", "-A")
	git("r", "commit", "-qm", "two")
	git("r", "checkout", "-q", "main")
	w.commit = git("r", "rev-parse", "main")
	for _, name := range []string{"m", "r"} {
		git("", "clone", "-q", "--mirror", name, name+".git")
		git(name+".git", "config", "uploadpack.allowAnySHA1InWant", "true")
		git(name+".git", "config", "uploadpack.allowFilter", "true")
	}
	w.serve(t)
	return w
}

// serve starts the servers: http-backend behind TLS and a login, the daemon, and sshd.
func (w *gitWorld) serve(t *testing.T) {
	t.Helper()
	backend := gittest.Handler(w.dir)
	w.web = httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if strings.HasPrefix(r.URL.Path, "/private/") && user+":"+password != "token:" && user+":"+password != "u:p" {
			rw.Header().Set("WWW-Authenticate", "Basic realm=git")
			http.Error(rw, "the token has expired", http.StatusUnauthorized)
			return
		}
		r.URL.Path = strings.TrimPrefix(r.URL.Path, "/private")
		if r.Method == http.MethodPost && w.cuts.Add(-1) >= 0 {
			rw = webtest.Cut(rw, 300)
		}
		backend.ServeHTTP(rw, r)
	}))
	w.web.Config.ErrorLog = log.New(io.Discard, "", 0)
	w.web.StartTLS()
	t.Cleanup(w.web.Close)
	w.daemon = gittest.Daemon(t, w.dir)
}

// ssh starts sshd and puts keys into the home of the builder, or into an agent.
func (w *gitWorld) ssh(t *testing.T, inAgent bool) {
	t.Helper()
	dir := t.TempDir()
	host, _, hostFile := gittest.Key(t, dir, "host")
	if err := os.MkdirAll(filepath.Join(w.home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	where := filepath.Join(w.home, ".ssh")
	if inAgent {
		where = dir
	}
	mine, private, _ := gittest.Key(t, where, "id_ed25519")
	login, at := gittest.SSHD(t, dir, hostFile, mine.PublicKey())
	w.sshd = login + "@" + at
	gittest.KnownHosts(t, filepath.Join(w.home, ".ssh/known_hosts"), at, host.PublicKey())
	if inAgent {
		w.variable["SSH_AUTH_SOCK"] = w.serveAgent(t, private)
	}
}

func (w *gitWorld) serveAgent(t *testing.T, key ed25519.PrivateKey) string {
	t.Helper()
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: &key}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	gittest.Accept(t, l, func(c net.Conn) { _ = agent.ServeAgent(keys, c) }) // it ends when the other side does
	return socket
}

// build builds a context into an OCI layout, with times that do not matter.
func (w *gitWorld) build(t *testing.T, req build.Request) (digest.Digest, error) {
	t.Helper()
	req.WorkDir, req.RewriteTimestamp = t.TempDir(), true
	if req.BuildArgs == nil {
		req.BuildArgs = map[string]string{"SOURCE_DATE_EPOCH": "1000"}
	}
	if req.Dockerfile == "" {
		req.Dockerfile = "Dockerfile"
	}
	req.Outputs.NoPush = true
	vars := map[string]string{"HOME": w.home}
	for k, v := range w.variable {
		vars[k] = v
	}
	var rt http.RoundTripper = w.web.Client().Transport
	if req.GitSkipTLSVerify || strings.Contains(req.Context, "badcert") {
		rt = nil
	}
	done, err := build.Build(t.Context(), build.Env{
		Now: time.Now, Getenv: func(k string) string { return vars[k] }, Cwd: t.TempDir(), Stdout: io.Discard, Events: w.logged, Sources: rt,
	}, req)
	if left, rerr := os.ReadDir(req.WorkDir); rerr != nil || len(left) > 0 {
		t.Errorf("left behind in the work directory: %v %v", left, rerr)
	}
	if err != nil {
		return "", err
	}
	return done.Digest, nil
}

// local is the digest of the same build from a directory.
func (w *gitWorld) local(t *testing.T, change func(dir string)) digest.Digest {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "c")
	gittest.Git(t, w.dir, "", "clone", "-q", "r.git", dir)
	if err := os.RemoveAll(filepath.Join(dir, ".git")); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(dir)
	}
	d, err := w.build(t, build.Request{Context: dir})
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	return d
}

func TestGitContexts(t *testing.T) {
	t.Parallel()
	w := newGitWorld(t)
	w.ssh(t, false)
	https := w.web.Listener.Addr().String()
	want := w.local(t, nil)
	sub := w.local(t, func(dir string) {
		if err := errors.Join(os.Rename(filepath.Join(dir, "d"), dir+".d"), os.RemoveAll(dir), os.Rename(dir+".d", dir)); err != nil {
			t.Fatal(err)
		}
	})
	module := w.local(t, func(dir string) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		gittest.Git(t, w.dir, "", "clone", "-q", "-b", "with-module", "r.git", dir)
		if err := errors.Join(os.RemoveAll(filepath.Join(dir, ".git")), os.WriteFile(filepath.Join(dir, "mod/in-module"), []byte("module"), 0o644)); err != nil {
			t.Fatal(err)
		}
	})
	for _, tc := range []struct {
		place  string
		method string
		git    contextsource.Git
		sub    string
		vars   map[string]string
		want   digest.Digest
	}{
		{place: "git://HOST/r.git"},
		{place: "git://HOST/r.git#main"},
		{place: "git://HOST/r#refs/heads/main", vars: map[string]string{}},
		{place: "git://HOST/r.git#refs/tags/v1"},
		{place: "git://HOST/r.git#refs/pull/7/head"},
		{place: "git://HOST/r.git#with-module#COMMIT"},
		{place: "git://HOST/r.git#COMMIT"},
		{place: "git://HOST/r.git#SHORT"},
		{place: "git://HOST/r.git", git: contextsource.Git{Branch: "v1"}},
		{place: "git://token@HOST/private/r.git#main"},
		{place: "git://HOST/private/r.git", vars: map[string]string{"GIT_TOKEN": "token"}},
		{place: "git://HOST/private/r.git", vars: map[string]string{"GIT_USERNAME": "u", "GIT_PASSWORD": "p"}},
		{place: "https://u:p@HOST/private/r.git#v1"},
		{place: "https://HOST/r.git?ref=main"},
		{place: "https://HOST/r.git?tag=v1&commit=COMMIT&fetch-by-commit=true"},
		{place: "git://DAEMON/r.git#main", method: "git"},
		{place: "git://DAEMON/r.git#COMMIT", method: "git"},
		{place: "git://SSHD/DIR/r.git#main", method: "ssh"},
		{place: "ssh://SSHD/DIR/r.git#v1"},
		{place: "ssh://SSHD/DIR/r.git#COMMIT"},
		{place: "https://HOST/r.git#main:d", want: sub},
		{place: "https://HOST/r.git?ref=v1&subdir=d", want: sub},
		{place: "git://HOST/r.git#main:d", want: sub},
		{place: "git://HOST/r.git#main", sub: "d", want: sub},
		{place: "git://HOST/r.git#main", sub: "/link/", want: sub},
		{place: "https://HOST/r.git#with-module", want: module},
		{place: "https://u:p@HOST/private/r.git#with-module", want: module},
		{place: "git://HOST/private/r.git#with-module", git: contextsource.Git{Submodules: ptr(true)}, vars: map[string]string{"GIT_TOKEN": "token"}, want: module},
	} {
		w.variable = tc.vars
		if w.variable == nil {
			w.variable = map[string]string{}
		}
		w.variable["GIT_PULL_METHOD"] = tc.method
		place := strings.NewReplacer("HOST", https, "DAEMON", w.daemon, "SSHD", w.sshd, "/DIR", w.dir, "COMMIT", w.commit, "SHORT", w.commit[:7]).Replace(tc.place)
		tc.git.KeepDir = ptr(false)
		got, err := w.build(t, build.Request{Context: place, Git: tc.git, ContextSubPath: tc.sub})
		if err != nil {
			t.Errorf("%s: %v", tc.place, diag.Format(err))
			continue
		}
		if tc.want == "" {
			tc.want = want
		}
		if got != tc.want {
			t.Errorf("%s: %s, want %s", tc.place, got, tc.want)
		}
	}
	secrets := w.logged.text()
	w.variable = nil
	if _, err := w.build(t, build.Request{Context: "git://" + https + "/r.git#with-module"}); err != nil {
		t.Error(diag.Format(err))
	}
	if text := w.logged.text(); !strings.Contains(text, "its submodules are empty directories") || !strings.Contains(text, "keep-git-dir") {
		t.Errorf("what is left out and what is not is not said: %s", text)
	}
	if strings.Contains(secrets, "token@") || strings.Contains(secrets, "u:p") {
		t.Errorf("a secret is shown: %s", secrets)
	}
}

func ptr[T any](v T) *T { return &v }

func TestGitContextWithAgent(t *testing.T) {
	t.Parallel()
	w := newGitWorld(t)
	w.ssh(t, true)
	got, err := w.build(t, build.Request{Context: "ssh://" + w.sshd + w.dir + "/r.git"})
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	if want := w.local(t, nil); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestGitContextsThatFail: what was tried, what the server said, and what to do.
func TestGitContextsThatFail(t *testing.T) {
	t.Parallel()
	w := newGitWorld(t)
	w.ssh(t, false)
	https := w.web.Listener.Addr().String()
	other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write([]byte("<html>"))
	}))
	defer other.Close()
	for place, want := range map[string][]string{
		"git://HOST/private/r.git":                    {"401 Unauthorized: the token has expired", "give credentials"},
		"git://wrong@HOST/private/r.git":              {"401 Unauthorized: the token has expired", "Check that the token"},
		"git://HOST/none.git":                         {"404", "check the URL"},
		"git://HOST/r.git#mian":                       {`it has no branch or tag "mian"`, "Did you mean main?"},
		"git://HOST/r.git#a b":                        {`"a b" cannot be a reference`},
		"git://HOST/r.git#main#x#y":                   {"third #"},
		"git://HOST/r.git#main#" + w.commit[:39]:      nil,
		"git://HOST/r.git#" + strings.Repeat("1", 40): {"it has no commit 111"},
		"git://HOST/r.git#refs/heads/main:../d/x":     {"directory d/x"},
		"https://HOST/r.git#main:none":                {"directory none", "Name a directory"},
		"https://HOST/r.git?reff=main":                {"unexpected query"},
		"http://OTHER/r.git":                          {"does not answer like one of git", "git clone takes"},
		"ssh://SSHD/DIR/none.git":                     {"none.git", "Check the repository's path"},
		"ssh://nobody@127.0.0.1:1/x":                  {"connection refused"},
		"https://badcert@HOST/r.git":                  {"certificate", "SSL_CERT_FILE"},
	} {
		text := strings.NewReplacer("HOST", https, "OTHER", other.Listener.Addr().String(), "SSHD", w.sshd, "/DIR", w.dir).Replace(place)
		_, err := w.build(t, build.Request{Context: text})
		if want == nil {
			if err != nil {
				t.Errorf("%s: %v", place, diag.Format(err))
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: no error", place)
			continue
		}
		for _, part := range want {
			if !strings.Contains(diag.Format(err), part) {
				t.Errorf("%s: %s\nwant %q", place, diag.Format(err), part)
			}
		}
		if !errors.As(err, new(*diag.Error)) || strings.Contains(diag.Format(err), "wrong@") {
			t.Errorf("%s: %T %v", place, err, err)
		}
	}
	if err := os.Remove(filepath.Join(w.home, ".ssh/known_hosts")); err != nil {
		t.Fatal(err)
	}
	_, err := w.build(t, build.Request{Context: "ssh://" + w.sshd + w.dir + "/r.git"})
	if err == nil || !strings.Contains(diag.Format(err), "is not known (SHA256:") || !strings.Contains(diag.Format(err), "ssh-keyscan") {
		t.Error(diag.Format(err))
	}
}

func TestGitContextOverBadLines(t *testing.T) {
	t.Parallel()
	w := newGitWorld(t)
	want := w.local(t, nil)
	place := "https://" + w.web.Listener.Addr().String() + "/r.git"
	w.cuts.Store(2)
	got, err := w.build(t, build.Request{Context: place})
	if err != nil || got != want {
		t.Errorf("cut: %s, want %s: %v", got, want, err)
	}
	if got, err = w.build(t, build.Request{Context: place, GitSkipTLSVerify: true}); err != nil || got != want {
		t.Errorf("without certificates: %s, want %s: %v", got, want, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	_, err = build.Build(ctx, build.Env{Now: time.Now, Getenv: func(string) string { return "" }, Cwd: t.TempDir(), Stdout: io.Discard, Events: w.logged}, build.Request{
		Context: place, Dockerfile: "Dockerfile", WorkDir: t.TempDir(), Outputs: build.Outputs{NoPush: true},
	})
	if err == nil || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
}

// TestGitContextIsNamed: provenance says which commit it was, and SOURCE_DATE_EPOCH=context is its time.
func TestGitContextIsNamed(t *testing.T) {
	t.Parallel()
	w := newGitWorld(t)
	layout := filepath.Join(t.TempDir(), "o")
	_, err := w.build(t, build.Request{
		Context: "git://token@" + w.web.Listener.Addr().String() + "/private/r.git#main:d", Format: "oci",
		Outputs: build.Outputs{OCILayoutPath: layout}, Attestations: build.Attestations{Provenance: attest.Max},
	})
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	if text := epochOf(t, w, "context"); !strings.Contains(text, `"created":"2005-06-07T08:09:10Z"`) {
		t.Errorf("the commit's time is missing: %s", text)
	}
	blobs, err := filepath.Glob(filepath.Join(layout, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	uri := "https://" + w.web.Listener.Addr().String() + "/private/r.git#main"
	found := false
	for _, p := range blobs {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "token@") {
			t.Errorf("a secret is written: %s", data)
		}
		var s struct {
			Predicate struct {
				BuildDefinition struct {
					ExternalParameters struct {
						ConfigSource struct {
							URI    string
							Digest map[string]string
						}
					}
					ResolvedDependencies []struct {
						URI    string
						Digest map[string]string
					}
				}
			}
		}
		if json.Unmarshal(data, &s) != nil || s.Predicate.BuildDefinition.ExternalParameters.ConfigSource.URI == "" {
			continue
		}
		found = true
		source, deps := s.Predicate.BuildDefinition.ExternalParameters.ConfigSource, s.Predicate.BuildDefinition.ResolvedDependencies
		if source.URI != uri+":d" || source.Digest["sha1"] != w.commit || len(deps) != 1 || deps[0].URI != uri || deps[0].Digest["sha1"] != w.commit {
			t.Errorf("%+v %+v, want %s", source, deps, uri)
		}
	}
	if !found {
		t.Error("there is no provenance")
	}
}

// epochOf is the configuration of an image that is built with an epoch.
func epochOf(t *testing.T, w *gitWorld, epoch string) string {
	t.Helper()
	layout := filepath.Join(t.TempDir(), "o")
	_, err := w.build(t, build.Request{
		Context: "git://" + w.web.Listener.Addr().String() + "/r.git", BuildArgs: map[string]string{"SOURCE_DATE_EPOCH": epoch},
		Outputs: build.Outputs{OCILayoutPath: layout},
	})
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	blobs, err := filepath.Glob(filepath.Join(layout, "blobs/sha256/*"))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, p := range blobs {
		if data, err := os.ReadFile(p); err == nil && len(data) > 0 && data[0] == '{' {
			out.Write(data)
		}
	}
	return out.String()
}
