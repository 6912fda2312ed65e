package inflate

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// samples are contents of all kinds.
func samples() map[string][]byte {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	var text strings.Builder
	for text.Len() < 700_000 {
		fmt.Fprintf(&text, "%d %s ", rng.IntN(1000), []string{"layer", "image", "digest", "manifest", "tar"}[rng.IntN(5)])
	}
	skewed := make([]byte, 400_000) // long codes
	for i := range skewed {
		skewed[i] = byte(min(255, rng.ExpFloat64()*20))
	}
	var runs []byte // distances from 1 to 40
	for d := 1; d <= 40; d++ {
		for range 20 {
			runs = append(runs, bytes.Repeat(noise[:d], 1+rng.IntN(300/d))...)
			runs = append(runs, noise[rng.IntN(1000):][:3]...)
		}
	}
	far := append(bytes.Clone(noise[:historySize]), noise[:historySize]...)
	return map[string][]byte{
		"empty": nil, "byte": {7}, "noise": noise, "text": []byte(text.String()), "skewed": skewed, "runs": runs, "far": far,
		"zeros": make([]byte, 1_000_000), "mixed": append(bytes.Clone(noise[:100_000]), text.String()[:200_000]...),
	}
}

func deflated(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(t testing.TB, h gzip.Header, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Header = h
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// raw unpacks a deflate stream with room for so many bytes at a time. rest is what follows the stream.
func raw(r io.Reader, room int) (data, rest []byte, err error) {
	d := newDecoder(r)
	out := output{buf: make([]byte, historySize+room+slack), to: historySize, from: historySize}
	for d.phase != atEnd && err == nil {
		keep := min(out.to-out.from, historySize)
		copy(out.buf[historySize-keep:], out.buf[out.to-keep:out.to])
		out.from, out.to, out.limit = historySize-keep, historySize, historySize+room
		err = d.run(&out)
		data = append(data, out.buf[historySize:out.to]...)
	}
	return data, d.in[d.pos:d.end], err
}

func TestStreams(t *testing.T) {
	t.Parallel()
	for name, want := range samples() {
		for _, level := range []int{flate.NoCompression, flate.BestSpeed, 6, flate.HuffmanOnly} {
			for _, room := range []int{1 << 20, 1000, 100, 1} {
				if room < 1000 {
					want = want[:min(len(want), 50_000)]
				}
				z := append(deflated(t, want, level), "tail"...)
				for how, wrap := range map[string]func(io.Reader) io.Reader{
					"whole": func(r io.Reader) io.Reader { return r }, "halves": iotest.HalfReader, "EOF": iotest.DataErrReader,
				} {
					got, rest, err := raw(wrap(bytes.NewReader(z)), room)
					if err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s, level %d, room %d, %s: %d bytes of %d, %v", name, level, room, how, len(got), len(want), err)
					}
					if how == "whole" && string(rest) != "tail" {
						t.Errorf("%s, level %d: %q is left", name, level, rest)
					}
				}
			}
		}
	}
}

// TestEveryCut cuts a stream off after each byte: what comes is the start of the content, and an error.
func TestEveryCut(t *testing.T) {
	t.Parallel()
	want := samples()["mixed"][98_500:101_500]
	for _, level := range []int{0, 1, 6, flate.HuffmanOnly} {
		z := deflated(t, want, level)
		for n := range z {
			got, _, err := raw(bytes.NewReader(z[:n]), 4000)
			if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(want, got) {
				t.Fatalf("level %d, %d of %d bytes: %v, %d bytes", level, n, len(z), err, len(got))
			}
		}
	}
}

// TestReadsNoFurther makes sure that the end of a stream is seen although nothing follows.
func TestReadsNoFurther(t *testing.T) {
	t.Parallel()
	for name, want := range samples() {
		r, w := io.Pipe()
		z := gzipped(t, gzip.Header{}, want)
		go w.Write(z) //nolint:errcheck // the pipe stays open: that is the point
		zr, err := NewReader(iotest.OneByteReader(r))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(zr, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestMembers(t *testing.T) {
	t.Parallel()
	s := samples()
	h := gzip.Header{Name: "name", Comment: "comment", Extra: []byte("extra")}
	a, b, none := gzipped(t, h, s["text"]), gzipped(t, gzip.Header{}, s["runs"]), gzipped(t, gzip.Header{}, nil)
	bad := bytes.Clone(a)
	bad[len(bad)-5] ^= 1
	long := gzipped(t, gzip.Header{Name: strings.Repeat("n", 511)}, nil)
	tooLong := gzipped(t, gzip.Header{Name: strings.Repeat("n", 512)}, nil)
	for name, tt := range map[string]struct {
		in   []byte
		want error
	}{
		"one": {a, nil}, "two": {bytes.Join([][]byte{a, b}, nil), nil}, "many": {bytes.Repeat(none, 1000), nil},
		"mixed": {bytes.Join([][]byte{none, b, none, a, none, b}, nil), nil}, "nothing": {nil, io.EOF},
		"checksum": {bad, ErrChecksum}, "cut header": {a[:9], io.ErrUnexpectedEOF}, "cut trailer": {a[:len(a)-1], io.ErrUnexpectedEOF},
		"no header": {[]byte("no gzip at all"), ErrHeader}, "zeros behind": {append(bytes.Clone(a), make([]byte, 20)...), ErrHeader},
		"few zeros behind": {append(bytes.Clone(a), 0, 0), io.ErrUnexpectedEOF}, "long name": {long, nil}, "too long name": {tooLong, ErrHeader},
	} {
		got, err := unpack(bytes.NewReader(tt.in))
		if !errors.Is(err, tt.want) || tt.want == nil && err != nil {
			t.Errorf("%s: error %v, want %v", name, err, tt.want)
		}
		want, theirs := theirUnpack(tt.in)
		if (theirs == nil) != (err == nil) || err == nil && !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v; compress/gzip has %d, %v", name, len(got), err, len(want), theirs)
		}
	}
}

func unpack(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func theirUnpack(in []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

// TestCodes makes tables of random codes and compares each entry with a search for the code.
func TestCodes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	m := newMeanings()
	for range 300 {
		lens := randomLengths(rng, 2+rng.IntN(maxLitLens-1))
		var c code
		if !c.set(lens) {
			t.Fatalf("%v is no code", lens)
		}
		table := make([]uint32, litTableSize)
		c.build(table, m.lit[:], litBits)
		for range 500 {
			word := rng.Uint32N(1 << maxCodeLength)
			sym, n := search(lens, word)
			e := table[word&litMask]
			if e&(entrySpecial|entryStop) == entrySpecial {
				e = table[e>>valueShift+word>>litBits&(1<<(e>>codeShift&codeMask)-1)] + litBits*(1+1<<codeShift)
			}
			if want := m.lit[sym] + uint32(n)*(1+1<<codeShift); e != want { //nolint:gosec // small
				t.Fatalf("%015b: entry %#x, want %#x for symbol %d of %d bits in %v", word, e, want, sym, n, lens)
			}
		}
	}
}

// randomLengths makes a complete code by splitting leaves.
func randomLengths(rng *rand.Rand, symbols int) []uint8 {
	leaves := []uint8{1, 1}
	for len(leaves) < symbols {
		i := rng.IntN(len(leaves))
		if rng.IntN(2) == 0 {
			i = len(leaves) - 1 // makes long ones
		}
		if leaves[i] < maxCodeLength {
			leaves[i]++
			leaves = append(leaves, leaves[i])
		}
	}
	lens := make([]uint8, maxLitLens)
	for i, at := range rng.Perm(maxLitLens)[:len(leaves)] {
		lens[at] = leaves[i]
	}
	return lens
}

// search finds the symbol that word begins with by RFC 1951's definition of codes.
func search(lens []uint8, word uint32) (sym, n int) {
	code, first, index := 0, 0, 0
	var count [maxCodeLength + 1]int
	for _, l := range lens {
		count[l]++
	}
	count[0] = 0
	for n = 1; n <= maxCodeLength; n++ {
		code = code<<1 | int(word>>(n-1)&1)
		if code-first < count[n] {
			break
		}
		index += count[n]
		first = (first + count[n]) << 1
	}
	index += code - first
	for l := uint8(1); l <= maxCodeLength; l++ {
		for s, have := range lens {
			if have != l {
				continue
			}
			if index == 0 {
				return s, n
			}
			index--
		}
	}
	return -1, n
}

// FuzzInflate compares with compress/flate: the same output, or an error for both. How much comes before an error
// differs a little: each of the two waits for bits that it may turn out not to need.
func FuzzInflate(f *testing.F) {
	for _, want := range samples() {
		for _, level := range []int{0, 1, 6, flate.HuffmanOnly} {
			f.Add(deflated(f, want[:min(len(want), 20_000)], level), uint16(1000))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, room uint16) {
		got, _, err := raw(iotest.DataErrReader(bytes.NewReader(in)), 1+int(room))
		r := flate.NewReader(bytes.NewReader(in))
		want, theirs := io.ReadAll(r)
		if (err == nil) != (theirs == nil) {
			t.Fatalf("error %v, theirs %v", err, theirs)
		}
		n := min(len(got), len(want))
		if !bytes.Equal(got[:n], want[:n]) || err == nil && len(want) != len(got) {
			t.Fatalf("%d bytes, theirs %d; %v, %v", len(got), len(want), err, theirs)
		}
	})
}

// FuzzGzip compares with compress/gzip.
func FuzzGzip(f *testing.F) {
	for _, want := range samples() {
		f.Add(gzipped(f, gzip.Header{Name: "n", Extra: []byte{1}}, want[:min(len(want), 5_000)]))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := unpack(bytes.NewReader(in))
		want, theirs := theirUnpack(in)
		if (err == nil) != (theirs == nil) || err == nil && !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, %v; theirs %d bytes, %v", len(got), err, len(want), theirs)
		}
	})
}

func BenchmarkInflate(b *testing.B) {
	for name, data := range samples() {
		z := gzipped(b, gzip.Header{}, data)
		b.Run(name, func(b *testing.B) {
			buf := make([]byte, 512<<10+Overhead)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				r, err := NewReader(bytes.NewReader(z))
				for err == nil {
					_, err = r.Next(buf)
				}
				if err != io.EOF { //nolint:errorlint // that is what it returns
					b.Fatal(err)
				}
			}
		})
	}
}
