package compression

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"math"
	"slices"

	"github.com/ulikunitz/xz/lzma"
)

// The xz file format 1.0.4: streams of blocks of LZMA2, each stream with an index and a footer. The library's own reader of
// it makes room for whatever a block claims to need, which can be 4 GiB in each block of a few bytes.

// maxDictionary is the largest dictionary that is made room for; "xz -9" makes 64 MiB.
const maxDictionary = 128 << 20 // 128 MiB

const (
	xzFooterMagic = "YZ"
	lzma2Filter   = 0x21
)

var (
	errXZ       = errors.New("xz data is corrupt")
	errXZNeeds  = fmt.Errorf("xz data needs more than %d MiB of memory to unpack", maxDictionary>>20)
	errXZMethod = errors.New("xz data has a filter or a check that is not supported")
)

// xzReader unpacks xz. One goroutine uses it.
type xzReader struct {
	in position
	// Of the stream; flags is empty before the first one and between two.
	flags  []byte
	blocks uint64
	sizes  hash.Hash // of the sizes of all blocks, to compare with the index
	// Of the block; nil between two.
	block      *lzma.Reader2
	sum        hash.Hash
	size       int64 // unpacked so far
	wantPacked int64 // as its header says; -1 if it does not
	wantSize   int64 // likewise
	headerSize int64
}

// position counts what is read, and hashes what is read byte by byte.
type position struct {
	r   *bufio.Reader
	n   int64
	crc uint32
}

// Read reads on.
func (p *position) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	p.n += int64(n)
	return n, err
}

// ReadByte reads one byte. There must be one.
func (p *position) ReadByte() (byte, error) {
	b, err := p.r.ReadByte()
	if err != nil {
		return 0, cutOff(err)
	}
	p.n++
	p.crc = crc32.Update(p.crc, crc32.IEEETable, []byte{b})
	return b, nil
}

// pad reads zeros up to a multiple of four.
func (p *position) pad() error {
	for p.n%4 != 0 {
		if b, err := p.ReadByte(); err != nil || b != 0 {
			return orCorrupt(err)
		}
	}
	return nil
}

