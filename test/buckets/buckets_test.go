// Package buckets builds with real object storage: contexts from it, and the cache in it.
package buckets

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/bucket"
	"hako/internal/bucket/buckettest"
	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/web/webtest"
)

func TestMain(m *testing.M) { os.Exit(buckettest.Main(m)) }

// each runs a test against every service.
func each(t *testing.T, test func(t *testing.T, s *buckettest.Server)) {
	t.Helper()
	for kind, start := range buckettest.All() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			test(t, start(t))
		})
	}
}

// store puts an object next to the server's users.
func store(t *testing.T, s *buckettest.Server, key string, data []byte) {
	t.Helper()
	p, err := bucket.Parse(s.Place)
	if err != nil {
		t.Fatal(err)
	}
	b, err := bucket.Open(t.Context(), bucket.Options{Getenv: s.Getenv}, p)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.Write(t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

// files are a context, and what is not in it.
func files() map[string]string {
	return map[string]string{
		"Dockerfile":    "FROM scratch\nCOPY . /all/\nCOPY sub/x /x\n",
		".dockerignore": "ignored\nDockerfile\n.dockerignore\n",
		"ignored":       "never seen", "sub/x": "x", "sub/deep/ä b": "name", "big": string(buckettest.Noise("big", 20<<20)),
	}
}

// archived is a tar archive of files.
func archived(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	w := tar.NewWriter(z)
	for _, dir := range []string{"./", "./sub/", "./sub/deep/"} {
		if err := w.WriteHeader(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1_500_000_000, 0)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		h := &tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(text)), Uid: 1234, ModTime: time.Unix(1_500_000_000, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpacked is a directory of files.
func unpacked(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// log keeps what users are told.
type log struct {
	mu          sync.Mutex
	ran, cached int
	told        []string
}

func (l *log) Emit(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e := e.(type) {
	case event.StepDone:
		if e.Cached {
			l.cached++
		} else {
			l.ran++
		}
	case event.Warning:
		l.told = append(l.told, e.Message)
	case event.Debug:
		l.told = append(l.told, e.Message)
	}
}

// run builds with the variables of a server.
func run(t *testing.T, s *buckettest.Server, req build.Request) (digest.Digest, *log, error) {
	t.Helper()
	l := &log{}
	req.WorkDir, req.RewriteTimestamp, req.BuildArgs = t.TempDir(), true, map[string]string{"SOURCE_DATE_EPOCH": "1000"}
	req.Outputs.NoPush = true
	if req.Dockerfile == "" {
		req.Dockerfile = "Dockerfile"
	}
	r, err := build.Build(t.Context(), build.Env{Now: time.Now, Getenv: s.Getenv, Cwd: t.TempDir(), Stdout: io.Discard, Events: l}, req)
	if left, rerr := os.ReadDir(req.WorkDir); rerr != nil || len(left) > 0 {
		t.Errorf("left behind in the work directory: %v %v", left, rerr)
	}
	if err != nil {
		return "", l, err
	}
	return r.Digest, l, nil
}

func mustRun(t *testing.T, s *buckettest.Server, req build.Request) (digest.Digest, *log) {
	t.Helper()
	d, l, err := run(t, s, req)
	if err != nil {
		t.Fatal(diag.Format(err))
	}
	return d, l
}

// A context is the same wherever it comes from, whatever happens to the connection on the way.
func TestContexts(t *testing.T) {
	t.Parallel()
	archive := archived(t, files())
	each(t, func(t *testing.T, s *buckettest.Server) {
		want, _ := mustRun(t, s, build.Request{Context: unpacked(t, files())})
		store(t, s, "ctx/app v1+%.tar.gz", archive)
		store(t, s, "context.tar.gz", archive)
		places := []string{s.Place + "/ctx/app%20v1+%25.tar.gz"}
		if !strings.HasPrefix(s.Place, "https:") {
			places = append(places, s.Place)
		}
		for _, place := range places {
			if got, _ := mustRun(t, s, build.Request{Context: place}); got != want {
				t.Errorf("%s: another image than from a directory", place)
			}
		}
		s.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(webtest.Cut(w, 3<<20), r)
		})
		if got, _ := mustRun(t, s, build.Request{Context: places[0]}); got != want {
			t.Errorf("another image after cuts")
		}
	})
}

// What was stored with a Content-Encoding is read as it is meant, also where the encoding is wrong.
func TestContentEncoding(t *testing.T) {
	t.Parallel()
	content := map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "sub/x": "x"}
	once := archived(t, content)
	var twice bytes.Buffer
	z := gzip.NewWriter(&twice)
	if _, err := z.Write(once); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	plain, err := gzip.NewReader(bytes.NewReader(once))
	if err != nil {
		t.Fatal(err)
	}
	bare, err := io.ReadAll(plain)
	if err != nil {
		t.Fatal(err)
	}
	each(t, func(t *testing.T, s *buckettest.Server) {
		var digests []digest.Digest
		for key, data := range map[string][]byte{"once": once, "twice": twice.Bytes(), "bare": bare} {
			s.SetFault(nil)
			store(t, s, key, data)
			s.SetFault(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				w.Header().Set("Content-Encoding", "gzip")
				next.ServeHTTP(w, r)
			})
			d, _ := mustRun(t, s, build.Request{Context: s.Place + "/" + key})
			digests = append(digests, d)
		}
		if digests[0] != digests[1] || digests[0] != digests[2] {
			t.Error("three images of one context")
		}
	})
}

// What cannot be used says which source it is, what the server answered, and what to do.
func TestBadContexts(t *testing.T) {
	t.Parallel()
	archive := archived(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY . /\n", "noise": string(buckettest.Noise("n", 100_000))})
	each(t, func(t *testing.T, s *buckettest.Server) {
		store(t, s, "truncated.tar.gz", archive[:len(archive)/2])
		store(t, s, "text", []byte("this is no archive at all"))
		store(t, s, "empty", nil)
		store(t, s, "good.tar.gz", archive)
		refuse := func(status int, code string) buckettest.Fault {
			return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				w.Header().Set("X-Ms-Error-Code", code)
				buckettest.Refuse(w, status, code, code)
			}
		}
		for _, c := range []struct {
			key, want string
			fault     buckettest.Fault
		}{
			{"none.tar.gz", "404", nil},
			{"truncated.tar.gz", "Check that whatever made the archive ended well", nil},
			{"text", "Give a tar archive", nil},
			{"empty", "empty", nil},
			{"good.tar.gz", "403", refuse(http.StatusForbidden, "AccessDenied")},
		} {
			s.SetFault(c.fault)
			_, _, err := run(t, s, build.Request{Context: s.Place + "/" + c.key})
			if err == nil {
				t.Errorf("%s: no error", c.key)
				continue
			}
			text := diag.Format(err)
			if !strings.Contains(text, s.Place+"/"+c.key) || !strings.Contains(text, c.want) {
				t.Errorf("%s: want %q in:\n%s", c.key, c.want, text)
			}
		}
	})
}

// A build finds in a bucket what the one before kept there, and goes on without it when the bucket fails.
func TestCache(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, s *buckettest.Server) {
		dir := unpacked(t, files())
		req := build.Request{Context: dir, Dockerfile: filepath.Join(dir, "Dockerfile")}
		want, _ := mustRun(t, s, req)
		req.Cache = build.Cache{Enabled: true, Repository: s.Place + "/cache of/team", Copies: true}
		for i, hits := range []int{0, 2} {
			got, l := mustRun(t, s, req)
			if got != want || l.cached != hits {
				t.Errorf("build %d: %v, %d steps from the cache, %d others; %v", i, got == want, l.cached, l.ran, l.told)
			}
		}
		s.SetFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			buckettest.Refuse(w, http.StatusForbidden, "AccessDenied", "Access Denied")
		})
		got, l := mustRun(t, s, req)
		if got != want || l.cached != 0 || !strings.Contains(fmt.Sprint(l.told), "the cache "+s.Place) {
			t.Errorf("%v, %d from the cache; %v", got == want, l.cached, l.told)
		}
	})
}
