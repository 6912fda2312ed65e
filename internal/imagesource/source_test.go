package imagesource_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
	"hako/internal/workdir"
)

func TestFormats(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]format{
		"docker":           dockerFormat(),
		"oci":              ociFormat(),
		"oci zstd":         {ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, layer.MediaTypeOCIZstd, "zstd"},
		"oci plain":        {ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, layer.MediaTypeOCI, ""},
		"foreign":          {registry.DockerManifest, registry.DockerConfig, registry.DockerForeignLayer, "gzip"},
		"nondistributable": {ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m := w.manifest(t, f, platform("linux/amd64"), "hello")
			d := w.put(t, "1", f.manifest, m)
			ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
			if err != nil {
				t.Fatal(err)
			}
			got := *ref
			got.Config = nil
			want := plan.ImageRef{Name: w.host + "/base:1", Ref: w.host + "/base:1", Digest: d.Digest, MediaType: d.MediaType, Platform: platform("linux/amd64")}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff([]string{"WHO=hello"}, ref.Config.Config.Env); diff != "" {
				t.Error(diff)
			}
			layers, err := w.source.Layers(t.Context(), ref)
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
			if got := w.blobs.Has(layers[0].Digest); got != w.keeps {
				t.Errorf("kept: %v", got)
			}
			if strings.Contains(layers[0].MediaType, "foreign") || strings.Contains(layers[0].MediaType, "nondist") {
				t.Errorf("media type %s", layers[0].MediaType)
			}
		})
	}
}

func TestEverythingIsFetchedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := ociFormat()
	w.put(t, "1", f.manifest, w.manifest(t, f, platform("linux/amd64"), "hello"))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
			if err != nil {
				t.Error(err)
				return
			}
			if err := w.source.Fetch(t.Context(), ref); err != nil {
				t.Error(err)
			}
			layers, err := w.source.Layers(t.Context(), ref)
			if err != nil {
				t.Error(err)
				return
			}
			if !w.keeps {
				return
			}
			rc, err := layers[0].Blob(t.Context())
			if err != nil {
				t.Error(err)
				return
			}
			defer rc.Close()
			if _, err := io.Copy(io.Discard, rc); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := w.reg.Count("GET", "/manifests/"); got != 1 {
		t.Errorf("%d requests for manifests", got)
	}
	if got := w.reg.Count("GET", "/blobs/"); got != 2 { // config and layer
		t.Errorf("%d requests for blobs", got)
	}
}

// TestInMemory: without a disk, layers live in memory, but blobs are not kept there as well.
func TestInMemory(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, workdir.Options{})
	f := dockerFormat()
	m := w.manifest(t, f, platform("linux/amd64"), "hello")
	w.put(t, "1", f.manifest, m)
	ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := w.source.Layers(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	im, err := layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, im); got != "hello" {
		t.Errorf("content %q", got)
	}
	rc, err := layers[0].Blob(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if data, err := io.ReadAll(rc); err != nil || digest.FromBytes(data) != m.Layers[0].Digest {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	if w.keeps || w.blobs.Has(m.Layers[0].Digest) {
		t.Error("the blob is kept in memory")
	}
}

func TestBlobWithoutOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := ociFormat()
	m := w.manifest(t, f, platform("linux/amd64"), "hello")
	w.put(t, "1", f.manifest, m)
	ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := w.source.Layers(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	rc, err := layers[0].Blob(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	data, err := io.ReadAll(rc)
	if err != nil || digest.FromBytes(data) != m.Layers[0].Digest {
		t.Errorf("%d bytes, %v", len(data), err)
	}
}

// TestPlatforms checks BuildKit's choice: the best of what the machine can run.
func TestPlatforms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		have []string // entries of the index
		want string
		got  string // or a part of the error
		fail bool
	}{
		{have: []string{"linux/arm64", "linux/amd64"}, want: "linux/amd64", got: "linux/amd64"},
		{have: []string{"linux/arm/v6", "linux/arm/v7"}, want: "linux/arm/v7", got: "linux/arm/v7"},
		{have: []string{"linux/arm/v6", "linux/arm/v5"}, want: "linux/arm/v7", got: "linux/arm/v6"},
		{have: []string{"linux/arm64/v8"}, want: "linux/arm64", got: "linux/arm64"},
		{have: []string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v3"}, want: "linux/amd64/v2", got: "linux/amd64/v2"},
		{have: []string{"linux/amd64/v3"}, want: "linux/amd64", fail: true,
			got: "use image HOST/base:1: it is for another platform (linux/amd64/v3), but linux/amd64 is wanted"},
		{have: []string{"windows/amd64", "linux/arm64"}, want: "linux/amd64", fail: true,
			got: "use image HOST/base:1: it is for another platform (linux/arm64, windows/amd64), but linux/amd64 is wanted"},
		{have: []string{"windows/amd64"}, want: "linux/amd64", fail: true,
			got: "use image HOST/base:1: it is for windows, but linux/amd64 is wanted"},
		{want: "linux/amd64", fail: true, got: "use image HOST/base:1: its index has no image"},
		{have: []string{"windows/amd64"}, want: "windows/amd64", fail: true,
			got: "use image HOST/base:1: only images for linux can be used, not for windows/amd64"},
	} {
		t.Run(fmt.Sprint(c.have, " for ", c.want), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
			f := ociFormat()
			for _, h := range c.have {
				p := platform(h)
				d := w.put(t, "x", f.manifest, w.manifest(t, f, p, h))
				d.Platform = &p
				index.Manifests = append(index.Manifests, d)
			}
			// What BuildKit adds to each index.
			d := w.put(t, "x", f.manifest, w.manifest(t, f, platform("unknown/unknown"), "attestation"))
			d.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
			d.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
			index.Manifests = append([]ocispec.Descriptor{d}, index.Manifests...)
			w.put(t, "1", ocispec.MediaTypeImageIndex, index)

			ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform(c.want))
			got := ""
			if err == nil {
				got = image.FormatPlatform(ref.Platform)
			} else {
				got = strings.ReplaceAll(err.Error(), w.host, "HOST")
			}
			if c.fail != (err != nil) || got != c.got {
				t.Errorf("got  %s\nwant %s", got, c.got)
			}
		})
	}
}

