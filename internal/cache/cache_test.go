package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"hako/internal/blob"
	"hako/internal/bucket/buckettest"
	"hako/internal/cache"
	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
	"hako/internal/tree"
)

// uploader brings blobs to a registry, without any wit.
type uploader struct{ client *registry.Client }

func (u uploader) PushBlob(ctx context.Context, repo name.Repository, d ocispec.Descriptor, open func(context.Context) (io.ReadCloser, error)) error {
	return u.client.Repository(repo, registry.Push).Upload(ctx, registry.Blob{Digest: d.Digest, Size: d.Size, Open: open})
}

// stores opens one store of each kind.
func stores(t *testing.T) map[string]func(t *testing.T) cache.Store {
	t.Helper()
	return map[string]func(t *testing.T) cache.Store{
		"directory": func(t *testing.T) cache.Store {
			t.Helper()
			return openDirectory(t, t.TempDir())
		},
		"registry": func(t *testing.T) cache.Store {
			t.Helper()
			s, _ := openRegistry(t)
			return s
		},
		"s3":     func(t *testing.T) cache.Store { t.Helper(); return openBucket(t, buckettest.StartS3(t)) },
		"google": func(t *testing.T) cache.Store { t.Helper(); return openBucket(t, buckettest.StartGoogle(t)) },
		"azure":  func(t *testing.T) cache.Store { t.Helper(); return openBucket(t, buckettest.StartAzure(t)) },
	}
}

func openDirectory(t *testing.T, path string) *cache.Directory {
	t.Helper()
	d, err := cache.OpenDirectory(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func openRegistry(t *testing.T) (*cache.Registry, *registrytest.Registry) {
	t.Helper()
	reg := registrytest.New()
	host := reg.Start(t)
	client, err := registry.New(registry.Options{RetryDelay: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	repo, err := name.NewRepository(host+"/app/cache", name.WeakValidation)
	if err != nil {
		t.Fatal(err)
	}
	return cache.NewRegistry(client, repo, uploader{client}), reg
}

func key(s string) cache.Key { return cache.Key(digest.FromString(s).Encoded()) }

// sample is a record with its listing and the bytes of its layer.
func sample() (*cache.Record, *cache.Listing, []byte) {
	blob := []byte("the layer")
	ix := &layer.Index{Entries: []layer.IndexEntry{
		{Entry: tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755, ModTime: time.Unix(5, 0)}, Offset: -1, Implied: true},
		{Entry: tree.Entry{Path: "f", Kind: tree.Regular, Mode: 0o644, Size: 1, ModTime: time.Unix(6, 0)}, Content: digest.FromString("x"), Offset: -1},
	}}
	content, err := (&layer.Image{Index: ix}).Digest(context.Background(), ".")
	if err != nil {
		panic(err)
	}
	rec := &cache.Record{
		Keys: []cache.Key{key("1"), key("2")}, Created: time.Unix(1_600_000_000, 0).UTC(), Content: content, Inputs: key("i"), Exact: key("1"),
		Layer: layer.Descriptor{MediaType: layer.MediaTypeOCI + "+gzip", Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromString("d")},
	}
	return rec, &cache.Listing{Index: ix, Small: map[string][]byte{"etc/passwd": []byte("root\x00"), "etc/group": {}}}, blob
}

func opener(data []byte) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

func put(t *testing.T, s cache.Store) *cache.Record {
	t.Helper()
	rec, l, blob := sample()
	if err := putRecord(t, s, rec, l, blob); err != nil {
		t.Fatal(err)
	}
	return rec
}

func putRecord(t *testing.T, s cache.Store, rec *cache.Record, l *cache.Listing, blob []byte) error {
	t.Helper()
	full, listing, err := cache.Complete(rec, l)
	if err != nil {
		return err
	}
	return s.Put(t.Context(), full, listing, opener(blob))
}

func TestStores(t *testing.T) {
	t.Parallel()
	for kind, open := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			if f, err := s.Get(t.Context(), key("1")); f != nil || err != nil {
				t.Fatalf("an empty store has %v, %v", f, err)
			}
			want := put(t, s)
			put(t, s) // again
			for _, k := range want.Keys {
				f, err := s.Get(t.Context(), k)
				if err != nil || f == nil {
					t.Fatal(f, err)
				}
				if d := cmp.Diff(*want, f.Record, cmpopts.IgnoreFields(cache.Record{}, "Listing")); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
				rc, err := f.Blob(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				data, err := io.ReadAll(rc)
				if err := errors.Join(err, rc.Close()); err != nil || string(data) != "the layer" {
					t.Errorf("%q, %v", data, err)
				}
				l, err := f.Listing(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_, wantListing, _ := sample()
				if d := cmp.Diff(wantListing, l); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			}
		})
	}
}

// Many writers of the same and of other records do not disturb each other.
func TestConcurrentPuts(t *testing.T) {
	t.Parallel()
	for kind, open := range stores(t) {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					rec, l, blob := sample()
					if err := putRecord(t, s, rec, l, blob); err != nil {
						t.Error(err)
					}
					if f, err := s.Get(t.Context(), key("2")); f == nil || err != nil {
						t.Error(f, err)
					}
				})
			}
			all.Wait()
		})
	}
}

// special puts a file of another kind in a record's place.
func special(t *testing.T, dir string, kind uint32) {
	t.Helper()
	if err := errors.Join(os.Remove(record(dir, "1")), unix.Mknod(record(dir, "1"), kind|0o666, 0)); err != nil {
		t.Fatal(err)
	}
}

