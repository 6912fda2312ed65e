package imagesource

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/image"
	"hako/internal/registry"
)

const (
	// maxNesting is how deep indexes may lie in indexes.
	maxNesting = 3
	// maxProbes is how many manifests without a platform in the index are looked into.
	maxProbes = 16
)

// query is one search for an image for a platform.
type query struct {
	source *Source
	// place is where the image lies, under identifier, a tag or a digest; name is the whole for people.
	place            place
	name, identifier string
	want             ocispec.Platform
	probes           int
	// top is what identifier stands for, indexes are those that were looked into.
	top     digest.Digest
	indexes []*registry.Manifest
}

// found is an image in a registry.
type found struct {
	digest    digest.Digest
	mediaType string
	platform  ocispec.Platform
	config    *image.Config
	layers    []foundLayer
	// manifest is the document that says so.
	manifest *registry.Manifest
	// top is what was asked for, indexes are those on the way.
	top     digest.Digest
	indexes []*registry.Manifest
}

// candidate is a manifest of an index that may be what we want.
type candidate struct {
	platform ocispec.Platform
	load     func(ctx context.Context) (*found, error)
}

// run finds the image.
func (q *query) run(ctx context.Context) (*found, error) {
	f, err := q.find(ctx)
	if err != nil {
		return nil, err
	}
	f.top, f.indexes = q.top, q.indexes
	return f, nil
}

// find finds the image. One that is not behind an index must be for the platform by its own words.
func (q *query) find(ctx context.Context) (*found, error) {
	if q.want.OS != "linux" {
		return nil, q.fail("only images for linux can be used, not for "+image.FormatPlatform(q.want), "Ask for a linux platform.")
	}
	m, err := q.source.manifest(ctx, q.place, q.identifier)
	if err != nil {
		return nil, err
	}
	doc, err := decodeDocument(m)
	if err != nil {
		return nil, q.bad(m, err)
	}
	q.top = m.Digest
	if doc.index == nil {
		f, err := q.load(ctx, m, doc)
		if err != nil {
			return nil, err
		}
		// An image that is there for one platform only is taken whatever that is, as BuildKit and kaniko do:
		// many have a wrong one. The plan warns (InvalidBaseImagePlatform).
		if f.platform.OS != "linux" {
			return nil, q.mismatch([]ocispec.Platform{f.platform})
		}
		return f, nil
	}
	q.indexes = append(q.indexes, m)
	candidates, err := q.candidates(ctx, doc.index.Manifests, 1)
	if err != nil {
		return nil, err
	}
	var have []ocispec.Platform
	for _, c := range candidates {
		have = append(have, c.platform)
	}
	best := image.SelectPlatform(q.want, have)
	if best < 0 {
		return nil, q.mismatch(have)
	}
	return candidates[best].load(ctx)
}

// candidates lists the images in an index. What is no image (attestations, artifacts) is left out.
func (q *query) candidates(ctx context.Context, index []ocispec.Descriptor, depth int) ([]candidate, error) {
	var out []candidate
	for _, d := range index {
		if !isImage(d) {
			continue
		}
		if d.Platform != nil && d.Platform.OS != "" && !isIndexType(d.MediaType) {
			p := image.Normalize(*d.Platform)
			out = append(out, candidate{p, func(ctx context.Context) (*found, error) { return q.loadPlatform(ctx, d, p) }})
			continue
		}
		more, err := q.probe(ctx, d, depth)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	return out, nil
}

// probe looks into a manifest or an index that the index above says no platform of.
func (q *query) probe(ctx context.Context, d ocispec.Descriptor, depth int) ([]candidate, error) {
	if q.probes++; q.probes > maxProbes {
		return nil, q.fail(fmt.Sprintf("its index has more than %d entries without a platform", maxProbes), "")
	}
	m, doc, err := q.fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	if doc.index != nil {
		if depth == maxNesting {
			return nil, q.fail(fmt.Sprintf("its indexes are nested more than %d deep", maxNesting), "")
		}
		q.indexes = append(q.indexes, m)
		return q.candidates(ctx, doc.index.Manifests, depth+1)
	}
	f, err := q.load(ctx, m, doc)
	if err != nil {
		return nil, err
	}
	return []candidate{{f.platform, func(context.Context) (*found, error) { return f, nil }}}, nil
}

// fetch gets what a descriptor of an index names.
func (q *query) fetch(ctx context.Context, d ocispec.Descriptor) (*registry.Manifest, *document, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, nil, q.fail(fmt.Sprintf("its index has a bad digest %q", string(d.Digest)), "")
	}
	m, err := q.source.manifest(ctx, q.place, d.Digest.String())
	if err != nil {
		return nil, nil, err
	}
	doc, err := decodeDocument(m)
	if err != nil {
		return nil, nil, q.bad(m, err)
	}
	return m, doc, nil
}

