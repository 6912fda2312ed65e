package prepared_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/prepared"
)

// sample is the tar of a layer with all kinds of entries, a large file of the given size among them.
func sample(t *testing.T, size int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Name: "d/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "d/a", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(size), Uid: 5},
		{Name: "d/empty", Typeflag: tar.TypeReg, Mode: 0o600},
		{Name: "d/link", Typeflag: tar.TypeLink, Linkname: "d/a"},
		{Name: "d/sym", Typeflag: tar.TypeSymlink, Linkname: "a"},
		{Name: "d/.wh.gone", Typeflag: tar.TypeReg},
		{Name: "d/fifo", Typeflag: tar.TypeFifo, Mode: 0o600},
		{Name: "o/.wh..wh..opq", Typeflag: tar.TypeReg},
		{Name: "x", Typeflag: tar.TypeReg, Size: 3, Mode: 0o4755, PAXRecords: map[string]string{"SCHILY.xattr.user.a": "b"}},
	} {
		h.ModTime = time.Unix(1_600_000_000, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(bytes.Repeat([]byte("x"), int(h.Size))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// write makes the image of a layer.
func write(t *testing.T, raw []byte, f *os.File) *layer.Image {
	t.Helper()
	d := digest.FromBytes(raw)
	im, err := layer.Prepare(t.Context(), bytes.NewReader(raw), layer.Descriptor{MediaType: layer.MediaTypeOCI, Digest: d, DiffID: d, Size: int64(len(raw))}, layer.PrepareOptions{Image: f})
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// keep makes a layer in a store, and fails if it is there.
func keep(t *testing.T, s *prepared.Store, raw []byte) *layer.Image {
	t.Helper()
	e, im, err := s.Begin(t.Context(), digest.FromBytes(raw))
	if err != nil || im != nil {
		t.Fatal(im, err)
	}
	out, err := e.Keep(write(t, raw, e.File()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = out.File.Close() })
	return out
}

func open(t *testing.T, o prepared.Options) *prepared.Store {
	t.Helper()
	if o.LimitBytes == 0 {
		o.LimitBytes = 1 << 30
	}
	s := prepared.Open(o)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// contents are the files of a layer.
func contents(t *testing.T, im *layer.Image) map[string]string {
	t.Helper()
	out := map[string]string{}
	for i := range im.Index.Entries {
		e := &im.Index.Entries[i]
		if e.Offset < 0 || e.Linkname != "" {
			continue
		}
		data, err := io.ReadAll(im.Content(e))
		if err != nil {
			t.Fatal(err)
		}
		out[e.Path] = string(data)
	}
	return out
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, durable := range []bool{true, false} {
		dir := t.TempDir()
		s := open(t, prepared.Options{Dir: filepath.Join(dir, "made"), Durable: durable})
		raw := sample(t, 10_000)
		if s.Get(digest.FromBytes(raw)) != nil {
			t.Fatal("found in an empty store")
		}
		made := keep(t, s, raw)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		got := s.Get(digest.FromBytes(raw))
		if got == nil {
			t.Fatal("not found")
		}
		defer got.File.Close()
		if diff := cmp.Diff(made.Index, got.Index); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(contents(t, made), contents(t, got)); diff != "" {
			t.Error(diff)
		}
		for _, f := range []*os.File{made.File, got.File} {
			if _, err := f.WriteString("x"); err == nil {
				t.Error("a layer can be written")
			}
		}
		if _, im, err := s.Begin(t.Context(), digest.FromBytes(raw)); err != nil || im == nil {
			t.Error("made again", err)
		} else {
			_ = im.File.Close()
		}
		names, err := os.ReadDir(s.Dir())
		if err != nil || len(names) != 1 {
			t.Error(names, err)
		}
	}
}

func TestWhatIsDamagedIsNotUsed(t *testing.T) {
	t.Parallel()
	raw := sample(t, 10_000)
	d := digest.FromBytes(raw)
	for title, damage := range map[string]func(path string) error{
		"cut off": func(p string) error { return os.Truncate(p, 5000) },
		"empty":   func(p string) error { return os.Truncate(p, 0) },
		"longer":  func(p string) error { return overwrite(p, -1) },
		"image":   func(p string) error { return overwrite(p, 4096) },
		"copied": func(p string) error {
			b, err := os.ReadFile(p)
			return errors.Join(err, os.Remove(p), os.WriteFile(p, b, 0o600))
		},
		"list, with its old time": func(p string) error {
			fi, err := os.Stat(p)
			return errors.Join(err, overwrite(p, fi.Size()/4096*4096+20), os.Chtimes(p, time.Now(), fi.ModTime()))
		},
		"footer, with its old time": func(p string) error {
			fi, err := os.Stat(p)
			return errors.Join(err, overwrite(p, fi.Size()-30), os.Chtimes(p, time.Now(), fi.ModTime()))
		},
		"another layer": func(p string) error {
			other := filepath.Join(filepath.Dir(p), digest.FromBytes(sample(t, 5)).Encoded())
			return os.Rename(other, p)
		},
		"a link":      func(p string) error { return errors.Join(os.Rename(p, p+"x"), os.Symlink(p+"x", p)) },
		"a directory": func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o700)) },
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := open(t, prepared.Options{Dir: t.TempDir()})
			keep(t, s, raw)
			keep(t, s, sample(t, 5))
			path := filepath.Join(s.Dir(), d.Encoded())
			if err := damage(path); err != nil {
				t.Fatal(err)
			}
			if s.Get(d) != nil {
				t.Fatal("it is used")
			}
			if title == "a directory" {
				return // somebody else's; the build goes on without the store
			}
			keep(t, s, raw) // and made again
			got := s.Get(d)
			if got == nil {
				t.Fatal("not mended")
			}
			_ = got.File.Close()
		})
	}
}

