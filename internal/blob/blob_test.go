package blob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hako/internal/blob"
	"hako/internal/workdir"
)

// stores opens one store of each kind.
func stores(t *testing.T) map[string]*blob.Store {
	t.Helper()
	out := map[string]*blob.Store{}
	for name, opts := range map[string]workdir.Options{"directory": {Explicit: t.TempDir()}, "memory": {}} {
		d, err := workdir.Open(opts)
		if err != nil {
			t.Fatal(err)
		}
		s, err := blob.New(d)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(s.Close(), s.Close(), d.Close()); err != nil {
				t.Error(err)
			}
		})
		out[name] = s
	}
	s, err := blob.OpenDir(filepath.Join(t.TempDir(), "new"), blob.Shared)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	out["lasting"] = s
	return out
}

func put(t testing.TB, s *blob.Store, data string) digest.Digest {
	t.Helper()
	w, err := s.Create(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, data); err != nil {
		t.Fatal(err)
	}
	d, size, err := w.Commit("")
	if err != nil || size != int64(len(data)) || d != digest.FromString(data) {
		t.Fatalf("%s %d %v", d, size, err)
	}
	return d
}

func get(t testing.TB, s *blob.Store, d digest.Digest) string {
	t.Helper()
	b, err := s.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	data, err := io.ReadAll(b)
	if err != nil || int64(len(data)) != b.Size() {
		t.Fatalf("%d bytes of %d: %v", len(data), b.Size(), err)
	}
	return string(data)
}

func TestStore(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			d := put(t, s, "hello")
			if !s.Has(d) || get(t, s, d) != "hello" {
				t.Error("not kept")
			}
			put(t, s, "hello")
			if get(t, s, put(t, s, "")) != "" {
				t.Error("empty blob")
			}
			b, err := s.Open(d)
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := errors.Join(s.Delete(d), s.Delete(d)); err != nil {
				t.Error(err)
			}
			if s.Has(d) {
				t.Error("not deleted")
			}
			p := make([]byte, 3)
			if _, err := b.ReadAt(p, 2); err != nil || string(p) != "llo" {
				t.Errorf("open blob reads %q, %v", p, err)
			}
			if _, err := s.Open(d); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("deleted blob: %v", err)
			}
			for _, bad := range []digest.Digest{"", "sha256:x", "sha256:../../etc/passwd", digest.FromString("x")[:70], digest.Digest("sha512:" + strings.Repeat("a", 128))} {
				if _, err := s.Open(bad); err == nil || errors.Is(err, fs.ErrNotExist) || s.Has(bad) || s.Delete(bad) == nil {
					t.Errorf("digest %q: %v", bad, err)
				}
			}
		})
	}
}

func TestUnfinishedBlobsAreNotSeen(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			d, other := digest.FromString("data"), digest.FromString("other")
			w, err := s.Create(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(w, "data")
			if s.Has(d) || w.Digest() != d || w.Size() != 4 {
				t.Error("seen before Commit")
			}
			if _, _, err := w.Commit(other); err == nil {
				t.Error("committed under the wrong digest")
			}
			if s.Has(d) || s.Has(other) {
				t.Error("seen after a failed Commit")
			}
			if _, err := w.Write([]byte("x")); err == nil {
				t.Error("written after the end")
			}
			if _, _, err := w.Commit(""); err == nil || w.Close() != nil {
				t.Error("committed after the end")
			}
			errWhy := errors.New("why")
			ctx, cancel := context.WithCancelCause(t.Context())
			if w, err = s.Create(ctx); err != nil {
				t.Fatal(err)
			}
			cancel(errWhy)
			if _, err := w.Write([]byte("x")); !errors.Is(err, errWhy) {
				t.Error(err)
			}
			if _, _, err := w.Commit(""); !errors.Is(err, errWhy) {
				t.Error(err)
			}
		})
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for i := range 20 {
				wg.Go(func() {
					for j := range 10 {
						data := fmt.Sprintf("blob %d", (i+j)%7)
						if got := get(t, s, put(t, s, data)); got != data {
							t.Errorf("%q is %q", data, got)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestLastingStore(t *testing.T) {
	t.Parallel()
	path := t.TempDir()
	// Whoever can write there could lock that file for ever; and some file systems have no locks.
	lock, err := os.Create(filepath.Join(path, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	open := func(access blob.Access) *blob.Store {
		s, err := blob.OpenDir(path, access)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one, two := open(blob.Shared), open(blob.Shared)
	d := put(t, one, "kept")
	if get(t, two, d) != "kept" {
		t.Error("not shared")
	}
	for range 2 {
		w, err := one.Create(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
	}
	unfinished, err := os.ReadDir(filepath.Join(path, "new"))
	if err != nil || len(unfinished) != 2 {
		t.Fatal(unfinished, err)
	}
	old := time.Now().Add(-25 * time.Hour)
	if err := errors.Join(os.Chtimes(filepath.Join(path, "new", unfinished[0].Name()), old, old), one.Close(), two.Close()); err != nil {
		t.Fatal(err)
	}
	three, four := open(blob.Shared), open(blob.ReadOnly)
	defer three.Close()
	defer four.Close()
	if get(t, three, d) != "kept" || get(t, four, d) != "kept" {
		t.Error("lost")
	}
	if left, err := os.ReadDir(filepath.Join(path, "new")); err != nil || len(left) != 1 || left[0].Name() != unfinished[1].Name() {
		t.Errorf("unfinished blobs are left: %v %v", left, err)
	}
}

func BenchmarkWrite(b *testing.B) {
	s, err := blob.OpenDir(b.TempDir(), blob.Shared)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	data := bytes.Repeat([]byte("x"), 1<<20)
	b.SetBytes(16 << 20)
	for b.Loop() {
		w, err := s.Create(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for range 16 {
			_, _ = w.Write(data)
		}
		if _, _, err := w.Commit(""); err != nil {
			b.Fatal(err)
		}
	}
}

func TestBytesHashedElsewhere(t *testing.T) {
	t.Parallel()
	for name, s := range stores(t) {
		d := digest.FromString("data")
		for _, tt := range []struct {
			want digest.Digest
			ok   bool
		}{{"", false}, {"sha256:short", false}, {d, true}} {
			w, err := s.CreateHashed(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(w, "data"); err != nil {
				t.Fatal(err)
			}
			got, size, err := w.Commit(tt.want)
			if (err == nil) != tt.ok || tt.ok && (got != d || size != 4) {
				t.Errorf("%s: commit %q gives %s, %d, %v", name, tt.want, got, size, err)
			}
		}
		if got := get(t, s, d); got != "data" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