// loadPlatform loads the manifest that an index names for the platform p.
func (q *query) loadPlatform(ctx context.Context, d ocispec.Descriptor, p ocispec.Platform) (*found, error) {
	m, doc, err := q.fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	if doc.index != nil {
		return nil, q.bad(m, fmt.Errorf("it is an index where a manifest for %s should be", image.FormatPlatform(p)))
	}
	f, err := q.load(ctx, m, doc)
	if err != nil {
		return nil, err
	}
	f.platform = p
	return f, nil
}

// load fetches the configuration of a manifest. The platform is what that says.
func (q *query) load(ctx context.Context, m *registry.Manifest, doc *document) (*found, error) {
	data, err := q.place.Config(ctx, doc.manifest.Config)
	if err != nil {
		return nil, err
	}
	config, err := image.DecodeConfig(data)
	if err != nil {
		return nil, q.bad(m, err)
	}
	layers, err := pairLayers(doc.manifest.Layers, config.RootFS.DiffIDs)
	if err != nil {
		return nil, q.bad(m, err)
	}
	platform := config.Platform
	if platform.OS == "" && platform.Architecture == "" {
		platform = q.want // made by a tool that does not say; BuildKit takes it for what was asked, too
	}
	return &found{digest: m.Digest, mediaType: doc.mediaType, platform: image.Normalize(platform), config: config, layers: layers, manifest: m}, nil
}

// isImage says whether an entry of an index can be an image.
func isImage(d ocispec.Descriptor) bool {
	if d.Annotations["vnd.docker.reference.type"] != "" { // BuildKit: attestations
		return false
	}
	// The type of an artifact is that of its configuration where nothing else is said (OCI image-spec, descriptor.md),
	// so an index may say it of images, too.
	if t := d.ArtifactType; t != "" && t != ocispec.MediaTypeImageConfig && t != registry.DockerConfig {
		return false
	}
	if p := d.Platform; p != nil && p.OS == "unknown" {
		return false
	}
	return d.MediaType == "" || isIndexType(d.MediaType) || isManifestType(d.MediaType)
}

func (q *query) fail(why, hint string) error {
	return &diag.Error{What: fmt.Sprintf("use image %s: %s", q.name, why), Hint: hint}
}

func (q *query) bad(m *registry.Manifest, err error) error {
	return &diag.Error{What: fmt.Sprintf("use image %s (manifest %s)", q.name, m.Digest), Cause: err}
}

// mismatch says that there are only images for other platforms.
func (q *query) mismatch(have []ocispec.Platform) error {
	want := image.FormatPlatform(q.want)
	var names []string
	windows := len(have) > 0
	for _, p := range have {
		names = append(names, image.FormatPlatform(p))
		windows = windows && p.OS == "windows"
	}
	slices.Sort(names)
	names = slices.Compact(names)
	switch {
	case len(names) == 0:
		return q.fail("its index has no image", "Check the image's name and tag.")
	case windows:
		return q.fail("it is for windows, but "+want+" is wanted", "Use an image for linux.")
	}
	if more := len(names) - 20; more > 0 {
		names = append(names[:20], fmt.Sprintf("%d more", more))
	}
	return q.fail(
		fmt.Sprintf("it is for another platform (%s), but %s is wanted", strings.Join(names, ", "), want),
		"Use another image, or choose its platform with --custom-platform or FROM --platform.")
}
