package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What is read from strangers is bounded.
const (
	MaxManifestBytes = 4 << 20 // 4 MiB: distribution-spec, "Pushing Manifests"
	MaxConfigBytes   = 8 << 20 // 8 MiB
	maxLayers        = 4096    // overlayfs takes 500 lower directories, Docker 127
	maxHistory       = 16384
	maxDescriptors   = 4096 // of an index
)

// DecodeConfig reads the configuration of somebody else's image, and checks what a builder relies on:
// digests, and that no variable or command holds a NUL byte. The platform may be missing.
func DecodeConfig(data []byte) (*Config, error) {
	if len(data) > MaxConfigBytes {
		return nil, fmt.Errorf("decode image configuration: larger than %d bytes", MaxConfigBytes)
	}
	var c Config
	if err := decodeObject(data, &c); err != nil {
		return nil, fmt.Errorf("decode image configuration: %w", err)
	}
	if err := checkConfig(&c); err != nil {
		return nil, fmt.Errorf("decode image configuration: %w", err)
	}
	return &c, nil
}

func checkConfig(c *Config) error {
	switch {
	case c.RootFS.Type != "" && c.RootFS.Type != "layers":
		return fmt.Errorf("rootfs type %q is unknown", c.RootFS.Type)
	case len(c.RootFS.DiffIDs) > maxLayers:
		return fmt.Errorf("more than %d layers", maxLayers)
	case len(c.History) > maxHistory:
		return fmt.Errorf("more than %d history entries", maxHistory)
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := checkDigest(d); err != nil {
			return fmt.Errorf("diffID %q: %w", d, err)
		}
	}
	for _, list := range [][]string{c.Config.Env, c.Config.Cmd, c.Config.Entrypoint, c.Config.Shell, {c.Config.User, c.Config.WorkingDir}} {
		if slices.ContainsFunc(list, func(s string) bool { return strings.ContainsRune(s, 0) }) {
			return errors.New("a string holds a NUL byte")
		}
	}
	return nil
}

// DecodeManifest reads somebody else's manifest. mediaType is what it was served as, or empty.
// A document that is an index as well as a manifest is refused, and so is one that calls itself by another type.
func DecodeManifest(data []byte, mediaType string) (*ocispec.Manifest, error) {
	var m struct {
		ocispec.Manifest
		Manifests json.RawMessage `json:"manifests"`
		FSLayers  json.RawMessage `json:"fsLayers"`
	}
	if err := decodeDocument(data, &m); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	if err := checkType(m.MediaType, mediaType, dockerManifest, ocispec.MediaTypeImageManifest); err != nil {
		return nil, fmt.Errorf("decode manifest: %w", err)
	}
	switch {
	case m.SchemaVersion == 1 || m.FSLayers != nil:
		return nil, errors.New("decode manifest: schema version 1 is not supported")
	case m.SchemaVersion != 2:
		return nil, fmt.Errorf("decode manifest: schema version %d is unknown", m.SchemaVersion)
	case m.Manifests != nil:
		return nil, errors.New("decode manifest: it is an index as well")
	case len(m.Layers) > maxLayers:
		return nil, fmt.Errorf("decode manifest: more than %d layers", maxLayers)
	case m.Config.Size > MaxConfigBytes:
		return nil, fmt.Errorf("decode manifest: the configuration is larger than %d bytes", MaxConfigBytes)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := checkDescriptor(d); err != nil {
			return nil, fmt.Errorf("decode manifest: %w", err)
		}
	}
	return &m.Manifest, nil
}

// DecodeIndex reads somebody else's index, under the same rules as DecodeManifest.
func DecodeIndex(data []byte, mediaType string) (*ocispec.Index, error) {
	var x struct {
		ocispec.Index
		Config json.RawMessage `json:"config"`
		Layers json.RawMessage `json:"layers"`
	}
	if err := decodeDocument(data, &x); err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	if err := checkType(x.MediaType, mediaType, dockerManifestList, ocispec.MediaTypeImageIndex); err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	switch {
	case x.SchemaVersion != 2:
		return nil, fmt.Errorf("decode index: schema version %d is unknown", x.SchemaVersion)
	case x.Config != nil || x.Layers != nil:
		return nil, errors.New("decode index: it is a manifest as well")
	case len(x.Manifests) > maxDescriptors:
		return nil, fmt.Errorf("decode index: more than %d manifests", maxDescriptors)
	}
	for _, d := range x.Manifests {
		if err := checkDescriptor(d); err != nil {
			return nil, fmt.Errorf("decode index: %w", err)
		}
	}
	return &x.Index, nil
}

func decodeDocument(data []byte, v any) error {
	if len(data) > MaxManifestBytes {
		return fmt.Errorf("larger than %d bytes", MaxManifestBytes)
	}
	return decodeObject(data, v)
}

// decodeObject refuses what is no JSON object; "null" would decode into anything.
func decodeObject(data []byte, v any) error {
	if s := strings.TrimLeft(string(data[:min(len(data), 64)]), " \t\r\n"); !strings.HasPrefix(s, "{") {
		return errors.New("it is not a JSON object")
	}
	return json.Unmarshal(data, v)
}

// checkType compares what a document calls itself with what it was served as, and both with what is wanted.
func checkType(own, served string, wanted ...string) error {
	served, _, _ = strings.Cut(served, ";")
	for _, t := range []string{own, strings.TrimSpace(served)} {
		if t != "" && !slices.Contains(wanted, t) {
			return fmt.Errorf("media type %q", t)
		}
	}
	if own != "" && served != "" && own != strings.TrimSpace(served) {
		return fmt.Errorf("served as %q, it calls itself %q", served, own)
	}
	return nil
}

func checkDescriptor(d ocispec.Descriptor) error {
	if d.Size < 0 {
		return fmt.Errorf("descriptor %s has a negative size", d.Digest)
	}
	if err := checkDigest(d.Digest); err != nil {
		return fmt.Errorf("descriptor with digest %q: %w", d.Digest, err)
	}
	return nil
}

// checkDigest accepts what we can verify.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return err
	}
	if !d.Algorithm().Available() {
		return fmt.Errorf("algorithm %s is not available", d.Algorithm())
	}
	return nil
}
