package build

import (
	"context"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/imagesource"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/solve"
)

// assemble makes the images of what was solved for each graph, and an index over them if there has to be one.
func (b *builder) assemble(graphs []*plan.Graph, solved []*solve.Result) (*output.Result, error) {
	format := image.Docker
	for _, r := range solved {
		format = max(format, formatOf(r))
	}
	out := &output.Result{}
	for i, r := range solved {
		im, err := b.image(graphs[i], r, format)
		if err != nil {
			return nil, err
		}
		out.Images = append(out.Images, *im)
	}
	multi, err := b.req.multiPlatform()
	if err != nil || !multi && len(out.Extra) == 0 {
		return out, err
	}
	var manifests []ocispec.Descriptor
	for _, im := range slices.Concat(out.Images, out.Extra) {
		manifests = append(manifests, im.Manifest)
	}
	index, err := image.AssembleIndex(format, manifests, nil)
	if err != nil {
		return nil, err
	}
	out.Index, out.IndexData = index.Descriptor, index.Data
	return out, nil
}

// image makes the image of one platform.
func (b *builder) image(g *plan.Graph, r *solve.Result, format image.Format) (*output.Image, error) {
	config := image.Clone(&r.Stage.Config)
	for i, t := range r.Created {
		if h := &config.History[i]; h.Created == nil {
			utc := t.UTC()
			h.Created = &utc
		}
	}
	descriptors := make([]layer.Descriptor, len(r.Layers))
	for i, l := range r.Layers {
		descriptors[i] = l.Descriptor
	}
	created := b.env.Now()
	if g.Created != nil {
		created = *g.Created
	}
	made, err := image.Assemble(&config, descriptors, image.Metadata{Format: format, Created: created})
	if err != nil {
		return nil, err
	}
	out := &output.Image{
		Manifest: made.ManifestDescriptor, ManifestData: made.Manifest,
		Config: made.ConfigDescriptor, ConfigData: made.Config,
	}
	for i, l := range r.Layers {
		l.Descriptor = made.Layers[i]
		out.Layers = append(out.Layers, b.blob(l))
	}
	return out, nil
}

// formatOf is the format of the base image, as with kaniko, unless a layer has no place in it.
// The images of several platforms take one format: OCI's if any needs it.
func formatOf(r *solve.Result) image.Format {
	f := image.Docker
	st := r.Stage
	for st.Base.Stage != nil {
		st = st.Base.Stage
	}
	if st.Base.Image != nil {
		f = image.FormatOf(st.Base.Image.MediaType)
	}
	if slices.ContainsFunc(r.Layers, func(l solve.Layer) bool { return !f.Holds(l.MediaType) }) {
		return image.OCI
	}
	return f
}

// blob is a layer as the output sends it.
func (b *builder) blob(l solve.Layer) output.Layer {
	out := output.Layer{Descriptor: ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}}
	if l.Blob != nil {
		out.Open, out.From = l.Blob, l.Repositories
		return out
	}
	out.Open = func(context.Context) (io.ReadCloser, error) { return b.store.Open(l.Digest) }
	return out
}

// sources are the base images of a build, for the solver.
type sources struct{ *imagesource.Source }

var _ solve.Bases = sources{}

// Layers implements [solve.Bases].
func (s sources) Layers(ctx context.Context, ref *plan.ImageRef) ([]solve.Layer, error) {
	layers, err := s.Source.Layers(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := make([]solve.Layer, len(layers))
	for i, l := range layers {
		out[i] = solve.Layer{
			Descriptor: l.Descriptor, Source: rootfs.Source{DiffID: l.DiffID, Open: l.Open},
			Blob: l.Blob, Repositories: []string{l.Repository},
		}
	}
	return out, nil
}
