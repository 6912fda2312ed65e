package cache_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"

	"hako/internal/cache"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// putNumbered puts a record of its own, made an hour later for each number, with the layer "common" or one of its own.
func putNumbered(t *testing.T, s cache.Store, n int, blob string) *cache.Record {
	t.Helper()
	rec, l, _ := sample()
	rec.Keys = []cache.Key{key(fmt.Sprint("a", n)), key(fmt.Sprint("b", n))}
	rec.Exact, rec.Created, rec.What = rec.Keys[0], rec.Created.Add(time.Duration(n)*time.Hour), fmt.Sprint("RUN ", n)
	rec.Layer.Digest, rec.Layer.Size = digest.FromString(blob), int64(len(blob))
	if err := putRecord(t, s, rec, l, []byte(blob)); err != nil {
		t.Fatal(err)
	}
	return rec
}

func whats(v *cache.Inventory) (out []string) {
	for i := range v.Entries {
		out = append(out, v.Entries[i].What())
	}
	return out
}

func TestListAndPrune(t *testing.T) {
	t.Parallel()
	for kind, open := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s, ok := open(t).(cache.Keeper)
			if !ok {
				t.Fatal("cannot be listed")
			}
			first, second, third := putNumbered(t, s, 1, "common"), putNumbered(t, s, 2, "common"), putNumbered(t, s, 3, "own")
			all, err := s.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff([]string{"RUN 1", "RUN 2", "RUN 3"}, whats(all)); d != "" {
				t.Error(d)
			}
			if len(all.Entries[0].Keys) != 2 || len(all.Loose) != 0 {
				t.Errorf("%+v", all)
			}
			rules := cache.Rules{OlderThan: time.Since(second.Created) + 30*time.Minute, Now: time.Now()}
			if d := cmp.Diff([]string{"RUN 1"}, whats(rules.Choose(all))); d != "" {
				t.Error(d)
			}
			gone, err := s.Remove(t.Context(), rules.Choose(all))
			if err != nil || len(gone.Entries) != 1 {
				t.Fatal(gone, err)
			}
			for _, c := range []struct {
				rec  *cache.Record
				left bool
			}{{first, false}, {second, true}, {third, true}} {
				for _, k := range c.rec.Keys {
					f, err := s.Get(t.Context(), k)
					if err != nil || (f != nil) != c.left {
						t.Errorf("%s: %v, %v", c.rec.What, f, err)
					}
				}
			}
			if again, err := s.Remove(t.Context(), rules.Choose(all)); err != nil {
				t.Errorf("%v, %v", again, err) // what is gone is no error
			}
		})
	}
}

