package build_test

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/build"
	"hako/internal/event"
)

// steps counts what ran and what came from the cache.
type steps struct {
	mu          sync.Mutex
	ran, cached []string
	warnings    []string
}

func (s *steps) Emit(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e := e.(type) {
	case event.StepDone:
		if e.Cached {
			s.cached = append(s.cached, e.Step)
		} else {
			s.ran = append(s.ran, e.Step)
		}
	case event.Warning:
		if strings.HasPrefix(e.Message, "the cache ") {
			s.warnings = append(s.warnings, e.Message)
		}
	}
}

// cacheBench is a context that is built with and without a cache, at a time that stands still: equal trees then have equal digests.
type cacheBench struct {
	dir, cache string
	request    build.Request
}

func newCacheBench(t *testing.T) *cacheBench {
	t.Helper()
	b := &cacheBench{dir: t.TempDir(), cache: t.TempDir()}
	b.request = build.Request{
		Context: b.dir, Dockerfile: filepath.Join(b.dir, "Dockerfile"), WorkDir: t.TempDir(), Outputs: build.Outputs{NoPush: true},
	}
	return b
}

// file writes a file of the context; all have the same time.
func (b *cacheBench) file(t *testing.T, name, text string) {
	t.Helper()
	p := filepath.Join(b.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	b.touch(t, name, 1_500_000_000)
}

// touch sets the time of a file and of the directories that it is in.
func (b *cacheBench) touch(t *testing.T, name string, seconds int64) {
	t.Helper()
	at := time.Unix(seconds, 0)
	for p := filepath.Join(b.dir, filepath.FromSlash(name)); len(p) >= len(b.dir); p = filepath.Dir(p) {
		if err := os.Chtimes(p, at, at); err != nil {
			t.Fatal(err)
		}
		at = time.Unix(1_500_000_000, 0)
	}
}

// build builds with the cache, or without one, and returns the image's digest.
func (b *cacheBench) build(t *testing.T, cached bool) (digest.Digest, *steps) {
	t.Helper()
	r, log, err := b.result(t, cached)
	if err != nil {
		t.Fatalf("build (cached: %v): %v\n%s", cached, err, b.text(t))
	}
	return r.Digest, log
}

func (b *cacheBench) result(t *testing.T, cached bool) (*build.Result, *steps, error) {
	t.Helper()
	log := &steps{}
	req := b.request
	if cached {
		req.Cache = build.Cache{Enabled: true, Repository: "oci:" + b.cache, Copies: true}
	}
	r, err := build.Build(t.Context(), build.Env{
		Now: func() time.Time { return time.Unix(1_700_000_000, 0) }, Getenv: func(string) string { return "" }, Cwd: b.dir, Stdout: io.Discard, Events: log,
	}, req)
	return r, log, err
}

func (b *cacheBench) text(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(b.request.Dockerfile)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// same builds with and without the cache and fails if the images differ.
func (b *cacheBench) same(t *testing.T, what string) *steps {
	t.Helper()
	with, log := b.build(t, true)
	without, _ := b.build(t, false)
	if with != without {
		t.Errorf("%s: another image with the cache; from it: %v\n%s", what, log.cached, b.text(t))
	}
	if len(log.warnings) > 0 {
		t.Errorf("%s: %v", what, log.warnings)
	}
	return log
}

// Each of these is a way in which other caches go wrong.
func TestCacheFlaws(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		dockerfile string
		files      map[string]string
		change     func(t *testing.T, b *cacheBench)
		// cached and ran are what the second build has and does.
		cached, ran int
	}{
		"nothing changed": {dockerfile: "FROM scratch\nCOPY a /\nWORKDIR /w\nCOPY b /w/\n", change: nothing, cached: 3},
		"a file that a wildcard matches is renamed": {
			dockerfile: "FROM scratch\nCOPY *.txt /d/\n", files: map[string]string{"a.txt": "x"},
			change: func(t *testing.T, b *cacheBench) { remove(t, b, "a.txt"); b.file(t, "b.txt", "x") }, ran: 1,
		},
		"a file in a directory is renamed": {
			dockerfile: "FROM scratch\nCOPY d /d/\n", files: map[string]string{"d/a": "x"},
			change: func(t *testing.T, b *cacheBench) { remove(t, b, "d/a"); b.file(t, "d/b", "x") }, ran: 1,
		},
		"content moves between files": {
			dockerfile: "FROM scratch\nCOPY d /d/\n", files: map[string]string{"d/a": "x", "d/b": "y"},
			change: func(t *testing.T, b *cacheBench) { b.file(t, "d/a", "y"); b.file(t, "d/b", "x") }, ran: 1,
		},
		"a byte moves between files": {
			dockerfile: "FROM scratch\nCOPY d /d/\n", files: map[string]string{"d/a": "xy", "d/b": "z"},
			change: func(t *testing.T, b *cacheBench) { b.file(t, "d/a", "x"); b.file(t, "d/b", "yz") }, ran: 1,
		},
		"the mode changes": {
			dockerfile: "FROM scratch\nCOPY a /\n",
			change: func(t *testing.T, b *cacheBench) {
				if err := os.Chmod(filepath.Join(b.dir, "a"), 0o755); err != nil {
					t.Fatal(err)
				}
			}, ran: 1,
		},
		"an empty directory comes": {
			dockerfile: "FROM scratch\nCOPY d /d/\n", files: map[string]string{"d/a": "x"},
			change: func(t *testing.T, b *cacheBench) {
				b.file(t, "d/e/f", "x")
				remove(t, b, "d/e/f")
				b.touch(t, "d/e", 1_500_000_000)
			}, ran: 1,
		},
		"a file that nobody copies changes": {
			dockerfile: "FROM scratch\nCOPY a /\n", change: func(t *testing.T, b *cacheBench) { b.file(t, "other", "x") }, cached: 1,
		},
		"an ignored file changes": {
			dockerfile: "FROM scratch\nCOPY . /\n", files: map[string]string{".dockerignore": "ignored\nDockerfile\n", "ignored": "x"},
			change: func(t *testing.T, b *cacheBench) { b.file(t, "ignored", "y") }, cached: 1,
		},
		"the ignore file changes": {
			dockerfile: "FROM scratch\nCOPY d /\n", files: map[string]string{".dockerignore": "d/b\n", "d/a": "x", "d/b": "y"},
			change: func(t *testing.T, b *cacheBench) { b.file(t, ".dockerignore", "d/a\n") }, ran: 1,
		},
		"a link's target changes": {
			dockerfile: "FROM scratch\nCOPY d /\n", files: map[string]string{"d/a": "x"},
			change: func(t *testing.T, b *cacheBench) {
				if err := os.Symlink("a", filepath.Join(b.dir, "d", "l")); err != nil {
					t.Fatal(err)
				}
				b.touch(t, "d/a", 1_500_000_000)
			}, ran: 1,
		},
		"another file of the stage changes": {
			dockerfile: "FROM scratch AS s\nCOPY a b /\nFROM scratch\nCOPY --from=s /a /\n",
			change:     func(t *testing.T, b *cacheBench) { b.file(t, "b", "new") }, ran: 1, cached: 1,
		},
		"the file of the stage changes": {
			dockerfile: "FROM scratch AS s\nCOPY a b /\nFROM scratch\nCOPY --from=s /a /\n",
			change:     func(t *testing.T, b *cacheBench) { b.file(t, "a", "new") }, ran: 2,
		},
		"another stage makes the same": {
			dockerfile: "FROM scratch AS s\nARG X=1\nCOPY a /\nFROM scratch\nCOPY --from=s /a /\n",
			change: func(t *testing.T, b *cacheBench) {
				b.file(t, "Dockerfile", strings.Replace(b.text(t), "COPY a /", "COPY a /a", 1))
			}, ran: 1, cached: 1,
		},
		"a label changes": {
			dockerfile: "FROM scratch\nLABEL a=1\nCOPY a /\n",
			change:     func(t *testing.T, b *cacheBench) { b.file(t, "Dockerfile", "FROM scratch\nLABEL a=2\nCOPY a /\n") }, cached: 1,
		},
		"a variable that COPY uses changes": {
			dockerfile: "FROM scratch\nARG F=a\nCOPY $F /x\n",
			change:     func(t *testing.T, b *cacheBench) { b.request.BuildArgs = map[string]string{"F": "b"} }, ran: 1,
		},
		"a variable that nobody uses changes": {
			dockerfile: "FROM scratch\nARG F=a\nCOPY a /x\n",
			change:     func(t *testing.T, b *cacheBench) { b.request.BuildArgs = map[string]string{"F": "b"} }, cached: 1,
		},
		"the owner changes": {
			dockerfile: "FROM scratch\nARG O=1\nCOPY --chown=$O a /x\n",
			change:     func(t *testing.T, b *cacheBench) { b.request.BuildArgs = map[string]string{"O": "2"} }, ran: 1,
		},
		"the name of an owner means another": {
			dockerfile: "FROM scratch\nCOPY passwd /etc/passwd\nCOPY --chown=me a /x\n", files: map[string]string{"passwd": "me:x:1:1::/:/\n"},
			change: func(t *testing.T, b *cacheBench) { b.file(t, "passwd", "me:x:2:2::/:/\n") }, ran: 2,
		},
		"a heredoc changes": {
			dockerfile: "FROM scratch\nCOPY <<E /x\none\nE\n",
			change:     func(t *testing.T, b *cacheBench) { b.file(t, "Dockerfile", "FROM scratch\nCOPY <<E /x\ntwo\nE\n") }, ran: 1,
		},
		"what is excluded changes": {
			dockerfile: "FROM scratch\nCOPY --exclude=b d /\n", files: map[string]string{"d/a": "x", "d/b": "y"},
			change: func(t *testing.T, b *cacheBench) { b.file(t, "d/b", "new") }, cached: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newCacheBench(t)
			b.file(t, "a", "1")
			b.file(t, "b", "2")
			for f, text := range c.files {
				b.file(t, f, text)
			}
			b.file(t, "Dockerfile", c.dockerfile)
			if log := b.same(t, "first"); len(log.cached) > 0 {
				t.Errorf("cached in the first build: %v", log.cached)
			}
			c.change(t, b)
			log := b.same(t, "second")
			if len(log.cached) != c.cached || len(log.ran) != c.ran {
				t.Errorf("cached %v, want %d; ran %v, want %d", log.cached, c.cached, log.ran, c.ran)
			}
		})
	}
}