func TestSingleManifestForAnotherPlatform(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := dockerFormat()
	w.put(t, "1", f.manifest, w.manifest(t, f, platform("linux/s390x"), "x"))
	ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
	if err != nil || image.FormatPlatform(ref.Platform) != "linux/s390x" {
		t.Errorf("got %v, %v; BuildKit takes it", ref, err)
	}
	w.put(t, "2", f.manifest, w.manifest(t, f, platform("windows/amd64"), "x"))
	_, err = w.source.Resolve(t.Context(), w.host+"/base:2", platform("linux/amd64"))
	var d *diag.Error
	if !errors.As(err, &d) {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(d.Error()+"\n"+d.Hint, w.host, "HOST")
	want := "use image HOST/base:2: it is for windows, but linux/amd64 is wanted\nUse an image for linux."
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestIndexWithoutPlatforms(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := ociFormat()
	arm := w.put(t, "x", f.manifest, w.manifest(t, f, platform("linux/arm64"), "arm"))
	amd := w.put(t, "x", f.manifest, w.manifest(t, f, platform("linux/amd64"), "amd"))
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	index.Manifests = []ocispec.Descriptor{arm}
	inner := w.put(t, "x", ocispec.MediaTypeImageIndex, index)
	index.Manifests = []ocispec.Descriptor{inner, amd}
	w.put(t, "1", ocispec.MediaTypeImageIndex, index)
	for _, want := range []struct {
		platform string
		digest   digest.Digest
	}{{"linux/arm64", arm.Digest}, {"linux/amd64", amd.Digest}} {
		ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform(want.platform))
		if err != nil || ref.Digest != want.digest {
			t.Errorf("%s: %v, %v", want.platform, ref, err)
		}
	}
}

func TestPinnedByDigest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := ociFormat()
	d := w.put(t, "1", f.manifest, w.manifest(t, f, platform("linux/amd64"), "old"))
	w.put(t, "1", f.manifest, w.manifest(t, f, platform("linux/amd64"), "new"))
	for _, ref := range []string{"/base@" + d.Digest.String(), "/base:1@" + d.Digest.String()} {
		got, err := w.source.Resolve(t.Context(), w.host+ref, platform("linux/amd64"))
		if err != nil || got.Digest != d.Digest {
			t.Errorf("%s: %v, %v", ref, got, err)
		}
	}
}

// badImage is an image that must be refused.
type badImage struct {
	spoil func(m *ocispec.Manifest) any
	media string // if it is not the usual one
	want  string
}

func badImages() map[string]badImage {
	return map[string]badImage{
		"schema 1": {
			spoil: func(*ocispec.Manifest) any { return map[string]any{"schemaVersion": 1, "fsLayers": []any{}} },
			media: registry.DockerSchema1JWS,
			want:  "the image has Docker's outdated format schema 1, which is not supported; push it again with a current tool",
		},
		"artifact": {
			spoil: func(m *ocispec.Manifest) any {
				m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
				return m
			},
			want: `it is no container image: its config is "application/vnd.cncf.helm.config.v1+json"`,
		},
		"layer missing": {
			spoil: func(m *ocispec.Manifest) any { m.Layers = nil; return m },
			want:  "the manifest has 0 layers, but the configuration 1",
		},
		"layer type": {
			spoil: func(m *ocispec.Manifest) any { m.Layers[0].MediaType += "+encrypted"; return m },
			want:  `layer 1: its media type "application/vnd.oci.image.layer.v1.tar+gzip+encrypted" is not supported`,
		},
		"layer size": {
			spoil: func(m *ocispec.Manifest) any {
				m.Layers[0].Size, m.Layers[0].Digest = -1, digest.FromString("x")
				return m
			},
			want: "decode manifest: descriptor " + digest.FromString("x").String() + " has a negative size",
		},
		"layer empty": {
			spoil: func(m *ocispec.Manifest) any { m.Layers[0].Size = 0; return m },
			want:  "layer 1: its size is 0 bytes",
		},
		"layer digest": {
			spoil: func(m *ocispec.Manifest) any { m.Layers[0].Digest = digest.SHA512.FromString("x"); return m },
			want:  "layer 1: \"" + digest.SHA512.FromString("x").String() + "\" is no sha256 digest",
		},
		"no config": {
			spoil: func(*ocispec.Manifest) any { return map[string]any{"schemaVersion": 2} },
			want:  "the manifest has no config",
		},
		"two things at once": {
			spoil: func(m *ocispec.Manifest) any {
				return map[string]any{"schemaVersion": 2, "config": m.Config, "layers": m.Layers, "manifests": []any{}}
			},
			want: "the manifest is also an index",
		},
		"wrong type": {
			spoil: func(m *ocispec.Manifest) any { m.MediaType = ocispec.MediaTypeImageIndex; return m },
			want:  `the media type "application/vnd.oci.image.index.v1+json" does not fit the content`,
		},
	}
}

