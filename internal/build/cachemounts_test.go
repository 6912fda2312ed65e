package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/blob"
	"hako/internal/cache"
	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
	"hako/internal/solve"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
	"hako/internal/workdir"
)

// pod is a build as far as its cache mounts go, with a work directory of its own.
type pod struct {
	*mountKeeper
	wrote map[string]layer.Changes

	mu       sync.Mutex // guards warnings
	warnings []string
}

func (p *pod) Emit(e event.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w, ok := e.(event.Warning); ok {
		p.warnings = append(p.warnings, w.Message)
	}
}

// CacheChanges implements [sandbox.CacheReader].
func (p *pod) CacheChanges(id string) layer.Changes {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.wrote[id]; c != nil {
		return c
	}
	return noCache{}
}

// noCache is what became of a cache that there is not.
type noCache struct{}

func (noCache) Each(context.Context, func(tree.Entry, io.Reader) error) error { return fs.ErrNotExist }

func newPod(t *testing.T, place string, change func(*Request)) *pod {
	t.Helper()
	p := &pod{wrote: map[string]layer.Changes{}}
	dir, err := workdir.Open(workdir.Options{Explicit: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	store, err := blob.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &builder{life: t.Context(), dir: dir, store: store, env: Env{Events: p, Now: time.Now}}
	if b.client, err = registry.New(registry.Options{RetryDelay: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.client.Close)
	if b.output, err = output.New(b.client, output.Options{NoPush: true}, p); err != nil {
		t.Fatal(err)
	}
	b.req.CacheMounts.Place = place
	if change != nil {
		change(&b.req)
	}
	if err := b.openMounts(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.startMounts(nil)
	p.mountKeeper = b.mounts
	p.mountKeeper.engine = p
	t.Cleanup(func() {
		if err := errors.Join(b.close(), store.Close(), dir.Close()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// use is a step that finds a cache, and leaves files in it.
func (p *pod) use(t *testing.T, id string, shared bool, writes ...string) []string {
	t.Helper()
	first := p.First(t.Context(), &solve.FirstRequest{ID: id, Shared: shared})
	tr, err := first.Tree(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found, err := tr.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	p.wrote[id] = layer.Diff(treetest.New(t, strings.Join(writes, "\n")), tr)
	return found
}

func places(t *testing.T) map[string]string {
	t.Helper()
	return map[string]string{"directory": "oci:" + t.TempDir(), "registry": registrytest.New().Start(t) + "/mounts"}
}

func TestCacheMountsGrow(t *testing.T) {
	t.Parallel()
	for kind, place := range places(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			want := []string{}
			for n := range 2*maxChain + 3 {
				p := newPod(t, place, nil)
				got := p.use(t, "id#0", true, fmt.Sprintf("f%02d = %d", n, n))
				if d := cmp.Diff(want, got); d != "" {
					t.Fatalf("pod %d (-want +got)\n%s", n, d)
				}
				want = append(want, fmt.Sprintf("f%02d", n))
				p.keepMounts(t.Context())
				if len(p.warnings) > 0 {
					t.Fatal(p.warnings)
				}
				if c, err := p.head(t.Context(), "id#0"); err != nil || len(c.Layers) != n%maxChain+1 {
					t.Errorf("after pod %d there are %d layers, %v", n, len(c.Layers), err)
				}
			}
			p := newPod(t, place, nil)
			p.use(t, "id#0", true, "f00 whiteout", "f01 0600 1:2 = other")
			p.keepMounts(t.Context())
			p = newPod(t, place, nil)
			if d := cmp.Diff(want[1:], p.use(t, "id#0", true)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if got := p.use(t, "other#0", true); len(got) > 0 {
				t.Errorf("another cache has %v", got)
			}
		})
	}
}

// Nothing is written if nothing has changed, was used, or may be written.
func TestCacheMountsAreLeftAlone(t *testing.T) {
	t.Parallel()
	place := "oci:" + t.TempDir()
	p := newPod(t, place, nil)
	p.use(t, "id#0", true, "a")
	p.keepMounts(t.Context())
	head, err := p.head(t.Context(), "id#0")
	if err != nil || len(head.Layers) != 1 {
		t.Fatal(head, err)
	}
	for name, change := range map[string]func(*Request){
		"nothing changed": nil,
		"read only":       func(r *Request) { r.Cache.ReadOnly = true },
		"too large":       func(r *Request) { r.CacheMounts.SizeBytes = 1 },
	} {
		p := newPod(t, place, change)
		var writes []string
		if change != nil {
			writes = []string{"b"}
		}
		if got := p.use(t, "id#0", true, writes...); !slices.Equal(got, []string{"a"}) {
			t.Errorf("%s: found %v", name, got)
		}
		p.First(t.Context(), &solve.FirstRequest{ID: "never run"})
		p.keepMounts(t.Context())
		if now, err := p.head(t.Context(), "id#0"); err != nil || !cmp.Equal(now, head) {
			t.Errorf("%s: %v, %v", name, now, err)
		}
		if told := len(p.warnings) > 0; told != (name == "too large") {
			t.Errorf("%s: %q", name, p.warnings)
		}
	}
}

// Two builds begin with the same, and both change it.
func TestCacheMountsOfBuildsAtTheSameTime(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		shared bool
		want   []string
	}{{true, []string{"a", "both", "one", "two"}}, {false, []string{"a", "both", "two"}}} {
		place := "oci:" + t.TempDir()
		p := newPod(t, place, nil)
		p.use(t, "id#0", c.shared, "a")
		p.keepMounts(t.Context())
		one, two := newPod(t, place, nil), newPod(t, place, nil)
		one.use(t, "id#0", c.shared, "both = 1", "one")
		two.use(t, "id#0", c.shared, "both = 2", "two")
		one.keepMounts(t.Context())
		two.keepMounts(t.Context())
		last := newPod(t, place, nil)
		if d := cmp.Diff(c.want, last.use(t, "id#0", c.shared)); d != "" {
			t.Errorf("shared %v (-want +got)\n%s", c.shared, d)
		}
		tr, err := last.First(t.Context(), &solve.FirstRequest{ID: "id#0"}).Tree(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if text, err := treetest.ReadAll(tr, "both"); err != nil || string(text) != "2" {
			t.Errorf("%q, %v", text, err)
		}
	}
}

// Many builds that end at the same moment leave something that the next one can use.
func TestCacheMountsOfManyBuilds(t *testing.T) {
	t.Parallel()
	for kind, place := range places(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			var pods []*pod
			for n := range 6 {
				p := newPod(t, place, nil)
				p.use(t, "id#0", true, fmt.Sprintf("f%d", n))
				pods = append(pods, p)
			}
			var all sync.WaitGroup
			for _, p := range pods {
				all.Go(func() { p.keepMounts(t.Context()) })
			}
			all.Wait()
			p := newPod(t, place, nil)
			if got := p.use(t, "id#0", true); len(got) == 0 || len(p.warnings) > 0 {
				t.Errorf("found %v, %q", got, p.warnings)
			}
		})
	}
}

// What is damaged, gone or of others is as good as nothing, and is told.
func TestDamagedCacheMounts(t *testing.T) {
	t.Parallel()
	key := cache.Key(digest.FromString("x").Encoded())
	good := chainLayer{Key: key, DiffID: digest.FromString("y"), Size: 1}
	for name, damage := range map[string]func(t *testing.T, p *pod, dir string){
		"layers gone": func(t *testing.T, _ *pod, dir string) {
			if err := os.RemoveAll(filepath.Join(dir, "sha256")); err != nil {
				t.Error(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "sha256"), 0o755); err != nil {
				t.Error(err)
			}
		},
		"layers garbled": func(t *testing.T, p *pod, dir string) {
			c, err := p.head(t.Context(), "id#0")
			if err != nil {
				t.Fatal(err)
			}
			f := p.cache.Get(t.Context(), c.Layers[0].Key)
			if err := os.WriteFile(filepath.Join(dir, "sha256", f.Layer.Digest.Encoded()), make([]byte, f.Layer.Size), 0o600); err != nil {
				t.Error(err)
			}
		},
		"no chain":        writeHead("{"),
		"another version": writeHead(chain{Version: 2, Layers: []chainLayer{good}}),
		"no layers":       writeHead(chain{Version: 1}),
		"too many":        writeHead(chain{Version: 1, Layers: slices.Repeat([]chainLayer{good}, maxChain+1)}),
		"a strange key":   writeHead(chain{Version: 1, Layers: []chainLayer{{Key: "../x", DiffID: good.DiffID, Size: 1}}}),
		"unknown layers":  writeHead(chain{Version: 1, Layers: []chainLayer{good}}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			p := newPod(t, "oci:"+dir, nil)
			p.use(t, "id#0", true, "a = "+strings.Repeat("x", 100))
			p.keepMounts(t.Context())
			damage(t, newPod(t, "oci:"+dir, nil), dir)
			p = newPod(t, "oci:"+dir, nil)
			if got := p.use(t, "id#0", true, "b"); len(got) > 0 {
				t.Errorf("found %v", got)
			}
			if len(p.warnings) == 0 && name != "layers gone" { // then the head's list is gone as well: a record without its blobs is none
				t.Error("nobody was told")
			}
			p.keepMounts(t.Context())
			if got := newPod(t, "oci:"+dir, nil).use(t, "id#0", true); !slices.Equal(got, []string{"b"}) {
				t.Errorf("afterwards there is %v", got)
			}
		})
	}
}

// writeHead writes a head that says something else.
func writeHead(v any) func(t *testing.T, p *pod, dir string) {
	return func(t *testing.T, p *pod, _ string) {
		t.Helper()
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		p.cache.Put(&cache.Record{
			Keys: []cache.Key{p.headKey("id#0")}, Created: time.Now(), Layer: layer.Descriptor{DiffID: digest.FromBytes(text)},
		}, &cache.Listing{Index: &layer.Index{}, Small: map[string][]byte{mountFile: text}}, nil)
		p.cache.Wait()
	}
}
