package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/opencontainers/go-digest"

	"hako/internal/event"
	"hako/internal/web"
)

// Blob is content to be uploaded.
type Blob struct {
	Digest digest.Digest
	// Size is in bytes.
	Size int64
	// Open reads the content from the start. It may be called more than once, also after a failed read.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// Has says whether the repository has the blob.
func (r *Repository) Has(ctx context.Context, d digest.Digest) (bool, error) {
	has, err := r.has(ctx, d)
	if err != nil {
		return false, r.explain(ctx, "ask for "+r.Name()+"@"+d.String(), err)
	}
	return has, nil
}

func (r *Repository) has(ctx context.Context, d digest.Digest) (bool, error) {
	resp, err := r.send(ctx, call{
		method: http.MethodHead,
		url:    r.url("blobs", d.String()),
		want:   []int{http.StatusOK, http.StatusNotFound},
	})
	if err != nil {
		return false, err
	}
	web.Discard(resp.Body)
	return resp.StatusCode == http.StatusOK, nil
}

// CheckPush makes sure that blobs can be uploaded, by beginning an upload and taking it back.
func (r *Repository) CheckPush(ctx context.Context) error {
	location, err := r.begin(ctx)
	if err != nil {
		return r.explain(ctx, "check that "+r.Name()+" can be pushed to", err)
	}
	resp, err := r.send(ctx, call{
		method: http.MethodDelete,
		url:    location.String(),
		want:   []int{http.StatusNoContent, http.StatusAccepted, http.StatusOK},
	})
	if err != nil {
		// Not all registries can cancel; an upload without content is forgotten by itself.
		r.debug("cancel the trial upload to " + r.Name() + ": " + redactError(err).Error())
		return nil
	}
	web.Discard(resp.Body)
	return nil
}

func (r *Repository) debug(message string) {
	r.client.options.Events.Emit(event.Debug{Message: message})
}

// begin starts an upload and returns where it goes.
func (r *Repository) begin(ctx context.Context) (*url.URL, error) {
	resp, err := r.send(ctx, call{
		method: http.MethodPost,
		url:    r.url("blobs", "uploads", ""),
		want:   []int{http.StatusAccepted},
	})
	if err != nil {
		return nil, err
	}
	web.Discard(resp.Body)
	return r.location(resp)
}

// location is where the registry wants the next request of an upload.
func (r *Repository) location(resp *http.Response) (*url.URL, error) {
	u, err := resp.Location()
	if err != nil {
		return nil, refuse("the registry does not say where to upload to")
	}
	if err := r.checkLocation(resp.Request.URL, u); err != nil {
		return nil, err
	}
	return u, nil
}

// Mount makes a blob of another repository of the same registry appear in this one, if the registry can do that.
// A registry that cannot, or will not, is no error. Only the end of ctx is.
func (r *Repository) Mount(ctx context.Context, d digest.Digest, from name.Repository) (bool, error) {
	if from.RegistryStr() != r.Host() || from.RepositoryStr() == r.repo.RepositoryStr() {
		return false, nil
	}
	s, err := r.mountSession(ctx, from)
	if err != nil {
		return false, r.mountFailed(ctx, from, err)
	}
	query := url.Values{"mount": {d.String()}, "from": {from.RepositoryStr()}}
	resp, err := s.send(ctx, call{
		method: http.MethodPost,
		url:    r.url("blobs", "uploads", "") + "?" + query.Encode(),
		want:   []int{http.StatusCreated, http.StatusAccepted},
	})
	if err != nil {
		return false, r.mountFailed(ctx, from, err)
	}
	web.Discard(resp.Body)
	if resp.StatusCode == http.StatusCreated {
		return true, nil
	}
	return false, r.cancelUpload(ctx, s, resp)
}

// mountFailed is nil, as a mount is only an attempt, unless ctx ended.
func (r *Repository) mountFailed(ctx context.Context, from name.Repository, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.debug(fmt.Sprintf("mount from %s to %s: %s", familiar(from.Name()), r.Name(), redactError(err)))
	return nil
}

// cancelUpload takes back the upload that a registry began instead of mounting.
func (r *Repository) cancelUpload(ctx context.Context, s *session, begun *http.Response) error {
	u, err := r.location(begun)
	if err != nil {
		return nil // nothing to cancel
	}
	resp, err := s.send(ctx, call{method: http.MethodDelete, url: u.String(), want: []int{http.StatusNoContent, http.StatusAccepted, http.StatusOK}})
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil // not all registries can cancel
	}
	web.Discard(resp.Body)
	return nil
}

