package inflate

// header reads the header of a block.
func (d *decoder) header() error {
	if err := d.need(3); err != nil {
		return err
	}
	d.last = d.take(1) == 1
	switch d.take(2) {
	case 0:
		return d.storedHeader()
	case 1:
		return d.fixedHeader()
	case 2:
		return d.dynamicHeader()
	}
	return errCorrupt
}

func (d *decoder) storedHeader() error {
	d.alignByte()
	if err := d.need(32); err != nil {
		return err
	}
	n, inverse := d.take(16), d.take(16)
	if n != ^inverse&0xffff {
		return errCorrupt
	}
	d.stored, d.phase = int(n), inStored
	return nil
}

// fixedHeader makes the tables of the fixed code, RFC 1951, section 3.2.6.
func (d *decoder) fixedHeader() error {
	d.phase = inSymbols
	if d.fixed {
		return nil
	}
	var lens [litSymbols]uint8
	for i := range lens {
		switch {
		case i < 144, i >= 280:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		default:
			lens[i] = 7
		}
	}
	d.code.set(lens[:])
	d.code.build(d.lit[:], d.meaning.lit[:], litBits)
	for i := range lens[:distSymbols] {
		lens[i] = 5
	}
	d.code.set(lens[:distSymbols])
	d.code.build(d.dist[:], d.meaning.dist[:], distBits)
	d.fixed = true
	return nil
}

// dynamicHeader reads the codes of a block, RFC 1951, section 3.2.7.
func (d *decoder) dynamicHeader() error {
	if err := d.need(14); err != nil {
		return err
	}
	lits, dists, cls := int(d.take(5))+257, int(d.take(5))+1, int(d.take(4))+4
	if lits > maxLitLens || dists > maxDistLens {
		return errCorrupt
	}
	d.fixed = false
	if err := d.codeLengthCode(cls); err != nil {
		return err
	}
	if err := d.codeLengths(lits + dists); err != nil {
		return err
	}
	if !d.code.set(d.lens[:lits]) {
		return errCorrupt
	}
	d.code.build(d.lit[:], d.meaning.lit[:], litBits)
	if d.code.pairs() {
		pair(&d.lit)
	}
	if !d.code.set(d.lens[lits : lits+dists]) {
		return errCorrupt
	}
	d.code.build(d.dist[:], d.meaning.dist[:], distBits)
	d.phase = inSymbols
	return nil
}

// codeLengthCode reads the code of the code lengths into the table of distances, which is not needed yet.
func (d *decoder) codeLengthCode(n int) error {
	order := [clSymbols]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}
	var lens [clSymbols]uint8
	for _, sym := range order[:n] {
		if err := d.need(3); err != nil {
			return err
		}
		lens[sym] = uint8(d.take(3)) //nolint:gosec // 3 bits
	}
	if !d.code.set(lens[:]) {
		return errCorrupt
	}
	var meaning [clSymbols]uint32
	for i := range meaning {
		meaning[i] = uint32(i) << valueShift //nolint:gosec // small
	}
	d.code.build(d.dist[:], meaning[:], clBits)
	return nil
}

// codeLengths reads n code lengths into d.lens.
func (d *decoder) codeLengths(n int) error {
	for i := 0; i < n; {
		e, err := d.lookUp(d.dist[:], clBits)
		if err != nil {
			return err
		}
		if e&entrySpecial != 0 {
			return errCorrupt
		}
		d.take(uint(e & takeMask))
		sym := e >> valueShift
		if sym < 16 {
			d.lens[i] = uint8(sym) //nolint:gosec // below 16
			i++
			continue
		}
		length, extra, times := uint8(0), uint(2), 3
		switch sym {
		case 16:
			if i == 0 {
				return errCorrupt
			}
			length = d.lens[i-1]
		case 17:
			extra = 3
		case 18:
			extra, times = 7, 11
		}
		if err := d.need(extra); err != nil {
			return err
		}
		times += int(d.take(extra))
		if times > n-i {
			return errCorrupt
		}
		for range times {
			d.lens[i] = length
			i++
		}
	}
	return nil
}
