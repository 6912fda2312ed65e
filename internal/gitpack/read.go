package gitpack

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"sort"

	"github.com/klauspost/compress/zlib"
)

const (
	bufferSize  = 256 << 10
	copyPiece   = 64 << 10
	headerBytes = 12
)

func compareBytes(a, b []byte) int { return bytes.Compare(a, b) }

// Read takes a pack from r, up to its end, and hashes every object in it. Deltas may only stand on objects of the same pack.
// It returns ctx's cause if that ends. The caller closes the pack.
func Read(ctx context.Context, r io.Reader, o Options) (_ *Pack, err error) {
	f, err := o.File("pack")
	if err != nil {
		return nil, fmt.Errorf("store a git pack: %w", err)
	}
	p := &Pack{options: o, limits: o.Limits.orDefault(), file: f}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("read a git pack: %w", err), f.Close())
		}
	}()
	s := &scanner{ctx: ctx, pack: p, refs: map[int32]ID{}}
	if err := s.scan(r); err != nil {
		return nil, err
	}
	p.cache = newContentCache()
	if err := s.resolve(); err != nil {
		return nil, err
	}
	p.sortIDs()
	return p, nil
}

// tee keeps every byte that is read in a file and hashes all but the last ones, which are the checksum.
type tee struct {
	ctx   context.Context //nolint:containedctx // lives as long as the call it serves
	r     io.Reader
	file  *os.File
	hash  hash.Hash
	total int64
	limit int64
	tail  []byte // the last bytes, not hashed yet
	size  int    // of the checksum
}

// Read implements io.Reader.
func (t *tee) Read(b []byte) (int, error) {
	if t.ctx.Err() != nil {
		return 0, context.Cause(t.ctx)
	}
	n, err := t.r.Read(b)
	if n == 0 {
		return 0, err
	}
	t.total += int64(n)
	if t.total > t.limit {
		return 0, fmt.Errorf("%w: it is longer than %d bytes", ErrTooMuch, t.limit)
	}
	if _, werr := t.file.Write(b[:n]); werr != nil {
		return 0, werr
	}
	t.tail = append(t.tail, b[:n]...)
	if extra := len(t.tail) - t.size; extra > 0 {
		t.hash.Write(t.tail[:extra])
		t.tail = append(t.tail[:0], t.tail[extra:]...)
	}
	return n, err
}

// scanner reads a pack once from its start to its end.
type scanner struct {
	ctx   context.Context //nolint:containedctx // lives as long as the call it serves
	pack  *Pack
	in    *tee
	buf   *bufio.Reader
	zlib  io.ReadCloser
	total int64        // inflated so far
	refs  map[int32]ID // bases of deltas that name them by id
	piece []byte
}

// offset is that of the next byte.
func (s *scanner) offset() int64 { return s.in.total - int64(s.buf.Buffered()) }

func (s *scanner) scan(r io.Reader) error {
	p := s.pack
	s.in = &tee{ctx: s.ctx, r: r, file: p.file, hash: p.options.Format.hash(), limit: p.limits.PackBytes, size: p.options.Format.Size()}
	s.buf = bufio.NewReaderSize(s.in, bufferSize)
	s.piece = make([]byte, copyPiece)
	var head [headerBytes]byte
	if _, err := io.ReadFull(s.buf, head[:]); err != nil {
		return fmt.Errorf("header: %w", unexpected(err))
	}
	version, count := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	switch {
	case string(head[:4]) != "PACK":
		return errors.New("it does not begin like one")
	case version != 2 && version != 3:
		return fmt.Errorf("it has the unknown version %d", version)
	case int64(count) > int64(p.limits.Objects):
		return fmt.Errorf("it has %d objects, more than %d", count, p.limits.Objects)
	}
	const believe = 1 << 16 // memory is taken as objects come, not as the header claims
	p.entries = make([]entry, 0, min(count, believe))
	for n := range int32(count) { //nolint:gosec // bounded above
		if err := s.object(n); err != nil {
			return fmt.Errorf("object %d of %d: %w", n+1, count, unexpected(err))
		}
	}
	return s.finish()
}

// unexpected turns an end of the stream into one in the middle of something.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// finish checks the checksum and that nothing follows it.
func (s *scanner) finish() error {
	p := s.pack
	sum := make([]byte, p.options.Format.Size())
	if _, err := io.ReadFull(s.buf, sum); err != nil {
		return fmt.Errorf("checksum: %w", unexpected(err))
	}
	if _, err := s.buf.ReadByte(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("there is something after its end")
		}
		return err
	}
	p.sum, p.size = sumID(s.in.hash), s.in.total
	if !bytes.Equal(sum, p.sum.Bytes()) {
		return errors.New("its checksum is wrong")
	}
	return nil
}

