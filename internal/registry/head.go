package registry

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/opencontainers/go-digest"

	"hako/internal/web"
)

// Head asks which digest a tag stands for, without fetching what that is. Docker Hub does not count it as a pull.
func (r *Repository) Head(ctx context.Context, tag string) (digest.Digest, error) {
	d, err := r.head(ctx, tag)
	if err != nil {
		return "", r.explain(ctx, "ask for the digest of "+r.Name()+separator(tag)+tag, err)
	}
	return d, nil
}

func (r *Repository) head(ctx context.Context, tag string) (digest.Digest, error) {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	resp, err := r.send(ctx, call{
		method: http.MethodHead,
		url:    r.url("manifests", tag),
		header: http.Header{"Accept": {strings.Join(acceptedManifests(), ", ")}},
		want:   []int{http.StatusOK},
	})
	if err != nil {
		return "", err
	}
	web.Discard(resp.Body)
	d := digest.Digest(resp.Header.Get("Docker-Content-Digest")) // OCI distribution-spec, "Pulling manifests"
	if err := d.Validate(); err != nil {
		return "", fmt.Errorf("the registry says that the digest is %q: %w", string(d), err)
	}
	return d, nil
}
