package build

import (
	"context"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"hako/internal/solve"
)

// atOnce is how many layers are secured at the same time: each may be on its way from a registry, and needs memory for that.
const atOnce = 8

// secure makes sure that everything the cache gave for the results is there for good before any of them is written: an output
// that has begun cannot be taken back. What is missing is an error that Is [blob.ErrLost].
func (b *builder) secure(ctx context.Context, solved []*solve.Result) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, r := range solved {
		r.Layers = slices.Clone(r.Layers) // states share them
		for i := range r.Layers {
			if l := &r.Layers[i]; l.Blob != nil && !l.Base {
				g.Go(func() error { return b.secureLayer(ctx, l) })
			}
		}
	}
	return g.Wait()
}

func (b *builder) secureLayer(ctx context.Context, l *solve.Layer) error {
	o := &b.req.Outputs
	if b.req.readsResult() {
		if _, err := l.Source.Open(ctx); err != nil {
			return err
		}
	}
	if b.req.Squash != SquashNone {
		return nil
	}
	if o.TarPath != "" || o.OCILayoutPath != "" || slices.ContainsFunc(o.Exports, hasBlobs) {
		if err := b.fetch(ctx, l); err != nil {
			return err
		}
	}
	return b.output.Secure(ctx, b.blob(*l))
}

// fetch stores a layer's blob here.
func (b *builder) fetch(ctx context.Context, l *solve.Layer) (err error) {
	if !b.store.Has(l.Digest) {
		if err := b.store.Add(ctx, l.Digest, l.Blob); err != nil {
			return err
		}
	}
	l.Blob = func(context.Context) (io.ReadCloser, error) { return b.store.Open(l.Digest) }
	return nil
}
