package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/solve"
)

// Squash says which layers of the result become one.
type Squash uint8

// The values of Squash.
const (
	// SquashNone leaves every layer as it is.
	SquashNone Squash = iota
	// SquashNew makes one layer of all that the Dockerfile adds to its base image.
	SquashNew
	// SquashAll makes one layer of everything, the base image's layers included.
	SquashAll
)

// finished is an image whose layers are as they shall be.
type finished struct {
	stage  *plan.Stage
	config image.Config
	layers []solve.Layer
	files  *rootfs.Stack
}

// finish does to a result what the user wants done to whole images: it merges layers, and gives those of the base image
// another compression.
func (b *builder) finish(ctx context.Context, g *plan.Graph, r *solve.Result) (*finished, error) {
	f := &finished{stage: r.Stage, config: image.Clone(&r.Stage.Config), layers: r.Layers, files: r.Files}
	stampHistory(&f.config, g, r)
	if err := b.leaveOut(ctx, f); err != nil {
		return nil, err
	}
	if b.req.Squash != SquashNone {
		if err := b.squash(ctx, f, b.now(g)); err != nil {
			return nil, err
		}
	}
	if !b.req.ForceCompression {
		return f, nil
	}
	f.layers = slices.Clone(f.layers)
	for i, l := range f.layers {
		if c, _ := l.Compression(); !l.Base || c == b.req.layers().Compression {
			continue
		}
		var err error
		if f.layers[i], err = b.recompress(ctx, l); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func utc(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}

// squash merges the new layers of f, or all. The history keeps every entry: those of merged layers say that they
// have none, and a last one stands for the layer that was made of them, as "docker build --squash" has it.
func (b *builder) squash(ctx context.Context, f *finished, now time.Time) error {
	kept := 0
	if b.req.Squash == SquashNew {
		for kept < len(f.layers) && f.layers[kept].Base {
			kept++
		}
	}
	merged := len(f.layers) - kept
	if merged == 0 {
		return nil
	}
	made, err := b.merge(ctx, f.files, kept)
	if err != nil {
		return fmt.Errorf("merge %d layers: %w", merged, err)
	}
	f.layers = append(slices.Clone(f.layers[:kept]), made)
	for i := range f.config.History {
		h := &f.config.History[i]
		switch {
		case h.EmptyLayer:
		case kept > 0:
			kept--
		default:
			h.EmptyLayer = true
		}
	}
	f.config.History = append(f.config.History, ocispec.History{
		Created: utc(now), CreatedBy: fmt.Sprintf("merge of %d layers", merged), Comment: "hako",
	})
	return nil
}

// merge makes one layer of all but the lowest kept ones.
func (b *builder) merge(ctx context.Context, files *rootfs.Stack, kept int) (solve.Layer, error) {
	from, err := files.Lowest(kept).Tree(ctx)
	if err != nil {
		return solve.Layer{}, err
	}
	to, err := files.Tree(ctx)
	if err != nil {
		return solve.Layer{}, err
	}
	m := b.maker()
	m.opts = b.req.layers()
	return m.Make(ctx, b.changes(from, to), solve.MakeOptions{})
}

// recompress stores a layer of a base image with the compression of the new layers.
func (b *builder) recompress(ctx context.Context, l solve.Layer) (_ solve.Layer, err error) {
	blob, err := l.Blob(ctx)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, blob.Close()) }()
	w, err := b.store.CreateHashed(ctx)
	if err != nil {
		return l, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if l.Descriptor, err = layer.Recompress(ctx, blob, l.Descriptor, w, b.req.layers()); err != nil {
		return l, err
	}
	_, _, err = w.Commit(l.Digest)
	l.Blob, l.Repositories = nil, nil
	return l, err
}
