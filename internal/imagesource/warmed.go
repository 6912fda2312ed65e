package imagesource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/imagedir"
	"hako/internal/registry"
)

// Warmed is a directory of images that were fetched before.
type Warmed struct {
	Dir *imagedir.Dir
	// Offline says that what is not there is not fetched: no registry is asked for images at all, and none is too old.
	Offline bool
}

// warmed is a repository of a registry whose images may be in a directory. What a digest names is looked for there first; for
// a tag, the registry is asked only which digest it stands for.
type warmed struct {
	repository
	*Warmed
	shelf  *shelf
	events event.Sink
	// ref is what was asked for, in its own registry, whichever mirror this is.
	ref string
}

// shelf holds the images of the directory that are used.
type shelf struct {
	mu     sync.Mutex
	images []*imagedir.Image
}

func (s *shelf) add(im *imagedir.Image) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.images = append(s.images, im)
}

// having is an image that the blob belongs to, or nil.
func (s *shelf) having(sum digest.Digest) *imagedir.Image {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, im := range s.images {
		if im.Has(sum) {
			return im
		}
	}
	return nil
}

var _ place = (*warmed)(nil)

// Manifest implements place.
func (w *warmed) Manifest(ctx context.Context, identifier string) (*registry.Manifest, error) {
	sum, err := digest.Parse(identifier)
	if err != nil {
		if sum, err = w.digest(ctx, identifier); err != nil {
			return nil, err
		}
	}
	if sum != "" {
		if m := w.manifest(sum); m != nil {
			return m, nil
		}
		identifier = sum.String()
	}
	if w.Offline {
		return nil, w.missing(identifier, nil)
	}
	return w.repository.Manifest(ctx, identifier)
}

// digest is what a tag stands for; empty if the registry does not say it.
func (w *warmed) digest(ctx context.Context, tag string) (digest.Digest, error) {
	if w.Offline {
		sum, err := w.Dir.Named(w.ref)
		if err != nil {
			return "", w.missing(tag, err)
		}
		return sum, nil
	}
	sum, err := w.Head(ctx, tag)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if err != nil {
		// The registry is asked for the manifest next, and has the error if it is one.
		return "", nil //nolint:nilerr // see above
	}
	return sum, nil
}

// manifest is what the directory has under a digest, or nil.
func (w *warmed) manifest(sum digest.Digest) *registry.Manifest {
	if ix, err := w.Dir.Index(sum); err == nil {
		return &registry.Manifest{MediaType: ix.MediaType, Digest: ix.Digest, Data: ix.Data}
	}
	im, err := w.Dir.Find(sum)
	switch {
	case err != nil:
		w.events.Emit(event.Debug{Message: err.Error()})
		return nil
	case !w.Offline && w.Dir.Expired(im):
		w.events.Emit(event.Debug{Message: fmt.Sprintf("%s in %s is older than --cache-ttl", sum, w.Dir.Path())})
		return nil
	}
	w.shelf.add(im)
	return &registry.Manifest{MediaType: im.Manifest.MediaType, Digest: im.Manifest.Digest, Data: im.Manifest.Data}
}

// stored opens a blob of the directory. Without one it is nil, and the registry has to be asked.
func (w *warmed) stored(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
	im := w.shelf.having(want.Digest)
	if im == nil {
		return nil, nil //nolint:nilnil // two kinds of absence are one here
	}
	rc, err := im.Blob(ctx, want)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil && w.Offline:
		return nil, w.missing(want.Digest.String(), err)
	case err != nil && len(want.URLs) == 0:
		w.events.Emit(event.Warning{Message: fmt.Sprintf("%s in %s is damaged and comes from the registry: %v", w.ref, w.Dir.Path(), err)})
		return nil, nil //nolint:nilnil // as above
	case err != nil:
		return nil, nil //nolint:nilnil // as above
	}
	return rc, nil
}

// Config implements place.
func (w *warmed) Config(ctx context.Context, want ocispec.Descriptor) ([]byte, error) {
	rc, err := w.stored(ctx, want)
	if err != nil {
		return nil, err
	}
	if rc == nil {
		return w.repository.Config(ctx, want)
	}
	data, err := io.ReadAll(io.LimitReader(rc, layoutLimit))
	return data, errors.Join(err, rc.Close())
}

// Blob implements place.
func (w *warmed) Blob(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
	if rc, err := w.stored(ctx, want); rc != nil || err != nil {
		return rc, err
	}
	if w.Offline {
		return nil, w.missing(want.Digest.String(), nil)
	}
	return w.repository.Blob(ctx, want)
}

// missing is the error of what the directory does not have, where nothing else may be asked.
func (w *warmed) missing(identifier string, err error) error {
	if err == nil {
		err = fmt.Errorf("%s: %w", identifier, imagedir.ErrMiss)
	}
	return &diag.Error{
		What: fmt.Sprintf("use image %s without a network from %s", w.ref, w.Dir.Path()), Cause: err,
		Hint: "Fetch it before with hako warm --image=" + w.ref + " --cache-dir=" + w.Dir.Path() + ", or leave out --cache-offline.",
	}
}