func nothing(*testing.T, *cacheBench) {}

func remove(t *testing.T, b *cacheBench, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(b.dir, filepath.FromSlash(name))); err != nil {
		t.Fatal(err)
	}
	b.touch(t, filepath.ToSlash(filepath.Dir(name)), 1_500_000_000)
}

// Times are in no key.
func TestCacheIgnoresTimes(t *testing.T) {
	t.Parallel()
	b := newCacheBench(t)
	b.file(t, "d/a", "1")
	b.file(t, "Dockerfile", "FROM scratch\nCOPY d /d/\n")
	b.build(t, true)
	b.touch(t, "d/a", 1_600_000_000)
	if _, log := b.build(t, true); len(log.cached) != 1 {
		t.Errorf("ran %v", log.ran)
	}
}

// Builds at the same time share one cache.
func TestCacheOfConcurrentBuilds(t *testing.T) {
	t.Parallel()
	shared := t.TempDir()
	var all sync.WaitGroup
	for i := range 8 {
		b := newCacheBench(t)
		b.cache = shared
		b.file(t, "a", strconv.Itoa(i%2))
		b.file(t, "Dockerfile", "FROM scratch\nCOPY a /\nCOPY a /b\n")
		all.Go(func() {
			for range 3 {
				b.same(t, "concurrent")
			}
		})
	}
	all.Wait()
}

