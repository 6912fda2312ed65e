package image

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/layer"
)

// Image is an image in the bytes that a registry stores.
type Image struct {
	Config, Manifest []byte
	// ConfigDescriptor is also in the manifest. ManifestDescriptor carries the platform.
	ConfigDescriptor, ManifestDescriptor ocispec.Descriptor
	// Layers are what was given, with the media types of the manifest.
	Layers []layer.Descriptor
}

// Metadata is what an image has beside its configuration and layers. Its zero value works.
type Metadata struct {
	// Format is the kind of manifest.
	Format Format
	// Created is the time of the image, and of each history entry that has none. Its zero value leaves them out.
	Created time.Time
	// Annotations are put on the manifest. Docker's format has none.
	Annotations map[string]string
}

// Assemble makes an image out of a configuration and its layers, bottom first. c is not changed.
// The same input gives the same bytes. It is an error if the history of c does not have
// exactly one entry that is not empty for each layer.
func Assemble(c *Config, layers []layer.Descriptor, meta Metadata) (*Image, error) {
	full, err := complete(c, layers, meta)
	if err != nil {
		return nil, fmt.Errorf("assemble image: %w", err)
	}
	im := &Image{}
	if im.Config, err = encodeConfig(full); err != nil {
		return nil, fmt.Errorf("encode image configuration: %w", err)
	}
	im.ConfigDescriptor = describe(meta.Format.configType(), im.Config)
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: meta.Format.ManifestType(),
		Config: im.ConfigDescriptor, Layers: make([]ocispec.Descriptor, 0, len(layers)), Annotations: meta.Annotations,
	}
	if meta.Format == Docker && len(meta.Annotations) > 0 {
		return nil, fmt.Errorf("assemble image: annotations need an OCI manifest")
	}
	for _, l := range layers {
		if l.MediaType, err = meta.Format.layerType(l.MediaType); err != nil {
			return nil, fmt.Errorf("assemble image: layer %s: %w", l.Digest, err)
		}
		im.Layers = append(im.Layers, l)
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	if im.Manifest, err = json.MarshalIndent(m, "", "  "); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	im.ManifestDescriptor = describe(m.MediaType, im.Manifest)
	platform := full.Platform
	im.ManifestDescriptor.Platform = &platform
	return im, nil
}

// complete is c with root file system and times.
func complete(c *Config, layers []layer.Descriptor, meta Metadata) (*Config, error) {
	if c.OS == "" || c.Architecture == "" {
		return nil, fmt.Errorf("the configuration names no platform")
	}
	full := Clone(c)
	full.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	for i, l := range layers {
		for _, d := range []digest.Digest{l.Digest, l.DiffID} {
			if err := d.Validate(); err != nil {
				return nil, fmt.Errorf("layer %d: digest %q: %w", i, d, err)
			}
		}
		full.RootFS.DiffIDs = append(full.RootFS.DiffIDs, l.DiffID)
	}
	filled := 0
	for i := range full.History {
		h := &full.History[i]
		if !h.EmptyLayer {
			filled++
		}
		if h.Created == nil && !meta.Created.IsZero() {
			h.Created = utc(meta.Created)
		}
	}
	if filled != len(layers) {
		return nil, fmt.Errorf("the history tells of %d layers, the image has %d", filled, len(layers))
	}
	full.Created = nil
	if !meta.Created.IsZero() {
		full.Created = utc(meta.Created)
	}
	return &full, nil
}

func utc(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}

// encodeConfig writes the top-level fields in alphabetical order, as BuildKit does.
func encodeConfig(c *Config) ([]byte, error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

func describe(mediaType string, data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// Format is the family of media types of an image.
type Format uint8

// The formats. Docker's is that of an image from scratch, as in kaniko; others take that of their base.
const (
	Docker Format = iota
	OCI
)

// Docker's media types: https://distribution.github.io/distribution/spec/manifest-v2-2/
const (
	dockerManifest     = "application/vnd.docker.distribution.manifest.v2+json"
	dockerManifestList = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGzip    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZstd    = "application/vnd.docker.image.rootfs.diff.tar.zstd" // never specified, but found
)

// FormatOf is the format of a manifest or index with this media type. Anything unknown is Docker's.
func FormatOf(mediaType string) Format {
	if mediaType == ocispec.MediaTypeImageManifest || mediaType == ocispec.MediaTypeImageIndex {
		return OCI
	}
	return Docker
}

// ManifestType is the media type of a manifest.
func (f Format) ManifestType() string {
	if f == OCI {
		return ocispec.MediaTypeImageManifest
	}
	return dockerManifest
}

func (f Format) configType() string {
	if f == OCI {
		return ocispec.MediaTypeImageConfig
	}
	return dockerConfig
}

// String is "docker" or "oci".
func (f Format) String() string {
	if f == OCI {
		return "oci"
	}
	return "docker"
}

// Holds says whether layers of this media type can be part of an image of format f. Docker's has no zstd.
func (f Format) Holds(layerType string) bool {
	_, err := f.layerType(layerType)
	return err == nil
}

// layerType is what f calls layers of another format's media type.
func (f Format) layerType(mediaType string) (string, error) {
	pairs := [...][2]string{ // Docker, OCI
		{dockerLayerGzip, ocispec.MediaTypeImageLayerGzip},
		{dockerLayer, ocispec.MediaTypeImageLayer},
		{"", ocispec.MediaTypeImageLayerZstd},
	}
	if mediaType == dockerLayerZstd {
		mediaType = ocispec.MediaTypeImageLayerZstd
	}
	for _, p := range pairs {
		if slices.Contains(p[:], mediaType) && p[f] != "" {
			return p[f], nil
		}
	}
	return "", fmt.Errorf("media type %q cannot be part of a %s manifest", mediaType, f)
}
