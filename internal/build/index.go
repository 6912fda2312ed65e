package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/attest"
	"hako/internal/blob"
	"hako/internal/diag"
	"hako/internal/image"
	"hako/internal/output"
	"hako/internal/registry"
	"hako/internal/workdir"
)

// IndexRequest says which images, each built somewhere for a platform, become one.
type IndexRequest struct {
	// Images are references of images, or of indexes with images and their attestations, in the order that the index has.
	Images []string
	// Platforms, if not empty, are those that Images must be for, one by one.
	Platforms []string
	Outputs   Outputs
	Registry  Registry
	// Format and Annotations are as in Request; annotations of manifests are those that the images were built with.
	Format      string
	Annotations image.Annotations
	Signing     Signing
	// Epoch, if not nil, is the time of signatures.
	Epoch *time.Time
	// WorkDir is as in Request.
	WorkDir string
}

// ParseEpoch reads the seconds since 1970 of SOURCE_DATE_EPOCH, for an IndexRequest; empty is no time.
func ParseEpoch(text string) (*time.Time, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // no epoch is an answer
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, &diag.Error{
			What: fmt.Sprintf("SOURCE_DATE_EPOCH %q is no number of seconds", text),
			Hint: "Give seconds since 1970, as those of the last commit: git log -1 --format=%ct.",
		}
	}
	t := time.Unix(n, 0).UTC()
	return &t, nil
}

// Index makes one index over images that are in registries, and pushes it with all that it names: byte by byte what Build
// makes for all their platforms at once. What a user can mend is a *diag.Error.
func Index(ctx context.Context, env Env, req IndexRequest) (_ *Result, err error) {
	b := indexBuilder(ctx, env, req)
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.checkIndex(ctx); err != nil {
		return nil, err
	}
	parts, err := b.fetchParts(ctx, req)
	if err != nil {
		return nil, err
	}
	made, err := b.join(parts, req.Epoch)
	if err != nil {
		return nil, err
	}
	if err := b.output.Write(ctx, made); err != nil {
		return nil, err
	}
	pushed := slices.Concat(req.Outputs.Destinations, req.Outputs.Repositories)
	return &Result{Digest: made.Digest(), Descriptor: made.Descriptor(), Destinations: slices.DeleteFunc(pushed, b.output.Kept)}, nil
}

// CheckIndex finds what would keep Index from making an index of images that do not exist yet: a key that cannot be read, a
// destination that refuses. What a user can mend is a *diag.Error.
func CheckIndex(ctx context.Context, env Env, req IndexRequest) (err error) {
	b := indexBuilder(ctx, env, req)
	defer func() { err = errors.Join(err, b.close()) }()
	return b.checkIndex(ctx)
}

// indexBuilder is a builder for an index. The caller closes it.
func indexBuilder(ctx context.Context, env Env, req IndexRequest) *builder {
	return newBuilder(ctx, env, Request{
		Outputs: req.Outputs, Registry: req.Registry, WorkDir: req.WorkDir, Format: req.Format, Annotations: req.Annotations, Signing: req.Signing,
	})
}

// checkIndex opens what an index needs, and asks every destination whether it would take one.
func (b *builder) checkIndex(ctx context.Context) error {
	if err := errors.Join(b.req.validateFormat(), b.req.validateSigning()); err != nil {
		return err
	}
	if len(b.req.Outputs.Destinations)+len(b.req.Outputs.Repositories) == 0 {
		return &diag.Error{What: "make an index: there is no destination", Hint: "Give at least one --destination."}
	}
	if err := b.openForIndex(); err != nil {
		return err
	}
	return b.output.Check(ctx)
}

// openForIndex opens what reads and writes images.
func (b *builder) openForIndex() (err error) {
	if err := b.openKey(); err != nil {
		return err
	}
	if b.dir, err = workdir.Open(workdir.Options{Explicit: b.req.WorkDir, Candidates: b.places()}); err != nil {
		return err
	}
	b.closers = append(b.closers, b.dir.Close)
	if b.store, err = blob.New(b.dir); err != nil {
		return err
	}
	b.closers = append(b.closers, b.store.Close)
	if err := b.openClient(); err != nil {
		return err
	}
	return b.openOutput()
}

// indexPart is an image in a registry, and what is stated about it.
type indexPart struct {
	image output.Image
	// extra is the manifest of statements, nil if there is none; claims are what it states.
	extra  *output.Image
	claims []claim
}

