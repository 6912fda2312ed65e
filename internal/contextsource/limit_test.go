package contextsource_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/gittree"
	"hako/internal/gittree/gittest"
	"hako/internal/gitwire"
)

// TestTooLargeForMemory: where contexts are put into memory, one that is too large is an error that says what to do.
func TestTooLargeForMemory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	gittest.Configure(t, dir)
	gittest.Git(t, dir, "", "init", "-q", "r.git")
	if err := os.WriteFile(filepath.Join(dir, "r.git/f"), []byte(noise(10_000)), 0o644); err != nil {
		t.Fatal(err)
	}
	gittest.Git(t, dir, "r.git", "add", "f")
	gittest.Git(t, dir, "r.git", "commit", "-qm", "x")
	git := gittest.Handler(dir)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/a.tar" {
			_, _ = w.Write(pack(t, "f", noise(10_000))) // the client may have hung up
			return
		}
		git.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	for _, name := range []string{"/r.git", "/a.tar"} {
		w := newWorld(t, nil)
		client := gitwire.New(gitwire.Options{})
		t.Cleanup(client.Close)
		w.Git = gittree.Options{Client: client, File: w.File, Now: w.Now}
		for _, limit := range []int64{0, 5000} {
			w.MaxBytes = limit
			s, err := contextsource.Open(t.Context(), w.Options, contextsource.Request{Place: server.URL + name, Title: "build context"})
			if err == nil {
				err = s.Close()
			}
			var e *diag.Error
			if limit == 0 && err != nil || limit > 0 && (!errors.As(err, &e) || !strings.Contains(e.Hint, "there is only memory")) {
				t.Errorf("%s, at most %d bytes: %v", name, limit, err)
			}
		}
	}
}
