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

// document is a decoded manifest, or an index: one of the two is set.
type document struct {
	// mediaType is what it calls itself, or what its registry or its config does.
	mediaType string
	index     *ocispec.Index
	manifest  *ocispec.Manifest
}

// foundLayer is a layer of a manifest, with what its config says of it.
type foundLayer struct {
	layer.Descriptor
	urls []string
}

// decodeDocument reads a manifest or an index. What it is follows from its fields; a media type that
// says something else is an error, because somebody else would read the same bytes as the other thing.
func decodeDocument(m *registry.Manifest) (*document, error) {
	var probe struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(m.Data, &probe); err != nil {
		return nil, fmt.Errorf("the manifest is not valid JSON of its kind: %w", err)
	}
	d := &document{mediaType: probe.MediaType}
	if d.mediaType == "" {
		d.mediaType = m.MediaType
	}
	var err error
	isIndex, isManifest := probe.Manifests != nil, probe.Config != nil || probe.Layers != nil
	switch {
	case probe.SchemaVersion == 1 || probe.FSLayers != nil || d.mediaType == registry.DockerSchema1 || d.mediaType == registry.DockerSchema1JWS:
		return nil, errors.New("the image has Docker's outdated format schema 1, which is not supported; push it again with a current tool")
	case isIndex && isManifest:
		return nil, errors.New("the manifest is also an index")
	case isIndex && isManifestType(d.mediaType), isManifest && isIndexType(d.mediaType):
		return nil, fmt.Errorf("the media type %q does not fit the content", d.mediaType)
	case isIndex:
		d.index, err = image.DecodeIndex(m.Data, "")
	case isManifest:
		d.manifest, err = image.DecodeManifest(m.Data, "")
	default:
		return nil, errors.New("the manifest has no config")
	}
	if err != nil {
		return nil, err
	}
	return d, d.check()
}

// check refuses what is no image, and settles the media type where the registry does not know it.
func (d *document) check() error {
	if d.index != nil {
		return nil
	}
	config := d.manifest.Config.MediaType
	if config != ocispec.MediaTypeImageConfig && config != registry.DockerConfig {
		return fmt.Errorf("it is no container image: its config is %q", config)
	}
	if n := len(d.manifest.Layers); n > maxLayers {
		return fmt.Errorf("the image has %d layers; at most %d are supported", n, maxLayers)
	}
	if !isManifestType(d.mediaType) {
		d.mediaType = registry.DockerManifest
		if config == ocispec.MediaTypeImageConfig {
			d.mediaType = ocispec.MediaTypeImageManifest
		}
	}
	return nil
}

func isIndexType(t string) bool {
	return t == ocispec.MediaTypeImageIndex || t == registry.DockerManifestList
}

func isManifestType(t string) bool {
	return t == ocispec.MediaTypeImageManifest || t == registry.DockerManifest
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
