package layer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"runtime"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"
)

// press hashes and compresses a tar while it is written: the diffID over what comes in, the digest over what goes out.
//
// The tar is cut into blocks of a fixed size. Each block is hashed by one goroutine, in order; compressed by one of
// several, in any order; and written out by one, in order. gzip blocks are compressed on their own, with the end of
// the block before as a dictionary, and joined by sync markers into one deflate stream, so the bytes do not
// depend on how many processors there are. zstd has one compressor.
//
// The number of blocks is fixed, which bounds the memory: whoever writes waits for a block to come free.
type press struct {
	ctx   context.Context //nolint:containedctx // io.Writer has no place for it; a press lives as long as one call
	abort context.CancelCauseFunc
	group *errgroup.Group

	free  chan *block
	hashQ chan *block // to the hasher
	workQ chan *block // to the compressors
	sendQ chan *block // to the sender
	cur   *block
	tail  []byte // the end of the block before cur

	codec  codec
	diffID hash.Hash
	digest hash.Hash // nil where the blob is the tar
	size   int64
	dst    io.Writer
}

// block is a part of the tar on its way through a press.
type block struct {
	in, dict   []byte
	out        bytes.Buffer
	packed     []byte // what in became: out, or in itself
	last       bool
	hashed     chan struct{} // one token for each use
	compressed chan struct{}
}

const (
	pressBlock = 1 << 20  // 1 MiB
	dictSize   = 32 << 10 // deflate's window
	// maxCompressors bounds memory: each needs about 2.5 MiB.
	maxCompressors = 6
)

// codec is one compression. begin and end are written before and after all blocks.
type codec interface {
	// compressors is how many goroutines may compress at a time.
	compressors() int
	// compressor returns what one of these goroutines calls for each of its blocks: it reads b.in and fills b.out,
	// which is not looked at if nothing is compressed.
	compressor() (func(b *block) error, error)
	begin() []byte
	// observe sees all blocks in order, concurrently with their compression.
	observe(p []byte)
	end() []byte
}

func newPress(ctx context.Context, dst io.Writer, opts WriteOptions) *press {
	p := &press{dst: dst, codec: codecFor(opts), diffID: digest.Canonical.Hash()}
	if opts.Compression != Uncompressed {
		p.digest = digest.Canonical.Hash()
	}
	p.ctx, p.abort = context.WithCancelCause(ctx)
	p.group, p.ctx = errgroup.WithContext(p.ctx)
	workers := p.codec.compressors()
	count := workers + 2
	p.free, p.hashQ = make(chan *block, count), make(chan *block, count)
	p.workQ, p.sendQ = make(chan *block, count), make(chan *block, count)
	for range count {
		p.free <- &block{hashed: make(chan struct{}, 1), compressed: make(chan struct{}, 1)}
	}
	for range workers {
		p.group.Go(p.compress)
	}
	p.group.Go(p.hash)
	p.group.Go(p.send)
	return p
}

// Write takes the next bytes of the tar. It copies them.
func (p *press) Write(data []byte) (int, error) {
	done := 0
	for done < len(data) {
		if p.cur == nil {
			if err := p.take(); err != nil {
				return done, err
			}
		}
		n := min(len(data)-done, pressBlock-len(p.cur.in))
		p.cur.in = append(p.cur.in, data[done:done+n]...)
		done += n
		// A full block waits for the next byte, so that the last one is known when it is passed on.
		if len(p.cur.in) == pressBlock && done < len(data) {
			p.pass(false)
		}
	}
	return done, nil
}

