// Package compression reads streams without their compression, which their first bytes tell: gzip, zstd, xz, bzip2 or none.
package compression

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"encoding/binary"
	"io"

	"github.com/klauspost/compress/zstd"

	"hako/internal/inflate"
)

// Magic numbers: RFC 1952, the xz file format 1.0.4, the bzip2 manual, RFC 8878.
const (
	gzipMagic  = "\x1f\x8b\x08"
	bzip2Magic = "BZh"
	xzMagic    = "\xfd7zXZ\x00"
	zstdMagic  = "\x28\xb5\x2f\xfd"

	zstdSkippable     = 0x184d2a50
	zstdSkippableMask = 0xfffffff0
)

// zstdMaxWindow is the largest window that is unpacked, the decoder's limit as of the zstd program.
const zstdMaxWindow = 128 << 20 // 128 MiB

// NewReader reads what r holds without its compression. The caller closes the result, and r if it is to be closed.
// It fails if the first bytes promise a compression whose header is damaged.
func NewReader(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	head, err := b.Peek(10)
	if err != nil && len(head) == 0 {
		return io.NopCloser(b), nil //nolint:nilerr // an empty file is plain; a failure comes up again with the first read
	}
	switch {
	case bytes.HasPrefix(head, []byte(bzip2Magic)):
		return io.NopCloser(bzip2.NewReader(b)), nil
	case bytes.HasPrefix(head, []byte(gzipMagic)):
		z, err := inflate.NewReader(b)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(z), nil
	case bytes.HasPrefix(head, []byte(xzMagic)):
		x, err := newXZReader(b)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(x), nil
	case isZstd(head):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(zstdMaxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// Compressed says whether a stream that begins with head is compressed. Eight bytes are enough.
func Compressed(head []byte) bool {
	for _, magic := range []string{gzipMagic, bzip2Magic, xzMagic} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return isZstd(head)
}

func isZstd(head []byte) bool {
	if bytes.HasPrefix(head, []byte(zstdMagic)) {
		return true
	}
	return len(head) >= 8 && binary.LittleEndian.Uint32(head)&zstdSkippableMask == zstdSkippable
}
