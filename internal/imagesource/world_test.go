package imagesource_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/blob"
	"hako/internal/image"
	"hako/internal/imagesource"
	"hako/internal/layer"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
	"hako/internal/workdir"
)

// world is a registry and a Source that reads from it.
type world struct {
	reg    *registrytest.Registry
	host   string
	client *registry.Client
	dir    *workdir.Dir
	blobs  *blob.Store
	source *imagesource.Source
	// keeps says whether fetched blobs are stored: not if the work directory is memory.
	keeps bool
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldIn(t, workdir.Options{Explicit: t.TempDir()})
}

func newWorldIn(t *testing.T, place workdir.Options) *world {
	t.Helper()
	w := &world{reg: registrytest.New()}
	w.host = w.reg.Start(t)
	var err error
	if w.client, err = registry.New(registry.Options{RetryDelay: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	dir, err := workdir.Open(place)
	if err != nil {
		t.Fatal(err)
	}
	w.dir = dir
	w.keeps = !dir.Report().InMemory
	if w.blobs, err = blob.New(dir); err != nil {
		t.Fatal(err)
	}
	w.source = imagesource.New(imagesource.Options{Registry: w.client, Dir: dir, Blobs: w.blobs})
	t.Cleanup(func() {
		for _, err := range []error{w.source.Close(), w.blobs.Close(), dir.Close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return w
}

func (w *world) push(t *testing.T) *registry.Repository {
	t.Helper()
	repo, err := name.NewRepository(w.host+"/base", name.WeakValidation)
	if err != nil {
		t.Fatal(err)
	}
	return w.client.Repository(repo, registry.Push)
}

// add uploads a blob and describes it.
func (w *world) add(t *testing.T, mediaType string, data []byte) ocispec.Descriptor {
	t.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	err := w.push(t).Upload(t.Context(), registry.Blob{Digest: d.Digest, Size: d.Size, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// put stores a manifest or index under a tag, and under its digest too.
func (w *world) put(t *testing.T, tag, mediaType string, v any) ocispec.Descriptor {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.push(t).PutManifest(t.Context(), tag, mediaType, data); err != nil {
		t.Fatal(err)
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// tarball is a tar with one file.
func tarball(t *testing.T, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	tw := tar.NewWriter(&b)
	if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(tw, content); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t *testing.T, data []byte, how string) []byte {
	t.Helper()
	var b bytes.Buffer
	var zw io.WriteCloser
	switch how {
	case "gzip":
		zw = gzip.NewWriter(&b)
	case "zstd":
		var err error
		if zw, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	default:
		return data
	}
	if _, err := zw.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// format says how an image is written down.
type format struct{ manifest, config, layer, compression string }

func dockerFormat() format {
	return format{registry.DockerManifest, registry.DockerConfig, layer.MediaTypeDockerGzip, "gzip"}
}

func ociFormat() format {
	return format{ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, layer.MediaTypeOCIGzip, "gzip"}
}

// manifest makes a manifest with one layer that holds /file with the content, and uploads what it names.
func (w *world) manifest(t *testing.T, f format, platform ocispec.Platform, content string) ocispec.Manifest {
	t.Helper()
	raw := tarball(t, "file", content)
	var c image.Config
	c.Platform = platform
	c.RootFS.Type = "layers"
	c.RootFS.DiffIDs = []digest.Digest{digest.FromBytes(raw)}
	c.Config.Env = []string{"WHO=" + content}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: f.manifest,
		Config:    w.add(t, f.config, data),
		Layers:    []ocispec.Descriptor{w.add(t, f.layer, compress(t, raw, f.compression))},
	}
}

func platform(s string) ocispec.Platform {
	parts := append(strings.Split(s, "/"), "")
	return ocispec.Platform{OS: parts[0], Architecture: parts[1], Variant: parts[2]}
}

// content reads /file of the only layer.
func content(t *testing.T, im *layer.Image) string {
	t.Helper()
	for i := range im.Index.Entries {
		e := &im.Index.Entries[i]
		if e.Path == "file" {
			data, err := io.ReadAll(im.Content(e))
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
	t.Fatal("no file in the layer")
	return ""
}
