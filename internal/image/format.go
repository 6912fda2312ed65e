package image

import (
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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

// ParseFormat reads "docker" or "oci".
func ParseFormat(s string) (Format, error) {
	for _, f := range []Format{Docker, OCI} {
		if s == f.String() {
			return f, nil
		}
	}
	return 0, fmt.Errorf("image format %q is not docker or oci", s)
}

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

// IndexType is the media type of an index.
func (f Format) IndexType() string {
	if f == OCI {
		return ocispec.MediaTypeImageIndex
	}
	return dockerManifestList
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
