package imagedir_test

import (
	"archive/tar"
	"errors"
	"flag"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"hako/internal/imagedir"
)

// warmer makes TestRealKaniko run kaniko's own warmer, and write anew what it leaves.
var warmer = flag.String("warmer", "", "kaniko's warmer (GoogleContainerTools v1.24.0), to make testdata with")

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }

// TestRealKaniko reads a directory that kaniko v1.24.0 has filled. With -warmer it is filled again, and kaniko has to find
// in ours what it would have fetched.
func TestRealKaniko(t *testing.T) {
	t.Parallel()
	fixture := filepath.Join("testdata", "kaniko-v1.24.0.tar")
	if *warmer != "" {
		remake(t, fixture)
	}
	dir := t.TempDir()
	untar(t, fixture, dir)
	p, err := layout.ImageIndexFromPath(filepath.Join(dir, "source"))
	if err != nil {
		t.Fatal(err)
	}
	ix, err := p.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	im, err := p.Image(ix.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	d := newDir(t, filepath.Join(dir, "cache"), false)
	check(t, d, im)
	f, calls := fetched(t, im, "base:1")
	if out, err := d.Store(t.Context(), f, false); err != nil || out == imagedir.Stored || calls() != 0 {
		t.Error(out, err)
	}
}

// remake fills a directory with kaniko's warmer, shows it one of ours, and packs the first together with the image.
func remake(t *testing.T, fixture string) {
	t.Helper()
	im := randomImage(t, 2)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/base:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, im); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	run := func(cache string) string {
		out, err := exec.CommandContext(t.Context(), *warmer, "--cache-dir="+cache, "--image="+ref.Name(), "--insecure-pull").CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	run(filepath.Join(dir, "cache"))
	source, err := layout.Write(filepath.Join(dir, "source"), empty.Index)
	if err := errors.Join(err, source.AppendImage(im)); err != nil {
		t.Fatal(err)
	}
	ours := newDir(t, t.TempDir(), true)
	f, _ := fetched(t, im, ref.Name())
	if _, err := ours.Store(t.Context(), f, false); err != nil {
		t.Fatal(err)
	}
	if out := run(ours.Path()); !strings.Contains(out, "already in cache") {
		t.Errorf("kaniko does not find the image in our directory:\n%s", out)
	}
	out, err := os.Create(fixture)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(out)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), out.Close()); err != nil {
		t.Fatal(err)
	}
}

func untar(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := tar.NewReader(f)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil || !fs.ValidPath(strings.TrimSuffix(h.Name, "/")) {
			t.Fatal(h, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		data, err := io.ReadAll(r)
		path := filepath.Join(dir, h.Name)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
}
