package inflate

import (
	"errors"
	"io"
)

// historySize is how far back a match may reach, RFC 1951.
const historySize = 32 << 10

const (
	// inSize is how much of the stream is buffered.
	inSize = 128 << 10
	// fastIn and fastOut are how many bytes of input and how much room one round of the fast loop needs.
	fastIn  = 32
	fastOut = 4*2 + 258 + 31
)

var (
	errCorrupt = errors.New("deflate stream is corrupt")
	// ErrHeader says that no gzip member begins where one should.
	ErrHeader = errors.New("gzip header is invalid")
	// ErrChecksum says that the content of a gzip member is not what its trailer says.
	ErrChecksum = errors.New("gzip checksum does not match the content")
)

// phase is what comes next in a deflate stream.
type phase uint8

const (
	atBlock   phase = iota // the header of a block
	inStored               // bytes of a stored block
	inSymbols              // symbols of a compressed block
	atEnd                  // nothing
)

// decoder reads one deflate stream after the other from src.
type decoder struct {
	src      io.Reader
	in       []byte
	pos      int // in[pos:end] has been read, but not used
	end      int
	srcErr   error // why src gives no more
	bits     uint64
	nbits    uint // of bits that have been taken from in and not been used; always below 64
	phase    phase
	last     bool // the block is the last one
	fixed    bool // the tables are those of the fixed code
	stored   int  // bytes to come of a stored block
	length   int  // of a match that is not complete
	distance int

	meaning *meanings
	code    code
	lens    [maxLitLens + maxDistLens]uint8
	lit     [litTableSize]uint32
	dist    [distTableSize]uint32
}

func newDecoder(src io.Reader) *decoder {
	return &decoder{src: src, in: make([]byte, inSize), meaning: newMeanings()}
}

// output is a buffer that is being filled: buf[from:to] is what matches can refer to, and is extended up to limit.
// There is room for slack bytes after limit.
type output struct {
	buf             []byte
	from, to, limit int
}

// more reads more input. It is the reader's error if there is none.
func (d *decoder) more() error {
	if d.pos > 0 {
		d.end = copy(d.in, d.in[d.pos:d.end])
		d.pos = 0
	}
	const maxEmpty = 100 // as bufio
	for range maxEmpty {
		if d.srcErr != nil {
			return d.srcErr
		}
		n, err := d.src.Read(d.in[d.end:])
		d.end += n
		d.srcErr = err
		if n > 0 {
			return nil
		}
	}
	if d.srcErr == nil {
		d.srcErr = io.ErrNoProgress
	}
	return d.srcErr
}

// need makes at least n bits available, 56 at most.
func (d *decoder) need(n uint) error {
	for d.nbits < n {
		if d.pos == d.end {
			if err := d.more(); err != nil {
				return unexpected(err)
			}
		}
		d.bits |= uint64(d.in[d.pos]) << d.nbits
		d.pos++
		d.nbits += 8
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // a Reader returns it as it is
		return io.ErrUnexpectedEOF
	}
	return err
}

// take removes and returns n bits, which must be available.
func (d *decoder) take(n uint) uint32 {
	v := uint32(d.bits & (1<<n - 1)) //nolint:gosec // n is at most 16
	d.bits >>= n
	d.nbits -= n
	return v
}

// reset begins another stream at the next byte.
func (d *decoder) reset() {
	d.alignByte()
	d.phase, d.last = atBlock, false
}

// alignByte skips to the next byte and gives back the whole bytes among the bits.
func (d *decoder) alignByte() {
	d.pos -= int(d.nbits / 8) //nolint:gosec // below 8; these bytes are still in the buffer
	d.bits, d.nbits = 0, 0
}

// run fills out up to its limit or the end of the stream, whichever comes first. At the end, phase is atEnd.
// What is decoded before an error is in out.
func (d *decoder) run(out *output) error {
	for out.to < out.limit {
		var err error
		switch d.phase {
		case atBlock:
			err = d.header()
		case inStored:
			err = d.copyStored(out)
		case inSymbols:
			err = d.symbols(out)
		case atEnd:
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// endBlock goes on after a block.
func (d *decoder) endBlock() {
	d.phase = atBlock
	if d.last {
		d.phase = atEnd
		d.alignByte()
	}
}

// copyStored copies bytes of a stored block, those that are not buffered straight from the source.
func (d *decoder) copyStored(out *output) error {
	if d.stored == 0 {
		d.endBlock()
		return nil
	}
	room := out.buf[out.to:min(out.limit, out.to+d.stored)]
	n := copy(room, d.in[d.pos:d.end])
	d.pos += n
	if n == 0 && d.srcErr == nil && len(room) >= len(d.in) {
		n, d.srcErr = d.src.Read(room)
	} else if n == 0 {
		return unexpected(d.more())
	}
	out.to += n
	d.stored -= n
	return nil
}

// symbols decodes a compressed block: as much as possible in the fast loop, the rest bit by bit.
func (d *decoder) symbols(out *output) error {
	for d.phase == inSymbols && out.to < out.limit {
		if d.length > 0 {
			d.match(out)
			continue
		}
		if d.end-d.pos >= fastIn && out.limit-out.to >= fastOut {
			if err := d.fast(out); err != nil {
				return err
			}
			continue
		}
		if err := d.careful(out); err != nil {
			return err
		}
	}
	return nil
}

// lookUp waits for the bits of the next entry of a table and returns it, from a subtable if need be.
func (d *decoder) lookUp(table []uint32, primary uint) (uint32, error) {
	for {
		e := table[d.bits&(1<<primary-1)]
		if e&(entrySpecial|entryStop) == entrySpecial && d.nbits >= primary {
			sub := table[uint64(e>>valueShift)+d.bits>>primary&(1<<(e>>codeShift&codeMask)-1)]
			e = sub + uint32(primary)*(1+1<<codeShift) //nolint:gosec // small
		}
		if e&(entrySpecial|entryStop) != entrySpecial && d.nbits >= uint(e&takeMask) {
			return e, nil
		}
		if err := d.need(d.nbits + 1); err != nil {
			return 0, err
		}
	}
}

// careful decodes one entry near the end of input or output. It reads no further than it has to.
func (d *decoder) careful(out *output) error {
	e, err := d.lookUp(d.lit[:], litBits)
	if err != nil {
		return err
	}
	if e&entrySpecial != 0 {
		if e>>valueShift != 0 {
			return errCorrupt
		}
		d.take(uint(e & takeMask))
		d.endBlock()
		return nil
	}
	out.buf[out.to], out.buf[out.to+1] = byte(e>>valueShift), byte(e>>lengthShift) // slack takes the second one
	out.to += int(e >> countShift & 3)
	saved := d.take(uint(e & takeMask))
	if e&entryLiteral != 0 {
		return nil
	}
	length := int(e>>lengthShift) + 3 + int(saved>>(e>>codeShift&codeMask))
	if e, err = d.lookUp(d.dist[:], distBits); err != nil {
		return err
	}
	if e&entrySpecial != 0 {
		return errCorrupt
	}
	saved = d.take(uint(e & takeMask))
	distance := int(e>>valueShift) + int(saved>>(e>>codeShift&codeMask))
	if distance > out.to-out.from {
		return errCorrupt
	}
	d.length, d.distance = length, distance
	d.match(out)
	return nil
}

// match copies what there is room for of a match.
func (d *decoder) match(out *output) {
	for d.length > 0 && out.to < out.limit {
		n := copy(out.buf[out.to:min(out.to+d.length, out.limit)], out.buf[out.to-d.distance:out.to])
		out.to += n
		d.length -= n
	}
}
