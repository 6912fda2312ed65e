package imagedir_test

import (
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
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/imagedir"
)

// newDir is a directory whose images are too old after an hour.
func newDir(t *testing.T, path string, archives bool) *imagedir.Dir {
	t.Helper()
	return imagedir.New(imagedir.Options{Path: path, TTL: time.Hour, Now: time.Now, Archives: archives})
}

// fetched is an image as a registry would give it. calls counts the blobs that are read.
func fetched(t *testing.T, im v1.Image, ref string) (f *imagedir.Fetched, calls func() int) {
	t.Helper()
	raw, err := im.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	sum := digest.FromBytes(raw)
	mediaType, err := im.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	n := 0
	return &imagedir.Fetched{
			Name: ref, Top: sum, Manifest: &imagedir.Document{MediaType: string(mediaType), Digest: sum, Data: raw},
			Blob: func(_ context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
				mu.Lock()
				n++
				mu.Unlock()
				h, err := v1.NewHash(want.Digest.String())
				if err != nil {
					return nil, err
				}
				if config, err := im.ConfigName(); err == nil && config == h {
					b, err := im.RawConfigFile()
					return io.NopCloser(strings.NewReader(string(b))), err
				}
				l, err := im.LayerByDigest(h)
				if err != nil {
					return nil, err
				}
				return l.Compressed()
			},
		}, func() int {
			mu.Lock()
			defer mu.Unlock()
			return n
		}
}

func randomImage(t *testing.T, layers int64) v1.Image {
	t.Helper()
	im, err := random.Image(3000, layers)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

func sumOf(t *testing.T, im v1.Image) digest.Digest {
	t.Helper()
	h, err := im.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.Digest(h.String())
}

// check reads all blobs of the image and compares them.
func check(t *testing.T, d *imagedir.Dir, im v1.Image) *imagedir.Image {
	t.Helper()
	got, err := d.Find(sumOf(t, im))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := im.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(raw), string(got.Manifest.Data)); diff != "" {
		t.Error(diff)
	}
	m, err := im.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range append([]v1.Descriptor{m.Config}, m.Layers...) {
		for range 2 { // the second time it is not hashed again
			rc, err := got.Blob(t.Context(), ocispec.Descriptor{Digest: digest.Digest(b.Digest.String()), Size: b.Size})
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(rc)
			if err := errors.Join(err, rc.Close()); err != nil || digest.FromBytes(data).String() != b.Digest.String() {
				t.Errorf("%s: %d bytes, %v", b.Digest, len(data), err)
			}
		}
	}
	return got
}

// TestReadsWhatKanikoWrites makes both layouts with the calls that kaniko's warmers make.
func TestReadsWhatKanikoWrites(t *testing.T) {
	t.Parallel()
	im := randomImage(t, 3)
	ref, err := name.ParseReference("base:1")
	if err != nil {
		t.Fatal(err)
	}
	for title, write := range map[string]func(path string) error{
		"archive": func(path string) error {
			raw, err := im.RawManifest()
			return errors.Join(err, tarball.WriteToFile(path, ref, im), os.WriteFile(path+".json", raw, 0o600))
		},
		"layout": func(path string) error {
			p, err := layout.Write(path, empty.Index)
			return errors.Join(err, p.AppendImage(im))
		},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := write(filepath.Join(dir, sumOf(t, im).String())); err != nil {
				t.Fatal(err)
			}
			check(t, newDir(t, dir, false), im)
		})
	}
}

