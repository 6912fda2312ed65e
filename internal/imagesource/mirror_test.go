package imagesource_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"hako/internal/imagesource"
	"hako/internal/registry/registrytest"
)

// mirrored is a world whose source asks mirrors.
func mirrored(t *testing.T, w *world, only bool, mirrors ...imagesource.Mirror) *imagesource.Source {
	t.Helper()
	s := imagesource.New(imagesource.Options{Registry: w.client, Dir: w.dir, Blobs: w.blobs, Mirrors: mirrors, OnlyMirrors: only})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestMirrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := ociFormat()
	d := w.put(t, "1", f.manifest, w.manifest(t, f, platform("linux/amd64"), "hello"))
	const nowhere = "127.0.0.1:1"
	mirror := func(of, place string) imagesource.Mirror { return imagesource.Mirror{Registry: of, Place: place} }
	for name, c := range map[string]struct {
		image   string
		mirrors []imagesource.Mirror
		only    bool
		fails   string
	}{
		"of Docker Hub":           {image: "base:1", mirrors: []imagesource.Mirror{mirror("docker.io", w.host+"/proxy")}, fails: "library/base"},
		"of a host":               {image: "other.test/base:1", mirrors: []imagesource.Mirror{mirror("other.test", w.host)}},
		"in any spelling":         {image: "other.test/base:1", mirrors: []imagesource.Mirror{mirror("https://OTHER.test/", "http://"+w.host+"/")}},
		"the second of two":       {image: "other.test/base:1", mirrors: []imagesource.Mirror{mirror("other.test", nowhere), mirror("other.test", w.host)}},
		"by digest":               {image: "other.test/base@" + d.Digest.String(), mirrors: []imagesource.Mirror{mirror("other.test", w.host)}},
		"not of this host":        {image: w.host + "/base:1", mirrors: []imagesource.Mirror{mirror("other.test", nowhere)}},
		"itself after its mirror": {image: w.host + "/base:1", mirrors: []imagesource.Mirror{mirror(w.host, nowhere)}},
		"only the mirror":         {image: w.host + "/base:1", mirrors: []imagesource.Mirror{mirror(w.host, nowhere)}, only: true, fails: nowhere},
		"only mirrors, none":      {image: w.host + "/base:1", mirrors: []imagesource.Mirror{mirror("other.test", nowhere)}, only: true},
		"both fail":               {image: w.host + "/base:2", mirrors: []imagesource.Mirror{mirror(w.host, nowhere)}, fails: "after its mirrors: " + nowhere},
		"no place":                {image: "other.test/base:1", mirrors: []imagesource.Mirror{mirror("other.test", "a b")}, fails: `mirror "a b" of other.test`},
		"a digest is not enough":  {image: "other.test/base@" + digest.FromString("x").String(), mirrors: []imagesource.Mirror{mirror("other.test", w.host)}, only: true, fails: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := mirrored(t, w, c.only || strings.Contains(c.image, "other.test") || c.image == "base:1", c.mirrors...)
			ref, err := s.Resolve(t.Context(), c.image, platform("linux/amd64"))
			if c.fails != "" {
				if err == nil || !strings.Contains(err.Error(), c.fails) {
					t.Fatalf("%v, want %q", err, c.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if ref.Name != c.image || ref.Digest != d.Digest {
				t.Errorf("%+v", ref)
			}
			layers, err := s.Layers(t.Context(), ref)
			if err != nil || len(layers) != 1 {
				t.Fatal(layers, err)
			}
			im, err := layers[0].Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got := content(t, im); got != "hello" {
				t.Errorf("content %q", got)
			}
		})
	}
}

// The path of an image follows a mirror's prefix, with Docker Hub's "library/".
func TestMirrorPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := mirrored(t, w, true, imagesource.Mirror{Registry: "index.docker.io", Place: w.host + "/hub/cache"})
	for _, image := range []string{"debian:12", "docker.io/me/app:1"} {
		if _, err := s.Resolve(t.Context(), image, platform("linux/amd64")); err == nil {
			t.Fatal("no error")
		}
	}
	for _, path := range []string{"/v2/hub/cache/library/debian/manifests/12", "/v2/hub/cache/me/app/manifests/1"} {
		if w.reg.Count(http.MethodGet, path)+w.reg.Count(http.MethodHead, path) == 0 {
			t.Errorf("%s was not asked for: %v", path, w.reg.Requests())
		}
	}
}

// TestRetries holds that a place is asked again as often as the user said, whatever it answers.
func TestRetries(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		retries int
		fails   bool
	}{"none": {0, true}, "too few": {1, true}, "enough": {2, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			f := ociFormat()
			w.put(t, "1", f.manifest, w.manifest(t, f, platform("linux/amd64"), "hello"))
			w.reg.Inject(registrytest.Fault{Method: "GET", Path: "/base/manifests/1", Status: 404, Times: 2})
			s := imagesource.New(imagesource.Options{Registry: w.client, Dir: w.dir, Blobs: w.blobs, Retries: c.retries, RetryDelay: 1})
			_, err := s.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
			if (err != nil) != c.fails {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
