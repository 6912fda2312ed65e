package inflate

import "math/bits"

// The alphabets and limits of RFC 1951.
const (
	maxCodeLength = 15
	litSymbols    = 288 // of the fixed code; a block's own may define 286
	distSymbols   = 32  // likewise 30
	maxLitLens    = 286
	maxDistLens   = 30
	clSymbols     = 19
	endOfBlock    = 256
	firstLength   = 257

	litBits  = 11 // of the primary table of literals and lengths
	distBits = 8  // of that of distances
	clBits   = 7  // the longest code of the code of code lengths

	litMask  = 1<<litBits - 1
	distMask = 1<<distBits - 1
)

// A table is indexed by the next bits of the stream. It has 1<<primary entries, then those of the subtables for codes
// that are longer. An entry of the table of literals and lengths says what up to two symbols mean together:
//
//	bits 0-5    how many bits of the stream it takes, extra bits included
//	bit 6       with exceptional: the block ends, or else (value 1) nothing is coded like this
//	bit 7       exceptional: neither literals nor a length. Without bit 6: a subtable, of bits 8-11 bits, which
//	            starts at value
//	bits 8-12   how many of the bits are codes; the extra bits of a length follow
//	bits 13-14  how many literals: 0, 1 or 2
//	bit 15      literals only; a length follows otherwise
//	bits 16-23  the first literal
//	bits 24-31  the second one, or the length less 3 and less its extra bits
//
// A single literal comes twice, so that combining two entries is an addition. An entry of the table of
// distances has the same bits 0 to 12, and the distance less its extra bits as value.
const (
	takeMask     = 0x3f
	entryStop    = 1 << 6
	entrySpecial = 1 << 7
	codeShift    = 8
	codeMask     = 0x1f
	countShift   = 13
	oneLiteral   = 1 << countShift
	entryLiteral = 1 << 15
	valueShift   = 16
	lengthShift  = 24

	endEntry = entrySpecial | entryStop
	badEntry = 1<<valueShift | endEntry
)

const (
	// Each subtable has at least two codes and at most 1<<(15-primary) entries.
	litTableSize  = 1<<litBits + litSymbols/2<<(maxCodeLength-litBits)
	distTableSize = 1<<distBits + distSymbols/2<<(maxCodeLength-distBits)
)

// meanings are the entries of all symbols before their codes are known: take and code bits are to be added.
type meanings struct {
	lit  [litSymbols]uint32
	dist [distSymbols]uint32
}

func newMeanings() *meanings {
	m := &meanings{}
	for i := range uint32(endOfBlock) {
		m.lit[i] = entryLiteral | oneLiteral | i<<valueShift | i<<lengthShift
	}
	m.lit[endOfBlock] = endEntry
	// RFC 1951, section 3.2.5: lengths 3 to 10 have a code each; then come four codes for each number of extra bits.
	base := uint32(3)
	for i := range uint32(28) {
		extra := uint32(0)
		if i >= 8 {
			extra = i/4 - 1
		}
		m.lit[firstLength+i] = (base-3)<<lengthShift | extra
		base += 1 << extra
	}
	m.lit[285] = (258 - 3) << lengthShift
	m.lit[286], m.lit[287] = badEntry, badEntry
	// Distances 1 to 4 have a code each; then come two for each number of extra bits.
	base = 1
	for i := range uint32(maxDistLens) {
		extra := uint32(0)
		if i >= 4 {
			extra = i/2 - 1
		}
		m.dist[i] = base<<valueShift | extra
		base += 1 << extra
	}
	m.dist[30], m.dist[31] = badEntry, badEntry
	return m
}

// code is a prefix code while its table is made.
type code struct {
	count  [maxCodeLength + 1]uint16 // of codes by their length
	sorted [litSymbols]uint16        // symbols by length, then by number
	coded  int                       // how many there are in sorted
	max    int                       // the longest length
}

// set takes the lengths of all codes. It says whether they make a code: every sequence of bits has one meaning.
// As in compress/flate, a code with nothing, and one with a single code of one bit, are allowed:
// what is missing is only an error if it is used.
func (c *code) set(lens []uint8) bool {
	c.count = [maxCodeLength + 1]uint16{}
	for _, n := range lens {
		c.count[n&maxCodeLength]++
	}
	var next [maxCodeLength + 1]uint16
	left, at := 1, uint16(0)
	c.max = 0
	for n := 1; n <= maxCodeLength; n++ {
		left = left<<1 - int(c.count[n])
		next[n] = at
		at += c.count[n]
		if c.count[n] > 0 {
			c.max = n
		}
		if left < 0 {
			return false
		}
	}
	c.coded = int(at)
	if left > 0 && c.max > 1 {
		return false
	}
	for sym, n := range lens {
		if n != 0 {
			n &= maxCodeLength
			c.sorted[next[n]] = uint16(sym) //nolint:gosec // below 288
			next[n]++
		}
	}
	return true
}