// TestOthersReadWhatWeWrite reads both layouts as kaniko does.
func TestOthersReadWhatWeWrite(t *testing.T) {
	t.Parallel()
	im := randomImage(t, 3)
	for _, archives := range []bool{false, true} {
		dir := t.TempDir()
		d := newDir(t, filepath.Join(dir, "made"), archives)
		f, _ := fetched(t, im, "docker.io/library/base:1")
		if out, err := d.Store(t.Context(), f, false); err != nil || out != imagedir.Stored {
			t.Fatal(out, err)
		}
		check(t, d, im)
		path := filepath.Join(d.Path(), sumOf(t, im).String())
		var got v1.Image
		var err error
		if archives {
			got, err = tarball.ImageFromPath(path, nil)
		} else {
			var ix v1.ImageIndex
			if ix, err = layout.ImageIndexFromPath(path); err == nil {
				got, err = ix.Image(mustHash(t, sumOf(t, im)))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(got); err != nil {
			t.Error(err)
		}
		left, err := filepath.Glob(filepath.Join(d.Path(), ".warming*"))
		if err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

func mustHash(t *testing.T, d digest.Digest) v1.Hash {
	t.Helper()
	h, err := v1.NewHash(d.String())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestWhatIsDamagedIsMissing(t *testing.T) {
	t.Parallel()
	im := randomImage(t, 1)
	sum := sumOf(t, im)
	m, err := im.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	blob := "blobs/sha256/" + m.Layers[0].Digest.Hex
	for title, c := range map[string]struct {
		archives bool
		damage   func(path string) error
		late     bool // found when the blob is read
	}{
		"no blob":          {damage: func(p string) error { return os.Remove(filepath.Join(p, blob)) }},
		"short blob":       {damage: func(p string) error { return os.Truncate(filepath.Join(p, blob), 10) }},
		"other blob":       {damage: func(p string) error { return flip(filepath.Join(p, blob)) }, late: true},
		"no manifest":      {damage: func(p string) error { return os.Remove(filepath.Join(p, "blobs/sha256", sum.Encoded())) }},
		"other manifest":   {damage: func(p string) error { return flip(filepath.Join(p, "blobs/sha256", sum.Encoded())) }},
		"empty directory":  {damage: func(p string) error { return errors.Join(os.RemoveAll(p), os.Mkdir(p, 0o700)) }},
		"archive: no json": {archives: true, damage: func(p string) error { return os.Remove(p + ".json") }},
		"archive: json":    {archives: true, damage: func(p string) error { return flip(p + ".json") }},
		"archive: short":   {archives: true, damage: func(p string) error { return os.Truncate(p, 700) }},
		"archive: empty":   {archives: true, damage: func(p string) error { return os.Truncate(p, 0) }},
		"pipe":             {archives: true, damage: func(p string) error { return errors.Join(os.Remove(p), mkfifo(p)) }},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			d := newDir(t, t.TempDir(), c.archives)
			f, _ := fetched(t, im, "base:1")
			if _, err := d.Store(t.Context(), f, false); err != nil {
				t.Fatal(err)
			}
			if err := c.damage(filepath.Join(d.Path(), sum.String())); err != nil {
				t.Fatal(err)
			}
			got, err := d.Find(sum)
			if c.late && err == nil {
				_, err = got.Blob(t.Context(), ocispec.Descriptor{Digest: digest.Digest(m.Layers[0].Digest.String()), Size: m.Layers[0].Size})
			}
			if !errors.Is(err, imagedir.ErrMiss) {
				t.Fatal(err)
			}
			if out, err := d.Store(t.Context(), f, c.late); err != nil || out != imagedir.Stored {
				t.Fatal(out, err)
			}
			check(t, d, im)
		})
	}
}

func flip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o600)
}

func TestAge(t *testing.T) {
	t.Parallel()
	im := randomImage(t, 2)
	d := newDir(t, t.TempDir(), false)
	f, calls := fetched(t, im, "base:1")
	store := func(force bool, want imagedir.Outcome, fetches int) {
		t.Helper()
		before := calls()
		out, err := d.Store(t.Context(), f, force)
		if err != nil || out != want || calls()-before != fetches {
			t.Errorf("%d with %d fetches, %v; want %d with %d", out, calls()-before, err, want, fetches)
		}
	}
	store(false, imagedir.Stored, 3)
	store(false, imagedir.Present, 0)
	old := time.Now().Add(-2 * time.Hour)
	path := filepath.Join(d.Path(), f.Manifest.Digest.String())
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Find(f.Manifest.Digest); err != nil || !d.Expired(got) {
		t.Error("not too old", err)
	}
	store(false, imagedir.Renewed, 0)
	if got, err := d.Find(f.Manifest.Digest); err != nil || d.Expired(got) {
		t.Error("still too old", err)
	}
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	m, err := im.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	if err := flip(filepath.Join(path, "blobs/sha256", m.Layers[1].Digest.Hex)); err != nil {
		t.Fatal(err)
	}
	store(false, imagedir.Stored, 1) // what is whole is taken from there
	check(t, d, im)
}

func TestNamesAndIndexes(t *testing.T) {
	t.Parallel()
	d := newDir(t, t.TempDir(), false)
	im := randomImage(t, 1)
	f, _ := fetched(t, im, "reg.test/base:1")
	index := []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`)
	f.Indexes = []*imagedir.Document{{Digest: digest.FromBytes(index), Data: index}}
	f.Top = f.Indexes[0].Digest
	for range 2 {
		if _, err := d.Store(t.Context(), f, false); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := d.Named("reg.test/base:1"); err != nil || got != f.Top {
		t.Error(got, err)
	}
	if got, err := d.Index(f.Top); err != nil || string(got.Data) != string(index) || got.MediaType != ocispec.MediaTypeImageIndex {
		t.Error(got, err)
	}
	if _, err := d.Named("reg.test/base:2"); !errors.Is(err, imagedir.ErrMiss) {
		t.Error(err)
	}
	if _, err := d.Index(f.Manifest.Digest); !errors.Is(err, imagedir.ErrMiss) {
		t.Error(err)
	}
	if _, err := d.Find("sha256:../../../etc/passwd"); !errors.Is(err, imagedir.ErrMiss) {
		t.Error(err)
	}
}

// TestManyWarmers stores one image from several goroutines, of which one fetches it; then with a failure in the middle.
func TestManyWarmers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	im := randomImage(t, 2)
	f, calls := fetched(t, im, "base:1")
	var g sync.WaitGroup
	for range 8 {
		g.Go(func() {
			if _, err := newDir(t, dir, false).Store(t.Context(), f, false); err != nil {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if n := calls(); n != 3 {
		t.Errorf("%d blobs were fetched, not 3", n)
	}
	other := randomImage(t, 2)
	broken, _ := fetched(t, other, "base:2")
	inner := broken.Blob
	broken.Blob = func(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
		rc, err := inner(ctx, want)
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(io.LimitReader(rc, 5), failing{}), rc}, err
	}
	d := newDir(t, dir, false)
	if _, err := d.Store(t.Context(), broken, false); err == nil || !strings.Contains(err.Error(), "cut") {
		t.Error(err)
	}
	if _, err := d.Find(sumOf(t, other)); !errors.Is(err, imagedir.ErrMiss) {
		t.Error(err)
	}
	check(t, d, im)
	if left, err := filepath.Glob(filepath.Join(dir, ".warming*")); err != nil || len(left) > 0 {
		t.Error(left, err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("cut") }

// TestLeftoversOfTheDead sweeps what a warmer left that was killed, and not what one that lives is writing.
func TestLeftoversOfTheDead(t *testing.T) {
	t.Parallel()
	d := newDir(t, filepath.Join(t.TempDir(), "of [all] *")+"[", false) // no pattern
	im := randomImage(t, 1)
	f, _ := fetched(t, im, "base:1")
	dead := filepath.Join(d.Path(), ".warming-"+digest.FromString("dead").String())
	lock := filepath.Join(d.Path(), ".warmer-locks", digest.FromString("dead").String()+".lock")
	if err := errors.Join(os.MkdirAll(dead, 0o700), os.MkdirAll(filepath.Dir(lock), 0o700), os.WriteFile(lock, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	entered, leave := make(chan struct{}), make(chan struct{})
	inner := f.Blob
	var once sync.Once
	f.Blob = func(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
		once.Do(func() { close(entered) })
		<-leave
		return inner(ctx, want)
	}
	var g sync.WaitGroup
	g.Go(func() {
		if _, err := d.Store(t.Context(), f, false); err != nil {
			t.Error(err)
		}
	})
	<-entered
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Error("not swept", err)
	}
	second, _ := fetched(t, randomImage(t, 1), "base:2")
	if _, err := d.Store(t.Context(), second, false); err != nil {
		t.Error(err)
	}
	close(leave)
	g.Wait()
	check(t, d, im)
}
