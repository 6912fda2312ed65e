package sandboxtest

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"hako/internal/sandbox"
	"hako/internal/tree"
)

// cache is an empty cache that no other case has.
func cache(t *testing.T) *sandbox.Cache {
	t.Helper()
	return &sandbox.Cache{ID: t.Name(), Path: ".", Mode: 0o755}
}

func cacheCases() cases {
	return cases{
		"cache": func(t *testing.T, b *bed) {
			c := cache(t)
			c.Mode, c.UID, c.GID = 0o750, 7, 8
			r := b.mounted(t, one("/mnt", c), "stat", "/mnt", ";", "ls", "/mnt", ";", "write", "/mnt/x", "kept\n", ";", "mkfifo", "/mnt/pipe", "0600", ";", "setxattr", "/mnt/x", "user.a", "b").succeeds(t)
			wantOut(t, r, "/mnt 040750 7:8 0,0\n")
			r.want(t, mounted()...)
			step := b.command("cat", "/other/place/x", ";", "ls", "/other/place", ";", "rm", "/other/place/pipe")
			step.Mounts = one("/other/place", c)
			wantOut(t, b.run(t, r.Stack, step).succeeds(t), "kept\npipe\nx\n")
			wantOut(t, b.mounted(t, one("/mnt", c), "ls", "/mnt").succeeds(t), "x\n")
		},
		"cache of a failed step": func(t *testing.T, b *bed) {
			c := cache(t)
			b.mounted(t, one("/mnt", c), "write", "/mnt/x", "kept\n", ";", "exit", "3")
			wantOut(t, b.mounted(t, one("/mnt", c), "cat", "/mnt/x").succeeds(t), "kept\n")
		},
		"cache with files": func(t *testing.T, b *bed) {
			c := &sandbox.Cache{ID: t.Name(), Lowers: b.other(t).Lowers(), Path: "src"}
			r := b.mounted(t, one("/mnt", c), "rm", "/mnt/one", ";", "write", "/mnt/sub/new", "1", ";", "chown", "/mnt/pipe", "1", "2", ";", "stat", "/mnt", "/mnt/pipe").succeeds(t)
			wantOut(t, r, "/mnt 040750 0:0 0,0\n/mnt/pipe 010640 1:2 0,0\n")
			part := *c
			part.Path = "src/sub"
			wantOut(t, b.mounted(t, []sandbox.Mount{{Target: "/m1", Source: c}, {Target: "/m2", Source: &part, ReadOnly: true}},
				"ls", "/m1", ";", "ls", "/m2").succeeds(t), "link\nmarked\nowned\npipe\nsub\nnew\ntwo\n")
		},
		"read-only cache": func(t *testing.T, b *bed) {
			c := cache(t)
			b.mounted(t, one("/mnt", c), "write", "/mnt/x", "kept\n").succeeds(t)
			wantOut(t, b.mounted(t, readOnly("/mnt", c), "cat", "/mnt/x", ";", "fails", "read-only", "write", "/mnt/y", "1").succeeds(t), "kept\n")
		},
		"part of a cache that is missing": func(t *testing.T, b *bed) {
			c := cache(t)
			c.Path = "sub/dir"
			b.mounted(t, one("/mnt", c), "echo").refused(t, "sub/dir")
		},
		"cache in two steps at once": func(t *testing.T, b *bed) {
			c := cache(t)
			var wg sync.WaitGroup
			for _, other := range [][2]string{{"/mnt/a", "/mnt/b"}, {"/mnt/b", "/mnt/a"}} {
				wg.Go(func() {
					r := b.mounted(t, one("/mnt", c), "write", other[0], "x", ";", "await", other[1])
					if r.Exit != nil {
						t.Errorf("%v %s", r.Exit, r.Err)
					}
				})
			}
			wg.Wait()
		},
	}
}

// cacheChanges reads what became of a cache, as lines of path and kind, sorted.
func (b *bed) cacheChanges(t *testing.T, id string) string {
	t.Helper()
	reader, ok := b.engine.(sandbox.CacheReader)
	if !ok {
		t.Fatal("the engine cannot tell what became of caches")
	}
	got, err := collect(t.Context(), reader.CacheChanges(id))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range got {
		if e.Kind != tree.Dir {
			fmt.Fprintf(&out, "%s %d %d:%d %o\n", e.Path, e.Kind, e.UID, e.GID, e.Mode)
		}
	}
	return out.String()
}

// keptCacheCases are about what is kept of caches.
func keptCacheCases() cases {
	return cases{
		"changes of a cache": func(t *testing.T, b *bed) {
			c := cache(t)
			b.mounted(t, one("/mnt", c), "write", "/mnt/x", "1", ";", "chown", "/mnt/x", "3", "4", ";", "write", "/mnt/y", "1").succeeds(t)
			b.mounted(t, one("/mnt", c), "rm", "/mnt/y", ";", "write", "/mnt/z", "1").succeeds(t)
			if got, want := b.cacheChanges(t, c.ID), fmt.Sprintf("x %d 3:4 644\nz %[1]d 0:0 644\n", tree.Regular); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		},
		"changes of a cache with files": func(t *testing.T, b *bed) {
			c := &sandbox.Cache{ID: t.Name(), Lowers: b.other(t).Lowers(), Path: ".", Owned: true, Mode: 0o711, UID: 5, GID: 6}
			r := b.mounted(t, one("/mnt", c), "rm", "/mnt/src/one", ";", "write", "/mnt/src/sub/new", "1", ";", "stat", "/mnt").succeeds(t)
			wantOut(t, r, "/mnt 040711 5:6 0,0\n")
			want := fmt.Sprintf("src/one %d 0:0 0\nsrc/sub/new %d 0:0 644\n", tree.Whiteout, tree.Regular)
			if got := b.cacheChanges(t, c.ID); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		},
		"changes of a cache that there is not": func(t *testing.T, b *bed) {
			b.mounted(t, one("/mnt", cache(t)), "echo").succeeds(t) // the sandbox runs
			reader, ok := b.engine.(sandbox.CacheReader)
			if !ok {
				t.Fatal("the engine cannot tell what became of caches")
			}
			if _, err := collect(t.Context(), reader.CacheChanges("no such cache")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v", err)
			}
		},
	}
}

// sharedCacheCases are about caches beside other files and caches.
func sharedCacheCases() cases {
	return cases{
		"cache below a cache": func(t *testing.T, b *bed) {
			outer, inner := cache(t), cache(t)
			inner.ID += "/inner"
			mounts := []sandbox.Mount{{Target: "/mnt", Source: outer}, {Target: "/mnt/deep/er", Source: inner}}
			b.mounted(t, mounts, "write", "/mnt/deep/er/x", "1").succeeds(t).want(t, mounted()...)
			wantOut(t, b.mounted(t, mounts, "ls", "/mnt/deep/er").succeeds(t), "x\n")
			wantOut(t, b.mounted(t, one("/mnt", outer), "ls", "/mnt/deep", ";", "ls", "/mnt/deep/er").succeeds(t), "er\n")
		},
		"rename from a cache": func(t *testing.T, b *bed) {
			b.mounted(t, one("/mnt", cache(t)), "write", "/mnt/x", "1", ";", "fails", "cross-device", "mv", "/mnt/x", "/data/x").succeeds(t)
		},
		"program in a cache": func(t *testing.T, b *bed) {
			r := b.mounted(t, one("/mnt", cache(t)), "copyself", "/mnt/tool", ";", "exec", "/mnt/tool", "echo", "hello").succeeds(t)
			wantOut(t, r, "hello\n")
		},
	}
}
