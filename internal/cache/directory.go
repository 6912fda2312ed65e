package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/blob"
)

// Directory is a directory with blobs and, for each key, a file with the record. Many processes may use it at once,
// also on several machines: files appear under their names when they are complete, and never change.
type Directory struct {
	path  string
	blobs *blob.Store
}

var _ Store = (*Directory)(nil)

// maxRecord bounds the file of a record.
const maxRecord = 1 << 20

// OpenDirectory opens a store, and makes it if there is none.
func OpenDirectory(ctx context.Context, path string) (*Directory, error) {
	if err := os.MkdirAll(filepath.Join(path, "records"), 0o777); err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	blobs, err := blob.OpenDir(ctx, path, blob.Shared)
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	return &Directory{path: path, blobs: blobs}, nil
}

// String is the path.
func (d *Directory) String() string { return d.path }

// Close implements [Store].
func (d *Directory) Close() error { return d.blobs.Close() }

func (d *Directory) record(k Key) string { return filepath.Join(d.path, "records", string(k)+".json") }

// Get implements [Store]. A record whose blobs are gone or damaged is none.
func (d *Directory) Get(_ context.Context, key Key) (*Found, error) {
	if err := key.Validate(); err != nil {
		return nil, err
	}
	f, err := os.Open(d.record(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	_ = f.Close() // only read
	if err != nil {
		return nil, err
	}
	rec := &Record{}
	if err := json.Unmarshal(data, rec); err != nil {
		return nil, fmt.Errorf("the record %s is not used: %w", key, err)
	}
	if !slices.Contains(rec.Keys, key) {
		return nil, fmt.Errorf("the record %s is of another step", key)
	}
	for _, b := range rec.blobs() {
		if !d.intact(b.Digest) {
			return nil, nil
		}
	}
	return &Found{Record: *rec, store: directoryBlobs{d}}, nil
}

// Put implements [Store].
func (d *Directory) Put(ctx context.Context, rec *Record, l *Listing, open func(ctx context.Context) (io.ReadCloser, error)) error {
	listing, err := encodeListing(l)
	if err != nil {
		return fmt.Errorf("write the listing of a layer: %w", err)
	}
	full := *rec
	full.Listing = ocispec.Descriptor{MediaType: listingType, Digest: digest.FromBytes(listing), Size: int64(len(listing))}
	for _, b := range full.blobs() {
		from := open
		if b.Digest == full.Listing.Digest {
			from = reader(listing)
		}
		if err := d.add(ctx, b.Digest, from); err != nil {
			return err
		}
	}
	text, err := json.Marshal(&full)
	if err != nil {
		return fmt.Errorf("write a record: %w", err)
	}
	for _, k := range rec.Keys {
		if err := replace(d.record(k), text); err != nil {
			return err
		}
	}
	return nil
}

// intact says whether a blob is there and has its digest: a disk may have failed, or a volume been filled by others.
func (d *Directory) intact(id digest.Digest) bool {
	if !d.blobs.Has(id) {
		return false
	}
	b, err := d.blobs.Open(id)
	if err != nil {
		return false
	}
	got, err := id.Algorithm().FromReader(b)
	_ = b.Close() // only read
	return err == nil && got == id
}

// add stores a blob unless it is there.
func (d *Directory) add(ctx context.Context, id digest.Digest, open func(ctx context.Context) (io.ReadCloser, error)) (err error) {
	if d.intact(id) {
		return nil
	}
	rc, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	w, err := d.blobs.Create(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := io.Copy(w, rc); err != nil {
		return err
	}
	_, _, err = w.Commit(id)
	return err
}

// replace writes a file that others see whole or not at all.
func replace(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// directoryBlobs are the blobs of a directory.
type directoryBlobs struct{ *Directory }

func (b directoryBlobs) blob(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return b.blobs.Open(d.Digest)
}

func (b directoryBlobs) repository() string { return "" }