// take gets a free block and makes it the current one.
func (p *press) take() error {
	select {
	case b := <-p.free:
		if b.in == nil {
			b.in = make([]byte, 0, pressBlock)
			b.dict = make([]byte, 0, dictSize)
		}
		b.in, b.dict, b.last = b.in[:0], append(b.dict[:0], p.tail...), false
		p.cur = b
		return nil
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
}

// pass sends the current block on its way.
func (p *press) pass(last bool) {
	b := p.cur
	p.cur = nil
	b.last = last
	p.tail = append(p.tail[:0], b.in[max(0, len(b.in)-dictSize):]...)
	p.hashQ <- b // the queues hold all blocks there are, so nothing waits here
	p.workQ <- b
	p.sendQ <- b
}

// finish ends the stream and waits for everything. cause is why the writer gave up, or nil.
func (p *press) finish(cause error) (sums, error) {
	if cause == nil && p.cur == nil {
		cause = p.take()
	}
	if cause == nil {
		p.pass(true)
	} else {
		p.abort(cause)
	}
	close(p.hashQ)
	close(p.workQ)
	close(p.sendQ)
	err := p.group.Wait()
	// The writer's error is the first one, unless it only saw that a goroutine of the press had failed.
	if cause != nil && (err == nil || errors.Is(err, cause)) {
		err = cause
	}
	p.abort(nil)
	if err != nil {
		return sums{}, err
	}
	out := sums{diffID: digest.NewDigest(digest.Canonical, p.diffID), size: p.size}
	out.digest = out.diffID
	if p.digest != nil {
		out.digest = digest.NewDigest(digest.Canonical, p.digest)
	}
	return out, nil
}

func (p *press) hash() error {
	return p.each(p.hashQ, func(b *block) error {
		p.diffID.Write(b.in)
		p.codec.observe(b.in)
		b.hashed <- struct{}{}
		return nil
	})
}

func (p *press) compress() error {
	var work func(*block) error // made when needed: most layers are one block
	return p.each(p.workQ, func(b *block) (err error) {
		if work == nil {
			work, err = p.codec.compressor()
		}
		if err == nil {
			b.out.Reset()
			err = work(b)
			if b.packed = b.out.Bytes(); p.digest == nil {
				b.packed = b.in
			}
		}
		if err != nil {
			return fmt.Errorf("compress: %w", err)
		}
		b.compressed <- struct{}{}
		return nil
	})
}

func (p *press) send() error {
	if err := p.emit(p.codec.begin()); err != nil {
		return err
	}
	err := p.each(p.sendQ, func(b *block) error {
		for _, token := range []chan struct{}{b.compressed, b.hashed} {
			select {
			case <-token:
			case <-p.ctx.Done():
				return context.Cause(p.ctx)
			}
		}
		if err := p.emit(b.packed); err != nil {
			return err
		}
		if b.last {
			return p.emit(p.codec.end())
		}
		p.free <- b
		return nil
	})
	return err
}

func (p *press) emit(data []byte) error {
	n, err := p.dst.Write(data)
	if p.digest != nil {
		p.digest.Write(data[:n])
	}
	p.size += int64(n)
	return err
}

// each calls fn for the blocks of q until it is closed.
func (p *press) each(q <-chan *block, fn func(*block) error) error {
	for {
		select {
		case b, ok := <-q:
			if !ok {
				return nil
			}
			if err := fn(b); err != nil {
				return err
			}
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
}

func codecFor(opts WriteOptions) codec {
	level := opts.Level
	switch opts.Compression {
	case Zstd:
		if level == 0 {
			level = 3
		}
		return &zstdCodec{level: zstd.EncoderLevelFromZstd(level)}
	case Uncompressed:
		return plainCodec{}
	}
	if level == 0 {
		level = 4
	}
	return &gzipCodec{level: level, crc: crc32.NewIEEE()}
}

// gzipCodec writes RFC 1952: one member, no name, no time.
type gzipCodec struct {
	level int
	crc   hash.Hash32
	size  uint32 // modulo 2^32
}

func (g *gzipCodec) compressors() int { return min(runtime.GOMAXPROCS(0), maxCompressors) }

func (g *gzipCodec) compressor() (func(*block) error, error) {
	w, err := flate.NewWriterDict(io.Discard, g.level, nil)
	if err != nil {
		return nil, err
	}
	return func(b *block) error {
		w.ResetDict(&b.out, b.dict)
		if _, err := w.Write(b.in); err != nil {
			return err
		}
		if b.last {
			return w.Close()
		}
		return w.Flush()
	}, nil
}

func (g *gzipCodec) begin() []byte {
	const unknownOS = 255
	return []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, unknownOS}
}

func (g *gzipCodec) observe(p []byte) {
	g.crc.Write(p)
	g.size += uint32(len(p)) //nolint:gosec // modulo 2^32 by definition
}

func (g *gzipCodec) end() []byte {
	out := binary.LittleEndian.AppendUint32(nil, g.crc.Sum32())
	return binary.LittleEndian.AppendUint32(out, g.size)
}

// zstdCodec writes one zstd frame.
type zstdCodec struct{ level zstd.EncoderLevel }

func (z *zstdCodec) compressors() int { return 1 }

func (z *zstdCodec) compressor() (func(*block) error, error) {
	const window = 4 << 20 // 4 MiB; every decoder takes up to 8
	out := &redirect{}
	w, err := zstd.NewWriter(out, zstd.WithEncoderLevel(z.level), zstd.WithWindowSize(window),
		zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	return func(b *block) error {
		out.w = &b.out
		if _, err := w.Write(b.in); err != nil {
			return err
		}
		if b.last {
			return w.Close()
		}
		return nil
	}, nil
}

func (z *zstdCodec) begin() []byte  { return nil }
func (z *zstdCodec) observe([]byte) {}
func (z *zstdCodec) end() []byte    { return nil }

// redirect passes writes on to whatever w is at the moment.
type redirect struct{ w io.Writer }

func (r *redirect) Write(p []byte) (int, error) { return r.w.Write(p) }

// plainCodec does not compress.
type plainCodec struct{}

func (plainCodec) compressors() int { return 1 }

func (plainCodec) compressor() (func(*block) error, error) {
	return func(*block) error { return nil }, nil
}

func (plainCodec) begin() []byte  { return nil }
func (plainCodec) observe([]byte) {}
func (plainCodec) end() []byte    { return nil }
