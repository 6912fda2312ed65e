package contextsource

import (
	"context"

	"hako/internal/contextartifact"
)

// openArtifact fetches a context from a registry. The archive is unpacked on its way.
func (o *opener) openArtifact(ctx context.Context) (*Source, error) {
	a, err := contextartifact.Find(ctx, o.Registry, o.req.Place)
	if err != nil {
		return nil, err
	}
	return o.unpack(ctx, object{
		name: contextartifact.Scheme + a.Reference, uri: contextartifact.Scheme + a.Reference, digest: a.Digest.String(), size: a.Layer.Size,
		again: true, open: a.Open,
	})
}