// What is damaged, incomplete or about something else is no record.
func TestDamagedDirectory(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string)
		fails  bool
		late   bool // is seen when the layer is read
	}{
		"no layer": {func(t *testing.T, dir string) { removeBlob(t, dir, digest.FromString("the layer")) }, false, false},
		"damaged layer": {func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "sha256", digest.FromString("the layer").Encoded()), []byte("the lAyer"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, false, true},
		"a cut layer": {func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "sha256", digest.FromString("the layer").Encoded()), 3); err != nil {
				t.Fatal(err)
			}
		}, false, false},
		"empty file":      {func(t *testing.T, dir string) { write(t, dir, "") }, true, false},
		"no JSON":         {func(t *testing.T, dir string) { write(t, dir, "{") }, true, false},
		"another version": {func(t *testing.T, dir string) { write(t, dir, `{"version":2}`) }, true, false},
		"another's record": {func(t *testing.T, dir string) {
			if err := os.Rename(record(dir, "2"), record(dir, "1")); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(record(dir, "1"))
			if err != nil {
				t.Fatal(err)
			}
			write(t, dir, strings.ReplaceAll(string(text), string(key("1"))+`","`+string(key("2")), string(key("3"))+`","`+string(key("2"))))
		}, true, false},
		"a pipe":          {func(t *testing.T, dir string) { special(t, dir, unix.S_IFIFO) }, true, false},
		"a socket":        {func(t *testing.T, dir string) { special(t, dir, unix.S_IFSOCK) }, true, false},
		"a negative size": {func(t *testing.T, dir string) { edit(t, dir, `"size":9`, `"size":-9`) }, true, false},
		"a bad digest":    {func(t *testing.T, dir string) { edit(t, dir, `"diffID":"sha256:`, `"diffID":"sha256:../`) }, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openDirectory(t, dir)
			put(t, s)
			c.damage(t, dir)
			f, err := s.Get(t.Context(), key("1"))
			if (f != nil) != c.late || errors.Is(err, cache.ErrRecord) != c.fails {
				t.Errorf("%v, %v", f, err)
			}
			if c.late {
				if _, err := readAll(t, f); !errors.Is(err, blob.ErrLost) {
					t.Errorf("a damaged layer was read: %v", err)
				}
			}
			put(t, s) // mends it
			if f, err := s.Get(t.Context(), key("1")); f == nil || err != nil || !intact(t, f) {
				t.Errorf("after it was put again: %v, %v", f, err)
			}
		})
	}
}

func readAll(t *testing.T, f *cache.Found) (string, error) {
	t.Helper()
	rc, err := f.Blob(t.Context())
	if err != nil {
		return "", err
	}
	data, err := io.ReadAll(rc)
	return string(data), errors.Join(err, rc.Close())
}

func intact(t *testing.T, f *cache.Found) bool {
	t.Helper()
	data, err := readAll(t, f)
	return err == nil && data == "the layer"
}

func record(dir, k string) string { return filepath.Join(dir, "records", string(key(k))+".json") }

func write(t *testing.T, dir, text string) {
	t.Helper()
	if err := os.WriteFile(record(dir, "1"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func edit(t *testing.T, dir, from, to string) {
	t.Helper()
	text, err := os.ReadFile(record(dir, "1"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), from) {
		t.Fatalf("%s is not in %s", from, text)
	}
	write(t, dir, strings.Replace(string(text), from, to, 1))
}

func removeBlob(t *testing.T, dir string, d digest.Digest) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "sha256", d.Encoded())); err != nil {
		t.Fatal(err)
	}
}

// A listing of another layer is not believed.
func TestListingOfAnotherLayer(t *testing.T) {
	t.Parallel()
	s := openDirectory(t, t.TempDir())
	rec, l, blob := sample()
	rec.Content = digest.FromString("something else")
	if err := putRecord(t, s, rec, l, blob); err != nil {
		t.Fatal(err)
	}
	f, err := s.Get(t.Context(), key("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Listing(t.Context()); err == nil || !strings.Contains(err.Error(), "it is of another layer") {
		t.Error(err)
	}
}

type sink struct {
	mu     sync.Mutex
	events []event.Event
}

func (s *sink) Emit(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

func (s *sink) warnings() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if _, ok := e.(event.Warning); ok {
			n++
		}
	}
	return n
}

// A store that does not work is a warning, once, and a miss each time.
func TestFailingStore(t *testing.T) {
	t.Parallel()
	bad, reg := openRegistry(t)
	reg.Inject(registrytest.Fault{Status: 403})
	good := openDirectory(t, t.TempDir())
	put(t, good)
	var log sink
	c := cache.New(t.Context(), cache.Options{Read: []cache.Store{bad, good}, Write: bad, Events: &log, Now: time.Now})
	for range 3 {
		if f := c.Get(t.Context(), key("1")); f == nil {
			t.Error("the second store was not asked")
		}
	}
	rec, l, blob := sample()
	c.Put(rec, l, opener(blob))
	c.Wait()
	if n := log.warnings(); n != 1 {
		t.Errorf("%d warnings: %v", n, log.events)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	s := openDirectory(t, t.TempDir())
	rec := put(t, s)
	for _, c := range []struct {
		ttl, age time.Duration
		found    bool
	}{{time.Hour, 59 * time.Minute, true}, {time.Hour, 61 * time.Minute, false}, {0, 1000 * time.Hour, true}} {
		now := func() time.Time { return rec.Created.Add(c.age) }
		if f := cache.New(t.Context(), cache.Options{Read: []cache.Store{s}, TTL: c.ttl, Events: event.Discard{}, Now: now}).Get(t.Context(), key("1")); (f != nil) != c.found {
			t.Errorf("%+v: %v", c, f)
		}
	}
}