// overwrite changes bytes at an offset, or appends.
func overwrite(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if at < 0 {
		at, err = f.Seek(0, io.SeekEnd)
	}
	_, werr := f.WriteAt([]byte("damage"), at)
	return errors.Join(err, werr, f.Close())
}

func TestManyMakeItOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	raw := sample(t, 100_000)
	var made, found int
	var mu sync.Mutex
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			s := prepared.Open(prepared.Options{Dir: dir, LimitBytes: 1 << 30})
			e, im, err := s.Begin(t.Context(), digest.FromBytes(raw))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Error(err)
				return
			case im != nil:
				found++
			default:
				made++
				if im, err = e.Keep(write(t, raw, e.File())); err != nil {
					t.Error(err)
					return
				}
			}
			if err := errors.Join(im.File.Close(), s.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if made != 1 || found != 7 {
		t.Errorf("made %d times, found %d times", made, found)
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	t.Parallel()
	s := open(t, prepared.Options{Dir: t.TempDir()})
	raw := sample(t, 10)
	e, _, err := s.Begin(t.Context(), digest.FromBytes(raw))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("enough"))
	if _, _, err := s.Begin(ctx, digest.FromBytes(raw)); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
	if err := e.Drop(); err != nil {
		t.Error(err)
	}
	keep(t, s, raw)
}

// TestKilledMakerIsReplaced kills a process that is making a layer.
func TestKilledMakerIsReplaced(t *testing.T) {
	t.Parallel()
	raw := sample(t, 10)
	if dir := os.Getenv("PREPARED_TEST_DIR"); dir != "" {
		e, _, err := prepared.Open(prepared.Options{Dir: dir, LimitBytes: 1 << 30}).Begin(t.Context(), digest.FromBytes(raw))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = e.File().WriteString("half of it")
		_, _ = os.Stdout.WriteString("begun\n")
		select {}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "PREPARED_TEST_DIR="+dir)
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	s := open(t, prepared.Options{Dir: dir})
	done := make(chan struct{})
	go func() { // it waits as long as the other lives
		defer close(done)
		keep(t, s, raw)
	}()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	<-done
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 1 || strings.HasPrefix(names[0].Name(), ".") {
		t.Error(names, err)
	}
}

func TestLimit(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var sums []digest.Digest
	for i := range 4 {
		s := open(t, prepared.Options{Dir: dir})
		raw := sample(t, 200_000+i)
		sums = append(sums, digest.FromBytes(raw))
		keep(t, s, raw)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, sums[i].Encoded())
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Now().Add(time.Duration(i-10)*time.Hour), fi.ModTime()); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, ".new-left"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, prepared.Options{Dir: dir, LimitBytes: 700_000})
	if im := s.Get(sums[0]); im == nil { // used now, though it is the oldest
		t.Fatal("not found")
	} else {
		_ = im.File.Close()
	}
	raw := sample(t, 200_100)
	keep(t, s, raw)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var left []string
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		left = append(left, n.Name())
	}
	want := map[string]bool{sums[0].Encoded(): true, sums[3].Encoded(): true, digest.FromBytes(raw).Encoded(): true}
	for _, n := range left {
		if !want[n] {
			t.Errorf("%s is left", n)
		}
	}
	if len(left) != len(want) {
		t.Errorf("%d of %d are left", len(left), len(want))
	}
	if _, _, err := prepared.Open(prepared.Options{Dir: dir}).Begin(t.Context(), sums[0]); err == nil {
		t.Error("something is kept where nothing is to be")
	}
}

// FuzzFooter opens files whose end is anything.
func FuzzFooter(f *testing.F) {
	dir := f.TempDir()
	f.Add([]byte("hako prepared 1\n"))
	f.Add([]byte(`{"diffID":"x","Image":1,"List":1}` + "\x21\x00\x00\x00hako prepared 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := digest.FromBytes(data)
		path := filepath.Join(dir, d.Encoded())
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(path)
		if im := prepared.Open(prepared.Options{Dir: dir}).Get(d); im != nil {
			t.Error("found") // nothing has the digest of itself
		}
	})
}
