package gittree_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"hako/internal/diag"
	"hako/internal/download"
	"hako/internal/gittree"
	"hako/internal/gitwire"
	"hako/internal/web"
	"hako/internal/web/webtest"
)

// lfsServer is a server of LFS: what is beside a repository, and a store that knows nothing of it.
type lfsServer struct {
	mu      sync.Mutex // guards what follows
	objects map[string]string
	asked   []int    // how many files each question was about
	got     []string // METHOD PATH of the store, with the login

	// change, if set, changes an answer about a file.
	change func(oid string, answer map[string]any)
	// login, if set, is what the API wants to see.
	login string
	store *httptest.Server
	// serve, if set, comes before the store.
	serve func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc)
}

func newLFS(t *testing.T) *lfsServer {
	t.Helper()
	l := &lfsServer{objects: map[string]string{}}
	l.store = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.mu.Lock()
		l.got = append(l.got, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
		data, ok := l.objects[strings.TrimPrefix(r.URL.Path, "/")]
		l.mu.Unlock()
		next := func(w http.ResponseWriter, r *http.Request) {
			if !ok {
				http.Error(w, "gone", http.StatusNotFound)
				return
			}
			http.ServeContent(w, r, "", time.Unix(1e9, 0), strings.NewReader(data))
		}
		if l.serve != nil {
			l.serve(w, r, next)
			return
		}
		next(w, r)
	}))
	t.Cleanup(l.store.Close)
	return l
}

// put keeps a file, and returns the pointer to it.
func (l *lfsServer) put(data string) string {
	sum := sha256.Sum256([]byte(data))
	oid := hex.EncodeToString(sum[:])
	l.objects[oid] = data
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d", oid, len(data))
}

