package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/bucket"
)

// BucketWindow is how much memory a blob on its way from or to a bucket should take, in bytes: many are on their way at once.
const BucketWindow = 16 << 20

// Bucket keeps records in object storage: blobs below PREFIX/sha256, records below PREFIX/records. Objects appear when they
// are complete. The bucket's own rules for old objects work on it: a record whose blobs are gone is made again.
type Bucket struct {
	objects *bucket.Bucket
	place   bucket.Place
}

var (
	_ Store  = (*Bucket)(nil)
	_ Keeper = (*Bucket)(nil)
)

// NewBucket returns a store below the key of a place, and closes objects when it is closed.
func NewBucket(objects *bucket.Bucket, place bucket.Place) *Bucket { return &Bucket{objects, place} }

// String is the place.
func (b *Bucket) String() string { return b.place.String() }

// Close implements [Store].
func (b *Bucket) Close() error {
	b.objects.Close()
	return nil
}

const recordSuffix = ".json"

func (b *Bucket) below(dir, name string) string {
	return strings.TrimPrefix(path.Join("/", b.place.Key, dir, name), "/")
}

func (b *Bucket) record(k Key) string            { return b.below("records", string(k)+recordSuffix) }
func (b *Bucket) blobKey(d digest.Digest) string { return b.below("sha256", d.Encoded()) }

// Get implements [Store]. It costs one request.
func (b *Bucket) Get(ctx context.Context, key Key) (*Found, error) {
	if err := key.Validate(); err != nil {
		return nil, err
	}
	rec, err := b.read(ctx, b.record(key))
	if errors.Is(err, bucket.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !slices.Contains(rec.Keys, key) {
		return nil, fmt.Errorf("%w: %s is of another step", ErrRecord, key)
	}
	return &Found{Record: *rec, store: bucketBlobs{b}}, nil
}

// read reads and verifies a record.
func (b *Bucket) read(ctx context.Context, key string) (*Record, error) {
	r, err := b.objects.Read(ctx, key)
	if err != nil {
		return nil, err
	}
	defer r.Close() //nolint:errcheck // only read
	if r.Object.Size > maxRecord {
		return nil, fmt.Errorf("%w: %s is too long", ErrRecord, key)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	rec := &Record{}
	if err := json.Unmarshal(data, rec); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrRecord, key, err)
	}
	return rec, nil
}

