package imagesource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/blob"
	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/prepared"
)

// Layer is one layer of a base image.
type Layer struct {
	layer.Descriptor
	// Repository is where the blob lies ("index.docker.io/library/debian"), for mounting it elsewhere; empty if in no registry.
	Repository string
	base       *baseLayer
}

// Open makes the layer readable: it is fetched, verified and inflated the first time, and the result is kept
// until the Source is closed. A failure is not remembered. It may be called from many goroutines.
func (l Layer) Open(ctx context.Context) (*layer.Image, error) { return l.base.open(ctx) }

// List names what is in the layer: it is fetched, verified and inflated like by Open, but nothing is written. A file that
// is read after all, but for those that steps look users up in, opens the layer. Where it is open, List costs nothing.
// The result is kept like that of Open.
func (l Layer) List(ctx context.Context) (*layer.Image, error) { return l.base.list(ctx) }

// Blob reads the layer as it is in the registry: from the store if it is there, else from the registry.
// Only if the last Read returned io.EOF, the content is what it should be. The caller closes it.
func (l Layer) Blob(ctx context.Context) (io.ReadCloser, error) {
	if err := l.base.share(ctx); err != nil {
		return nil, err
	}
	rc, _, err := l.base.blob(ctx)
	return rc, err
}

// baseLayer is a layer, shared by all images that have it.
type baseLayer struct {
	source *Source
	place  place
	title  string // for people: "docker.io/library/debian:12 layer 1/2"
	desc   layer.Descriptor
	urls   []string
	image  *flight[*layer.Image]
	names  *flight[*layer.Image]
	stored *flight[struct{}]
}

// layer is l as others see it.
func (l *baseLayer) layer() Layer {
	return Layer{Descriptor: l.desc, Repository: repositoryName(l.place), base: l}
}

// blob opens the compressed layer and says whether it came from the store.
func (l *baseLayer) blob(ctx context.Context) (rc io.ReadCloser, stored bool, err error) {
	if blobs := l.source.options.Blobs; blobs != nil && blobs.Has(l.desc.Digest) {
		b, err := blobs.Open(l.desc.Digest)
		if err != nil {
			return nil, false, fmt.Errorf("read %s: %w", l.title, err)
		}
		return b, true, nil
	}
	rc, err = l.place.Blob(ctx, ocispec.Descriptor{Digest: l.desc.Digest, Size: l.desc.Size, URLs: l.urls})
	return rc, false, err
}

// share stores the blob if several will read it. If it lay in memory, each of them fetches it: that costs less.
func (l *baseLayer) share(ctx context.Context) error {
	o := &l.source.options
	if o.Shared == nil || o.Blobs == nil || o.Dir.Report().InMemory || !o.Shared(l.layer()) {
		return nil
	}
	_, err := l.stored.do(ctx, func(ctx context.Context) (struct{}, error) {
		if _, _, err := l.image.get(ctx); err != nil { // whoever opens the layer may be storing it
			return struct{}{}, err
		}
		return struct{}{}, l.store(ctx)
	})
	return err
}

// store fetches the blob into the store, if it is not there.
func (l *baseLayer) store(ctx context.Context) (err error) {
	rc, stored, err := l.blob(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	if stored {
		return nil
	}
	w, err := l.source.options.Blobs.CreateHashed(ctx)
	if err != nil {
		return fmt.Errorf("store %s: %w", l.title, err)
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := io.Copy(w, rc); err != nil {
		return fmt.Errorf("fetch %s: %w", l.title, err)
	}
	if _, _, err := w.Commit(l.desc.Digest); err != nil {
		return fmt.Errorf("store %s: %w", l.title, err)
	}
	return nil
}

func (l *baseLayer) open(ctx context.Context) (*layer.Image, error) {
	return l.image.do(ctx, func(ctx context.Context) (*layer.Image, error) {
		if im, err := l.ready(); im != nil || err != nil {
			return im, err
		}
		for _, s := range l.source.options.Prepared {
			if im, err := l.keepIn(ctx, s); im != nil || err != nil {
				return im, err
			}
		}
		f, err := l.source.options.Dir.ExecFile("layer")
		if err != nil {
			return nil, fmt.Errorf("unpack %s: %w", l.title, err)
		}
		if err := l.source.own(f); err != nil {
			return nil, err
		}
		im, err := l.prepare(ctx, f)
		if err != nil {
			l.source.disown(f)
		}
		return im, err
	})
}

// ready is the layer if it was prepared before, or nil.
func (l *baseLayer) ready() (*layer.Image, error) {
	for _, s := range l.source.options.Prepared {
		if im := s.Get(l.desc.DiffID); im != nil {
			l.source.options.Events.Emit(event.Debug{Message: l.title + " is prepared in " + s.Dir()})
			return im, l.source.own(im.File)
		}
	}
	return nil, nil //nolint:nilnil // it is prepared nowhere
}

// keepIn prepares the layer in a store, unless somebody else does it first. Without an image and an error, the store does not
// take it.
func (l *baseLayer) keepIn(ctx context.Context, s *prepared.Store) (*layer.Image, error) {
	e, im, err := s.Begin(ctx, l.desc.DiffID)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		l.source.options.Events.Emit(event.Debug{Message: fmt.Sprintf("%s is not kept in %s: %v", l.title, s.Dir(), err)})
		return nil, nil //nolint:nilnil,nilerr // see above
	case im != nil:
		return im, l.source.own(im.File)
	}
	made, err := l.prepare(ctx, e.File())
	if err != nil {
		if err = errors.Join(err, e.Drop()); !full(err) {
			return nil, err
		}
	} else {
		im, err = e.Keep(made)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		l.source.options.Events.Emit(event.Warning{Message: fmt.Sprintf("%s is not kept in %s: %v", l.title, s.Dir(), err)})
		return nil, nil //nolint:nilnil,nilerr // see above
	}
	return im, l.source.own(im.File)
}

// full says whether a disk had no room, or failed.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EFBIG)
}

