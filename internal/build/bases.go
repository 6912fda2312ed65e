package build

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"hako/internal/imagesource"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/plan"
	"hako/internal/registry"
	"hako/internal/rootfs"
	"hako/internal/solve"
)

// bases are the base images of a build, for the solver.
type bases struct {
	*imagesource.Source
	// fetched is called for each layer once it is open or listed.
	fetched func(solve.Layer)
	cache   *stepCache // may be nil
}

var _ solve.Bases = (*bases)(nil)

// Layers implements [solve.Bases].
func (s *bases) Layers(ctx context.Context, ref *plan.ImageRef, unpacked bool) ([]solve.Layer, error) {
	layers, err := s.Source.Layers(ctx, ref)
	if err != nil {
		return nil, err
	}
	out := make([]solve.Layer, len(layers))
	for i, l := range layers {
		out[i] = solve.Layer{Descriptor: l.Descriptor, Base: true, Blob: l.Blob, Repositories: repositories(l.Repository)}
		src := rootfs.Source{DiffID: l.DiffID, Open: s.then(l.Open, out[i])}
		if !unpacked {
			src.List = s.then(l.List, out[i])
		}
		if s.cache != nil {
			src = s.cache.listed(src)
		}
		out[i].Source = src
	}
	return out, nil
}

// then is open, and after that fetched for l.
func (s *bases) then(open func(context.Context) (*layer.Image, error), l solve.Layer) func(context.Context) (*layer.Image, error) {
	return func(ctx context.Context) (*layer.Image, error) {
		im, err := open(ctx)
		if err == nil {
			s.fetched(l)
		}
		return im, err
	}
}

// repositories are where a layer lies; none if it is in no registry.
func repositories(name string) []string {
	if name == "" {
		return nil
	}
	return []string{name}
}

// noteBases notes which layers of base images are going to be in a result. It is called before anything is fetched.
func (b *builder) noteBases(ctx context.Context, graphs []*plan.Graph) error {
	for _, g := range graphs {
		st := g.Target
		for st.Base.Stage != nil {
			st = st.Base.Stage
		}
		if st.Base.Image == nil {
			continue
		}
		layers, err := b.bases.Layers(ctx, st.Base.Image)
		if err != nil {
			return err
		}
		for _, l := range layers {
			b.inResult[l.Digest] = true
		}
	}
	return nil
}

// keeps says whether the blob of a base image's layer is worth a place in the store. Most are not: they are pushed to
// the registry that they came from, which has them, or they are not in the result.
func (b *builder) keeps(l imagesource.Layer) bool {
	o := &b.req.Outputs
	switch {
	case !b.inResult[l.Digest] || l.Repository == "":
		return false
	case b.req.ForceCompression || o.TarPath != "" || o.OCILayoutPath != "" || slices.ContainsFunc(o.Exports, hasBlobs):
		return true
	case o.NoPush:
		return false
	}
	from, err := registry.ParseReference(l.Repository)
	if err != nil {
		return true
	}
	return slices.ContainsFunc(slices.Concat(o.Destinations, o.Repositories), func(to string) bool {
		ref, err := registry.ParseReference(to)
		return err == nil && ref.Context().RegistryStr() != from.Context().RegistryStr()
	})
}

// shares says whether the blob of a base image's layer goes to more than one place that does not have it.
func (b *builder) shares(l imagesource.Layer) bool {
	if !b.inResult[l.Digest] || l.Repository == "" {
		return false // not needed, or not from a registry
	}
	o := &b.req.Outputs
	places := map[string]bool{"tar": o.TarPath != "", "layout": o.OCILayoutPath != ""}
	for i, e := range o.Exports {
		places[fmt.Sprint("export ", i)] = hasBlobs(e)
	}
	for _, to := range slices.Concat(o.Destinations, o.Repositories) {
		if ref, err := registry.ParseReference(to); err == nil && !o.NoPush {
			places["registry "+ref.Context().RegistryStr()] = true
		}
	}
	if from, err := registry.ParseReference(l.Repository); err == nil {
		delete(places, "registry "+from.Context().RegistryStr())
	}
	maps.DeleteFunc(places, func(_ string, reads bool) bool { return !reads })
	return len(places) > 1
}

func hasBlobs(e output.Export) bool { return e.Kind == output.OCI || e.Kind == output.Docker }

// readsResult says whether the files of the result are read, and not only its layers sent somewhere.
func (r *Request) readsResult() bool {
	return r.Squash != SquashNone || r.Attestations.SBOM || slices.ContainsFunc(r.Outputs.Exports, func(e output.Export) bool { return !hasBlobs(e) })
}

// ahead sends a layer of a base image to where the result goes, as soon as it has been fetched.
func (b *builder) ahead(l solve.Layer) {
	if b.inResult[l.Digest] && b.req.Squash == SquashNone && !b.req.ForceCompression {
		b.output.Upload(b.blob(l))
	}
}
