package imagedir

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/blob"
)

// Image is an image of a directory. It may be used from many goroutines.
type Image struct {
	// Manifest is that of one platform.
	Manifest *Document
	// Stored is when it was fetched, or last found to be what the registry has.
	Stored time.Time

	blobs interface {
		// open opens a blob, which may be another one than the digest says.
		open(sum digest.Digest) (*part, error)
	}
	verified sync.Map // digests of blobs that were hashed once
}

// part is a file, or a piece of one.
type part struct {
	*io.SectionReader
	file *os.File
}

// Close closes the file.
func (p *part) Close() error { return p.file.Close() }

// complete says whether all that the manifest names is there, by size only.
func (im *Image) complete() error {
	blobs, err := im.descriptors()
	if err != nil {
		return err
	}
	for _, b := range blobs {
		if len(b.URLs) > 0 {
			continue // a layer that is nowhere but at these addresses
		}
		p, err := im.blobs.open(b.Digest)
		if err != nil {
			return plain(err)
		}
		if size := p.Size(); size != b.Size {
			err = fmt.Errorf("%s has %d bytes, not %d", b.Digest, size, b.Size)
		}
		if err := errors.Join(err, p.Close()); err != nil {
			return err
		}
	}
	return nil
}

// descriptors are the blobs that the manifest names.
func (im *Image) descriptors() ([]ocispec.Descriptor, error) { return blobsOf(im.Manifest) }

// blobsOf are the blobs that a manifest names: its configuration and its layers.
func blobsOf(d *Document) ([]ocispec.Descriptor, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(d.Data, &m); err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	if m.Config.Digest == "" {
		return nil, errors.New("the manifest has no config")
	}
	out := append([]ocispec.Descriptor{m.Config}, m.Layers...)
	for _, b := range out {
		if err := b.Digest.Validate(); err != nil {
			return nil, fmt.Errorf("the manifest: %w", err)
		}
	}
	return out, nil
}

// Has says whether the manifest names the blob.
func (im *Image) Has(sum digest.Digest) bool {
	blobs, err := im.descriptors()
	for _, b := range blobs {
		if b.Digest == sum {
			return err == nil
		}
	}
	return false
}

// Blob opens a blob whose content is known to be right: it is hashed the first time. The error Is ErrMiss if it is missing or
// damaged. The caller closes it. Reading fails with ctx's cause if that ends.
func (im *Image) Blob(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
	p, err := im.blobs.open(want.Digest)
	if err == nil {
		if err = im.check(ctx, p, want); err != nil {
			err = errors.Join(err, p.Close())
		}
	}
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %w", want.Digest, ErrMiss, plain(err))
	}
	return &reader{ctx: ctx, part: p}, nil
}

// check hashes a blob, once.
func (im *Image) check(ctx context.Context, p *part, want ocispec.Descriptor) error {
	if p.Size() != want.Size {
		return fmt.Errorf("it has %d bytes, not %d", p.Size(), want.Size)
	}
	if _, ok := im.verified.Load(want.Digest); ok {
		return nil
	}
	v := want.Digest.Verifier()
	if _, err := io.CopyBuffer(v, &reader{ctx: ctx, part: p}, make([]byte, copyBuffer)); err != nil {
		return err
	}
	if !v.Verified() {
		return errors.New("its content has another digest")
	}
	im.verified.Store(want.Digest, true)
	_, err := p.Seek(0, io.SeekStart)
	return err
}

const copyBuffer = 256 << 10 // 256 KiB

// reader is a blob that ends with a context.
type reader struct {
	ctx context.Context //nolint:containedctx // lives as long as one reading
	*part
}

// Read reads on, unless the context has ended.
func (r *reader) Read(b []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.part.Read(b)
}

// layoutBlobs are those of an OCI layout.
type layoutBlobs struct{ dir string }

func (l layoutBlobs) open(sum digest.Digest) (*part, error) {
	f, size, err := blob.OpenFile(filepath.Join(l.dir, blobPath(sum)))
	if err != nil {
		return nil, err
	}
	return &part{io.NewSectionReader(f, 0, size), f}, nil
}

// blobPath is where a blob lies in a layout; the digest has been validated.
func blobPath(sum digest.Digest) string {
	return filepath.Join("blobs", sum.Algorithm().String(), sum.Encoded())
}

// archiveBlobs are those of a docker archive.
type archiveBlobs struct {
	path   string
	places map[digest.Digest]place
}

type place struct{ offset, size int64 }

func (a *archiveBlobs) open(sum digest.Digest) (*part, error) {
	at, ok := a.places[sum]
	if !ok {
		return nil, fmt.Errorf("the archive has no %s", sum)
	}
	f, _, err := blob.OpenFile(a.path)
	if err != nil {
		return nil, err
	}
	return &part{io.NewSectionReader(f, at.offset, at.size), f}, nil
}

// maxArchiveEntries is far beyond what an archive of one image holds.
const maxArchiveEntries = 10_000

// openArchive finds the blobs of a docker archive that kaniko's warmer has written: names are digests, with or without an
// algorithm, and end in ".tar.gz" for layers, whatever their compression.
func openArchive(path string) (*archiveBlobs, error) {
	f, _, err := blob.OpenFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	a := &archiveBlobs{path: path, places: map[digest.Digest]place{}}
	tr := tar.NewReader(f)
	for range maxArchiveEntries {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the archive: %w", err)
		}
		sum := digest.Digest(strings.TrimSuffix(h.Name, ".tar.gz"))
		if !strings.Contains(sum.String(), ":") {
			sum = digest.NewDigestFromEncoded(digest.SHA256, sum.String())
		}
		if h.Typeflag != tar.TypeReg || sum.Validate() != nil {
			continue
		}
		at, err := f.Seek(0, io.SeekCurrent) // a tar reader does not read ahead
		if err != nil {
			return nil, err
		}
		a.places[sum] = place{at, h.Size}
	}
	return nil, fmt.Errorf("the archive has more than %d entries", maxArchiveEntries)
}
