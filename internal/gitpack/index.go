package gitpack

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// WriteIndex writes the index that git keeps beside a pack (gitformat-pack(5), version 2).
func (p *Pack) WriteIndex(w io.Writer) error {
	h := p.options.Format.hash()
	x := &indexWriter{w: bufio.NewWriter(io.MultiWriter(w, h)), pack: p}
	x.write([]byte{0xff, 't', 'O', 'c', 0, 0, 0, 2})
	x.fanout()
	for _, n := range p.order {
		x.write(p.id(n))
	}
	for _, n := range p.order {
		x.checksum(n)
	}
	x.offsets()
	x.write(p.sum.Bytes())
	if x.err == nil {
		x.err = x.w.Flush()
	}
	if x.err == nil {
		_, x.err = w.Write(sumID(h).Bytes())
	}
	if x.err != nil {
		return fmt.Errorf("index a git pack: %w", x.err)
	}
	return nil
}

// indexWriter writes until there is an error.
type indexWriter struct {
	w    *bufio.Writer
	pack *Pack
	err  error
}

func (x *indexWriter) write(b []byte) {
	if x.err == nil {
		_, x.err = x.w.Write(b)
	}
}

func (x *indexWriter) number(n uint32) { x.write(binary.BigEndian.AppendUint32(nil, n)) }

// fanout says how many ids begin with each byte or a smaller one.
func (x *indexWriter) fanout() {
	var counts [256]uint32
	for _, n := range x.pack.order {
		counts[x.pack.id(n)[0]]++
	}
	var sum uint32
	for _, c := range counts {
		sum += c
		x.number(sum)
	}
}

// checksum is that of an entry as it lies in the pack.
func (x *indexWriter) checksum(n int32) {
	if x.err != nil {
		return
	}
	p := x.pack
	end := p.size - int64(p.options.Format.Size())
	if int(n)+1 < len(p.entries) {
		end = p.entries[n+1].offset
	}
	h := crc32.NewIEEE()
	_, x.err = io.Copy(h, io.NewSectionReader(p.file, p.entries[n].offset, end-p.entries[n].offset))
	x.number(h.Sum32())
}

// offsets are those of the entries; those that need more than 31 bits are in a table of their own.
func (x *indexWriter) offsets() {
	var large []int64
	for _, n := range x.pack.order {
		at := x.pack.entries[n].offset
		if at < 1<<31 {
			x.number(uint32(at))
			continue
		}
		x.number(1<<31 | uint32(len(large))) //nolint:gosec // at most as many as objects
		large = append(large, at)
	}
	for _, at := range large {
		x.write(binary.BigEndian.AppendUint64(nil, uint64(at))) //nolint:gosec // not negative
	}
}