// object reads the object number n.
func (s *scanner) object(n int32) error {
	e := entry{offset: s.offset(), base: -1}
	if err := s.header(&e); err != nil {
		return err
	}
	if e.packed > s.pack.limits.ObjectBytes {
		return fmt.Errorf("%w: %d bytes in one object", ErrTooMuch, e.packed)
	}
	switch e.kind {
	case Commit, Tree, Blob, Tag:
	case ofsDelta:
		base, err := s.ofsBase(&e)
		if err != nil {
			return err
		}
		e.base = base
	case refDelta:
		id := make([]byte, s.pack.options.Format.Size())
		if _, err := io.ReadFull(s.buf, id); err != nil {
			return err
		}
		s.refs[n] = NewID(id)
	default:
		return fmt.Errorf("unknown type %d", e.kind)
	}
	e.delta, e.data, e.size = e.kind.isDelta(), s.offset(), e.packed
	id, err := s.data(&e)
	if err != nil {
		return err
	}
	s.pack.entries = append(s.pack.entries, e)
	s.pack.ids = append(s.pack.ids, id...)
	return nil
}

// header reads the type and the size of an object (gitformat-pack(5), "object entries").
func (s *scanner) header(e *entry) error {
	b, err := s.buf.ReadByte()
	if err != nil {
		return err
	}
	e.kind = Kind(b >> 4 & 7)
	size, shift := uint64(b&15), 4
	for b&0x80 != 0 {
		if b, err = s.buf.ReadByte(); err != nil {
			return err
		}
		if shift > 53 {
			return errors.New("its size is out of range")
		}
		size |= uint64(b&0x7f) << shift
		shift += 7
	}
	e.packed = int64(size) //nolint:gosec // less than 2^61
	return nil
}

// ofsBase reads how far before a delta its base lies, and returns the number of that.
func (s *scanner) ofsBase(e *entry) (int32, error) {
	b, err := s.buf.ReadByte()
	if err != nil {
		return 0, err
	}
	back := int64(b & 0x7f)
	for b&0x80 != 0 {
		if b, err = s.buf.ReadByte(); err != nil {
			return 0, err
		}
		if back > 1<<54 {
			return 0, errors.New("its base is out of range")
		}
		back = (back+1)<<7 | int64(b&0x7f)
	}
	at := e.offset - back
	all := s.pack.entries
	i := sort.Search(len(all), func(i int) bool { return all[i].offset >= at })
	if i == len(all) || all[i].offset != at {
		return 0, errors.New("its base is not there")
	}
	return int32(i), nil //nolint:gosec // bounded by Limits.Objects
}

// data inflates an object to its end, and returns its id unless it is a delta.
func (s *scanner) data(e *entry) ([]byte, error) {
	if err := s.inflate(); err != nil {
		return nil, err
	}
	var h hash.Hash
	if !e.delta {
		h = objectHash(s.pack.options.Format, e.kind, e.packed)
	}
	var n int64
	for {
		k, err := s.zlib.Read(s.piece)
		if h != nil {
			h.Write(s.piece[:k])
		}
		if n += int64(k); n > e.packed {
			return nil, errors.New("it is longer than its header says")
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if n != e.packed {
		return nil, errors.New("it is shorter than its header says")
	}
	if s.total += n; s.total > s.pack.limits.TotalBytes {
		return nil, ErrTooMuch
	}
	id := make([]byte, s.pack.options.Format.Size())
	if h != nil {
		id = h.Sum(id[:0])
	}
	return id, nil
}

// inflate starts a zlib stream at the current position.
func (s *scanner) inflate() (err error) {
	if s.zlib == nil {
		s.zlib, err = zlib.NewReader(s.buf)
		return err
	}
	z, ok := s.zlib.(zlib.Resetter)
	if !ok {
		return errors.New("zlib cannot begin anew")
	}
	return z.Reset(s.buf, nil)
}

// sortIDs makes it possible to find objects.
func (p *Pack) sortIDs() {
	p.order = make([]int32, len(p.entries))
	for i := range p.order {
		p.order[i] = int32(i) //nolint:gosec // bounded by Limits.Objects
	}
	slices.SortFunc(p.order, func(a, b int32) int { return compareBytes(p.id(a), p.id(b)) })
}
