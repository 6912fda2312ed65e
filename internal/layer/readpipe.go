package layer

import (
	"context"
	"errors"
	"hash"
	"io"

	"hako/internal/inflate"
)

// readPipe hands the bytes of a layer from the goroutine that inflates them to one that hashes them and to one that
// reads them, in large pieces and without copying. The number of pieces bounds the memory.
type readPipe struct {
	ctx  context.Context //nolint:containedctx // io.Reader has no place for it; the pipe lives as long as one call
	free chan *piece
	read chan *piece // to the reader, closed by fill
	sums chan *piece // to the hasher, closed by fill
	done chan struct{}
	err  error // of fill, set before read is closed

	cur  *piece // the reader's
	rest []byte
}

// piece is a buffer. Its two users each send one token when they are done with it.
type piece struct {
	buf  []byte // nil until it is used
	data []byte // in buf
	used chan struct{}
}

const (
	pieceSize  = 512<<10 + inflate.Overhead
	pieceCount = 6
)

func newReadPipe(ctx context.Context) *readPipe {
	p := &readPipe{
		ctx:  ctx,
		free: make(chan *piece, pieceCount),
		read: make(chan *piece, pieceCount),
		sums: make(chan *piece, pieceCount),
		done: make(chan struct{}),
	}
	for range pieceCount {
		b := &piece{used: make(chan struct{}, 2)}
		b.used <- struct{}{}
		b.used <- struct{}{}
		p.free <- b
	}
	return p
}

// fill sends all of r down the pipe. It returns nil if the reader has stopped: the reader knows why.
func (p *readPipe) fill(r unpacker) (err error) {
	defer func() {
		p.err = err
		close(p.read)
		close(p.sums)
	}()
	for {
		b, err := p.next()
		if b == nil || err != nil {
			return err
		}
		b.data, err = r.Next(b.buf)
		p.free <- b // pieces are used again in the order in which they were used
		p.read <- b
		p.sums <- b
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// next waits for a buffer that nobody uses any more. It is nil if the reader has stopped.
func (p *readPipe) next() (*piece, error) {
	b := <-p.free
	for range 2 {
		select {
		case <-b.used:
		case <-p.done:
			return nil, nil //nolint:nilnil // see fill
		case <-p.ctx.Done():
			return nil, context.Cause(p.ctx)
		}
	}
	if b.buf == nil {
		b.buf = make([]byte, pieceSize)
	}
	return b, nil
}

// hash adds all bytes to h.
func (p *readPipe) hash(h hash.Hash) error {
	for {
		select {
		case b, ok := <-p.sums:
			if !ok {
				return nil
			}
			h.Write(b.data)
			b.used <- struct{}{}
		case <-p.ctx.Done():
			return context.Cause(p.ctx)
		}
	}
}

// Read is the reader's side. After it, no other method but stop may be called by the reader.
func (p *readPipe) Read(out []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.cur != nil {
			p.cur.used <- struct{}{}
			p.cur = nil
		}
		select {
		case b, ok := <-p.read:
			if !ok && p.err != nil {
				return 0, p.err
			}
			if !ok {
				return 0, io.EOF
			}
			p.cur, p.rest = b, b.data
		case <-p.ctx.Done():
			return 0, context.Cause(p.ctx)
		}
	}
	n := copy(out, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// stop tells the other side that nothing will be read any more.
func (p *readPipe) stop() { close(p.done) }
