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
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"hako/internal/blob"
)

// Directory is a directory with blobs and, for each key, a file with the record. Many processes may use it at once,
// also on several machines: files appear under their names when they are complete, and never change.
// One that cannot be written to can be read.
type Directory struct {
	path  string
	blobs *blob.Store
	uses  uses
}

var _ Store = (*Directory)(nil)

// maxRecord bounds the file of a record.
const maxRecord = 1 << 20

// OpenDirectory opens a store, and makes it if there is none.
func OpenDirectory(path string) (*Directory, error) {
	d := &Directory{path: path}
	err := os.MkdirAll(filepath.Join(path, "records"), 0o777)
	if err == nil {
		d.blobs, err = blob.OpenDir(path, blob.Shared)
	}
	if errors.Is(err, unix.EROFS) || errors.Is(err, fs.ErrPermission) {
		if readable, rerr := blob.OpenDir(path, blob.ReadOnly); rerr == nil {
			d.blobs, err = readable, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	return d, nil
}

// String is the path.
func (d *Directory) String() string { return d.path }

// Near says that what is here costs no network.
func (d *Directory) Near() {}

// Close implements [Store].
func (d *Directory) Close() error {
	d.uses.end()
	return d.blobs.Close()
}

func (d *Directory) record(k Key) string { return filepath.Join(d.path, "records", string(k)+".json") }

// Get implements [Store]. A record whose blobs are gone is none.
func (d *Directory) Get(_ context.Context, key Key) (*Found, error) {
	if err := key.Validate(); err != nil {
		return nil, err
	}
	data, err := readRecord(d.record(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, blob.ErrIrregular) || errors.Is(err, unix.ENXIO) { // ENXIO: a socket
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	if err != nil {
		return nil, err
	}
	rec := &Record{}
	if err := json.Unmarshal(data, rec); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrRecord, key, err)
	}
	if !slices.Contains(rec.Keys, key) {
		return nil, fmt.Errorf("%w: %s is of another step", ErrRecord, key)
	}
	d.use(key, rec) // before the look: from now on it stays
	for _, b := range rec.blobs() {
		if !d.has(b) {
			return nil, nil
		}
	}
	return &Found{Record: *rec, store: directoryBlobs{d}}, nil
}

// readRecord reads the file of a record.
func readRecord(path string) ([]byte, error) {
	f, _, err := blob.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// Put implements [Store].
func (d *Directory) Put(ctx context.Context, rec *Record, listing []byte, open Opener) error {
	from := func(b ocispec.Descriptor) Opener {
		if b.Digest == rec.Listing.Digest {
			return reader(listing)
		}
		return open
	}
	for _, b := range rec.blobs() {
		if err := d.add(ctx, b, from(b)); err != nil {
			return err
		}
		d.uses.note(d.blobPath(b.Digest))
	}
	text, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("write a record: %w", err)
	}
	for _, k := range rec.Keys {
		if err := replace(d.record(k), text); err != nil {
			return err
		}
		d.uses.note(d.record(k))
	}
	for _, b := range rec.blobs() {
		if err := d.add(ctx, b, from(b)); err != nil { // once more: somebody may have pruned what was not used until now
			return err
		}
	}
	return nil
}

// has says whether a blob is there in its full length. That it is intact is verified when it is read.
func (d *Directory) has(want ocispec.Descriptor) bool {
	b, err := d.blobs.Open(want.Digest)
	if err != nil {
		return false
	}
	defer b.Close() // only read
	return b.Size() == want.Size
}

// add stores a blob unless it is there.
func (d *Directory) add(ctx context.Context, b ocispec.Descriptor, open Opener) error {
	if d.has(b) {
		return nil
	}
	return d.blobs.Add(ctx, b.Digest, open)
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

func (d *Directory) reads() blobs { return directoryBlobs{d} }

// directoryBlobs are the blobs of a directory.
type directoryBlobs struct{ *Directory }

// blob verifies while it is read: a disk may have failed, or a volume been filled by others. What is damaged is removed,
// so that it is made and kept again.
func (b directoryBlobs) blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	f, err := b.blobs.Open(d.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		// Whoever prunes may have moved it aside for a moment, to see that it is used.
		const moment = 50 * time.Millisecond
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(moment):
		}
		f, err = b.blobs.Open(d.Digest)
	}
	if err != nil {
		return nil, err
	}
	return &verifying{ReadCloser: f, verifier: d.Digest.Verifier(), damaged: func() error {
		return errors.Join(fmt.Errorf("blob %s is damaged", d.Digest), b.blobs.Delete(d.Digest))
	}}, nil
}

func (b directoryBlobs) repository() string { return "" }

// verifying reads what must have a digest. It is used by one goroutine.
type verifying struct {
	io.ReadCloser
	verifier digest.Verifier
	damaged  func() error
}

func (v *verifying) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	_, _ = v.verifier.Write(p[:n]) // a hash: never fails
	if errors.Is(err, io.EOF) && !v.verifier.Verified() {
		return n, v.damaged()
	}
	return n, err
}