// build fills a table of 1<<primary entries and its subtables. meaning holds the entries of the symbols.
func (c *code) build(table, meaning []uint32, primary int) {
	if c.coded < 2 {
		c.buildPoor(table[:1<<primary], meaning)
		return
	}
	// The first entries are made for the shortest codes. Each further bit doubles the table, as every code so far
	// is found with either value of a bit that it does not have.
	word, size, at := uint32(0), uint32(1)<<1, 0
	n := 1
	for ; n <= primary; n++ {
		size = 1 << n
		for range c.count[n] {
			table[word] = meaning[c.sorted[at]] + uint32(n)*(1+1<<codeShift) //nolint:gosec // small
			at++
			word = nextWord(word, n)
		}
		if n < primary {
			copy(table[size:2*size], table[:size])
		}
	}
	c.buildSub(table, meaning, subState{word: word, at: at, n: n, primary: primary})
}

// subState is where the primary table ended.
type subState struct {
	word    uint32
	at, n   int
	primary int
}

// buildSub makes the subtables.
func (c *code) buildSub(table, meaning []uint32, s subState) {
	prefix, start, end := ^uint32(0), uint32(0), uint32(1)<<s.primary
	mask := uint32(1)<<s.primary - 1
	subBits := 0
	left := [maxCodeLength + 1]uint16(c.count)
	for n := s.n; n <= c.max; n++ {
		for ; left[n] > 0; left[n]-- {
			if s.word&mask != prefix {
				prefix = s.word & mask
				subBits = subSize(&left, n, s.primary)
				start, end = end, end+1<<subBits
				table[prefix] = start<<valueShift | entrySpecial | uint32(subBits)<<codeShift | uint32(s.primary) //nolint:gosec // small
			}
			rest := n - s.primary
			e := meaning[c.sorted[s.at]] + uint32(rest)*(1+1<<codeShift) //nolint:gosec // small
			s.at++
			for i := start + s.word>>s.primary; i < end; i += 1 << rest {
				table[i] = e
			}
			s.word = nextWord(s.word, n)
		}
	}
}

// subSize is how many bits the subtable needs whose first code has n bits: so many that the codes to come fill it.
func subSize(left *[maxCodeLength + 1]uint16, n, primary int) int {
	size := n - primary
	for used := int(left[n]); n < maxCodeLength && used < 1<<size; {
		n++
		size++
		used = used<<1 + int(left[n])
	}
	return size
}

// buildPoor makes the table of a code with one code or none.
func (c *code) buildPoor(table, meaning []uint32) {
	for i := range table {
		table[i] = badEntry | 1
	}
	if c.coded == 1 {
		for i := 0; i < len(table); i += 2 {
			table[i] = meaning[c.sorted[0]] + 1 + 1<<codeShift
		}
	}
}

// nextWord is the code after word, of n bits, where the first bit is the lowest; for the last code it is zero,
// or does not matter.
func nextWord(word uint32, n int) uint32 {
	free := ^word & (1<<n - 1)
	if free == 0 {
		return word
	}
	top := uint32(1) << (bits.Len32(free) - 1)
	return word&(top-1) | top
}

// pair makes entries of the primary table mean two symbols where there is room for the second one's code,
// if the first one is a literal and the second one is a literal or a length.
func pair(table *[litTableSize]uint32) {
	for i := len(table[:1<<litBits]) - 1; i >= 0; i-- {
		first := table[i]
		if first&entryLiteral == 0 {
			continue
		}
		take := first & takeMask
		second := table[uint32(i)>>take] //nolint:gosec // an index; smaller than i, so still a single one, or i itself
		if take+second>>codeShift&codeMask <= litBits && second&entrySpecial == 0 {
			table[i] = first&(0xff<<valueShift) | second&^(0xff<<valueShift) + take*(1+1<<codeShift) + oneLiteral
		}
	}
}

// pairs tells whether pair would find anything.
func (c *code) pairs() bool {
	for n := 1; 2*n <= litBits; n++ {
		if c.count[n] > 0 {
			return true
		}
	}
	return false
}
