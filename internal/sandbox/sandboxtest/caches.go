package sandboxtest

import (
	"sync"
	"testing"

	"hako/internal/sandbox"
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
