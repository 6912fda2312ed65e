package layer

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"hako/internal/inflate"
)

// The media types of layers.
const (
	MediaTypeOCI        = "application/vnd.oci.image.layer.v1.tar"
	MediaTypeOCIGzip    = MediaTypeOCI + "+gzip"
	MediaTypeOCIZstd    = MediaTypeOCI + "+zstd"
	MediaTypeDocker     = "application/vnd.docker.image.rootfs.diff.tar"
	MediaTypeDockerGzip = MediaTypeDocker + ".gzip"
	MediaTypeDockerZstd = MediaTypeDocker + ".zstd"

	mediaTypeOCINondist     = "application/vnd.oci.image.layer.nondistributable.v1.tar"
	mediaTypeDockerForeign  = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	mediaTypeDockerForeignZ = mediaTypeDockerForeign + ".gzip"
)

// Compression is how a layer's tar is stored.
type Compression uint8

// The compressions. Gzip is the default since every registry and runtime takes it.
const (
	Gzip Compression = iota
	Zstd
	Uncompressed
)

// String is the name as a user writes it.
func (c Compression) String() string {
	switch c {
	case Gzip:
		return "gzip"
	case Zstd:
		return "zstd"
	case Uncompressed:
		return "uncompressed"
	}
	return "unknown"
}

// Compression says how the blob is compressed, by its media type; known is false for one that is no layer's.
func (d Descriptor) Compression() (c Compression, known bool) { return compressionOf(d.MediaType) }

// compressionOf says how a layer with this media type is compressed; known is false for types that are no layers.
func compressionOf(mediaType string) (c Compression, known bool) {
	switch mediaType {
	case MediaTypeOCIGzip, MediaTypeDockerGzip, mediaTypeOCINondist + "+gzip", mediaTypeDockerForeignZ:
		return Gzip, true
	case MediaTypeOCIZstd, MediaTypeDockerZstd, mediaTypeOCINondist + "+zstd":
		return Zstd, true
	case MediaTypeOCI, MediaTypeDocker, mediaTypeOCINondist, mediaTypeDockerForeign:
		return Uncompressed, true
	}
	return 0, false
}

// sniff says how the data at the start of r is compressed.
func sniff(r *bufio.Reader) (Compression, error) {
	head, err := r.Peek(4)
	if err != nil && err != io.EOF { //nolint:errorlint // Peek returns what Read returned
		return 0, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return Gzip, nil
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd, nil
	case len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}):
		return Zstd, nil // a skippable frame comes first, as zstd:chunked and eStargz-like writers do
	}
	return Uncompressed, nil
}

// readBuffer is how much of a blob is read at once.
const readBuffer = 64 << 10

// wideWindow tells whether r, which it does not move, is zstd data whose first frame wants a window of more than 8 MiB,
// which is what every decoder is expected to have, or may want one.
func wideWindow(r *bufio.Reader) bool {
	const usual = 8 << 20 // RFC 8878, section 3.1.1.1.2
	if got, err := sniff(r); err != nil || got != Zstd {
		return false
	}
	head, _ := r.Peek(zstd.HeaderMaxSize) // what is missing, decoding notices
	var h zstd.Header
	return h.Decode(head) != nil || h.Skippable || h.WindowSize > usual
}

// unpacker gives the tar in a blob in pieces, which it puts into the buffers that it is given.
// It is used by one goroutine, which closes it.
type unpacker interface {
	// Next returns the next piece, as a part of buf, which has room for more than inflate.Overhead bytes.
	// The error comes alone; it is io.EOF at the end.
	Next(buf []byte) ([]byte, error)
	Close()
}

// decompress returns the tar in r. Many registries hold gzip data under a plain tar media type and the other way
// round; as containerd does, the bytes decide between those two. Zstd under a type that says otherwise is refused,
// and so is the opposite.
func decompress(r io.Reader, mediaType string) (unpacker, error) {
	want, known := compressionOf(mediaType)
	if !known {
		return nil, fmt.Errorf("media type %q is not that of a layer", mediaType)
	}
	br := bufio.NewReaderSize(r, readBuffer)
	got, err := sniff(br)
	if err != nil {
		return nil, err
	}
	if (got == Zstd) != (want == Zstd) {
		return nil, fmt.Errorf("media type is %s, but the data is %s", mediaType, got)
	}
	switch got {
	case Gzip:
		zr, err := inflate.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("read gzip: %w", err)
		}
		return gzipUnpacker{zr}, nil
	case Zstd:
		return newZstdUnpacker(br)
	}
	return plainUnpacker{br}, nil
}

// gzipUnpacker has nothing to close.
type gzipUnpacker struct{ *inflate.Reader }

func (gzipUnpacker) Close() {}

// plainUnpacker fills buffers from a reader.
type plainUnpacker struct{ r io.Reader }

func (p plainUnpacker) Next(buf []byte) ([]byte, error) {
	n, err := readFull(p.r, buf)
	if n > 0 {
		return buf[:n], nil // the error comes again
	}
	return nil, err
}

func (plainUnpacker) Close() {}

// readFull is io.ReadFull, but the error is the reader's own, so that a cut off source is told from a short one.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// zstdUnpacker also frees the decoder's buffers.
type zstdUnpacker struct {
	plainUnpacker
	zr *zstd.Decoder
}

func newZstdUnpacker(r io.Reader) (unpacker, error) {
	const maxWindow = 128 << 20 // what zstd --long writes; more would not fit into a small builder
	zr, err := zstd.NewReader(r,
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, fmt.Errorf("read zstd: %w", err)
	}
	return zstdUnpacker{plainUnpacker: plainUnpacker{zr}, zr: zr}, nil
}

func (z zstdUnpacker) Close() { z.zr.Close() }
