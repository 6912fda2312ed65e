package gittree_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/gittree"
	"hako/internal/gittree/gittest"
	"hako/internal/gitwire"
	"hako/internal/tree"
)

// world is a directory of git repositories and a server for them.
type world struct {
	dir string
	url string
	// wrap, if set, is put before the server.
	wrap func(http.Handler) http.Handler
	// v0 keeps the server from hearing that we know version 2; pushed counts requests.
	v0       bool
	requests atomic.Int64
	log      *log
	spool    string
}

func newWorld(t *testing.T, change func(*world)) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), log: &log{}, spool: t.TempDir()}
	if change != nil {
		change(w)
	}
	gittest.Configure(t, w.dir)
	var h http.Handler = http.HandlerFunc(w.serve)
	if w.wrap != nil {
		h = w.wrap(h)
	}
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

func (w *world) env() []string { return gittest.Env(w.dir) }

// serve is git's own http server.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	w.requests.Add(1)
	if w.v0 {
		r.Header.Del("Git-Protocol")
	}
	gittest.Handler(w.dir).ServeHTTP(rw, r)
}

// git runs git in a directory below the world's.
func (w *world) git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	return w.gitIn(t, dir, nil, args...)
}

func (w *world) gitIn(t *testing.T, dir string, stdin io.Reader, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env, cmd.Stdin = filepath.Join(w.dir, dir), w.env(), stdin
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// repository makes NAME.git with what commands say, each "git …" or "write PATH TEXT", "exec PATH", "link TARGET PATH".
func (w *world) repository(t *testing.T, name string, commands ...string) {
	t.Helper()
	w.git(t, "", "init", "-q", name)
	for _, c := range commands {
		words := strings.SplitN(c, " ", 3)
		at := func(p string) string { return filepath.Join(w.dir, name, p) }
		var err error
		switch {
		case len(words) > 1 && words[0] == "commit":
			w.git(t, name, strings.Fields(c)...)
			continue
		}
		switch words[0] {
		case "write":
			if err = os.MkdirAll(filepath.Dir(at(words[1])), 0o755); err == nil {
				err = os.WriteFile(at(words[1]), []byte(words[2]), 0o644)
			}
		case "exec":
			err = os.Chmod(at(words[1]), 0o755)
		case "link":
			err = os.Symlink(words[1], at(words[2]))
		case "commit":
			w.git(t, name, "add", "-A", "-f")
			w.git(t, name, "commit", "-q", "--allow-empty", "-m", c)
		case "sub": // sub NAME PATH
			w.git(t, name, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", "../"+words[1], words[2])
			w.git(t, name, "config", "-f", ".gitmodules", "submodule."+words[2]+".url", "../"+words[1]+".git")
		default:
			w.git(t, name, strings.Fields(c)...)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.git(t, "", "clone", "-q", "--mirror", name, name+".git")
}

func (w *world) remote(name string) string { return w.url + "/" + name + ".git" }

func (w *world) head(t *testing.T, name, ref string) string {
	t.Helper()
	return w.git(t, name, "rev-parse", ref)
}

// log collects events.
type log struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *log) Emit(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.text, "%T %+v\n", e, e)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// now is the time of files.
func now() time.Time { return time.Unix(1e9, 0) }

func (w *world) options(t *testing.T, o gitwire.Options) gittree.Options {
	t.Helper()
	o.RetryDelay, o.Events = time.Microsecond, w.log
	c := gitwire.New(o)
	t.Cleanup(c.Close)
	return gittree.Options{
		Client: c, Now: now(), Events: w.log, RetryDelay: time.Microsecond, Workers: 2,
		File: func(name string) (*os.File, error) {
			f, err := os.CreateTemp(w.spool, name)
			if err == nil {
				err = os.Remove(f.Name())
			}
			return f, err
		},
	}
}

func (w *world) fetch(t *testing.T, s gittree.Spec) *gittree.Tree {
	t.Helper()
	tr, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), s)
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

func (w *world) resolve(t *testing.T, s gittree.Spec) string {
	t.Helper()
	id, err := gittree.Resolve(t.Context(), w.options(t, gitwire.Options{}), s)
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	return id
}

// list describes a tree, a line for each entry.
func list(t *testing.T, tr tree.Tree) string {
	t.Helper()
	var b strings.Builder
	var walk func(p string)
	walk = func(p string) {
		e, err := tr.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		if e.Path != p || e.UID != 0 || e.GID != 0 {
			t.Errorf("%s: %+v", p, e)
		}
		switch e.Kind {
		case tree.Symlink:
			fmt.Fprintf(&b, "%s -> %s\n", p, e.Linkname)
		case tree.Regular:
			data := content(t, tr, p)
			if int64(len(data)) != e.Size {
				t.Errorf("%s: %d bytes, but %d are read", p, e.Size, len(data))
			}
			fmt.Fprintf(&b, "%s %04o %q\n", p, e.Mode, data)
		default:
			fmt.Fprintf(&b, "%s/ %04o\n", p, e.Mode)
			names, err := tr.ReadDir(p)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range names {
				q := n
				if p != "." {
					q = p + "/" + n
				}
				walk(q)
			}
		}
	}
	walk(".")
	return b.String()
}

func content(t *testing.T, tr tree.Tree, p string) []byte {
	t.Helper()
	r, err := tr.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

// listDir describes a directory of the machine in the same way.
func listDir(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if d.Name() == ".git" {
			if d.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case fi.Mode()&os.ModeSymlink != 0:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s -> %s\n", rel, to)
		case fi.IsDir():
			fmt.Fprintf(&b, "%s/ 0755\n", rel)
		default:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s %04o %q\n", rel, fi.Mode().Perm()&^0o022, data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// write copies a tree to a directory of the machine.
func write(t *testing.T, tr tree.Tree, p, dir string) {
	t.Helper()
	e, err := tr.Lstat(p)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(dir, p)
	switch e.Kind {
	case tree.Dir:
		err = os.MkdirAll(at, 0o755)
		names, rerr := tr.ReadDir(p)
		if err = errors.Join(err, rerr); err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			write(t, tr, filepath.Join(p, n), dir)
		}
	case tree.Symlink:
		err = os.Symlink(e.Linkname, at)
	default:
		err = errors.Join(os.WriteFile(at, content(t, tr, p), 0o644), os.Chmod(at, os.FileMode(e.Mode)))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// basic asks for a login.
func basic(user, password string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// credentials give everybody the same login.
func credentials(value string) func(context.Context, *url.URL, *url.URL) (string, error) {
	return func(context.Context, *url.URL, *url.URL) (string, error) { return value, nil }
}
