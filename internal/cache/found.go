package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync/atomic"
	"syscall"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/blob"
	"hako/internal/layer"
)

// Found is a record in a store.
type Found struct {
	Record
	store blobs
	cache *Cache // nil if a store was asked without one
	from  Store
	// copied is the copy of the record in a nearer store; nil if there is none.
	copied *copied
}

// blobs is where the blobs of a found record are.
type blobs interface {
	// blob reads a blob. Only if the last Read returned io.EOF, the content is what it should be.
	blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
	// repository is where the blob lies in a registry, or empty.
	repository() string
}

func (r *Record) layer() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: r.Layer.MediaType, Digest: r.Layer.Digest, Size: r.Layer.Size}
}

// Blob reads the layer. Only if the last Read returned io.EOF, the content is what it should be. The caller closes it.
// A layer that is gone, damaged or out of reach is an error that Is [blob.ErrLost], now or when it is read; the cache does not
// find its records any more.
func (f *Found) Blob(ctx context.Context) (io.ReadCloser, error) {
	if f.copied != nil {
		if rc := f.copied.blob(ctx, f.layer()); rc != nil {
			return rc, nil
		}
	}
	if f.cache != nil && f.cache.isLost(f.from, f.Layer.Digest) {
		return nil, fmt.Errorf("read a cached layer: %w", blob.ErrLost)
	}
	rc, err := f.store.blob(ctx, f.layer())
	if err != nil {
		return nil, f.failed(ctx, err)
	}
	return &losing{ReadCloser: rc, ctx: ctx, found: f}, nil
}

// failed is the error of a layer that cannot be read.
func (f *Found) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if f.cache != nil {
		f.cache.lose(f.from, f.Layer.Digest, err)
	}
	return fmt.Errorf("read a cached layer: %w: %w", blob.ErrLost, err)
}

// Reject says that the layer, which rest is what is left to read of, cannot be used because of err, and returns the error to go on
// with: one that Is [blob.ErrLost], unless ctx has ended or this machine is to blame. Whoever unpacks a damaged layer notices
// it in many ways before the end shows that the bytes are wrong.
func (f *Found) Reject(ctx context.Context, rest io.Reader, err error) error {
	if ctx.Err() != nil || errors.Is(err, blob.ErrLost) {
		return err
	}
	if _, rerr := io.Copy(io.Discard, rest); rerr != nil {
		return rerr
	}
	if errors.As(err, new(*fs.PathError)) || errors.As(err, new(syscall.Errno)) {
		return err
	}
	return f.failed(ctx, err)
}

// losing notices when a layer cannot be read. It is used by one goroutine, but for Close.
type losing struct {
	io.ReadCloser
	ctx    context.Context //nolint:containedctx // that of the read
	found  *Found
	closed atomic.Bool
}

func (l *losing) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && !l.closed.Load() {
		err = l.found.failed(l.ctx, err)
	}
	return n, err
}

func (l *losing) Close() error {
	l.closed.Store(true)
	return l.ReadCloser.Close()
}

// Repository is where in a registry the layer lies ("host/path"), as far as is known, or empty.
func (f *Found) Repository() string {
	if r := f.store.repository(); r != "" {
		return r
	}
	return f.Origin
}

// Listing fetches what the layer says.
func (f *Found) Listing(ctx context.Context) (*Listing, error) {
	data, err := f.listing(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the listing of a cached layer: %w", err)
	}
	l, err := decodeListing(data)
	var id digest.Digest
	if err == nil && f.Content != "" {
		id, err = (&layer.Image{Index: l.Index}).Digest(ctx, ".")
	}
	if err == nil && id != f.Content {
		err = errors.New("it is of another layer")
	}
	if err != nil {
		return nil, fmt.Errorf("read the listing of a cached layer: %w", err)
	}
	return l, nil
}

// listing fetches the listing's bytes.
func (f *Found) listing(ctx context.Context) (_ []byte, err error) {
	rc, err := f.store.blob(ctx, f.Record.Listing)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	data, err := io.ReadAll(io.LimitReader(rc, f.Record.Listing.Size+1)) // read to its end: only then it is verified
	if err == nil && int64(len(data)) != f.Record.Listing.Size {
		err = errors.New("it is longer or shorter than the record says")
	}
	return data, err
}

// copied is the copy of a record in a near store. ok belongs to who makes it until done is closed.
type copied struct {
	to   Store
	done chan struct{}
	ok   bool
}

// blob reads the copy when it is complete; it is nil if there is none.
func (c *copied) blob(ctx context.Context, d ocispec.Descriptor) io.ReadCloser {
	select {
	case <-c.done:
	case <-ctx.Done():
		return nil
	}
	s, ok := c.to.(interface{ reads() blobs })
	if !ok || !c.ok {
		return nil
	}
	rc, err := s.reads().blob(ctx, d)
	if err != nil {
		return nil
	}
	return rc
}

// copy keeps in the store that is written to, if it is near, what was found farther away. It does so in the background; who
// needs the layer before waits for the copy instead of fetching it a second time.
func (c *Cache) copy(f *Found) {
	to := c.options.Write
	_, isNear := to.(near)
	_, fromNear := f.from.(near)
	if !isNear || fromNear {
		return
	}
	ctx := c.writing(to)
	key := blobIn{f.from, f.Record.Listing.Digest + f.Layer.Digest}
	c.mu.Lock()
	task, ok := c.copied[key]
	if !ok {
		task = &copied{to: to, done: make(chan struct{})}
		c.copied[key] = task
	}
	c.mu.Unlock()
	f.copied = task
	if ok {
		return
	}
	cp := *f
	c.puts.Go(func() {
		defer close(task.done)
		select {
		case c.copying <- struct{}{}:
			defer func() { <-c.copying }()
		case <-ctx.Done():
			return
		}
		task.ok = c.copyTo(ctx, to, &cp)
	})
}

// copyTo copies a record with all that belongs to it.
func (c *Cache) copyTo(ctx context.Context, to Store, f *Found) bool {
	rec := f.Record
	rec.Origin = f.Repository()
	listing, err := f.listing(ctx)
	if err != nil {
		return false // whoever needs it will say so
	}
	f.copied = nil
	err = to.Put(ctx, &rec, listing, f.Blob)
	if err != nil && !errors.Is(err, blob.ErrLost) && ctx.Err() == nil {
		c.giveUp(to, writing, err)
	}
	return err == nil
}

// Complete adds the listing's description to a record, and returns the listing's bytes. Of a layer with too many files that is
// one that no reader takes for the layer's, who then reads the layer itself; without a layer it is an error.
func Complete(r *Record, l *Listing) (*Record, []byte, error) {
	listing, err := encodeListing(l)
	if err != nil && r.Layer.Digest != "" {
		listing, err = encodeListing(&Listing{Index: &layer.Index{}})
	}
	if err != nil {
		return nil, nil, fmt.Errorf("write the listing of a layer: %w", err)
	}
	full := *r
	full.Listing = ocispec.Descriptor{MediaType: listingType, Digest: digest.FromBytes(listing), Size: int64(len(listing))}
	return &full, listing, nil
}
