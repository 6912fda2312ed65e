package cache_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"hako/internal/cache"
	"hako/internal/layer"
	"hako/internal/registry/registrytest"
)

func signer(t *testing.T, key string) cache.Signer {
	t.Helper()
	s, err := cache.NewSecret([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSecrets(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"", "short", strings.Repeat(" ", 100), "123456789012345\n"} {
		if _, err := cache.NewSecret([]byte(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	a, same, b := signer(t, strings.Repeat("a", 16)), signer(t, " "+strings.Repeat("a", 16)+"\n"), signer(t, strings.Repeat("b", 16))
	sig, err := a.Sign([]byte("m"))
	if err != nil || !same.Verify([]byte("m"), sig) || a.Verify([]byte("n"), sig) || b.Verify([]byte("m"), sig) || a.Verify([]byte("m"), nil) || a.Verify([]byte("m"), sig[:31]) {
		t.Error(err)
	}
}

// signedCache is a cache over a directory, and what it says.
func signedCache(t *testing.T, dir string, s cache.Signer) (*cache.Cache, *sink) {
	t.Helper()
	d, log := openDirectory(t, dir), &sink{}
	return cache.New(t.Context(), cache.Options{Read: []cache.Store{d}, Write: d, Signer: s, Events: log, Now: time.Now}), log
}

// With a key, records that are not signed with it are misses, and nothing in a record can be changed.
func TestSignedRecords(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ours, theirs := signer(t, strings.Repeat("a", 32)), signer(t, strings.Repeat("b", 32))
	rec, l, blob := sample()
	for _, c := range []struct {
		writer, reader cache.Signer
		found          bool
	}{{ours, ours, true}, {ours, nil, true}, {nil, ours, false}, {theirs, ours, false}, {ours, ours, true}, {nil, nil, true}} {
		w, _ := signedCache(t, dir, c.writer)
		w.Put(rec, l, opener(blob))
		w.Wait()
		r, log := signedCache(t, dir, c.reader)
		for range 2 {
			if f := r.Get(t.Context(), key("1")); (f != nil) != c.found {
				t.Errorf("%v, %v: %v", c.writer, c.reader, f)
			}
		}
		if n := log.warnings(); (n == 0) != c.found || n > 1 {
			t.Errorf("%d warnings", n)
		}
	}
	w, _ := signedCache(t, dir, ours)
	w.Put(rec, l, opener(blob))
	w.Wait()
	good, err := os.ReadFile(record(dir, "1"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]any{
		"keys": []string{string(key("1")), string(key("3"))}, "created": time.Now().Add(time.Hour), "mediaType": "x", "size": 9 + 1,
		"diffID": digest.FromString("?"), "content": digest.FromString("?"), "inputs": key("?"), "exact": key("?"), "signature": []byte("?"),
	} {
		var fields map[string]any
		if err := json.Unmarshal(good, &fields); err != nil {
			t.Fatal(err)
		}
		if _, ok := fields[name]; !ok {
			t.Fatalf("there is no %s in %s", name, good)
		}
		fields[name] = value
		text, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir, string(text))
		r, _ := signedCache(t, dir, ours)
		if f := r.Get(t.Context(), key("1")); f != nil {
			t.Errorf("%s was changed: %v", name, f)
		}
	}
}

// An answer without end, a record or a list that would fill the memory: a miss.
func TestBounds(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		fault registrytest.Fault
		// late says that the record is found, and what belongs to it not.
		late bool
	}{
		"a record without end":    {fault: registrytest.Fault{Method: "GET", Path: "/manifests/", Endless: true}},
		"a listing without end":   {fault: registrytest.Fault{Method: "GET", Path: "/blobs/", Endless: true}, late: true},
		"a deep record":           {fault: registrytest.Fault{Method: "GET", Path: "/manifests/", Rewrite: func([]byte) []byte { return bytes.Repeat([]byte("["), 1<<20) }}},
		"a record of many keys":   {fault: registrytest.Fault{Method: "GET", Path: "/manifests/", Rewrite: manyKeys}},
		"a huge listing, it says": {fault: registrytest.Fault{Method: "GET", Path: "/manifests/", Rewrite: hugeListing}},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s, reg := openRegistry(t)
			put(t, s)
			reg.Inject(c.fault)
			f, err := s.Get(t.Context(), key("1"))
			if (f != nil) != c.late || (err == nil) != c.late {
				t.Fatalf("%v, %v", f, err)
			}
			if c.late {
				if _, err := f.Listing(t.Context()); err == nil {
					t.Error("the listing was read")
				}
			}
		})
	}
}

// rewriteRecord changes the record in a manifest.
func rewriteRecord(data []byte, change func(fields map[string]any)) []byte {
	var m ocispec.Manifest
	var fields map[string]any
	const annotation = "dev.hako.cache.record"
	if errors.Join(json.Unmarshal(data, &m), json.Unmarshal([]byte(m.Annotations[annotation]), &fields)) != nil {
		return data
	}
	change(fields)
	text, _ := json.Marshal(fields)
	m.Annotations[annotation] = string(text)
	out, _ := json.Marshal(m)
	return out
}

func manyKeys(data []byte) []byte {
	return rewriteRecord(data, func(fields map[string]any) {
		keys := []cache.Key{}
		for i := range 100 {
			keys = append(keys, key(string(rune('0'+i))))
		}
		fields["keys"] = keys
	})
}

func hugeListing(data []byte) []byte {
	return rewriteRecord(data, func(fields map[string]any) { fields["listing"].(map[string]any)["size"] = int64(1) << 40 })
}

// A small listing that unpacks to a very long one is garbled.
func TestListingBomb(t *testing.T) {
	t.Parallel()
	var bomb bytes.Buffer
	w, err := zstd.NewWriter(&bomb)
	if err != nil {
		t.Fatal(err)
	}
	b := binary.AppendUvarint(nil, 0)
	b = append(b, "hako index 1\n"...)
	b = binary.AppendUvarint(b, 5_000_000)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range 1 << 10 { // a gibibyte
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := openDirectory(t, t.TempDir())
	rec, _, blob := sample()
	rec.Listing = ocispec.Descriptor{MediaType: "x", Digest: digest.FromBytes(bomb.Bytes()), Size: int64(bomb.Len())}
	if err := s.Put(t.Context(), rec, bomb.Bytes(), opener(blob)); err != nil {
		t.Fatal(err)
	}
	f, err := s.Get(t.Context(), key("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Listing(t.Context()); err == nil {
		t.Error("it was read")
	}
}

// A listing that claims a list of files too long to be held is refused before memory is taken for it.
func TestListingOfTooManyFiles(t *testing.T) {
	t.Parallel()
	b := append(binary.AppendUvarint(nil, 0), "hako index 1\n"...)
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	listing := w.EncodeAll(binary.AppendUvarint(b, 1<<20+1), nil)
	s := openDirectory(t, t.TempDir())
	rec, _, blob := sample()
	rec.Listing = ocispec.Descriptor{MediaType: "x", Digest: digest.FromBytes(listing), Size: int64(len(listing))}
	if err := s.Put(t.Context(), rec, listing, opener(blob)); err != nil {
		t.Fatal(err)
	}
	f, err := s.Get(t.Context(), key("1"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Listing(t.Context()); err == nil || !strings.Contains(err.Error(), "larger than allowed") {
		t.Error(err)
	}
}

// A list that nobody could read is not kept, but the layer is, and so are the results of other steps.
func TestListingTooLongToKeep(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, log := signedCache(t, dir, nil)
	rec, l, blob := sample()
	long, bare := *rec, cache.Record{Created: rec.Created, Layer: layer.Descriptor{DiffID: digest.FromString("d")}}
	long.Keys, bare.Keys = []cache.Key{key("long")}, []cache.Key{key("bare")}
	for name, small := range map[string]map[string][]byte{"many bytes": {"a": make([]byte, 16<<20)}, "many files": manyFiles()} {
		c.Put(&bare, &cache.Listing{Index: l.Index, Small: small}, nil)
		c.Put(&long, &cache.Listing{Index: l.Index, Small: small}, opener(blob))
		c.Wait()
		f := c.Get(t.Context(), key("long"))
		if f == nil || c.Get(t.Context(), key("bare")) != nil || !intact(t, f) {
			t.Fatalf("%s: %v", name, f)
		}
		if _, err := f.Listing(t.Context()); err == nil || !strings.Contains(err.Error(), "it is of another layer") {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.Put(rec, l, opener(blob))
	c.Wait()
	if f := c.Get(t.Context(), key("1")); f == nil || log.warnings() != 1 {
		t.Errorf("%v, and %d warnings", f, log.warnings())
	}
}

func manyFiles() map[string][]byte {
	out := map[string][]byte{}
	for i := range 1<<16 + 1 {
		out[strconv.Itoa(i)] = nil
	}
	return out
}

// Pipes in a directory that others can write to make nobody wait, and links there lead nobody to touch files elsewhere.
func TestHostileDirectory(t *testing.T) {
	t.Parallel()
	layerOf := func(dir string) string { return filepath.Join(dir, "sha256", digest.FromString("the layer").Encoded()) }
	pipe := func(t *testing.T, path string) {
		t.Helper()
		if err := errors.Join(os.Remove(path), unix.Mkfifo(path, 0o666)); err != nil {
			t.Fatal(err)
		}
	}
	for what, path := range map[string]func(dir string) string{"record": func(dir string) string { return record(dir, "1") }, "layer": layerOf} {
		t.Run("a pipe as "+what, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			s := openDirectory(t, dir)
			put(t, s)
			pipe(t, path(dir))
			if f, err := s.Get(t.Context(), key("1")); f != nil {
				t.Errorf("%v, %v", f, err)
			}
			if _, err := s.List(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a link", func(t *testing.T) {
		t.Parallel()
		dir, ours := t.TempDir(), filepath.Join(t.TempDir(), "ours")
		old := time.Unix(1_000_000_000, 0)
		s := openDirectory(t, dir)
		put(t, s)
		err := errors.Join(os.WriteFile(ours, []byte("the layer"), 0o600), os.Chtimes(ours, old, old), os.Remove(layerOf(dir)), os.Symlink(ours, layerOf(dir)))
		link := []unix.Timespec{unix.NsecToTimespec(old.UnixNano()), unix.NsecToTimespec(old.UnixNano())}
		if err = errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, layerOf(dir), link, unix.AT_SYMLINK_NOFOLLOW)); err != nil {
			t.Fatal(err)
		}
		if _, err := openDirectory(t, dir).Get(t.Context(), key("1")); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(ours); err != nil || !st.ModTime().Equal(old) {
			t.Errorf("the file that it leads to was touched: %v, %v", st, err)
		}
	})
}
