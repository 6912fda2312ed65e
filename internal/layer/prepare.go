package layer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// PrepareOptions says how a layer is read. The zero value lists what is in it.
type PrepareOptions struct {
	// Image, if not nil, is emptied and receives the layer as an EROFS image. It stays the caller's.
	Image *os.File
	// Verified says that the blob's bytes are known to be those that are wanted: whoever gives them has hashed them
	// once, or returns an error instead of io.EOF otherwise. The tar is verified nevertheless.
	Verified bool
	// Wide, if not nil, has room for one token for each layer that may be inflated at the same time with a window of more
	// than 8 MiB, which takes as much memory. All layers that are read together share it.
	Wide chan struct{}
	// Limits bound what the layer may make us do.
	Limits Limits
}

// Prepare reads a compressed layer once, verifies it against want while doing so, and makes an image of it.
// To keep the compressed bytes as well, pass an io.TeeReader that copies them to a blob writer: on success every byte
// has been read, and on an error nothing should be committed.
//
// want.Digest, want.DiffID and want.Size (unless 0) have to match, or the error names what does not.
// The content of the layer is not trusted: see Limits.
func Prepare(ctx context.Context, compressed io.Reader, want Descriptor, opts PrepareOptions) (*Image, error) {
	im, err := opts.prepare(ctx, compressed, want)
	if err != nil {
		return nil, fmt.Errorf("read layer %s: %w", want.Digest, err)
	}
	return im, nil
}

func (o PrepareOptions) prepare(ctx context.Context, compressed io.Reader, want Descriptor) (*Image, error) {
	for _, d := range []digest.Digest{want.Digest, want.DiffID} {
		if err := d.Validate(); err != nil {
			return nil, fmt.Errorf("digest %q: %w", string(d), err)
		}
	}
	c, err := newCollector(o.Limits, o.Image)
	if err != nil {
		return nil, err
	}
	blob := &verifier{ctx: ctx, r: compressed, max: want.Size}
	if !o.Verified {
		blob.hash = want.Digest.Algorithm().Hash()
	}
	g, gctx := errgroup.WithContext(ctx)
	p := newReadPipe(gctx)
	diffID := want.DiffID.Algorithm().Hash()
	g.Go(func() error { return unpack(blob, want, p, o.Wide) })
	g.Go(func() error { return p.hash(diffID) })
	g.Go(func() error {
		defer p.stop()
		return consume(gctx, p, c)
	})
	err = g.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	// A blob that is not what was asked for explains every other error.
	if verr := blob.verify(want, err); verr != nil {
		return nil, verr
	}
	if err != nil {
		return nil, err
	}
	if got := digest.NewDigest(want.DiffID.Algorithm(), diffID); got != want.DiffID {
		return nil, fmt.Errorf("uncompressed content has digest %s, but the image config says %s", got, want.DiffID)
	}
	return c.finish()
}

// unpack feeds the pipe with the uncompressed layer and reads the blob to its last byte.
func unpack(blob *verifier, want Descriptor, p *readPipe, wide chan struct{}) error {
	br := bufio.NewReaderSize(blob, readBuffer)
	if wide != nil && wideWindow(br) {
		select {
		case wide <- struct{}{}:
			defer func() { <-wide }()
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
	zr, err := decompress(br, want.MediaType)
	if err != nil {
		return err
	}
	defer zr.Close()
	if err := p.fill(zr); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, br)
	return err
}

// consume reads the tar, and what follows its end marker, since the diffID covers that, too.
func consume(ctx context.Context, p *readPipe, c *collector) error {
	limited := &limitReader{r: p, left: c.names.limits.TarBytes}
	if err := readTar(ctx, limited, c); err != nil {
		return err
	}
	_, err := io.Copy(io.Discard, limited)
	return err
}

// limitReader fails, other than io.LimitReader, if there is more to read.
type limitReader struct {
	r    io.Reader
	left int64
}

func (l *limitReader) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n, errors.New("uncompressed layer is larger than allowed")
	}
	return n, err
}

// verifier hashes and counts what is read through it; without a hash, it counts only.
type verifier struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no place for it; a verifier lives as long as one call
	r    io.Reader
	hash hash.Hash
	n    int64
	max  int64 // 0: unknown
	err  error // the reader's own
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.ctx.Err() != nil {
		return 0, context.Cause(v.ctx)
	}
	n, err := v.r.Read(p)
	if v.hash != nil {
		v.hash.Write(p[:n])
	}
	v.n += int64(n)
	if v.max > 0 && v.n > v.max {
		return n, fmt.Errorf("blob is larger than the %d bytes that the manifest says", v.max)
	}
	if err != nil && err != io.EOF { //nolint:errorlint // io.EOF is never wrapped by a Reader
		v.err = err
	}
	return n, err
}

// verify compares the blob with what was asked for. cause is why reading it ended early, if it did.
func (v *verifier) verify(want Descriptor, cause error) error {
	if v.err != nil {
		return v.err
	}
	if cause != nil {
		// Only the whole blob can be judged, and it is cheap to find out whether it is damaged or just bad.
		if _, err := io.Copy(io.Discard, v); err != nil {
			return cause
		}
	}
	if want.Size > 0 && v.n != want.Size {
		return fmt.Errorf("blob has %d bytes, but the manifest says %d", v.n, want.Size)
	}
	if v.hash == nil {
		return nil
	}
	if got := digest.NewDigest(want.Digest.Algorithm(), v.hash); got != want.Digest {
		return fmt.Errorf("blob has digest %s", got)
	}
	return nil
}
