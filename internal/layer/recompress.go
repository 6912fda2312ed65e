package layer

import (
	"context"
	"fmt"
	"io"
)

// Recompress reads a layer blob that want describes, and writes its tar to dst with other compression; options about
// an EROFS image are not heeded. It verifies both of want's digests; the diffID stays. On an error dst holds garbage.
// It returns ctx's cause if ctx ends first.
func Recompress(ctx context.Context, blob io.Reader, want Descriptor, dst io.Writer, opts WriteOptions) (Descriptor, error) {
	if err := opts.Validate(); err != nil {
		return Descriptor{}, fmt.Errorf("compress layer %s: %w", want.Digest, err)
	}
	out, err := recompress(&verifier{ctx: ctx, r: blob, hash: want.Digest.Algorithm().Hash(), max: want.Size}, want, newPress(ctx, dst, opts))
	if ctx.Err() != nil {
		return Descriptor{}, context.Cause(ctx)
	}
	if err != nil {
		return Descriptor{}, fmt.Errorf("compress layer %s: %w", want.Digest, err)
	}
	out.MediaType = opts.MediaType()
	return out, nil
}

func recompress(blob *verifier, want Descriptor, p *press) (Descriptor, error) {
	err := func() error {
		tar, err := decompress(blob, want.MediaType)
		if err != nil {
			return err
		}
		defer tar.Close()
		if err := unpackTo(p, tar); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, blob) // what follows the stream is part of the blob, too
		return err
	}()
	sums, perr := p.finish(err)
	if verr := blob.verify(want, err); verr != nil { // it explains every other error
		return Descriptor{}, verr
	}
	switch {
	case perr != nil:
		return Descriptor{}, perr
	case sums.diffID != want.DiffID:
		return Descriptor{}, fmt.Errorf("its tar has the digest %s, not %s", sums.diffID, want.DiffID)
	}
	return Descriptor{Digest: sums.digest, Size: sums.size, DiffID: sums.diffID}, nil
}

// unpackTo writes all of the tar to w.
func unpackTo(w io.Writer, tar unpacker) error {
	buf := make([]byte, pieceSize)
	for {
		data, err := tar.Next(buf)
		if err == io.EOF { //nolint:errorlint // an unpacker returns it as it is; a source may wrap one
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
}