// RUN steps are cached, with what they stand on, read and see.
func TestCacheOfRuns(t *testing.T) {
	t.Parallel()
	b := newCacheBench(t)
	compileStep(t, b.dir)
	b.touch(t, "prog", 1_500_000_000)
	b.file(t, "a", "1")
	dockerfile := `FROM scratch AS a
COPY prog /prog
ARG V=1
RUN ["/prog", "write", "/one", "x"]
FROM scratch
COPY --from=a /one /prog /
RUN --mount=type=bind,source=a,target=/a ["/prog", "write", "/two", "y"]
`
	b.file(t, "Dockerfile", dockerfile)
	for _, c := range []struct {
		what   string
		change func()
		ran    []string
	}{
		{"first", func() {}, []string{"a/1", "a/3", "stage-1/1", "stage-1/2"}},
		{"nothing", func() {}, nil},
		{"an argument that RUN can see, and the same result", func() { b.request.BuildArgs = map[string]string{"V": "2"} }, []string{"a/3"}},
		{"a mounted file", func() { b.file(t, "a", "2") }, []string{"stage-1/2"}},
		{"an unmounted file", func() { b.file(t, "b", "2") }, nil},
		{"what a cache mount starts with", func() {
			b.file(t, "Dockerfile", strings.Replace(dockerfile, "--mount=type=bind", "--mount=type=cache,from=a,target=/c --mount=type=bind", 1))
		}, []string{"stage-1/2"}},
		{"what a cache mount starts with, again", func() { b.request.BuildArgs = map[string]string{"V": "3"}; b.file(t, "prog2", "") }, []string{"a/3"}},
		{"what is in the stage of a cache mount", func() {
			b.file(t, "Dockerfile", strings.Replace(b.text(t), "ARG V=1", "ARG V=1\nCOPY b /b", 1))
		}, []string{"a/3", "a/4", "stage-1/2"}},
		{"a proxy", func() { b.request.BuildArgs = map[string]string{"V": "3", "HTTP_PROXY": "http://p"} }, nil},
	} {
		c.change()
		_, log := b.build(t, true)
		slices.Sort(log.ran)
		if !slices.Equal(log.ran, c.ran) {
			t.Errorf("%s: ran %v, want %v", c.what, log.ran, c.ran)
		}
	}
}

