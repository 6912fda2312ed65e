package gitpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/klauspost/compress/zlib"
)

const (
	// memoryObject is the largest object that is kept in memory; larger ones go through files.
	memoryObject = 4 << 20 // 4 MiB
	// cacheBytes is how much of the objects that others stand on is kept.
	cacheBytes = 32 << 20 // 32 MiB
)

// content is an unpacked object, in memory or in a file without a name. It is not changed any more once it is complete.
type content struct {
	mem  []byte
	file *os.File // nil if it is in memory
	n    int64
}

// newContent makes room for an object of that size.
func (p *Pack) newContent(size int64) (*content, error) {
	if size <= memoryObject {
		return &content{mem: make([]byte, 0, size)}, nil
	}
	f, err := p.options.File("object")
	if err != nil {
		return nil, err
	}
	return &content{file: f}, nil
}

// Write appends.
func (c *content) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	if c.file != nil {
		return c.file.Write(b)
	}
	c.mem = append(c.mem, b...)
	return len(b), nil
}

// ReadAt implements io.ReaderAt.
func (c *content) ReadAt(b []byte, at int64) (int, error) {
	if c.file != nil {
		return c.file.ReadAt(b, at)
	}
	return bytes.NewReader(c.mem).ReadAt(b, at)
}

func (c *content) size() int64 { return c.n }

// bytes is the whole content.
func (c *content) bytes() ([]byte, error) {
	if c.file == nil {
		return c.mem, nil
	}
	b := make([]byte, c.n)
	_, err := c.file.ReadAt(b, 0)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return b, err
}

// close frees what is not in memory.
func (c *content) close() error {
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}

// contentCache keeps the contents in memory that were used last.
type contentCache struct {
	mu    sync.Mutex // guards what follows
	items map[int32]*content
	order []int32 // oldest first
	bytes int64
}

func newContentCache() *contentCache { return &contentCache{items: map[int32]*content{}} }

func (c *contentCache) get(n int32) *content {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.items[n]
}

func (c *contentCache) put(n int32, x *content) {
	if x.file != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.items[n] != nil {
		return
	}
	c.items[n] = x
	c.order = append(c.order, n)
	c.bytes += x.n
	for c.bytes > cacheBytes && len(c.order) > 1 {
		old := c.order[0]
		c.order = c.order[1:]
		c.bytes -= c.items[old].n
		delete(c.items, old)
	}
}

// content unpacks the object number n, with all that it stands on.
func (p *Pack) content(ctx context.Context, n int32) (*content, error) {
	var chain []int32 // deltas to apply, the last one first
	at := n
	c := p.cache.get(at)
	for c == nil && p.entries[at].delta {
		if len(chain) > p.limits.Chain {
			return nil, errors.New("it stands on too many deltas")
		}
		chain = append(chain, at)
		at = p.entries[at].base
		c = p.cache.get(at)
	}
	var err error
	if c == nil {
		if c, err = p.plain(ctx, at); err != nil {
			return nil, err
		}
		if len(chain) > 0 {
			p.cache.put(at, c)
		}
	}
	for i := len(chain) - 1; i >= 0; i-- {
		next, err := p.apply(ctx, chain[i], c)
		if err = errors.Join(err, c.close()); err != nil {
			return nil, err
		}
		c = next
		if i > 0 {
			p.cache.put(chain[i], c)
		}
	}
	return c, nil
}

// plain unpacks an object that is no delta.
func (p *Pack) plain(ctx context.Context, n int32) (_ *content, err error) {
	c, err := p.newContent(p.entries[n].packed)
	if err != nil {
		return nil, err
	}
	z, err := p.inflate(n)
	if err == nil {
		_, err = io.Copy(c, &boundReader{ctx, io.LimitReader(z, p.entries[n].packed)})
		err = errors.Join(err, putInflater(z))
	}
	if err == nil && c.n != p.entries[n].packed {
		err = errors.New("it is cut short")
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

// boundReader is a reader that ends with a context.
type boundReader struct {
	ctx context.Context //nolint:containedctx // lives as long as the call it serves
	r   io.Reader
}

// Read reads on, or returns ctx's cause.
func (b *boundReader) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return b.r.Read(p)
}

// inflate reads the data of the entry number n; for a delta that is the delta.
func (p *Pack) inflate(n int32) (io.ReadCloser, error) {
	z, err := zlib.NewReader(io.NewSectionReader(p.file, p.entries[n].data, p.size-p.entries[n].data))
	if err != nil {
		return nil, fmt.Errorf("inflate: %w", err)
	}
	return z, nil
}

func putInflater(z io.ReadCloser) error { return z.Close() }
