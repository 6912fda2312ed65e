package imagesource

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/registry"
)

// maxLayers is far beyond what any runtime accepts (Docker: 127).
const maxLayers = 1000

// document is a decoded manifest, or an index if index is not nil.
type document struct {
	index  []ocispec.Descriptor
	config ocispec.Descriptor
	layers []ocispec.Descriptor
}

// foundLayer is a layer of a manifest, with what its config says of it.
type foundLayer struct {
	layer.Descriptor
	urls []string
}

// decodeDocument reads a manifest or an index. What it is follows from its fields; a media type that
// says something else is an error, because somebody else would read the same bytes as the other thing.
func decodeDocument(m *registry.Manifest) (*document, error) {
	var raw struct {
		SchemaVersion int                   `json:"schemaVersion"`
		MediaType     string                `json:"mediaType"`
		Config        *ocispec.Descriptor   `json:"config"`
		Layers        []ocispec.Descriptor  `json:"layers"`
		Manifests     *[]ocispec.Descriptor `json:"manifests"`
		FSLayers      json.RawMessage       `json:"fsLayers"`
	}
	if err := json.Unmarshal(m.Data, &raw); err != nil {
		return nil, fmt.Errorf("the manifest is not valid JSON of its kind: %w", err)
	}
	mediaType := raw.MediaType
	if mediaType == "" {
		mediaType = m.MediaType
	}
	isIndex, isManifest := raw.Manifests != nil, raw.Config != nil || len(raw.Layers) > 0
	switch {
	case raw.SchemaVersion == 1 || len(raw.FSLayers) > 0 || mediaType == registry.DockerSchema1 || mediaType == registry.DockerSchema1JWS:
		return nil, errors.New("the image has Docker's outdated format schema 1, which is not supported; push it again with a current tool")
	case isIndex && isManifest:
		return nil, errors.New("the manifest is also an index")
	case isIndex && isManifestType(mediaType), isManifest && isIndexType(mediaType):
		return nil, fmt.Errorf("the media type %q does not fit the content", mediaType)
	case isIndex:
		return &document{index: *raw.Manifests}, nil
	case raw.Config == nil:
		return nil, errors.New("the manifest has no config")
	case len(raw.Layers) > maxLayers:
		return nil, fmt.Errorf("the image has %d layers; at most %d are supported", len(raw.Layers), maxLayers)
	}
	return &document{config: *raw.Config, layers: raw.Layers}, nil
}

func isIndexType(t string) bool {
	return t == ocispec.MediaTypeImageIndex || t == registry.DockerManifestList
}

func isManifestType(t string) bool {
	return t == ocispec.MediaTypeImageManifest || t == registry.DockerManifest
}

func checkConfigType(t string) error {
	if t != ocispec.MediaTypeImageConfig && t != registry.DockerConfig {
		return fmt.Errorf("it is no container image: its config is %q", t)
	}
	return nil
}

func decodeConfig(data []byte) (*image.Config, error) {
	config := &image.Config{}
	if err := json.Unmarshal(data, config); err != nil {
		return nil, fmt.Errorf("the configuration is not valid JSON of its kind: %w", err)
	}
	if t := config.RootFS.Type; t != "layers" && (t != "" || len(config.RootFS.DiffIDs) > 0) {
		return nil, fmt.Errorf("the configuration has a root file system of type %q", t)
	}
	return config, nil
}

// pairLayers joins the manifest's layers with the diffIDs of the configuration.
func pairLayers(layers []ocispec.Descriptor, diffIDs []digest.Digest) ([]foundLayer, error) {
	if len(layers) != len(diffIDs) {
		return nil, fmt.Errorf("the manifest has %d layers, but the configuration %d", len(layers), len(diffIDs))
	}
	out := make([]foundLayer, len(layers))
	for i, d := range layers {
		mediaType, err := distributable(d.MediaType)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
		for _, sum := range []digest.Digest{d.Digest, diffIDs[i]} {
			if sum.Validate() != nil || sum.Algorithm() != digest.SHA256 {
				return nil, fmt.Errorf("layer %d: %q is no sha256 digest", i+1, string(sum))
			}
		}
		if d.Size <= 0 {
			return nil, fmt.Errorf("layer %d: its size is %d bytes", i+1, d.Size)
		}
		out[i] = foundLayer{
			Descriptor: layer.Descriptor{MediaType: mediaType, Digest: d.Digest, Size: d.Size, DiffID: diffIDs[i]},
			urls:       d.URLs,
		}
	}
	return out, nil
}

// distributable maps the media types of layers that must not be pushed to those that may:
// as BuildKit does unless told otherwise, such a layer becomes an ordinary one of the new image.
func distributable(t string) (string, error) {
	const nondistributable = "application/vnd.oci.image.layer.nondistributable.v1.tar" // image-spec, layer.md; deprecated there
	switch t {
	case layer.MediaTypeOCI, layer.MediaTypeOCIGzip, layer.MediaTypeOCIZstd,
		layer.MediaTypeDocker, layer.MediaTypeDockerGzip, layer.MediaTypeDockerZstd:
		return t, nil
	case nondistributable:
		return layer.MediaTypeOCI, nil
	case nondistributable + "+gzip":
		return layer.MediaTypeOCIGzip, nil
	case nondistributable + "+zstd":
		return layer.MediaTypeOCIZstd, nil
	case registry.DockerForeignLayer:
		return layer.MediaTypeDockerGzip, nil
	case "application/vnd.docker.image.rootfs.foreign.diff.tar":
		return layer.MediaTypeDocker, nil
	}
	return "", fmt.Errorf("its media type %q is not supported", t)
}