// A cache that fails is no failure of the build.
func TestCacheFails(t *testing.T) {
	t.Parallel()
	b := newCacheBench(t)
	b.file(t, "a", "1")
	b.file(t, "Dockerfile", "FROM scratch\nCOPY a /\n")
	b.build(t, true)
	for _, dir := range []string{"records", "sha256"} {
		entries, err := os.ReadDir(filepath.Join(b.cache, dir))
		if err != nil || len(entries) == 0 {
			t.Fatal(entries, err)
		}
		for _, e := range entries {
			if err := os.WriteFile(filepath.Join(b.cache, dir, e.Name()), []byte("garbage"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	with, log := b.build(t, true)
	without, _ := b.build(t, false)
	if with != without || len(log.cached) > 0 || len(log.warnings) != 1 {
		t.Errorf("%s, %s, %v", with, without, log)
	}
}

// A build whose RUN steps are all cached reads no layer of its base image, although it copies files onto it.
func TestCacheLeavesBasesAlone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY prog /prog\nCOPY <<E /etc/passwd\nme:x:7:8::/:/\nE\n")
	req := w.request()
	req.Outputs.Destinations = []string{w.host + "/base:1"}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(err)
	}
	w.write(t, "Dockerfile", "FROM "+w.host+"/base:1\nRUN [\"/prog\", \"write\", \"/one\", \"x\"]\nCOPY --chown=me last /\n")
	req = w.request()
	req.Cache = build.Cache{Enabled: true}
	for i := range 3 {
		w.write(t, "last", strconv.Itoa(i))
		before := w.registry.Count("GET", "/base/blobs/")
		log := &steps{}
		if err := w.build(t.Context(), req, log); err != nil {
			t.Fatal(err)
		}
		if !w.pushed(t, "out:1") {
			t.Error("nothing was pushed")
		}
		// The configuration is always read.
		if n := w.registry.Count("GET", "/base/blobs/") - before; i > 0 && n != 1 || len(log.cached) != min(i, 1) {
			t.Errorf("build %d: %d blobs of the base were read; cached %v, ran %v", i, n, log.cached, log.ran)
		}
	}
}