func TestPrunedDirectoryIsEmpty(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openDirectory(t, dir)
	putNumbered(t, s, 1, "common")
	putNumbered(t, s, 2, "own")
	write(t, dir, "garbage")
	for _, name := range []string{"new/left", "records/.new-1", "sha256/" + digest.FromString("nobody's").Encoded()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("left"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		rules   cache.Rules
		records int
		loose   int
	}{
		{cache.Rules{All: true, Grace: time.Hour}, 0, 0}, // all of it was used just now
		{cache.Rules{}, 0, 3},
		{cache.Rules{All: true}, 3, 0},
	} {
		gone, err := cache.Prune(t.Context(), s, c.rules, false)
		if err != nil || len(gone.Entries) != c.records || len(gone.Loose) != c.loose {
			t.Fatalf("%+v: %+v, %v", c.rules, gone, err)
		}
	}
	for _, sub := range []string{"new", "records", "sha256"} {
		if left, err := os.ReadDir(filepath.Join(dir, sub)); err != nil || len(left) > 0 {
			t.Errorf("%s: %v, %v", sub, left, err)
		}
	}
}

func TestLeastRecentlyUsedGoFirst(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openDirectory(t, dir)
	blob := func(c string) string { return string(bytes.Repeat([]byte(c), 100_000)) }
	var recs []*cache.Record
	for n := range 4 {
		recs = append(recs, putNumbered(t, s, n, blob(fmt.Sprint(n))))
	}
	// The first was used last.
	for n, rec := range recs {
		for _, k := range rec.Keys {
			age := time.Duration(10-n) * time.Hour
			if n == 0 {
				age = time.Hour
			}
			then := time.Now().Add(-age)
			for _, p := range []string{filepath.Join(dir, "records", string(k)+".json"), filepath.Join(dir, "sha256", rec.Layer.Digest.Encoded())} {
				if err := os.Chtimes(p, then, then); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	gone, err := cache.Limit(t.Context(), s, 280_000, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"RUN 1", "RUN 2"}, whats(gone), cmpopts.SortSlices(func(a, b string) bool { return a < b })); d != "" {
		t.Error(d)
	}
	if size, err := s.Size(t.Context()); err != nil || size > 252_000 {
		t.Error(size, err)
	}
	if gone, err = cache.Limit(t.Context(), s, 280_000, time.Time{}); err != nil || len(gone.Entries) > 0 {
		t.Error(gone, err)
	}
	if f, err := s.Get(t.Context(), recs[0].Keys[0]); f == nil || err != nil {
		t.Error(f, err)
	}
}

// What is found stays readable, whatever is pruned at the same time, and what is put is there afterwards.
func TestPruneBesideBuilds(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	pruner := openDirectory(t, dir)
	all.Go(func() {
		for ctx.Err() == nil {
			// Without a grace time of minutes, but not of nothing: a moment is what a build needs to say that it uses something.
			if _, err := cache.Prune(ctx, pruner, cache.Rules{All: true, Grace: time.Second}, false); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	var builds sync.WaitGroup
	for range 4 {
		builds.Go(func() {
			s, err := cache.OpenDirectory(dir)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close() //nolint:errcheck // a test's
			for range 50 {
				rec, l, blob := sample()
				if err := putRecord(t, s, rec, l, blob); err != nil {
					t.Error(err)
				}
				f, err := s.Get(ctx, key("1"))
				if f == nil || err != nil {
					t.Errorf("%v, %v", f, err)
					return
				}
				rc, err := f.Blob(ctx)
				if err != nil {
					t.Error(err)
					return
				}
				data, err := io.ReadAll(rc)
				if err := errors.Join(err, rc.Close()); err != nil || string(data) != "the layer" {
					t.Errorf("%q, %v", data, err)
				}
			}
		})
	}
	builds.Wait()
	stop()
	all.Wait()
}

func TestRegistryThatDeletesNothing(t *testing.T) {
	t.Parallel()
	s, reg := openRegistry(t)
	putNumbered(t, s, 1, "own")
	reg.Inject(registrytest.Fault{Method: "DELETE", Path: "/manifests/", Status: 405, Body: `{"errors":[{"code":"UNSUPPORTED"}]}`, Times: 100})
	gone, err := cache.Prune(t.Context(), s, cache.Rules{All: true, Now: time.Now()}, false)
	if !errors.Is(err, registry.ErrNoDelete) || len(gone.Entries) > 0 {
		t.Errorf("%v, %v", gone, err)
	}
	if n := reg.Count("DELETE", ""); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

// A registry may refuse to delete a manifest that still has tags.
func TestRegistryThatWantsTagsGoneFirst(t *testing.T) {
	t.Parallel()
	s, reg := openRegistry(t)
	putNumbered(t, s, 1, "own")
	reg.Inject(registrytest.Fault{Method: "DELETE", Path: "/manifests/sha256:", Status: 400, Body: `{"errors":[{"code":"MANIFEST_INVALID","message":"it is tagged"}]}`, Times: 1})
	gone, err := cache.Prune(t.Context(), s, cache.Rules{All: true, Now: time.Now()}, false)
	if err != nil || len(gone.Entries) != 1 {
		t.Errorf("%v, %v", gone, err)
	}
	if f, err := s.Get(t.Context(), key("a1")); f != nil || err != nil {
		t.Error(f, err)
	}
}