// mountSession returns a session whose token also covers reading the other repository.
func (r *Repository) mountSession(ctx context.Context, from name.Repository) (*session, error) {
	i := int(r.current.Load())
	if _, err := r.session(ctx, i); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := fmt.Sprintf("%d %s", i, from.Name())
	if s, ok := r.mounts[key]; ok {
		return s, nil
	}
	auth := authn.Anonymous
	if load := r.sources[i].load; load != nil {
		config, err := load(ctx)
		if err != nil || config == nil {
			return nil, errors.Join(errNoCredentials, err)
		}
		auth = authn.FromConfig(*config)
	}
	client, err := r.authenticate(ctx, auth, r.repo.Scope(transport.PushScope), from.Scope(transport.PullScope))
	if err != nil {
		return nil, err
	}
	s := &session{client: client, source: r.sources[i].name}
	r.mounts[key] = s
	return s, nil
}

// Upload stores the blob. It does not ask first whether the blob is there; see Has.
// It tries several times: where it was cut if the registry can say how far it came, else from the start.
func (r *Repository) Upload(ctx context.Context, b Blob) error {
	if err := r.upload(ctx, b); err != nil {
		return r.explain(ctx, "upload "+r.Name()+"@"+b.Digest.String(), err)
	}
	return nil
}

func (r *Repository) upload(ctx context.Context, b Blob) error {
	if err := r.acquire(ctx); err != nil {
		return err
	}
	defer r.release()
	for try := 1; ; try++ {
		err := r.uploadOnce(ctx, b)
		if err == nil || r.stack.hurried || try == web.MaxTries || ctx.Err() != nil || !worthAnotherUpload(err) {
			return err
		}
		r.debug(fmt.Sprintf("upload %s@%s again: %s", r.Name(), b.Digest, redactError(err)))
		if err := web.Sleep(ctx, max(r.client.options.RetryDelay<<(try-1), retryAfter(err))); err != nil {
			return err
		}
		if has, err := r.has(ctx, b.Digest); err == nil && has {
			return nil // the answer was lost, not the blob
		}
	}
}

func (r *Repository) uploadOnce(ctx context.Context, b Blob) error {
	location, err := r.begin(ctx)
	if err != nil {
		return err
	}
	if location, err = r.sendContent(ctx, b, location); err != nil {
		return err
	}
	return r.commit(ctx, location, b.Digest)
}

// worthAnotherUpload says whether a whole upload may work the next time.
func worthAnotherUpload(err error) bool {
	if errors.As(err, new(*sourceError)) {
		return false
	}
	var answer *ResponseError
	if errors.As(err, &answer) {
		return web.TemporaryStatus(answer.Status) && answer.RetryAfter <= web.MaxRetryAfter || answer.Has("BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "DIGEST_INVALID", "SIZE_INVALID") ||
			answer.Status == http.StatusRequestedRangeNotSatisfiable
	}
	return temporary(err)
}

// PutURL stores data at an https address that is no registry, as with a file that is named by a URL.
func (c *Client) PutURL(ctx context.Context, address, contentType string, data []byte) error {
	parsed, err := url.Parse(address)
	if err != nil || parsed.Scheme != "https" {
		return errors.New("put a file: the address is not valid")
	}
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	s := &session{client: &http.Client{Transport: c.stacks[stackKey{access: Push}]}}
	resp, err := s.send(ctx, call{
		method: http.MethodPut,
		url:    address,
		header: http.Header{"Content-Type": {contentType}},
		body:   func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
		size:   int64(len(data)),
		want:   []int{http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNoContent},
	})
	if err != nil {
		return fmt.Errorf("put a file: %w", redactError(err))
	}
	web.Discard(resp.Body)
	return nil
}
