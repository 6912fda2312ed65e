package image

import (
	"encoding/json"
	"fmt"
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
	// Timeless makes the year 1 the time of the image and of all its history, as kaniko's --reproducible does.
	Timeless bool
	// Annotations are put on the documents of the platform that the configuration names. Docker's format has none.
	Annotations Annotations
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
		Config: im.ConfigDescriptor, Layers: make([]ocispec.Descriptor, 0, len(layers)),
		Annotations: meta.Annotations.On(OnManifest, full.Platform),
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
	im.ManifestDescriptor.Annotations = meta.Annotations.On(OnManifestDescriptor, full.Platform)
	platform := full.Platform
	im.ManifestDescriptor.Platform = &platform
	return im, nil
}

// Reformat is a manifest with the media types of another format. Configuration and layers keep their bytes.
func Reformat(m *ocispec.Manifest, f Format) (*Image, error) {
	if f == Docker && len(m.Annotations) > 0 {
		return nil, fmt.Errorf("a manifest in docker's format cannot have annotations")
	}
	out := &Image{ConfigDescriptor: m.Config}
	out.ConfigDescriptor.MediaType = f.configType()
	n := ocispec.Manifest{Versioned: m.Versioned, MediaType: f.ManifestType(), Config: out.ConfigDescriptor, Layers: []ocispec.Descriptor{}, Annotations: m.Annotations}
	for _, l := range m.Layers {
		var err error
		if l.MediaType, err = f.layerType(l.MediaType); err != nil {
			return nil, err
		}
		n.Layers = append(n.Layers, l)
		out.Layers = append(out.Layers, layer.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	var err error
	if out.Manifest, err = json.MarshalIndent(n, "", "  "); err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	out.ManifestDescriptor = describe(n.MediaType, out.Manifest)
	return out, nil
}

// Index is an index in the bytes that a registry stores.
type Index struct {
	Data       []byte
	Descriptor ocispec.Descriptor
}

// AssembleIndex makes an index over manifests, in their order: an OCI index or Docker's manifest list.
// Of the annotations it takes those of indexes; Docker's format has none.
func AssembleIndex(f Format, manifests []ocispec.Descriptor, annotations Annotations) (*Index, error) {
	if f == Docker && len(annotations) > 0 {
		return nil, fmt.Errorf("assemble index: annotations need an OCI index")
	}
	x := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: f.IndexType(), Manifests: manifests,
		Annotations: annotations.On(OnIndex, ocispec.Platform{}),
	}
	data, err := json.MarshalIndent(x, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode index: %w", err)
	}
	out := &Index{Data: data, Descriptor: describe(x.MediaType, data)}
	out.Descriptor.Annotations = annotations.On(OnIndexDescriptor, ocispec.Platform{})
	return out, nil
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
		switch {
		case meta.Timeless:
			h.Created = &time.Time{}
		case h.Created == nil && !meta.Created.IsZero():
			h.Created = utc(meta.Created)
		}
	}
	if filled != len(layers) {
		return nil, fmt.Errorf("the history tells of %d layers, the image has %d", filled, len(layers))
	}
	full.Created = nil
	switch {
	case meta.Timeless:
		full.Created = &time.Time{}
	case !meta.Created.IsZero():
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