func TestBadImages(t *testing.T) {
	t.Parallel()
	f := ociFormat()
	for name, c := range badImages() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m := w.manifest(t, f, platform("linux/amd64"), "x")
			media := f.manifest
			if c.media != "" {
				media = c.media
			}
			data, err := json.Marshal(c.spoil(&m))
			if err != nil {
				t.Fatal(err)
			}
			w.reg.Inject(registrytest.Fault{Path: "/manifests/", Status: 200, Body: string(data), Header: map[string][]string{"Content-Type": {media}}})
			_, err = w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
			var d *diag.Error
			if !errors.As(err, &d) || d.Cause == nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, d.Cause.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestServedAsSomethingElse: proxies and static file servers do not know the media types of manifests.
func TestServedAsSomethingElse(t *testing.T) {
	t.Parallel()
	for want, f := range map[string]format{
		ocispec.MediaTypeImageManifest: ociFormat(),
		registry.DockerManifest:        dockerFormat(),
	} {
		w := newWorld(t)
		m := w.manifest(t, f, platform("linux/amd64"), "x")
		m.MediaType = ""
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		w.reg.Inject(registrytest.Fault{Path: "/manifests/", Status: 200, Body: string(data), Header: map[string][]string{"Content-Type": {"text/plain; charset=utf-8"}}})
		ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
		if err != nil || ref.MediaType != want {
			t.Errorf("%v, %v", ref, err)
		}
	}
}

func TestLiesAboutLayers(t *testing.T) {
	t.Parallel()
	f := ociFormat()
	for name, c := range map[string]struct {
		fault registrytest.Fault
		want  string
	}{
		"corrupt": {registrytest.Fault{Corrupt: true}, "the registry sent content with another digest"},
		"missing": {registrytest.Fault{Status: 404}, "404 Not Found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			m := w.manifest(t, f, platform("linux/amd64"), "x")
			w.put(t, "1", f.manifest, m)
			c.fault.Method, c.fault.Path, c.fault.Times = "GET", m.Layers[0].Digest.String(), 1
			w.reg.Inject(c.fault)
			ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
			if err != nil {
				t.Fatal(err)
			}
			err = w.source.Fetch(t.Context(), ref)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v", err)
			}
			if w.blobs.Has(m.Layers[0].Digest) {
				t.Error("it was kept")
			}
			if err := w.source.Fetch(t.Context(), ref); err != nil {
				t.Errorf("second try: %v", err)
			}
		})
	}
}

func TestDiffIDMustMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := ociFormat()
	m := w.manifest(t, f, platform("linux/amd64"), "x")
	m.Layers[0] = w.add(t, f.layer, compress(t, tarball(t, "file", "other"), "gzip"))
	w.put(t, "1", f.manifest, m)
	ref, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.source.Fetch(t.Context(), ref); err == nil || !strings.Contains(err.Error(), "but the image config says") {
		t.Errorf("error %v", err)
	}
	if w.blobs.Has(m.Layers[0].Digest) {
		t.Error("it was kept")
	}
}

func TestWaiterOutlivesCancelledCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	f := ociFormat()
	w.put(t, "1", f.manifest, w.manifest(t, f, platform("linux/amd64"), "x"))
	w.reg.Inject(registrytest.Fault{Method: "GET", Path: "/manifests/", Hang: true, Times: 1})
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error)
	go func() {
		_, err := w.source.Resolve(ctx, w.host+"/base:1", platform("linux/amd64"))
		first <- err
	}()
	second := make(chan error)
	go func() {
		if err := w.reg.Wait(t.Context(), "GET", "/manifests/"); err != nil { // the first caller is under way
			t.Error(err)
		}
		cancel()
		_, err := w.source.Resolve(t.Context(), w.host+"/base:1", platform("linux/amd64"))
		second <- err
	}()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("first: %v", err)
	}
	if err := <-second; err != nil {
		t.Errorf("second: %v", err)
	}
}
