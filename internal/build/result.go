package build

import (
	"context"
	"io"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/plan"
	"hako/internal/solve"
	"hako/internal/tree"
)

// assemble makes the images of what was solved for each graph, and an index over them if there has to be one.
func (b *builder) assemble(ctx context.Context, graphs []*plan.Graph, solved []*solve.Result) (*output.Result, error) {
	done := make([]*finished, len(solved))
	for i, r := range solved {
		var err error
		if done[i], err = b.finish(ctx, graphs[i], r); err != nil {
			return nil, err
		}
	}
	format, err := b.req.format(done)
	if err != nil {
		return nil, err
	}
	out := &output.Result{Time: graphs[0].Created}
	var statements []signed
	for i, f := range done {
		im, err := b.image(graphs[i], f, format)
		if err != nil {
			return nil, err
		}
		if b.req.Attestations.any() {
			m, s, err := b.attest(ctx, subject{graphs[i], solved[i], f, im})
			if err != nil {
				return nil, err
			}
			out.Extra, statements = append(out.Extra, *m), append(statements, s)
		}
		out.Images = append(out.Images, *im)
	}
	if err := b.index(out, format); err != nil {
		return nil, err
	}
	return out, b.sign(out, statements, b.now(graphs[0]))
}

// index adds an index over the images and what belongs to them, if there has to be one.
func (b *builder) index(out *output.Result, format image.Format) error {
	needed, err := b.req.hasIndex()
	if err != nil || !needed {
		return err
	}
	return b.indexOver(out, format)
}

// indexOver adds the index.
func (b *builder) indexOver(out *output.Result, format image.Format) error {
	var manifests []ocispec.Descriptor
	for _, im := range slices.Concat(out.Images, out.Extra) {
		manifests = append(manifests, im.Manifest)
	}
	made, err := image.AssembleIndex(format, manifests, b.req.Annotations)
	if err != nil {
		return err
	}
	out.Index, out.IndexData = made.Descriptor, made.Data
	return nil
}

// image makes the image of one platform.
func (b *builder) image(g *plan.Graph, f *finished, format image.Format) (*output.Image, error) {
	descriptors := make([]layer.Descriptor, len(f.layers))
	for i, l := range f.layers {
		descriptors[i] = l.Descriptor
	}
	made, err := image.Assemble(&f.config, descriptors, image.Metadata{
		Format: format, Created: b.created(g, &f.config), Timeless: b.timeless(g), Annotations: b.req.Annotations,
	})
	if err != nil {
		return nil, err
	}
	out := &output.Image{
		Manifest: made.ManifestDescriptor, ManifestData: made.Manifest,
		Config: made.ConfigDescriptor, ConfigData: made.Config,
		Files: func(ctx context.Context) (tree.Tree, error) { return f.files.Tree(ctx) },
	}
	for i, l := range f.layers {
		l.Descriptor = made.Layers[i]
		out.Layers = append(out.Layers, b.blob(l))
	}
	return out, nil
}

// format is what the user asked for; else OCI's if anything needs it; else that of the base image, as with kaniko.
// The images of several platforms have one format.
func (r *Request) format(images []*finished) (image.Format, error) {
	if r.Format != "" {
		return image.ParseFormat(r.Format)
	}
	oci := func(e output.Export) bool { return e.Kind == output.OCI }
	if len(r.Annotations) > 0 || r.Attestations.any() || slices.ContainsFunc(r.Outputs.Exports, oci) {
		return image.OCI, nil
	}
	format := image.Docker
	for _, f := range images {
		format = max(format, f.format())
	}
	return format, nil
}

// format is that of the base image, unless a layer has no place in it.
func (f *finished) format() image.Format {
	format := image.Docker
	st := f.stage
	for st.Base.Stage != nil {
		st = st.Base.Stage
	}
	if st.Base.Image != nil {
		format = image.FormatOf(st.Base.Image.MediaType)
	}
	if slices.ContainsFunc(f.layers, func(l solve.Layer) bool { return !format.Holds(l.MediaType) }) {
		return image.OCI
	}
	return format
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
