package reproducible

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"hako/internal/minibase"
)

// epoch is later than what is in the base image, which is of 2024, and earlier than any build.
const epoch = 1750000000

// variation is one way to build the same.
type variation struct {
	name string
	// change says what is different from the first build.
	change func(t *testing.T, b *bench)
}

func variations() []variation {
	return []variation{
		{"the same again", func(*testing.T, *bench) {}},
		{"another day", func(_ *testing.T, b *bench) { b.job.Now = 400*24*time.Hour + 7*time.Second + 900*time.Millisecond }},
		{"one core", func(_ *testing.T, b *bench) { b.job.Jobs, b.env = 1, append(b.env, "GOMAXPROCS=1") }},
		{"many cores", func(_ *testing.T, b *bench) { b.job.Jobs, b.env = 16, append(b.env, "GOMAXPROCS=7") }},
		{"another directory, made in another order", func(t *testing.T, b *bench) {
			b.job.Context = filepath.Join(b.dir, "somewhere/else/with a space")
			writeContext(t, b.job.Context, true)
		}},
		{"a context in memory", func(t *testing.T, b *bench) {
			dir, err := os.MkdirTemp("/dev/shm", "hako-test")
			if err != nil {
				t.Skipf("needs /dev/shm: %v", err)
			}
			t.Cleanup(func() { remove(t, dir) })
			b.job.Context = dir
			writeContext(t, dir, true)
		}},
		{"another work directory", func(t *testing.T, b *bench) {
			b.job.WorkDir = mkdir(t, filepath.Join(b.dir, "w", strings.Repeat("x", 100)))
		}},
		{"another locale and time zone", func(_ *testing.T, b *bench) {
			b.env = append(b.env, "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "LC_COLLATE=C", "TZ=Asia/Kathmandu", "USER=somebody", "HOME=/nonexistent", "HOSTNAME=x")
		}},
		{"no permissions for others", func(_ *testing.T, b *bench) { b.job.Umask = 0o077 }},
		{"all permissions", func(_ *testing.T, b *bench) { b.job.Umask = 0 }},
		{"another host", func(t *testing.T, b *bench) {
			if os.Getuid() != 0 {
				t.Skip("needs root, to set the host name")
			}
			b.job.Hostname, b.attr.Cloneflags = "somewhere.example.com", syscall.CLONE_NEWUTS
		}},
		{"another user", func(t *testing.T, b *bench) {
			if os.Getuid() != 0 {
				t.Skip("needs root, to be somebody else")
			}
			if err := os.Chown(b.dir, 1000, 1000); err != nil {
				t.Fatal(err)
			}
			b.attr.Credential = &syscall.Credential{Uid: 1000, Gid: 1000, NoSetGroups: false}
			b.job.WorkDir = mkdir(t, filepath.Join(b.dir, "theirs"))
			if err := os.Chown(b.job.WorkDir, 1000, 1000); err != nil {
				t.Fatal(err)
			}
		}},
		{"the native engine", func(t *testing.T, b *bench) { b.native(t) }},
		{"the native engine, another day", func(t *testing.T, b *bench) {
			b.native(t)
			b.job.Now, b.job.Jobs = 1000*24*time.Hour, 1
		}},
	}
}

// bench is where one build runs.
type bench struct {
	dir, program string
	job          job
	env          []string
	attr         syscall.SysProcAttr
}

// native asks for the native engine, if it works here.
func (b *bench) native(t *testing.T) {
	t.Helper()
	b.job.Sandbox = "native"
	probe := *b
	probe.job.Context = mkdir(t, filepath.Join(b.dir, "probe"))
	write(t, filepath.Join(probe.job.Context, "Dockerfile"), "ARG BASE\nFROM $BASE\nRUN true\n")
	if _, err := probe.build(); err != nil {
		t.Skipf("needs the native engine: %v", err)
	}
}

// build returns the digest, and leaves the image in b.job.Out.
func (b *bench) build() (string, error) {
	b.job.Out = filepath.Join(b.dir, "image")
	text, err := json.Marshal(b.job)
	if err != nil {
		return "", err
	}
	cmd := exec.Command(b.program)
	cmd.Dir, cmd.Env, cmd.SysProcAttr = "/", append(b.env, jobVariable+"="+string(text)), &b.attr
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}

func (b *bench) must(t *testing.T) string {
	t.Helper()
	d, err := b.build()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestOneDigest builds one Dockerfile in all ways that must make no difference.
func TestOneDigest(t *testing.T) {
	t.Parallel()
	first := newBench(t)
	want := first.must(t)
	t.Logf("digest %s", want)
	for _, v := range variations() {
		t.Run(v.name, func(t *testing.T) {
			b := first
			b.dir = mkdir(t, filepath.Join(first.dir, strings.ReplaceAll(v.name, " ", "-")))
			b.env = append([]string{}, first.env...)
			v.change(t, &b)
			if got := b.must(t); got != want {
				t.Errorf("digest is %s, was %s; what is different (-first +now):\n%s", got, want, cmp.Diff(describe(t, first.job.Out), describe(t, b.job.Out)))
			}
		})
	}
}

// TestVariationsMatter is the other side: without rewritten times each build has a digest of its own, and so has one
// of other files.
func TestVariationsMatter(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	digests := map[string]bool{}
	for range 2 {
		b.job.Rewrite = false
		b.job.Now += time.Hour
		digests[b.must(t)] = true
	}
	b.job.Rewrite = true
	digests[b.must(t)] = true
	write(t, filepath.Join(b.job.Context, "src/file-0"), "changed")
	digests[b.must(t)] = true
	if len(digests) != 4 {
		t.Errorf("four builds that are different have the digests %v", digests)
	}
}

// newBench readies a registry, a context and a copy of this program that anybody may run.
func newBench(t *testing.T) bench {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	dir, err := os.MkdirTemp("", "hako-test") // not t.TempDir, which nobody else may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b := bench{dir: dir, program: filepath.Join(dir, "program"), env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	b.job = job{Context: filepath.Join(dir, "context"), WorkDir: mkdir(t, filepath.Join(dir, "work")), Base: serve(t), Umask: -1, Rewrite: true, Sandbox: "sentry"}
	writeContext(t, b.job.Context, false)
	return b
}

// serve starts a registry with the base image and returns its name.
func serve(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	box, err := minibase.Compile(t.Context(), runtime.GOARCH, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	im, err := minibase.Image(box, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/base:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, im); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

// writeContext writes the context; backwards makes its files in another order, with other inodes and times.
func writeContext(t *testing.T, dir string, backwards bool) {
	t.Helper()
	mkdir(t, dir)
	for _, name := range []string{"Dockerfile", "archive.tar.gz"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(data))
	}
	for i := range 300 {
		if backwards {
			write(t, filepath.Join(dir, fmt.Sprintf("gone-%d", i)), "x")
			i = 299 - i
		}
		write(t, filepath.Join(dir, fmt.Sprintf("src/file-%d", i)), strings.Repeat(fmt.Sprint(i), i))
		write(t, filepath.Join(dir, fmt.Sprintf("src/dir-%d/file", i%17)), fmt.Sprint(i%17))
	}
	for i := range 300 {
		if err := os.RemoveAll(filepath.Join(dir, fmt.Sprintf("gone-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "src/file-9"), filepath.Join(dir, "src/hard")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file-1", filepath.Join(dir, "src/link")); err != nil {
		t.Fatal(err)
	}
	// Times before the epoch are part of the files.
	old := time.Unix(epoch-1000, 0)
	if err := os.Chtimes(filepath.Join(dir, "src/file-5"), old, old); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	mkdir(t, filepath.Dir(path))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func remove(t *testing.T, dir string) {
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}