// fetchParts reads the images, in their order.
func (b *builder) fetchParts(ctx context.Context, req IndexRequest) ([]*indexPart, error) {
	if len(req.Images) == 0 {
		return nil, &diag.Error{What: "make an index: there is no image", Hint: "Name the images of the platforms, as REPOSITORY@sha256:…."}
	}
	lists := make([][]*indexPart, len(req.Images))
	g, gctx := errgroup.WithContext(ctx)
	for i, ref := range req.Images {
		g.Go(func() (err error) {
			lists[i], err = b.fetchPart(gctx, ref)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(lists...), checkParts(lists, req)
}

// checkParts refuses platforms that come twice, and others than those that were asked for.
func checkParts(lists [][]*indexPart, req IndexRequest) error {
	seen := map[string]string{}
	for i, list := range lists {
		for _, p := range list {
			platform := image.FormatPlatform(*p.image.Manifest.Platform)
			if other, ok := seen[platform]; ok {
				return &diag.Error{
					What: fmt.Sprintf("make an index: %s and %s are both for %s", other, req.Images[i], platform),
					Hint: "Name one image for each platform.",
				}
			}
			seen[platform] = req.Images[i]
			if len(req.Platforms) == 0 {
				continue
			}
			want, err := image.ParsePlatform(req.Platforms[i])
			if err != nil {
				return err
			}
			if name := image.FormatPlatform(image.Normalize(want)); name != image.FormatPlatform(image.Normalize(*p.image.Manifest.Platform)) {
				return fmt.Errorf("make an index: %s is for %s, not for %s", req.Images[i], platform, name)
			}
		}
	}
	return nil
}

// fetchPart reads an image, or the images and statements of an index.
func (b *builder) fetchPart(ctx context.Context, reference string) ([]*indexPart, error) {
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return nil, err
	}
	from := b.client.Repository(ref.Context(), registry.Pull)
	m, err := from.Manifest(ctx, ref.Identifier())
	if err != nil {
		return nil, err
	}
	source := partSource{from, ref.Context().Name()}
	x, err := image.DecodeIndex(m.Data, m.MediaType)
	if err != nil { // then it is a manifest, or nothing
		p, err := source.image(ctx, m)
		if err != nil {
			return nil, fmt.Errorf("read the image %s: %w", reference, err)
		}
		return []*indexPart{p}, nil
	}
	parts, err := source.index(ctx, x)
	if err != nil {
		return nil, fmt.Errorf("read the index %s: %w", reference, err)
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("make an index: %s has no image", reference)
	}
	return parts, nil
}

// partSource is a repository that images are read from.
type partSource struct {
	repository *registry.Repository
	name       string
}

// index reads the images of an index, each with what is stated about it.
func (s partSource) index(ctx context.Context, x *ocispec.Index) ([]*indexPart, error) {
	var out []*indexPart
	for _, d := range x.Manifests {
		if attest.Target(d) != "" {
			continue
		}
		m, err := s.repository.Manifest(ctx, d.Digest.String())
		if err != nil {
			return nil, err
		}
		p, err := s.image(ctx, m)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	for _, d := range x.Manifests {
		i := slices.IndexFunc(out, func(p *indexPart) bool { return p.image.Manifest.Digest == attest.Target(d) })
		if i < 0 {
			continue
		}
		if out[i].extra != nil {
			return nil, fmt.Errorf("image %s has statements twice", out[i].image.Manifest.Digest)
		}
		if err := s.statements(ctx, out[i], d); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// image reads a manifest and the configuration.
func (s partSource) image(ctx context.Context, m *registry.Manifest) (*indexPart, error) {
	manifest, err := image.DecodeManifest(m.Data, m.MediaType)
	if err != nil {
		return nil, err
	}
	data, err := s.repository.Config(ctx, manifest.Config)
	if err != nil {
		return nil, err
	}
	config, err := image.DecodeConfig(data)
	if err != nil {
		return nil, err
	}
	if config.OS == "" || config.Architecture == "" {
		return nil, errors.New("its configuration names no platform")
	}
	platform := config.Platform
	mediaType := firstOf(manifest.MediaType, m.MediaType)
	out := &indexPart{image: output.Image{
		Manifest:     ocispec.Descriptor{MediaType: mediaType, Digest: m.Digest, Size: int64(len(m.Data)), Platform: &platform},
		ManifestData: m.Data, Config: manifest.Config, ConfigData: data,
	}}
	for _, l := range manifest.Layers {
		out.image.Layers = append(out.image.Layers, s.layer(l))
	}
	return out, nil
}

// layer is a blob of the repository.
func (s partSource) layer(d ocispec.Descriptor) output.Layer {
	return output.Layer{Descriptor: d, From: []string{s.name}, Open: func(ctx context.Context) (io.ReadCloser, error) { return s.repository.Blob(ctx, d) }}
}

// statements reads the manifest d of statements about p.
func (s partSource) statements(ctx context.Context, p *indexPart, d ocispec.Descriptor) error {
	m, err := s.repository.Manifest(ctx, d.Digest.String())
	if err != nil {
		return err
	}
	manifest, err := image.DecodeManifest(m.Data, m.MediaType)
	if err != nil {
		return err
	}
	data := manifest.Config.Data
	if len(data) == 0 {
		if data, err = s.repository.Config(ctx, manifest.Config); err != nil {
			return err
		}
	}
	p.extra = &output.Image{Manifest: d, ManifestData: m.Data, Config: manifest.Config, ConfigData: data}
	for _, l := range manifest.Layers {
		if l.Size > attest.MaxStatement {
			return fmt.Errorf("statement %s has more than %d bytes", l.Digest, attest.MaxStatement)
		}
		text, err := s.read(ctx, l)
		if err != nil {
			return err
		}
		predicate, err := attest.ParseStatement(text)
		if err != nil {
			return fmt.Errorf("statement %s: %w", l.Digest, err)
		}
		p.claims = append(p.claims, claim{Predicate: predicate})
		p.extra.Layers = append(p.extra.Layers, output.Layer{Descriptor: l, From: []string{s.name}, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(text)), nil
		}})
	}
	return nil
}

// read reads a blob whole.
func (s partSource) read(ctx context.Context, d ocispec.Descriptor) (_ []byte, err error) {
	rc, err := s.repository.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	return io.ReadAll(rc)
}

// join makes one result of the parts.
func (b *builder) join(parts []*indexPart, epoch *time.Time) (*output.Result, error) {
	format, err := b.indexFormat(parts)
	if err != nil {
		return nil, err
	}
	out := &output.Result{Time: epoch}
	var statements []signed
	for _, p := range parts {
		if err := p.convert(format); err != nil {
			return nil, err
		}
		p.image.Manifest.Annotations = b.req.Annotations.On(image.OnManifestDescriptor, *p.image.Manifest.Platform)
		out.Images = append(out.Images, p.image)
		if p.extra != nil {
			out.Extra = append(out.Extra, *p.extra)
		}
		about := attest.Subjects{References: b.req.names(), Platform: *p.image.Manifest.Platform, Digest: p.image.Manifest.Digest}
		statements = append(statements, signed{about, p.claims})
	}
	if err := b.indexOver(out, format); err != nil {
		return nil, err
	}
	created := b.env.Now()
	if epoch != nil {
		created = *epoch
	}
	return out, b.sign(out, statements, created)
}

// indexFormat is what the user asked for, else OCI's if anything needs it, as in a build for several platforms.
func (b *builder) indexFormat(parts []*indexPart) (image.Format, error) {
	if b.req.Format != "" {
		return image.ParseFormat(b.req.Format)
	}
	format := image.Docker
	if len(b.req.Annotations) > 0 {
		format = image.OCI
	}
	for _, p := range parts {
		format = max(format, image.FormatOf(p.image.Manifest.MediaType))
	}
	return format, nil
}

// convert gives the image the media types of format. One with statements keeps its own: they name its digest.
func (p *indexPart) convert(format image.Format) error {
	im := &p.image
	if image.FormatOf(im.Manifest.MediaType) == format {
		return nil
	}
	if p.extra != nil {
		return fmt.Errorf("image %s: its format cannot change, there are statements about it", im.Manifest.Digest)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(im.ManifestData, &m); err != nil {
		return fmt.Errorf("read manifest %s: %w", im.Manifest.Digest, err)
	}
	made, err := image.Reformat(&m, format)
	if err != nil {
		return fmt.Errorf("image %s: %w", im.Manifest.Digest, err)
	}
	platform := im.Manifest.Platform
	im.Manifest, im.ManifestData, im.Config = made.ManifestDescriptor, made.Manifest, made.ConfigDescriptor
	im.Manifest.Platform = platform
	for i := range im.Layers {
		im.Layers[i].MediaType = made.Layers[i].MediaType
	}
	return nil
}
