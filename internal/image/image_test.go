package image_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/layer"
)

const (
	dockerGzip = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	ociGzip    = "application/vnd.oci.image.layer.v1.tar+gzip"
	ociZstd    = "application/vnd.oci.image.layer.v1.tar+zstd"
)

func testLayer(mediaType, name string) layer.Descriptor {
	return layer.Descriptor{MediaType: mediaType, Digest: digest.FromString(name), DiffID: digest.FromString("tar of " + name), Size: 10}
}

func testConfig(empty ...bool) *image.Config {
	c := image.Empty(ocispec.Platform{OS: "linux", Architecture: "amd64"})
	c.Config.Labels = map[string]string{"b": "2", "a": "<1>"}
	for _, e := range empty {
		c.History = append(c.History, ocispec.History{CreatedBy: "x", EmptyLayer: e})
	}
	return &c
}

func TestAssembleIsExact(t *testing.T) {
	t.Parallel()
	c := testConfig(false, true)
	before := image.Clone(c)
	im, err := image.Assemble(c, []layer.Descriptor{testLayer(ociGzip, "a")}, image.Metadata{Created: time.Unix(1, 0).In(time.FixedZone("x", 3600))})
	if err != nil {
		t.Fatal(err)
	}
	wantConfig := `{"architecture":"amd64","config":{"Env":["PATH=` + image.DefaultPath + `"],"WorkingDir":"/","Labels":{"a":"\u003c1\u003e","b":"2"}},` +
		`"created":"1970-01-01T00:00:01Z","history":[{"created":"1970-01-01T00:00:01Z","created_by":"x"},` +
		`{"created":"1970-01-01T00:00:01Z","created_by":"x","empty_layer":true}],"os":"linux",` +
		`"rootfs":{"type":"layers","diff_ids":["` + digest.FromString("tar of a").String() + `"]}}`
	if diff := cmp.Diff(wantConfig, string(im.Config)); diff != "" {
		t.Errorf("config: -want +got:\n%s", diff)
	}
	wantManifest := `{
  "schemaVersion": 2,
  "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
  "config": {
    "mediaType": "application/vnd.docker.container.image.v1+json",
    "digest": "` + digest.FromString(wantConfig).String() + `",
    "size": ` + jsonNumber(len(wantConfig)) + `
  },
  "layers": [
    {
      "mediaType": "` + dockerGzip + `",
      "digest": "` + digest.FromString("a").String() + `",
      "size": 10
    }
  ]
}`
	if diff := cmp.Diff(wantManifest, string(im.Manifest)); diff != "" {
		t.Errorf("manifest: -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(before, image.Clone(c)); diff != "" {
		t.Errorf("the configuration was changed:\n%s", diff)
	}
	if im.ManifestDescriptor.Digest != digest.FromBytes(im.Manifest) || im.Layers[0].MediaType != dockerGzip {
		t.Errorf("descriptors: %+v, %+v", im.ManifestDescriptor, im.Layers)
	}
}

func jsonNumber(n int) string {
	b, _ := json.Marshal(n) // an int can be encoded
	return string(b)
}

func TestAssembleErrors(t *testing.T) {
	t.Parallel()
	noPlatform := testConfig()
	noPlatform.OS = ""
	for _, tt := range []struct {
		name   string
		config *image.Config
		layers []layer.Descriptor
		meta   image.Metadata
		want   string
	}{
		{"history too short", testConfig(true), []layer.Descriptor{testLayer(ociGzip, "a")}, image.Metadata{}, "the history tells of 0 layers, the image has 1"},
		{"history too long", testConfig(false, false), []layer.Descriptor{testLayer(ociGzip, "a")}, image.Metadata{}, "the history tells of 2 layers, the image has 1"},
		{"no platform", noPlatform, nil, image.Metadata{}, "the configuration names no platform"},
		{"zstd in Docker's format", testConfig(false), []layer.Descriptor{testLayer(ociZstd, "a")}, image.Metadata{}, "cannot be part of a docker manifest"},
		{"unknown layer", testConfig(false), []layer.Descriptor{testLayer("text/plain", "a")}, image.Metadata{Format: image.OCI}, "cannot be part of a oci manifest"},
		{"bad digest", testConfig(false), []layer.Descriptor{{MediaType: ociGzip, Digest: "sha256:x"}}, image.Metadata{}, "layer 0: digest"},
		{"annotations in Docker's format", testConfig(), nil, image.Metadata{Annotations: image.Annotations{{Level: image.OnManifest, Key: "a", Value: "b"}}}, "annotations need an OCI manifest"},
	} {
		_, err := image.Assemble(tt.config, tt.layers, tt.meta)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestAssembledImagesDecode(t *testing.T) {
	t.Parallel()
	for _, format := range []image.Format{image.Docker, image.OCI} {
		im, err := image.Assemble(testConfig(false, true, false), []layer.Descriptor{testLayer(dockerGzip, "a"), testLayer(ociGzip, "b")}, image.Metadata{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		m, err := image.DecodeManifest(im.Manifest, format.ManifestType())
		if err != nil {
			t.Fatal(err)
		}
		if image.FormatOf(m.MediaType) != format || m.Config.Digest != im.ConfigDescriptor.Digest || len(m.Layers) != 2 {
			t.Errorf("%v: manifest %+v", format, m)
		}
		c, err := image.DecodeConfig(im.Config)
		if err != nil {
			t.Fatal(err)
		}
		again, err := image.Assemble(c, im.Layers, image.Metadata{Format: format})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(im.Config, again.Config) || !bytes.Equal(im.Manifest, again.Manifest) {
			t.Errorf("%v: decoding and assembling again changed the image", format)
		}
	}
	if !image.OCI.Holds(ociZstd) || image.Docker.Holds(ociZstd) {
		t.Error("zstd belongs into OCI images only")
	}
}

func TestDecodeRefuses(t *testing.T) {
	t.Parallel()
	d := `{"mediaType":"x","digest":"` + digest.FromString("a").String() + `","size":1}`
	manifest := func(in string, mediaType string) error {
		_, err := image.DecodeManifest([]byte(in), mediaType)
		return err
	}
	index := func(in string, mediaType string) error {
		_, err := image.DecodeIndex([]byte(in), mediaType)
		return err
	}
	config := func(in string, _ string) error {
		_, err := image.DecodeConfig([]byte(in))
		return err
	}
	for _, tt := range []struct {
		name     string
		decode   func(text, mediaType string) error
		text, as string
		want     string
	}{
		{"fine", manifest, `{"schemaVersion":2,"config":` + d + `,"layers":[` + d + `]}`, "", ""},
		{"schema 1", manifest, `{"schemaVersion":1,"fsLayers":[]}`, "", "schema version 1 is not supported"},
		{"both kinds", manifest, `{"schemaVersion":2,"config":` + d + `,"layers":[],"manifests":[]}`, "", "it is an index as well"},
		{"served as another type", manifest, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":` + d + `}`, "application/vnd.docker.distribution.manifest.v2+json", "it calls itself"},
		{"index as manifest", manifest, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json"}`, "", "media type"},
		{"negative size", manifest, `{"schemaVersion":2,"config":` + strings.Replace(d, `"size":1`, `"size":-1`, 1) + `}`, "", "negative size"},
		{"huge config", manifest, `{"schemaVersion":2,"config":` + strings.Replace(d, `"size":1`, `"size":99999999`, 1) + `}`, "", "larger than"},
		{"bad digest", manifest, `{"schemaVersion":2,"config":{"digest":"md5:x"}}`, "", "digest"},
		{"null", manifest, `null`, "", "not a JSON object"},
		{"too large", manifest, strings.Repeat(" ", image.MaxManifestBytes+1), "", "larger than"},
		{"fine index", index, `{"schemaVersion":2,"manifests":[` + d + `]}`, "application/vnd.oci.image.index.v1+json; charset=utf-8", ""},
		{"manifest as index", index, `{"schemaVersion":2,"manifests":[],"layers":[]}`, "", "it is a manifest as well"},
		{"fine config", config, `{"os":"linux","architecture":"amd64"}`, "", ""},
		{"array", config, `[]`, "", "not a JSON object"},
		{"bad diffID", config, `{"rootfs":{"diff_ids":["sha256:1"]}}`, "", "diffID"},
		{"NUL", config, `{"config":{"Env":["A=\u0000"]}}`, "", "NUL"},
		{"rootfs type", config, `{"rootfs":{"type":"zfs"}}`, "", "rootfs type"},
	} {
		err := tt.decode(tt.text, tt.as)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
}

func TestPlatforms(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"linux/amd64": "linux/amd64", "x86_64": "linux/amd64", "linux/aarch64": "linux/arm64", "linux/arm64/v8": "linux/arm64",
		"linux/arm": "linux/arm/v7", "linux/arm/6": "linux/arm/v6", "Linux/AMD64": "linux/amd64",
	} {
		p, err := image.ParsePlatform(in)
		if err != nil || image.FormatPlatform(image.Normalize(p)) != want {
			t.Errorf("%s: got %s, %v, want %s", in, image.FormatPlatform(image.Normalize(p)), err, want)
		}
	}
	for _, in := range []string{"", "windows/amd64", "linux/foo", "darwin/arm64", "a/b/c/d", "linux/*", "wasm"} {
		if p, err := image.ParsePlatform(in); err == nil {
			t.Errorf("%q: no error, %+v", in, p)
		}
	}
	parse := func(list ...string) []ocispec.Platform {
		var out []ocispec.Platform
		for _, s := range list {
			os, rest, _ := strings.Cut(s, "/")
			arch, variant, _ := strings.Cut(rest, "/")
			out = append(out, ocispec.Platform{OS: os, Architecture: arch, Variant: variant})
		}
		return out
	}
	for _, tt := range []struct {
		want string
		have []ocispec.Platform
		at   int
	}{
		{"linux/amd64", parse("linux/arm64", "linux/amd64"), 1},
		{"linux/arm/v7", parse("linux/arm/v5", "linux/arm/v6", "linux/arm64/v8"), 1},
		{"linux/arm64", parse("linux/arm/v7", "linux/arm64/v8"), 1},
		{"linux/s390x", parse("linux/amd64"), -1},
		{"linux/amd64", parse("unknown/unknown", "windows/amd64"), -1},
		{"linux/amd64", nil, -1},
	} {
		if got := image.SelectPlatform(parse(tt.want)[0], tt.have); got != tt.at {
			t.Errorf("%s of %v: got %d, want %d", tt.want, tt.have, got, tt.at)
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	t.Parallel()
	const text = `{"os":"linux","architecture":"amd64","os.features":["f"],"config":{"User":"u","ExposedPorts":{"1/tcp":{}},"Env":["A=1"],
		"Entrypoint":["e"],"Cmd":["c"],"Volumes":{"/v":{}},"Labels":{"l":"1"},"OnBuild":["RUN x"],"Shell":["s"],
		"Healthcheck":{"Test":["t"],"Retries":1}},"history":[{"created_by":"h"}],"rootfs":{"type":"layers"}}`
	a, err := image.DecodeConfig([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want, _ := image.DecodeConfig([]byte(text))
	b := image.Clone(a)
	for _, list := range [][]string{b.OSFeatures, b.Config.Env, b.Config.Entrypoint, b.Config.Cmd, b.Config.OnBuild, b.Config.Shell, b.Config.Healthcheck.Test} {
		list[0] = "changed"
	}
	b.Config.ExposedPorts["2/tcp"], b.Config.Volumes["/w"], b.Config.Labels["l"] = struct{}{}, struct{}{}, "2"
	b.Config.Healthcheck.Retries, b.History[0].CreatedBy = 2, "changed"
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("changing the clone changed the original:\n%s", diff)
	}
}

func FuzzDecode(f *testing.F) {
	d := `{"mediaType":"x","digest":"` + digest.FromString("a").String() + `","size":1}`
	f.Add([]byte(`{"schemaVersion":2,"config":` + d + `,"layers":[` + d + `]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[` + d + `]}`))
	f.Add([]byte(`{"os":"linux","architecture":"amd64","config":{"Env":["A=b"],"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":[]},"history":[{"created":"2020-01-01T00:00:00Z"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := image.DecodeManifest(data, ""); err == nil {
			if _, err := image.DecodeIndex(data, ""); err == nil {
				t.Errorf("both a manifest and an index: %+v", m)
			}
		}
		c, err := image.DecodeConfig(data)
		if err != nil || c.OS == "" || c.Architecture == "" {
			return
		}
		c.History = nil
		im, err := image.Assemble(c, nil, image.Metadata{})
		if err != nil {
			return // a time outside of what JSON can say
		}
		if _, err := image.DecodeConfig(im.Config); err != nil {
			t.Errorf("what was assembled from it does not decode: %v", err)
		}
	})
}
