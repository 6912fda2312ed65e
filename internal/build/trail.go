package build

import (
	"context"
	"fmt"
	"strings"

	"github.com/opencontainers/go-digest"

	"hako/internal/cache"
	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/registry"
	"hako/internal/solve"
	"hako/internal/trail"
)

// trailKey names the note of what builds like this one are made of: of the same Dockerfile, target and platforms, for the same
// repository. Later builds look for what has changed in it.
func (b *builder) trailKey() cache.Key {
	repository := ""
	if len(b.req.Outputs.Destinations) > 0 {
		if ref, err := registry.ParseReference(b.req.Outputs.Destinations[0]); err == nil {
			repository = ref.Context().Name()
		}
	}
	text := fmt.Sprintf("hako trail 1 %q %q %q %q", repository, b.context.DockerfileName, b.req.Target, b.req.Platforms)
	return cache.Key(digest.FromString(text).Encoded())
}

// followTrails makes the solver leave a trail, and explain what has changed since the last one if that is wanted. A build
// that takes everything from the cache reads and writes none.
func (b *builder) followTrails(ctx context.Context, p *solve.Parts) {
	if b.cache == nil {
		if b.req.Cache.Explain {
			b.env.Events.Emit(event.Warning{Message: "--explain-cache has nothing to say: there is no cache; give --cache"})
		}
		return
	}
	if !b.req.Cache.ReadOnly {
		p.Trailed = b.leaveTrail
	}
	if !b.req.Cache.Explain {
		return
	}
	p.Explain = true
	f := b.cache.Get(ctx, b.trailKey())
	if f == nil {
		b.env.Events.Emit(event.Info{Message: "the cache knows no earlier build of this Dockerfile: there is nothing to compare with"})
		return
	}
	l, err := f.Listing(ctx)
	if err == nil {
		p.Before, err = trail.Decode(l.Small)
	}
	if err != nil {
		b.env.Events.Emit(event.Warning{Message: fmt.Sprintf("what the last build was made of cannot be read: %v", err)})
	}
}

// leaveTrail keeps what a build was made of.
func (b *builder) leaveTrail(t *trail.Trail) {
	files, err := t.Encode()
	if err != nil {
		b.env.Events.Emit(event.Debug{Message: err.Error()})
		return
	}
	b.cache.Put(&cache.Record{
		Keys: []cache.Key{b.trailKey()}, Created: b.env.Now(), Image: b.imageName(), Layer: layer.Descriptor{DiffID: digest.FromBytes(files["trail"])},
		What: shorten("what a build was made of, for --explain-cache: " + strings.TrimSpace(b.context.DockerfileName+" "+b.req.Target)),
	}, &cache.Listing{Index: &layer.Index{}, Small: files}, nil)
}
