package build_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry/registrytest"
)

// fileLayer is a layer with one file.
func fileLayer(t *testing.T, path, content string) v1.Layer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pushBase pushes an image of two layers as "base:1", and says which layer is which by digest.
func (w *world) pushBase(t *testing.T) map[string]string {
	t.Helper()
	layers := []v1.Layer{fileLayer(t, "etc/passwd", "root:x:0:0::/:/prog\n"), fileLayer(t, "data", strings.Repeat("data ", 1000))}
	im, err := mutate.AppendLayers(empty.Image, layers...)
	if err != nil {
		t.Fatal(err)
	}
	if im, err = mutate.ConfigFile(im, &v1.ConfigFile{
		OS: "linux", Architecture: "amd64", RootFS: configOf(t, im).RootFS,
	}); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(w.host + "/base:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, im); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i, l := range layers {
		d, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		out[d.String()] = fmt.Sprintf("layer %d", i+1)
	}
	return out
}

func configOf(t *testing.T, im v1.Image) *v1.ConfigFile {
	t.Helper()
	c, err := im.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// fetches counts how often each layer was fetched from r.
func fetches(r *registrytest.Registry, layers map[string]string) map[string]int {
	out := map[string]int{}
	for _, q := range r.Requests() {
		for d, name := range layers {
			if q.Method == "GET" && strings.HasSuffix(q.Path, "/base/blobs/"+d) {
				out[name]++
			}
		}
	}
	return out
}

// TestNothingIsFetchedThatNobodyReads counts what is fetched of a base image. "@" is the registry.
func TestNothingIsFetchedThatNobodyReads(t *testing.T) {
	t.Parallel()
	// In memory, what is pushed elsewhere is not kept, but fetched again.
	memory := map[string]bool{"archive": true, "other registry": true}
	none, once := map[string]int{}, map[string]int{"layer 1": 1, "layer 2": 1}
	for title, tt := range map[string]struct {
		dockerfile string
		change     func(w *world, req *build.Request)
		want       map[string]int
	}{
		"config only":        {"FROM @/base:1\nENV A=b\nCMD [\"x\"]\n", nil, none},
		"linked copy":        {"FROM @/base:1\nCOPY --link prog /x\n", nil, none},
		"linked from a base": {"FROM @/base:1 AS a\nFROM @/base:1\nCOPY --link --from=a /data /x\n", nil, once},
		"unused stage":       {"FROM @/base:1 AS a\nRUN [\"/none\"]\nFROM scratch\nCOPY prog /x\n", nil, none},
		"copy":               {"FROM @/base:1\nCOPY prog /x\nCOPY prog /y\n", nil, once},
		"copy twice":         {"FROM @/base:1 AS a\nCOPY prog /x\nFROM @/base:1\nCOPY --from=a /x /y\n", nil, once},
		"copy with an owner": {"FROM @/base:1\nCOPY --chown=root prog /x\n", nil, once},
		"copy from it":       {"FROM scratch\nCOPY --from=@/base:1 /data /x\n", nil, once},
		"run":                {"FROM @/base:1\nCOPY prog /prog\nRUN [\"/prog\", \"write\", \"/a\", \"one\"]\nCOPY --from=@/base:1 /data /z\n", nil, once},
		"archive":            {"FROM @/base:1\nCOPY prog /x\n", func(w *world, req *build.Request) { req.Outputs.TarPath = w.work + ".tar" }, once},
		"squashed":           {"FROM @/base:1\nCOPY prog /x\n", func(_ *world, req *build.Request) { req.Squash = build.SquashAll }, once},
		"other registry": {"FROM @/base:1\nCOPY prog /x\n", func(w *world, req *build.Request) {
			other := registrytest.New()
			req.Outputs.Destinations = append(req.Outputs.Destinations, other.Start(t)+"/out:1")
		}, once},
	} {
		t.Run(title, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "")
			w.write(t, "Dockerfile", strings.ReplaceAll(tt.dockerfile, "@", w.host))
			if memory[title] {
				w.onDisk(t)
			}
			layers := w.pushBase(t)
			req := w.request()
			if tt.change != nil {
				tt.change(w, &req)
			}
			if err := w.build(t.Context(), req, event.Discard{}); err != nil {
				t.Fatal(diag.Format(err))
			}
			if !w.pushed(t, "out:1") {
				t.Error("nothing was pushed")
			}
			if diff := cmp.Diff(tt.want, fetches(w.registry, layers)); diff != "" {
				t.Error(diff)
			}
			w.empty(t)
		})
	}
}
