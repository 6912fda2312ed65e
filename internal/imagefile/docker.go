package imagefile

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/output"
)

const dockerConfig = "application/vnd.docker.container.image.v1+json" // distribution: manifest/schema2

// listed is an entry of manifest.json, as docker's image/tarexport has it.
type listed struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// loadDocker reads the images of docker's list. Their manifests are made here: docker does not keep them.
func (a *Archive) loadDocker(ctx context.Context, data []byte) error {
	var list []listed
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("%s: %w", listName, err)
	}
	if len(list) == 0 {
		return errors.New("it holds no image")
	}
	for _, l := range list {
		im, err := a.dockerImage(ctx, l)
		if err != nil {
			return err
		}
		a.Images = append(a.Images, Image{Names: l.RepoTags, Result: &output.Result{Images: []output.Image{*im}}})
	}
	return nil
}

func (a *Archive) dockerImage(ctx context.Context, l listed) (*output.Image, error) {
	data, err := a.small(l.Config)
	if err != nil {
		return nil, err
	}
	config, err := image.DecodeConfig(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.Config, err)
	}
	if len(config.RootFS.DiffIDs) != len(l.Layers) {
		return nil, fmt.Errorf("%s speaks of %d layers, and there are %d", l.Config, len(config.RootFS.DiffIDs), len(l.Layers))
	}
	format, configType := image.Docker, dockerConfig
	out := &output.Image{ConfigData: data}
	for i, name := range l.Layers {
		got, err := a.dockerLayer(ctx, name, config.RootFS.DiffIDs[i])
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		if !format.Holds(got.MediaType) {
			format, configType = image.OCI, ocispec.MediaTypeImageConfig
		}
		out.Layers = append(out.Layers, got)
	}
	if format == image.OCI {
		for i := range out.Layers {
			out.Layers[i].MediaType = ociType(out.Layers[i].MediaType)
		}
	}
	out.Config = ocispec.Descriptor{MediaType: configType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: format.ManifestType(), Config: out.Config, Layers: []ocispec.Descriptor{}}
	for _, l := range out.Layers {
		m.Layers = append(m.Layers, l.Descriptor)
	}
	if out.ManifestData, err = json.MarshalIndent(m, "", "  "); err != nil { // as image.Assemble, so that the digest stays
		return nil, err
	}
	platform := config.Platform
	out.Manifest = ocispec.Descriptor{
		MediaType: m.MediaType, Digest: digest.FromBytes(out.ManifestData), Size: int64(len(out.ManifestData)), Platform: &platform,
	}
	return out, nil
}

// ociType is the media type of a layer in an image of OCI's format.
func ociType(mediaType string) string {
	if mediaType == dockerLayer {
		return ocispec.MediaTypeImageLayerGzip
	}
	return mediaType
}

const dockerLayer = "application/vnd.docker.image.rootfs.diff.tar.gzip" // distribution: manifest/schema2

// dockerLayer is a layer of docker's archive, which may be compressed; otherwise it is compressed now. diffID is what its
// tar must be.
func (a *Archive) dockerLayer(ctx context.Context, name string, diffID digest.Digest) (_ output.Layer, err error) {
	if l, ok := a.layers[name+" "+diffID.String()]; ok {
		return l, nil
	}
	f, size, err := a.files.open(name)
	if err != nil {
		return output.Layer{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	start := bufio.NewReader(f)
	magic, err := start.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return output.Layer{}, err
	}
	l := output.Layer{Descriptor: ocispec.Descriptor{Size: size}}
	switch compressionOf(magic) {
	case layer.Uncompressed:
		plain := layer.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: diffID, DiffID: diffID, Size: size}
		made, open, err := a.options.Compress(ctx, start, plain)
		if err != nil {
			return output.Layer{}, err
		}
		l.MediaType, l.Digest, l.Size, l.Open = made.MediaType, made.Digest, made.Size, open
	default:
		if l.MediaType = dockerLayer; compressionOf(magic) == layer.Zstd {
			l.MediaType = ocispec.MediaTypeImageLayerZstd
		}
		if l.Digest, err = digest.FromReader(start); err != nil {
			return output.Layer{}, err
		}
		l.Open = a.opener(name, l.Digest)
	}
	a.layers[name+" "+diffID.String()] = l
	return l, nil
}

// compressionOf is what the first bytes of a layer say.
func compressionOf(magic []byte) layer.Compression {
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}): // RFC 1952
		return layer.Gzip
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}): // RFC 8878
		return layer.Zstd
	}
	return layer.Uncompressed
}
