package build_test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"hako/internal/build"
	"hako/internal/event"
	"hako/internal/registry/registrytest"
)

// TestWarmLooksAgain holds that an image that is put into a directory is looked for as often as a base image of a build.
func TestWarmLooksAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY prog /\n")
	if err := w.build(t.Context(), w.request(), event.Discard{}); err != nil {
		t.Fatal(err)
	}
	w.registry.Inject(registrytest.Fault{Method: http.MethodGet, Path: "/out/manifests/", Status: http.StatusNotFound, Times: 1})
	req := build.WarmRequest{
		Bases:    build.Bases{Dir: t.TempDir(), Images: []string{w.host + "/out:1"}},
		Registry: build.Registry{Insecure: true, InsecurePull: true, PullRetries: 1}, WorkDir: w.work,
	}
	images, err := build.Warm(t.Context(), build.Env{
		Now: time.Now, Getenv: func(string) string { return "" }, Cwd: w.context, Stdout: os.Stdout, Events: event.Discard{},
	}, req)
	if err != nil || len(images) != 1 || images[0].Err != nil {
		t.Fatalf("%+v, %v", images, err)
	}
	if files, err := filepath.Glob(filepath.Join(req.Bases.Dir, "*")); err != nil || len(files) == 0 {
		t.Errorf("the directory holds %v, %v", files, err)
	}
}