// Put implements [Store].
func (b *Bucket) Put(ctx context.Context, rec *Record, listing []byte, open Opener) error {
	text, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("write a record: %w", err)
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, d := range rec.blobs() {
		from := open
		if d.Digest == rec.Listing.Digest {
			from = reader(listing)
		}
		g.Go(func() error { return b.add(gctx, d, from) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, k := range rec.Keys { // when all that it needs is there
		if err := b.objects.Write(ctx, b.record(k), bytes.NewReader(text), int64(len(text))); err != nil {
			return err
		}
	}
	return nil
}

// add stores a blob unless it is there.
func (b *Bucket) add(ctx context.Context, d ocispec.Descriptor, open Opener) (err error) {
	if b.has(ctx, d) {
		return nil
	}
	rc, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	from := &verifying{ReadCloser: rc, verifier: d.Digest.Verifier(), damaged: func() error { return fmt.Errorf("blob %s is damaged", d.Digest) }}
	err = b.objects.Write(ctx, b.blobKey(d.Digest), from, d.Size)
	if err != nil && ctx.Err() == nil && b.has(ctx, d) {
		return nil // somebody else was quicker: some services let only one of us win
	}
	return err
}

// has says whether a blob is there in its full length. That it is intact is verified when it is read.
func (b *Bucket) has(ctx context.Context, d ocispec.Descriptor) bool {
	o, err := b.objects.Stat(ctx, b.blobKey(d.Digest))
	return err == nil && o.Size == d.Size
}

// bucketBlobs are the blobs of a bucket.
type bucketBlobs struct{ *Bucket }

// blob verifies while it is read. What is damaged is removed, so that it is made and kept again.
func (b bucketBlobs) blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	key := b.blobKey(d.Digest)
	r, err := b.objects.Read(ctx, key)
	if err != nil {
		return nil, err
	}
	return &verifying{ReadCloser: r, verifier: d.Digest.Verifier(), damaged: func() error {
		return errors.Join(fmt.Errorf("blob %s is damaged", d.Digest), b.objects.Delete(ctx, key))
	}}, nil
}

func (b bucketBlobs) repository() string { return "" }

// List implements [Keeper]. It costs a request for each name of a record. A bucket does not tell when something was used.
func (b *Bucket) List(ctx context.Context) (*Inventory, error) {
	var mu sync.Mutex // guards found
	found := map[string]*Entry{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	var listErr error
	for o, err := range b.objects.List(ctx, b.below("records", "")+"/") {
		if err != nil {
			listErr = err
			break
		}
		key := Key(strings.TrimSuffix(path.Base(o.Key), recordSuffix))
		if key.Validate() != nil {
			continue
		}
		g.Go(func() error {
			rec, err := b.read(gctx, o.Key)
			if errors.Is(err, bucket.ErrNotFound) {
				return nil // it has gone since
			}
			if err != nil && !errors.Is(err, ErrRecord) {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			id := string(key)
			if rec != nil {
				id = rec.Listing.Digest.String() + rec.Layer.Digest.String() + fmt.Sprint(rec.Keys, rec.Created)
			}
			e := found[id]
			if e == nil {
				e = &Entry{ID: id, Record: rec}
				found[id] = e
			}
			e.Keys = append(e.Keys, key)
			if rec == nil {
				e.Size, e.Used = o.Size, o.ModTime
			} else {
				e.Size = rec.size()
			}
			return nil
		})
	}
	if err := errors.Join(listErr, g.Wait()); err != nil {
		return nil, err
	}
	out := &Inventory{}
	for _, e := range found {
		out.Entries = append(out.Entries, *e)
	}
	sortEntries(out.Entries)
	loose, err := b.loose(ctx, out.Entries)
	out.Loose = loose
	return out, err
}

// loose are the blobs that no entry names.
func (b *Bucket) loose(ctx context.Context, entries []Entry) ([]Loose, error) {
	named := map[string]bool{}
	for i := range entries {
		if entries[i].Record == nil {
			continue
		}
		for _, d := range entries[i].Record.blobs() {
			named[b.blobKey(d.Digest)] = true
		}
	}
	var out []Loose
	for o, err := range b.objects.List(ctx, b.below("sha256", "")+"/") {
		if err != nil {
			return nil, err
		}
		if !named[o.Key] {
			out = append(out, Loose{Name: path.Base(o.Key), Size: o.Size, Used: o.ModTime})
		}
	}
	return out, nil
}

// Remove implements [Keeper]. Blobs that only the removed records named go as well. A build that found one of them just
// before makes its step again.
func (b *Bucket) Remove(ctx context.Context, what *Inventory) (*Inventory, error) {
	gone := &Inventory{Now: what.Now}
	var names []string
	for i := range what.Entries {
		e := &what.Entries[i]
		for _, k := range e.Keys {
			if err := b.objects.Delete(ctx, b.record(k)); err != nil {
				return gone, err
			}
		}
		gone.Entries = append(gone.Entries, *e)
		if e.Record == nil {
			continue
		}
		for _, d := range e.Record.blobs() {
			names = append(names, d.Digest.Encoded())
		}
	}
	for _, l := range what.Loose {
		names = append(names, l.Name)
	}
	left, err := b.List(ctx)
	if err != nil {
		return gone, err
	}
	unnamed := map[string]Loose{}
	for _, l := range left.Loose {
		unnamed[l.Name] = l
	}
	for _, n := range names {
		l, ok := unnamed[n]
		if !ok {
			continue // another record needs it
		}
		delete(unnamed, n)
		if err := b.objects.Delete(ctx, b.below("sha256", n)); err != nil {
			return gone, err
		}
		if slices.ContainsFunc(what.Loose, func(w Loose) bool { return w.Name == n }) {
			gone.Loose = append(gone.Loose, l)
		}
	}
	return gone, nil
}
