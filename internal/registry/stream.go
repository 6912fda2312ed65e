package registry

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/opencontainers/go-digest"

	"hako/internal/web"
)

// Sent is content that a registry has received without knowing yet what it is.
type Sent struct {
	repo     *Repository
	location *url.URL
}

// Send uploads content while it is made: its size and its digest need not be known. It is tried once, and with what
// connection and credentials there are; who wants more uses Upload when the content is complete.
func (r *Repository) Send(ctx context.Context, open func() (io.ReadCloser, error)) (*Sent, error) {
	if err := r.acquire(ctx); err != nil {
		return nil, err
	}
	defer r.release()
	location, err := r.begin(ctx)
	if err != nil {
		return nil, r.explain(ctx, "begin an upload to "+r.Name(), err)
	}
	resp, err := r.send(ctx, call{
		method: http.MethodPatch,
		url:    location.String(),
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body:   open,
		size:   -1,
		want:   []int{http.StatusAccepted, http.StatusNoContent, http.StatusCreated},
	})
	if err != nil {
		return nil, r.explain(ctx, "upload to "+r.Name(), err)
	}
	web.Discard(resp.Body)
	if location, err = r.location(resp); err != nil {
		return nil, r.explain(ctx, "upload to "+r.Name(), err)
	}
	return &Sent{repo: r, location: location}, nil
}

// Commit makes the content a blob of the repository. The registry checks the digest.
func (s *Sent) Commit(ctx context.Context, d digest.Digest) error {
	if err := s.repo.commit(ctx, s.location, d); err != nil {
		return s.repo.explain(ctx, "upload "+s.repo.Name()+"@"+d.String(), err)
	}
	return nil
}

// commit ends an upload.
func (r *Repository) commit(ctx context.Context, location *url.URL, d digest.Digest) error {
	at := *location
	query := at.Query()
	query.Set("digest", d.String())
	at.RawQuery = query.Encode()
	resp, err := r.send(ctx, call{
		method: http.MethodPut,
		url:    at.String(),
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		want:   []int{http.StatusCreated, http.StatusNoContent, http.StatusOK},
	})
	if err != nil {
		return err
	}
	web.Discard(resp.Body)
	return nil
}

// Cancel tells the registry that the content is not wanted after all. Not all registries can do that.
func (s *Sent) Cancel(ctx context.Context) {
	resp, err := s.repo.send(ctx, call{
		method: http.MethodDelete,
		url:    s.location.String(),
		want:   []int{http.StatusNoContent, http.StatusAccepted, http.StatusOK},
	})
	if err != nil {
		s.repo.debug("cancel an upload to " + s.repo.Name() + ": " + redactError(err).Error())
		return
	}
	web.Discard(resp.Body)
}
