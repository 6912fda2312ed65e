// Package imagetest holds documents of images to the schemas of the OCI image specification.
package imagetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/schema"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Check validates a manifest, an index, a configuration or the header of a layout by its media type. Docker's documents
// have the same schemas; of their media types only the form counts. What is none of these is an error.
func Check(mediaType string, data []byte) error {
	validator := validatorOf(mediaType)
	if validator == "" {
		return fmt.Errorf("media type %q has no schema", mediaType)
	}
	checked := data
	if validator == schema.ValidatorMediaTypeManifest {
		checked = withLayer(data)
	}
	if err := validator.Validate(bytes.NewReader(checked)); err != nil {
		return fmt.Errorf("%s: %w", mediaType, err)
	}
	return checkOwnType(mediaType, data)
}

// withLayer gives a manifest that has none a layer: the schema wants one, although the specification does not, and an
// image from scratch that only has a configuration has none, as in BuildKit.
func withLayer(data []byte) []byte {
	var m map[string]json.RawMessage
	if json.Unmarshal(data, &m) != nil || string(m["layers"]) != "[]" {
		return data
	}
	m["layers"] = json.RawMessage("[" + string(m["config"]) + "]")
	out, err := json.Marshal(m)
	if err != nil {
		return data
	}
	return out
}

// validatorOf is the schema of a media type, or empty.
func validatorOf(mediaType string) schema.Validator {
	return map[string]schema.Validator{
		ocispec.MediaTypeImageManifest:                              schema.ValidatorMediaTypeManifest,
		ocispec.MediaTypeImageIndex:                                 schema.ValidatorMediaTypeImageIndex,
		ocispec.MediaTypeImageConfig:                                schema.ValidatorMediaTypeImageConfig,
		ocispec.MediaTypeLayoutHeader:                               schema.ValidatorMediaTypeLayoutHeader,
		"application/vnd.docker.distribution.manifest.v2+json":      schema.ValidatorMediaTypeManifest,
		"application/vnd.docker.distribution.manifest.list.v2+json": schema.ValidatorMediaTypeImageIndex,
		"application/vnd.docker.container.image.v1+json":            schema.ValidatorMediaTypeImageConfig,
	}[mediaType]
}

// checkOwnType compares a document's own media type, if it has one, with what it is called.
func checkOwnType(mediaType string, data []byte) error {
	var own struct {
		MediaType string `json:"mediaType"`
	}
	if err := json.Unmarshal(data, &own); err != nil {
		return err
	}
	if own.MediaType != "" && own.MediaType != mediaType {
		return fmt.Errorf("it is called %s, and calls itself %s", mediaType, own.MediaType)
	}
	return nil
}

// CheckLayout validates every document of the OCI layout in dir, from its list of images to their configurations, and
// the digest and size of each.
func CheckLayout(dir string) error {
	header, err := os.ReadFile(filepath.Join(dir, ocispec.ImageLayoutFile))
	if err != nil {
		return err
	}
	if err := Check(ocispec.MediaTypeLayoutHeader, header); err != nil {
		return err
	}
	list, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return err
	}
	return CheckAll(ocispec.MediaTypeImageIndex, list, func(d digest.Digest) ([]byte, error) {
		return os.ReadFile(filepath.Join(dir, ocispec.ImageBlobsDir, d.Algorithm().String(), d.Encoded()))
	})
}

// CheckAll validates a document and every manifest and configuration below it, which read gets, as Check does.
// What a manifest that is no image has for a configuration is only read.
func CheckAll(mediaType string, data []byte, read func(digest.Digest) ([]byte, error)) error {
	if err := Check(mediaType, data); err != nil || validatorOf(mediaType) == schema.ValidatorMediaTypeImageConfig {
		return err
	}
	var doc struct {
		Manifests []ocispec.Descriptor
		Config    *ocispec.Descriptor
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	if doc.Config != nil {
		doc.Manifests = append(doc.Manifests, *doc.Config)
	}
	for _, d := range doc.Manifests {
		child, err := read(d.Digest)
		switch {
		case err != nil:
			return err
		case digest.FromBytes(child) != d.Digest || int64(len(child)) != d.Size:
			return fmt.Errorf("%s is %s of %d bytes", d.Digest, digest.FromBytes(child), len(child))
		case doc.Config != nil && validatorOf(d.MediaType) == "":
			continue
		}
		if err := CheckAll(d.MediaType, child, read); err != nil {
			return fmt.Errorf("%s: %w", d.Digest, err)
		}
	}
	return nil
}