// number reads an integer of the format, which is one of encoding/binary's with at most 63 bits.
func (p *position) number() (int64, error) {
	n, err := binary.ReadUvarint(p)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || n > math.MaxInt64 {
		return 0, orCorrupt(nil)
	}
	return int64(n), err //nolint:gosec // checked
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// orCorrupt is err, or else that the data is corrupt.
func orCorrupt(err error) error {
	if err == nil {
		return errXZ
	}
	return cutOff(err)
}

func newXZReader(r *bufio.Reader) (*xzReader, error) {
	x := &xzReader{in: position{r: r}}
	return x, x.stream()
}

// Read reads on.
func (x *xzReader) Read(p []byte) (int, error) {
	for {
		for x.block == nil {
			if err := x.next(); err != nil {
				return 0, err
			}
		}
		n, err := x.block.Read(p)
		x.size += int64(n)
		x.sum.Write(p[:n])
		if errors.Is(err, io.EOF) {
			err = x.endBlock()
		}
		if n > 0 || err != nil || len(p) == 0 {
			return n, err
		}
	}
}

// next reads up to the next block. The error is io.EOF after the last one.
func (x *xzReader) next() error {
	if x.flags == nil {
		if err := x.padding(); err != nil {
			return err
		}
		return x.stream()
	}
	x.in.n, x.in.crc = 0, 0
	size, err := x.in.ReadByte()
	switch {
	case err != nil:
		return err
	case size == 0:
		return x.index()
	}
	return x.startBlock(size)
}

// padding reads the zeros between two streams, always four at once. The error is io.EOF if no stream follows.
func (x *xzReader) padding() error {
	for {
		head, err := x.in.r.Peek(4)
		switch {
		case len(head) == 0:
			return err
		case len(head) < 4:
			return orCorrupt(err)
		case binary.LittleEndian.Uint32(head) != 0:
			return nil
		}
		_, _ = x.in.r.Discard(4) // they are there
	}
}

// stream reads the header of a stream.
func (x *xzReader) stream() error {
	var head [12]byte
	if _, err := io.ReadFull(&x.in, head[:]); err != nil {
		return cutOff(err)
	}
	flags := head[6:8]
	switch {
	case string(head[:6]) != xzMagic, binary.LittleEndian.Uint32(head[8:]) != crc32.ChecksumIEEE(flags):
		return errXZ
	case newCheck(flags[1]) == nil || flags[0] != 0:
		return errXZMethod
	}
	x.flags, x.blocks, x.sizes = flags, 0, sha256.New()
	return nil
}

// newCheck is the check of that number; nil if it is not known.
func newCheck(id byte) hash.Hash {
	switch id {
	case 0:
		return noCheck{}
	case 1:
		return crc32.NewIEEE()
	case 4:
		return crc64.New(crc64.MakeTable(crc64.ECMA))
	case 10:
		return sha256.New()
	}
	return nil
}

// noCheck is the check of nothing.
type noCheck struct{}

func (noCheck) Write(p []byte) (int, error) { return len(p), nil }
func (noCheck) Sum(b []byte) []byte         { return b }
func (noCheck) Reset()                      {}
func (noCheck) Size() int                   { return 0 }
func (noCheck) BlockSize() int              { return 1 }

// startBlock reads the header of a block that begins with first.
func (x *xzReader) startBlock(first byte) error {
	head := make([]byte, (int(first)+1)*4)
	head[0] = first
	if _, err := io.ReadFull(&x.in, head[1:]); err != nil {
		return cutOff(err)
	}
	end := len(head) - 4
	if binary.LittleEndian.Uint32(head[end:]) != crc32.ChecksumIEEE(head[:end]) {
		return errXZ
	}
	const sizes, packedSize, unpackedSize = 0xc0, 0x40, 0x80
	if head[1]&^sizes != 0 {
		return errXZMethod // more than one filter
	}
	fields := &position{r: bufio.NewReader(bytes.NewReader(head[2:end]))}
	x.wantPacked, x.wantSize = -1, -1
	var err error
	if head[1]&packedSize != 0 {
		x.wantPacked, err = fields.number()
	}
	if err == nil && head[1]&unpackedSize != 0 {
		x.wantSize, err = fields.number()
	}
	if err != nil {
		return errXZ
	}
	rest := head[2+fields.n : end]
	if len(rest) < 3 || rest[0] != lzma2Filter || rest[1] != 1 || len(bytes.Trim(rest[3:], "\x00")) > 0 {
		return errXZMethod
	}
	dictionary, err := lzma.DecodeDictCap(rest[2])
	switch {
	case err != nil:
		return errXZ
	case dictionary > maxDictionary:
		return errXZNeeds
	}
	x.headerSize, x.in.n, x.size, x.sum = int64(len(head)), 0, 0, newCheck(x.flags[1])
	x.block, err = lzma.Reader2Config{DictCap: int(dictionary)}.NewReader2(&x.in)
	return cutOff(err)
}

// endBlock checks the block that was read.
func (x *xzReader) endBlock() error {
	x.block = nil
	packed := x.in.n
	if x.wantPacked >= 0 && packed != x.wantPacked || x.wantSize >= 0 && x.size != x.wantSize {
		return errXZ
	}
	if err := x.in.pad(); err != nil {
		return err
	}
	got := make([]byte, x.sum.Size())
	if _, err := io.ReadFull(&x.in, got); err != nil {
		return cutOff(err)
	}
	want := x.sum.Sum(nil)
	if len(want) <= crc64.Size {
		slices.Reverse(want) // they are little-endian here
	}
	if !bytes.Equal(got, want) {
		return errXZ
	}
	x.blocks++
	x.note(x.headerSize + packed + int64(len(got)))
	x.note(x.size)
	return nil
}

// note adds a size to the hash of all.
func (x *xzReader) note(n int64) { x.sizes.Write(binary.AppendVarint(nil, n)) }

// index compares the index of a stream, of which the first byte was read, and its footer with what was there.
func (x *xzReader) index() error {
	want := x.sizes.Sum(nil)
	x.sizes.Reset()
	count, err := x.in.number()
	if err != nil || uint64(count) != x.blocks { //nolint:gosec // not negative
		return orCorrupt(err)
	}
	for range 2 * count {
		n, err := x.in.number()
		if err != nil {
			return err
		}
		x.note(n)
	}
	if err := x.in.pad(); err != nil {
		return err
	}
	crc, size := x.in.crc, x.in.n
	var foot [16]byte // the checksum, and the footer
	if _, err := io.ReadFull(&x.in, foot[:]); err != nil {
		return cutOff(err)
	}
	number := binary.LittleEndian.Uint32
	if !bytes.Equal(x.sizes.Sum(nil), want) || number(foot[:]) != crc || number(foot[4:]) != crc32.ChecksumIEEE(foot[8:14]) ||
		int64(number(foot[8:])) != size/4 || !bytes.Equal(foot[12:14], x.flags) || string(foot[14:]) != xzFooterMagic {
		return errXZ
	}
	x.flags = nil
	return nil
}