func (l *baseLayer) list(ctx context.Context) (*layer.Image, error) {
	return l.names.do(ctx, func(ctx context.Context) (*layer.Image, error) {
		if im, ok, err := l.image.get(ctx); ok || err != nil {
			return im, err
		}
		im, err := l.ready()
		if im != nil || err != nil {
			return im, err
		}
		if im, err = l.prepare(ctx, nil); err != nil {
			return nil, err
		}
		return im.Late(func() (*layer.Image, error) { return l.open(l.source.life) }), nil
	})
}

// prepare fetches and inflates the layer, to f if that is not nil.
func (l *baseLayer) prepare(ctx context.Context, f *os.File) (*layer.Image, error) {
	select {
	case l.source.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-l.source.slots }()
	rc, stored, err := l.blob(ctx)
	if err != nil {
		return nil, err
	}
	defer rc.Close() // read only: nothing to lose
	r, err := l.keep(ctx, rc, stored)
	if err != nil {
		return nil, err
	}
	return r.prepare(l, func(r io.Reader) (*layer.Image, error) {
		// Places hash what they give before io.EOF, and have hashed what is in the store.
		return layer.Prepare(ctx, r, l.desc, layer.PrepareOptions{Image: f, Verified: true, Wide: l.source.wide})
	})
}

// download is a blob on its way, and into the store if w is not nil.
type download struct {
	r io.Reader
	w *blob.Writer
}

// keep arranges for the blob to be stored while it is read, if it is worth that.
func (l *baseLayer) keep(ctx context.Context, r io.Reader, stored bool) (*download, error) {
	if stored || !l.source.keeps(l) {
		return &download{r: r}, nil
	}
	w, err := l.source.options.Blobs.CreateHashed(ctx)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", l.title, err)
	}
	return &download{r: r, w: w}, nil
}

// prepare runs fn over the blob, with progress, and commits what was stored.
func (d *download) prepare(l *baseLayer, fn func(io.Reader) (*layer.Image, error)) (*layer.Image, error) {
	c := event.NewCounter(d.r, l.source.options.Events, event.Progress{
		ID: "pull " + l.desc.Digest.String(), What: "pull " + l.title, Total: l.desc.Size,
	})
	defer c.Finish()
	var r io.Reader = c
	if d.w != nil {
		r = io.TeeReader(c, d.w)
	}
	im, err := fn(r)
	if err != nil {
		// A registry that sent something else explains every other error. By now the blob has been read.
		if _, cause := io.Copy(io.Discard, d.r); cause != nil {
			err = cause
		}
		return nil, errors.Join(fmt.Errorf("unpack %s: %w", l.title, err), d.close())
	}
	if d.w == nil {
		return im, nil
	}
	if _, _, err := d.w.Commit(l.desc.Digest); err != nil {
		return nil, fmt.Errorf("store %s: %w", l.title, err)
	}
	return im, nil
}

// close drops what was stored so far.
func (d *download) close() error {
	if d.w == nil {
		return nil
	}
	return d.w.Close()
}

// Fetch opens all layers of an image that Resolve returned, several at a time, so that later uses find them ready.
func (s *Source) Fetch(ctx context.Context, ref *plan.ImageRef) error {
	r, err := s.lookUp(ref)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range r.layers {
		g.Go(func() error {
			_, err := l.open(ctx)
			return err
		})
	}
	return g.Wait()
}
