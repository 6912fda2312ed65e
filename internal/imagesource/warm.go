package imagesource

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/event"
	"hako/internal/imagedir"
	"hako/internal/plan"
	"hako/internal/registry"
)

// Store puts an image that Resolve returned into a directory, unless it is there and force does not say to write it anyway.
func (s *Source) Store(ctx context.Context, ref *plan.ImageRef, dir *imagedir.Dir, force bool) (imagedir.Outcome, error) {
	r, err := s.lookUp(ref)
	if err != nil {
		return 0, err
	}
	f := &imagedir.Fetched{
		Name: ref.Ref, Top: r.found.top, Platform: r.found.platform,
		Manifest: written(r.found.manifest),
		Blob: func(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
			rc, err := r.place.Blob(ctx, want)
			if err != nil {
				return nil, err
			}
			return &counted{event.NewCounter(rc, s.options.Events, event.Progress{
				ID: "pull " + want.Digest.String(), What: "pull " + ref.Ref + " " + want.Digest.String(), Total: want.Size,
			}), rc}, nil
		},
	}
	f.Manifest.MediaType = r.found.mediaType
	for _, ix := range r.found.indexes {
		f.Indexes = append(f.Indexes, written(ix))
	}
	return dir.Store(ctx, f, force)
}

func written(m *registry.Manifest) *imagedir.Document {
	return &imagedir.Document{MediaType: m.MediaType, Digest: m.Digest, Data: m.Data}
}

// counted is a blob on its way, with progress.
type counted struct {
	*event.Counter
	io.Closer
}

// Close ends the transfer.
func (c *counted) Close() error {
	c.Finish()
	return c.Closer.Close()
}
