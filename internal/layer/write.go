package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// WriteOptions says what kind of blob to write. The zero value is gzip at the default level, with OCI media types.
type WriteOptions struct {
	Compression Compression
	// Level is 1 to 9 for gzip and 1 to 22 for zstd; 0 means the default: 4 and 3.
	Level int
	// Docker says to use Docker's media types instead of OCI's.
	Docker bool
	// Digests says to note the digest of each file in the index.
	Digests bool
	// Image, if not nil, is emptied and receives the layer as an EROFS image in the same pass.
	Image *os.File
}

// Validate says which option is wrong.
func (o WriteOptions) Validate() error {
	most := 0
	switch o.Compression {
	case Gzip:
		most = 9
	case Zstd:
		most = 22
	case Uncompressed:
	default:
		return fmt.Errorf("unknown compression %d", o.Compression)
	}
	if o.Level < 0 || o.Level > most {
		return fmt.Errorf("%s compression level %d is not between 1 and %d", o.Compression, o.Level, most)
	}
	return nil
}

// MediaType is that of the blobs that Write makes with these options.
func (o WriteOptions) MediaType() string {
	base, suffix := MediaTypeOCI, map[Compression]string{Gzip: "+gzip", Zstd: "+zstd"}
	if o.Docker {
		base, suffix = MediaTypeDocker, map[Compression]string{Gzip: ".gzip", Zstd: ".zstd"}
	}
	return base + suffix[o.Compression]
}

// Written is a layer that Write has written.
type Written struct {
	Descriptor
	// Image holds the index; its File is that of the options and may be nil.
	Image *Image
}

// Write turns changes into a layer blob, which it writes to dst, in one pass and in memory that does not grow with
// the sizes of files (about 20 MiB, and 1 KiB for each entry). The same changes and options always give the same
// bytes, on any number of processors. On an error dst holds garbage.
// It returns ctx's cause if ctx ends first.
func Write(ctx context.Context, changes Changes, dst io.Writer, opts WriteOptions) (*Written, error) {
	if err := opts.Validate(); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	w, err := write(ctx, changes, dst, opts)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	return w, nil
}

func write(ctx context.Context, changes Changes, dst io.Writer, opts WriteOptions) (*Written, error) {
	c, err := newCollector(Limits{}, opts.Image)
	if err != nil {
		return nil, err
	}
	if opts.Digests {
		c.hash = digest.Canonical.Hash()
	}
	p := newPress(ctx, dst, opts)
	err = writeTar(p.ctx, changes, p, c)
	sums, perr := p.finish(err)
	if perr != nil {
		return nil, perr
	}
	im, err := c.finish()
	if err != nil {
		return nil, err
	}
	return &Written{
		Descriptor: Descriptor{
			MediaType: opts.MediaType(), Digest: sums.digest, Size: sums.size, DiffID: sums.diffID,
		},
		Image: im,
	}, nil
}

// writeTar writes all changes to w as a tar and adds them to c.
func writeTar(ctx context.Context, changes Changes, w io.Writer, c *collector) error {
	tw := tar.NewWriter(w)
	order := newOrderCheck()
	err := changes.Each(ctx, func(e tree.Entry, content io.Reader) error {
		if err := order.check(&e); err != nil {
			return err
		}
		if err := c.completeLink(&e); err != nil {
			return err
		}
		h, err := header(&e)
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: write tar header: %w", e.Path, err)
		}
		e.ModTime = h.ModTime
		if e.Kind == tree.Regular && content == nil {
			return fmt.Errorf("%s: %w", e.Path, errNoContent)
		}
		if err := c.add(ctx, &e, content, tw); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return tw.Close()
}

var errNoContent = errors.New("regular file without content")

// sums are what a blob is known by.
type sums struct {
	digest, diffID digest.Digest
	size           int64
}
