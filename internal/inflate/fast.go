package inflate

import "unsafe"

// The fast loop leaves out the checks of bounds that careful makes for each symbol, and makes them once a round:
//
//   - fastIn bytes of input are there: a round loads 8 bytes at most four times, and goes on by 7 bytes at most
//     each time before (3*7+8 <= fastIn);
//   - there is room for fastOut bytes: a round writes the literals of four entries, and one match of 258 bytes at
//     most, in pieces of 32 that may end up to 31 bytes after it;
//   - a match begins inside the output, as its distance is compared with what is there;
//   - tables are indexed by as many bits as they have entries, and subtables with checks of their own.
//
// It is written with values instead of slices, so that the compiler keeps its state in registers.

// bitStream is the input: bits, of which n count; what is above them is there, but not counted.
type bitStream struct {
	in   unsafe.Pointer
	pos  int
	bits uint64
	n    uint
}

// refill makes at least 56 bits available. There must be 8 bytes at pos.
func (s bitStream) refill() bitStream {
	s.bits |= *(*uint64)(unsafe.Add(s.in, s.pos)) << (s.n & 63)
	s.pos += int((63 - s.n) >> 3) //nolint:gosec // below 8
	s.n |= 56
	return s
}

// skip takes the bits of e.
func (s bitStream) skip(e uint32) bitStream {
	s.bits >>= e & takeMask
	s.n -= uint(e & takeMask)
	return s
}

// extra are the extra bits of e, where bits are those in front of the stream before e was skipped.
func extra(bits uint64, e uint32) int {
	return int(bits & (1<<(e&takeMask) - 1) >> (e >> codeShift & codeMask)) //nolint:gosec // 13 bits
}

// put writes the literals of e, and something behind them.
func put(buf unsafe.Pointer, to int, e uint32) int {
	*(*uint16)(unsafe.Add(buf, to)) = uint16(e >> valueShift) //nolint:gosec // what follows is cut off
	return to + int(e>>countShift&3)
}

// fast decodes while there is enough input and room, and the block goes on.
// It must only be called if there is both for one round.
func (d *decoder) fast(out *output) error {
	s := bitStream{in: unsafe.Pointer(unsafe.SliceData(d.in)), pos: d.pos, bits: d.bits, n: d.nbits}
	buf, to := unsafe.Pointer(unsafe.SliceData(out.buf)), out.to
	lastIn, lastOut, end := d.end-fastIn, out.limit-fastOut, uint32(0)
	for s.pos <= lastIn && to <= lastOut {
		s = s.refill()
		bits, e := s.bits, d.lit[s.bits&litMask]
		to, s = put(buf, to, e), s.skip(e)
		if e&entryLiteral != 0 { // 45 bits are left
			bits, e = s.bits, d.lit[s.bits&litMask]
			to, s = put(buf, to, e), s.skip(e)
			if e&entryLiteral != 0 { // 34 bits are left
				bits, e = s.bits, d.lit[s.bits&litMask]
				to, s = put(buf, to, e), s.skip(e)
				if e&entryLiteral != 0 {
					continue
				}
			}
			s = s.refill()
		}
		if e&entrySpecial != 0 {
			if e&entryStop != 0 {
				end = e
				break
			}
			s = s.refill()
			e = d.lit[uint64(e>>valueShift)+s.bits&(1<<(e>>codeShift&codeMask)-1)]
			bits = s.bits
			to, s = put(buf, to, e), s.skip(e)
			if e&entryLiteral != 0 {
				continue
			}
			if e&entrySpecial != 0 {
				end = e
				break
			}
		}
		length := int(e>>lengthShift) + 3 + extra(bits, e)
		e = d.dist[s.bits&distMask] // 28 bits are left, the most that a distance takes
		if e&(entrySpecial|entryStop) == entrySpecial {
			s = s.skip(e).refill()
			e = d.dist[uint64(e>>valueShift)+s.bits&(1<<(e>>codeShift&codeMask)-1)]
		}
		distance := int(e>>valueShift) + extra(s.bits, e)
		s = s.skip(e)
		if e&entrySpecial != 0 || distance > to-out.from {
			end = badEntry
			break
		}
		dst := unsafe.Add(buf, to)
		to += length
		if distance < 2*8 {
			copyNear(dst, distance, length)
			continue
		}
		copyFar(dst, distance, length)
	}
	out.to = to
	return d.leave(s, end)
}

// leave gives back the state that the loop had, where it stopped for end or, if that is 0, for want of input or room.
func (d *decoder) leave(s bitStream, end uint32) error {
	d.pos, d.bits, d.nbits = s.pos, s.bits&(1<<(s.n&63)-1), s.n
	switch {
	case end>>valueShift != 0:
		return errCorrupt
	case end != 0:
		d.endBlock()
	}
	return nil
}

// copyFar writes length bytes at dst, which are those from distance bytes before it on, at least 16, and up to 31 bytes more.
func copyFar(dst unsafe.Pointer, distance, length int) {
	src := unsafe.Add(dst, -distance)
	for n := 0; n < length; n += 32 {
		*(*piece)(unsafe.Add(dst, n)) = *(*piece)(unsafe.Add(src, n))
		*(*piece)(unsafe.Add(dst, n+16)) = *(*piece)(unsafe.Add(src, n+16))
	}
}

// piece is what one load and one store move.
type piece = [16]byte

// copyNear writes length bytes at dst, which are those from distance bytes before it on, and up to 7 bytes more.
//
//go:noinline
func copyNear(dst unsafe.Pointer, distance, length int) {
	src := unsafe.Add(dst, -distance)
	if distance >= 8 {
		for n := 0; n < length; n += 8 {
			*(*uint64)(unsafe.Add(dst, n)) = *(*uint64)(unsafe.Add(src, n))
		}
		return
	}
	for n := range 8 {
		*(*byte)(unsafe.Add(dst, n)) = *(*byte)(unsafe.Add(src, n))
	}
	// What repeats after so many bytes also repeats after the next multiple from 8 on.
	src = unsafe.Add(dst, -int((7+uint32(distance))/uint32(distance)*uint32(distance)))
	for n := 8; n < length; n += 8 {
		*(*uint64)(unsafe.Add(dst, n)) = *(*uint64)(unsafe.Add(src, n))
	}
}
