// Package gitpack reads git's packs: a pack is taken from a stream, each object in it is hashed, and afterwards can be read
// by its id, without a repository, an object store or the program git.
//
// Nothing in a pack is believed before it has been hashed. Whatever it holds, memory is bounded: small objects and the bases
// of small deltas are in memory for a moment, everything else stays in the file of the pack or goes through files without
// names. What a few bytes can claim to unpack to is bounded, too.
package gitpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"sync"
)

// Limits bound what a pack may make us do. The zero value means the defaults.
type Limits struct {
	// Objects is the largest number of objects; 0 means 20 million.
	Objects int
	// PackBytes bounds the pack itself; 0 means 1 TiB.
	PackBytes int64
	// ObjectBytes bounds one object, TotalBytes all of them together, unpacked; 0 means 64 GiB and 1 TiB.
	ObjectBytes, TotalBytes int64
	// Chain is how many deltas may stand on each other; 0 means 4095, which is as many as git makes.
	Chain int
}

func (l Limits) orDefault() Limits {
	set := func(v *int64, def int64) {
		if *v == 0 {
			*v = def
		}
	}
	if l.Objects == 0 {
		l.Objects = 20_000_000
	}
	if l.Chain == 0 {
		l.Chain = 4095 // git-pack-objects(1), --depth
	}
	set(&l.PackBytes, 1<<40)
	set(&l.ObjectBytes, 64<<30)
	set(&l.TotalBytes, 1<<40)
	return l
}

// Options says how a pack is read.
type Options struct {
	// File makes an empty file without a name. It must be set.
	File   func(name string) (*os.File, error)
	Format Format
	Limits Limits
	// Workers is how many deltas are resolved at the same time; 0 means one.
	Workers int
}

// Pack is a pack whose objects can be read. It may be used from many goroutines.
type Pack struct {
	options Options
	limits  Limits
	file    *os.File
	size    int64 // of the file, with the checksum at its end
	sum     ID    // the checksum

	entries []entry // by offset
	ids     []byte  // of the entries, one after the other
	order   []int32 // numbers of the entries, by id

	cache *contentCache
}

// entry is one object of a pack.
type entry struct {
	offset int64 // of its header
	data   int64 // of its compressed data
	packed int64 // what the data inflates to: for a delta, the length of the delta
	size   int64 // of the object
	base   int32 // number of the entry that a delta stands on; -1 if it is none, or unknown yet
	kind   Kind  // of the object; of the entry until deltas are resolved
	delta  bool
}

var (
	// ErrTooMuch is about a limit.
	ErrTooMuch = errors.New("it holds or unpacks to more than is allowed")
	// ErrMissing says that a pack does not hold an object.
	ErrMissing = errors.New("the object is missing")
)

// Close frees the pack. It must not be used any more.
func (p *Pack) Close() error { return p.file.Close() }

// Len is the number of objects.
func (p *Pack) Len() int { return len(p.entries) }

// Format is the kind of hash of the ids.
func (p *Pack) Format() Format { return p.options.Format }

// Checksum names the pack; Size is its length in bytes.
func (p *Pack) Checksum() ID { return p.sum }

// Size is the length of the pack in bytes.
func (p *Pack) Size() int64 { return p.size }

// Reader reads the whole pack as it came.
func (p *Pack) Reader() io.Reader { return io.NewSectionReader(p.file, 0, p.size) }

// id is that of an entry.
func (p *Pack) id(n int32) []byte {
	size := p.options.Format.Size()
	return p.ids[int(n)*size : (int(n)+1)*size]
}

// find returns the number of the entry with the id.
func (p *Pack) find(id ID) (int32, bool) {
	want := id.Bytes()
	i := sort.Search(len(p.order), func(i int) bool { return compareBytes(p.id(p.order[i]), want) >= 0 })
	if i == len(p.order) || compareBytes(p.id(p.order[i]), want) != 0 {
		return 0, false
	}
	return p.order[i], true
}

// WithPrefix returns the ids of a kind that begin with these hexadecimal digits, at most two of them.
func (p *Pack) WithPrefix(k Kind, digits string) []ID {
	var out []ID
	i := sort.Search(len(p.order), func(i int) bool { return NewID(p.id(p.order[i])).String() >= digits })
	for ; i < len(p.order) && len(out) < 2; i++ {
		id := NewID(p.id(p.order[i]))
		if len(digits) > len(id.String()) || id.String()[:len(digits)] != digits {
			break
		}
		if p.entries[p.order[i]].kind == k {
			out = append(out, id)
		}
	}
	return out
}

// Stat returns the kind and the size in bytes of an object. The error Is ErrMissing if it is not here.
func (p *Pack) Stat(id ID) (Kind, int64, error) {
	n, ok := p.find(id)
	if !ok {
		return 0, 0, fmt.Errorf("object %s: %w", id, ErrMissing)
	}
	return p.entries[n].kind, p.entries[n].size, nil
}

// Bytes reads a whole object of the kind, which has at most limit bytes. The result must not be changed.
func (p *Pack) Bytes(ctx context.Context, id ID, k Kind, limit int64) ([]byte, error) {
	n, err := p.entryOf(id, k)
	if err != nil {
		return nil, err
	}
	if e := &p.entries[n]; e.size > limit {
		return nil, fmt.Errorf("%s %s: it has %d bytes, more than %d", k, id, e.size, limit)
	}
	c, err := p.content(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", k, id, err)
	}
	b, err := c.bytes()
	return b, errors.Join(err, c.close())
}

// Open reads a blob. The caller closes it.
func (p *Pack) Open(ctx context.Context, id ID) (io.ReadCloser, error) {
	n, err := p.entryOf(id, Blob)
	if err != nil {
		return nil, err
	}
	if !p.entries[n].delta {
		z, err := p.inflate(n)
		if err != nil {
			return nil, fmt.Errorf("blob %s: %w", id, err)
		}
		return &blobReader{ctx: ctx, r: io.LimitReader(z, p.entries[n].size), close: func() error { return putInflater(z) }}, nil
	}
	c, err := p.content(ctx, n)
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", id, err)
	}
	return &blobReader{ctx: ctx, r: io.NewSectionReader(c, 0, c.size()), close: c.close}, nil
}

func (p *Pack) entryOf(id ID, k Kind) (int32, error) {
	n, ok := p.find(id)
	switch {
	case !ok:
		return 0, fmt.Errorf("%s %s: %w", k, id, ErrMissing)
	case p.entries[n].kind != k:
		return 0, fmt.Errorf("object %s is a %s, not a %s", id, p.entries[n].kind, k)
	}
	return n, nil
}

// blobReader reads an object. One goroutine uses it.
type blobReader struct {
	ctx   context.Context //nolint:containedctx // lives as long as one reading
	r     io.Reader
	close func() error
	once  sync.Once
	err   error
}

// Read reads on, or returns the context's cause.
func (b *blobReader) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return b.r.Read(p)
}

// Close frees what was needed for reading. It is idempotent.
func (b *blobReader) Close() error {
	b.once.Do(func() { b.err = b.close() })
	return b.err
}
