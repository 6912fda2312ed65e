package imagesource_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/imagedir"
	"hako/internal/imagesource"
)

// storage is a registry and a directory that its image base:1, behind an index, was put into.
type storage struct {
	*world
	dir      *imagedir.Dir
	index    digest.Digest
	manifest ocispec.Descriptor
	layer    ocispec.Descriptor
}

func newStorage(t *testing.T) *storage {
	t.Helper()
	w := newWorld(t)
	f := ociFormat()
	p := platform("linux/amd64")
	m := w.manifest(t, f, p, "hello")
	d := w.put(t, "amd64", f.manifest, m)
	d.Platform = &p
	index := w.put(t, "1", ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{d}})
	s := &storage{world: w, index: index.Digest, manifest: d, layer: m.Layers[0]}
	s.dir = imagedir.New(imagedir.Options{Path: t.TempDir(), TTL: time.Hour, Now: time.Now})
	ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", p)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := w.source.Store(t.Context(), ref, s.dir, false); err != nil || out != imagedir.Stored {
		t.Fatal(out, err)
	}
	return s
}

// use reads the file of an image through the directory, and returns what the registry was asked for by then.
func (s *storage) use(t *testing.T, image string, offline bool) (requests []string, err error) {
	t.Helper()
	src := imagesource.New(imagesource.Options{
		Registry: s.client, Dir: s.world.dir, Warmed: &imagesource.Warmed{Dir: s.dir, Offline: offline},
	})
	defer func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}()
	before := len(s.reg.Requests())
	defer func() {
		for _, r := range s.reg.Requests()[before:] {
			if r.Path != "/v2/" {
				requests = append(requests, r.Method+" "+strings.TrimPrefix(r.Path, "/v2/base/"))
			}
		}
	}()
	ref, err := src.Resolve(t.Context(), image, platform("linux/amd64"))
	if err != nil {
		return nil, err
	}
	layers, err := src.Layers(t.Context(), ref)
	if err != nil {
		return nil, err
	}
	im, err := layers[0].Open(t.Context())
	if err != nil {
		return nil, err
	}
	if got := content(t, im); got != "hello" {
		t.Errorf("content %q", got)
	}
	if layers[0].Repository != s.host+"/base" {
		t.Errorf("repository %q", layers[0].Repository)
	}
	return nil, nil
}

func TestWarmedImages(t *testing.T) {
	t.Parallel()
	const head = "HEAD manifests/1"
	old := time.Now().Add(-2 * time.Hour)
	type damage func(s *storage, image string) error
	for title, c := range map[string]struct {
		name    string // after the repository
		offline bool
		damage  damage
		want    []string
		fails   string
	}{
		"tag":              {name: ":1", want: []string{head}},
		"tag, offline":     {name: ":1", offline: true},
		"index":            {name: "@INDEX"},
		"manifest":         {name: "@MANIFEST"},
		"digest, offline":  {name: "@INDEX", offline: true},
		"another":          {name: ":2", want: []string{"HEAD manifests/2", "GET manifests/2"}, fails: "404"},
		"another, offline": {name: ":2", offline: true, fails: "without a network"},
		"without our files": {name: ":1", damage: func(s *storage, _ string) error {
			return os.RemoveAll(filepath.Join(s.dir.Path(), ".hako"))
		}, want: []string{head, "GET manifests/INDEX"}},
		"too old": {name: "@MANIFEST", damage: func(_ *storage, image string) error { return os.Chtimes(image, old, old) },
			want: []string{"GET manifests/MANIFEST", "GET blobs/CONFIG", "GET blobs/LAYER"}},
		"too old, offline": {name: "@MANIFEST", offline: true, damage: func(_ *storage, image string) error { return os.Chtimes(image, old, old) }},
		"damaged": {name: ":1", damage: func(s *storage, image string) error {
			return rewriteLast(filepath.Join(image, "blobs", "sha256", s.layer.Digest.Encoded()))
		}, want: []string{head, "GET blobs/LAYER"}},
		"damaged, offline": {name: ":1", offline: true, damage: func(s *storage, image string) error {
			return rewriteLast(filepath.Join(image, "blobs", "sha256", s.layer.Digest.Encoded()))
		}, fails: "its content has another digest"},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			s := newStorage(t)
			if c.damage != nil {
				if err := c.damage(s, filepath.Join(s.dir.Path(), s.manifest.Digest.String())); err != nil {
					t.Fatal(err)
				}
			}
			name := strings.NewReplacer("INDEX", s.index.String(), "MANIFEST", s.manifest.Digest.String()).Replace(c.name)
			got, err := s.use(t, s.host+"/base"+name, c.offline)
			if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Errorf("%v, want %q", err, c.fails)
			}
			for i := range got {
				got[i] = s.symbolic(got[i])
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// symbolic has names for digests.
func (s *storage) symbolic(request string) string {
	request = strings.NewReplacer(s.index.String(), "INDEX", s.manifest.Digest.String(), "MANIFEST", s.layer.Digest.String(), "LAYER").Replace(request)
	if i := strings.Index(request, "sha256:"); i >= 0 {
		return request[:i] + "CONFIG"
	}
	return request
}

func TestWarmedImagesOfMirrors(t *testing.T) {
	t.Parallel()
	s := newStorage(t)
	mirror := imagesource.Mirror{Registry: "other.test", Place: s.host}
	src := imagesource.New(imagesource.Options{
		Registry: s.client, Dir: s.world.dir, Warmed: &imagesource.Warmed{Dir: s.dir}, Mirrors: []imagesource.Mirror{mirror},
	})
	defer func() {
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}()
	gets := s.reg.Count(http.MethodGet, "/v2/base/manifests/1")
	if _, err := src.Resolve(t.Context(), "other.test/base:1", platform("linux/amd64")); err != nil {
		t.Fatal(err)
	}
	if got := s.reg.Count(http.MethodGet, "/v2/base/manifests/1"); got != gets {
		t.Errorf("the manifest was fetched from the mirror")
	}
}