// batch answers questions.
func (l *lfsServer) batch(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Operation string
		Objects   []struct {
			OID  string
			Size int64
		}
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &q)
	}
	if err != nil || q.Operation != "download" || r.Header.Get("Accept") != "application/vnd.git-lfs+json" {
		http.Error(w, fmt.Sprint(err, q), http.StatusUnprocessableEntity)
		return
	}
	if l.login != "" && r.Header.Get("Authorization") != l.login {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"message":"who are you?"}`))
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, len(q.Objects))
	var out []map[string]any
	for _, o := range q.Objects {
		a := map[string]any{"oid": o.OID, "size": o.Size}
		if _, ok := l.objects[o.OID]; ok {
			a["actions"] = map[string]any{"download": map[string]any{"href": l.store.URL + "/" + o.OID}}
		} else {
			a["error"] = map[string]any{"code": 404, "message": "Object does not exist"}
		}
		if l.change != nil {
			l.change(o.OID, a)
		}
		out = append(out, a)
	}
	w.Header().Set("Content-Type", "application/vnd.git-lfs+json")
	_ = json.NewEncoder(w).Encode(map[string]any{"transfer": "basic", "objects": out})
}

// beside puts the server beside the repositories of a world.
func (l *lfsServer) beside(w *world) {
	w.wrap = func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, ".git/info/lfs/objects/batch") || r.URL.Path == "/elsewhere/objects/batch" {
				l.batch(rw, r)
				return
			}
			next.ServeHTTP(rw, r)
		})
	}
}

// lfsTree fetches a repository with its large files.
func (w *world) lfsTree(t *testing.T, s gittree.Spec, o gitwire.Options) *gittree.Tree {
	t.Helper()
	options := w.options(t, o)
	files := download.New(download.Options{File: options.File, Events: w.log, RetryDelay: time.Microsecond})
	t.Cleanup(files.Close)
	options.Download, s.LFS = files, true
	tr, err := gittree.Fetch(t.Context(), options, s)
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
	})
	return tr
}

const lfsRule = "write .gitattributes *.bin filter=lfs diff=lfs merge=lfs -text\n"

func TestLFS(t *testing.T) {
	t.Parallel()
	l := newLFS(t)
	w := newWorld(t, l.beside)
	big := strings.Repeat("0123456789abcdef", 10000)
	w.repository(t, "m", lfsRule, "write in.bin "+l.put("in a submodule"), "commit")
	w.repository(t, "r", lfsRule, "write a.bin "+l.put("one"), "exec a.bin", "write d/b.bin "+l.put(big), "write d/again.bin "+l.put(big), "write d/empty.bin "+l.put(""),
		"write plain.bin not a pointer", "write d/no.txt "+l.put("text"), "link a.bin l.bin", "commit", "sub m sub", "commit")
	tr := w.lfsTree(t, gittree.Spec{Remote: w.remote("r")}, gitwire.Options{})
	e, err := tr.Lstat("d/b.bin")
	if err != nil || e.Size != int64(len(big)) || len(l.asked) != 0 {
		t.Errorf("before anything is read: %+v %v, %d questions", e, err, len(l.asked))
	}
	got := list(t, tr)
	for _, want := range []string{
		"a.bin 0755 \"one\"\n", "d/b.bin 0644 \"" + big, "d/again.bin 0644 \"" + big, "d/empty.bin 0644 \"\"\n", "plain.bin 0644 \"not a pointer\"\n",
		"d/no.txt 0644 \"version https://git-lfs", "l.bin -> a.bin\n", "sub/in.bin 0644 \"in a submodule\"\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%.60q is missing", want)
		}
	}
	if len(l.asked) != 2 || len(l.got) != 4 { // for each repository; each file once
		t.Errorf("questions %v, downloads %v", l.asked, l.got)
	}
	sum, ok := tr.ContentDigest("a.bin")
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte("one"))); !ok || sum.String() != want {
		t.Errorf("digest %s %v, want %s", sum, ok, want)
	}
	if _, ok := tr.ContentDigest("plain.bin"); ok {
		t.Error("a digest of what is no pointer")
	}
	plain := w.fetch(t, gittree.Spec{Remote: w.remote("r")})
	if data := content(t, plain, "a.bin"); !strings.HasPrefix(string(data), "version ") {
		t.Errorf("without LFS: %q", data)
	}
}

func TestManyLFSFiles(t *testing.T) {
	t.Parallel()
	l := newLFS(t)
	w := newWorld(t, l.beside)
	commands := []string{lfsRule}
	for n := range 250 {
		commands = append(commands, fmt.Sprintf("write d%d/%d.bin %s", n%7, n, l.put(fmt.Sprint(n))))
	}
	w.repository(t, "r", append(commands, "commit")...)
	tr := w.lfsTree(t, gittree.Spec{Remote: w.remote("r")}, gitwire.Options{})
	var g sync.WaitGroup
	for range 3 {
		g.Go(func() { list(t, tr) })
	}
	g.Wait()
	if n := len(l.asked); n < 3 || n > 8 || len(l.got) != 250 {
		t.Errorf("questions %v, %d downloads", l.asked, len(l.got))
	}
	for _, n := range l.asked {
		if n > 100 {
			t.Errorf("a question about %d files", n)
		}
	}
}

func TestLFSLogins(t *testing.T) {
	t.Parallel()
	login := web.Login{User: "u", Password: "p"}.Authorization()
	for name, change := range map[string]func(l *lfsServer, w *world, a map[string]any){
		"other server": func(*lfsServer, *world, map[string]any) {},
		"header": func(l *lfsServer, w *world, a map[string]any) {
			a["actions"] = map[string]any{"download": map[string]any{"href": l.store.URL + "/" + a["oid"].(string), "header": map[string]string{"authorization": "RemoteAuth x", "Host": "evil"}}}
		},
		"relative": func(l *lfsServer, w *world, a map[string]any) {
			a["actions"] = map[string]any{"download": map[string]any{"href": "/store/" + a["oid"].(string)}}
		},
		"redirected": func(l *lfsServer, w *world, a map[string]any) {
			a["actions"] = map[string]any{"download": map[string]any{"href": "/away/" + a["oid"].(string), "header": map[string]string{"X-Key": "secret"}}}
		},
	} {
		l := newLFS(t)
		l.login = login
		var other string
		w := newWorld(t, func(w *world) {
			l.beside(w)
			api := w.wrap
			w.wrap = func(h http.Handler) http.Handler {
				return api(basic("u", "p", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if rest, ok := strings.CutPrefix(r.URL.Path, "/store/"); ok {
						_, _ = rw.Write([]byte(l.objects[rest]))
						return
					}
					if rest, ok := strings.CutPrefix(r.URL.Path, "/away/"); ok {
						other = r.Header.Get("X-Key")
						http.Redirect(rw, r, l.store.URL+"/"+rest, http.StatusFound)
						return
					}
					h.ServeHTTP(rw, r)
				})))
			}
		})
		l.change = func(_ string, a map[string]any) { change(l, w, a) }
		w.repository(t, "r", lfsRule, "write a.bin "+l.put("one"), "commit")
		remote := w.remote("r")
		withUser := strings.Replace(remote, "://", "://u:p@", 1)
		tr := w.lfsTree(t, gittree.Spec{Remote: withUser}, gitwire.Options{})
		if data := content(t, tr, "a.bin"); string(data) != "one" {
			t.Errorf("%s: %q", name, data)
		}
		want := map[string]string{"other server": "", "header": "RemoteAuth x", "redirected": ""}[name]
		for _, g := range l.got {
			if !strings.HasSuffix(g, " "+want) {
				t.Errorf("%s: %s, want %q", name, g, want)
			}
		}
		if name == "redirected" && other != "secret" {
			t.Errorf("the header was not sent: %q", other)
		}
		if strings.Contains(w.log.String(), "u:p") || strings.Contains(w.log.String(), "RemoteAuth") {
			t.Errorf("%s: a secret is shown: %s", name, w.log)
		}
	}
}

func TestLFSFaults(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 100_000)
	var n int
	for name, tc := range map[string]struct {
		serve  func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc)
		change func(oid string, a map[string]any)
		setup  func(l *lfsServer)
		rule   string
		want   string // of the error; empty if all is well
		hint   string
	}{
		"cut": {serve: func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
			if n++; n < 4 {
				w = webtest.Cut(w, 30_000)
			}
			next(w, r)
		}},
		"busy": {serve: func(w http.ResponseWriter, r *http.Request, next http.HandlerFunc) {
			if n++; n < 3 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			next(w, r)
		}},
		"other content": {serve: func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			_, _ = w.Write([]byte(strings.Repeat("y", 100_000)))
		}, want: "has the digest"},
		"longer": {serve: func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) {
			for range 1000 {
				_, _ = w.Write([]byte(big))
			}
		}, want: "too large"},
		"missing":   {setup: func(l *lfsServer) { clear(l.objects) }, want: "404 Not Found: Object does not exist", hint: "no LFS at this address"},
		"forbidden": {serve: func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { w.WriteHeader(403) }, want: "403"},
		"login":     {setup: func(l *lfsServer) { l.login = "Basic x" }, want: "401 Unauthorized: who are you?", hint: "GIT_TOKEN"},
		"bad place": {change: func(_ string, a map[string]any) {
			a["actions"] = map[string]any{"download": map[string]any{"href": "file:///etc/passwd"}}
		}, want: "no URL"},
		"no place":   {change: func(_ string, a map[string]any) { delete(a, "actions") }, want: "does not say where"},
		"other file": {change: func(_ string, a map[string]any) { a["oid"] = "x" }, want: "does not answer for it"},
		"bad header": {change: func(_ string, a map[string]any) {
			a["actions"] = map[string]any{"download": map[string]any{"href": "/", "header": map[string]string{"X": "a\r\nb: c"}}}
		}, want: "cannot be sent"},
		"own server":  {rule: "write .lfsconfig [lfs]\n\turl = URL/elsewhere/\n"},
		"file server": {rule: "write .lfsconfig [lfs]\n\turl = file:///etc\n", want: "neither http, https nor ssh"},
		"dead server": {rule: "write .lfsconfig [remote \"origin\"]\n\tlfsurl = URL/none\n", want: "404"},
		"expired once": {change: func(oid string, a map[string]any) {
			if n++; n == 1 {
				a["actions"].(map[string]any)["download"].(map[string]any)["expires_in"] = -5
			}
		}},
	} {
		n = 0
		l := newLFS(t)
		w := newWorld(t, l.beside)
		commands := []string{lfsRule, "write a.bin " + l.put(big)}
		if tc.rule != "" {
			commands = append(commands, strings.ReplaceAll(tc.rule, "URL", w.url))
		}
		w.repository(t, "r", append(commands, "commit")...)
		l.serve, l.change = tc.serve, tc.change
		if tc.setup != nil {
			tc.setup(l)
		}
		tr := w.lfsTree(t, gittree.Spec{Remote: w.remote("r")}, gitwire.Options{})
		r, err := tr.Open("a.bin")
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if data, err := io.ReadAll(r); err != nil || string(data) != big {
				t.Errorf("%s: %d bytes, %v", name, len(data), err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(diag.Format(err), tc.hint) {
			t.Errorf("%s: %v, want %s (%s)", name, diag.Format(err), tc.want, tc.hint)
		}
	}
}

// TestLFSBySSH: the server says where the files are, and with which login.
func TestLFSBySSH(t *testing.T) {
	t.Parallel()
	l := newLFS(t)
	l.login = "RemoteAuth token"
	api := httptest.NewServer(http.HandlerFunc(l.batch))
	t.Cleanup(api.Close)
	w := sshServer(t, true, false)
	script := fmt.Sprintf("#!/bin/sh\n[ \"$1 $2\" = '%s/r.git download' ] || { echo \"bad arguments: $*\" >&2; exit 1; }\n"+
		"echo '{\"href\":\"%s\",\"header\":{\"Authorization\":\"RemoteAuth token\"},\"expires_in\":3600}'\n", w.dir, api.URL)
	if err := os.WriteFile(w.dir+"/git-lfs-authenticate", []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	w.repository(t, "r", lfsRule, "write a.bin "+l.put("one"), "commit")
	o := gitwire.Options{SSH: gitwire.SSH{KeyFiles: []string{w.keyFile}, KnownHosts: []string{w.known}}}
	remote := "ssh://git@" + w.host + w.dir + "/r.git"
	tr := w.lfsTree(t, gittree.Spec{Remote: remote}, o)
	if data := content(t, tr, "a.bin"); string(data) != "one" {
		t.Errorf("%q", data)
	}
	if err := os.WriteFile(w.dir+"/git-lfs-authenticate", []byte("#!/bin/sh\necho no LFS here >&2; exit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	tr = w.lfsTree(t, gittree.Spec{Remote: remote}, o)
	if _, err := tr.Open("a.bin"); err == nil || !strings.Contains(err.Error(), "no LFS here") {
		t.Error(err)
	}
}
