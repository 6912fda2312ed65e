package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	"hako/internal/cgroup"
)

const (
	defaultPart  = 8 << 20 // 8 MiB, as AWS's own tools
	defaultParts = 6
	minParts     = 2
)

// defaultWindow is the memory for the parts of one object, less where little memory may be used.
func defaultWindow() int64 {
	window := int64(defaultParts * defaultPart)
	if limit := cgroup.MemoryLimit(); limit > 0 {
		window = min(window, limit/8)
	}
	return window
}

// Reader reads an object from start to end. While its user works on one part, the next ones arrive.
// It must be used from one goroutine at a time, and closed.
type Reader struct {
	Object Object

	bucket  *Bucket
	cancel  context.CancelCauseFunc
	parts   chan *part  // in order; closed after the last one
	free    chan []byte // buffers that may be filled
	workers sync.WaitGroup
	current *part
	read    int // bytes of current that were given away
	err     error
}

// part is a piece of an object on its way.
type part struct {
	data []byte
	err  error
	done chan struct{} // closed when data is complete, or err is set
}

var errReaderClosed = errors.New("the reader was closed")

// Read opens an object for reading. When ctx ends, reading ends with its cause. An error about one that is not there is
// [ErrNotFound]; whatever is wrong is a *diag.Error, when reading as well. The caller closes the result.
func (b *Bucket) Read(ctx context.Context, key string) (*Reader, error) {
	size := b.options.PartBytes
	if b.options.Window/minParts < size {
		size = max(b.options.Window/minParts, 64<<10)
	}
	first, err := b.head(ctx, key, size)
	if err != nil {
		return nil, b.explain(ctx, "read", key, err)
	}
	count := min(max(b.options.Window/size, minParts), (first.Size+size-1)/size)
	ctx, cancel := context.WithCancelCause(ctx)
	r := &Reader{Object: first.Object, bucket: b, cancel: cancel, parts: make(chan *part, count+1), free: make(chan []byte, count)}
	for range count {
		r.free <- nil // made when it is needed
	}
	r.workers.Go(func() { r.fetchAll(ctx, first, size) })
	return r, nil
}

// fetchAll starts to fetch one part after the other, as buffers become free.
func (r *Reader) fetchAll(ctx context.Context, first *response, size int64) {
	defer close(r.parts)
	defer func() {
		if first != nil {
			_ = first.body.Close() // nobody reads it: the object is empty, or ctx has ended
		}
	}()
	for offset := int64(0); offset < r.Object.Size; offset += size {
		var buffer []byte
		select {
		case buffer = <-r.free:
		case <-ctx.Done():
			r.parts <- failed(r.explain(ctx, context.Cause(ctx))) // there is room: one more than buffers
			return
		}
		length := min(size, r.Object.Size-offset)
		if int64(cap(buffer)) < length {
			buffer = make([]byte, length)
		}
		p := &part{data: buffer[:length], done: make(chan struct{})}
		r.parts <- p
		from := first
		first = nil
		r.workers.Go(func() {
			defer close(p.done)
			if err := r.fetch(ctx, p.data, offset, from); err != nil {
				p.err = r.explain(ctx, err)
			}
		})
	}
}

func (r *Reader) explain(ctx context.Context, err error) error {
	return r.bucket.explain(ctx, "read", r.Object.Key, err)
}

// failed is a part that never came.
func failed(err error) *part {
	p := &part{err: err, done: make(chan struct{})}
	close(p.done)
	return p
}

// fetch fills data with what stands at offset: from an answer that is there already, or from new ones.
func (r *Reader) fetch(ctx context.Context, data []byte, offset int64, from *response) error {
	b := r.bucket
	got, idle := 0, 0
	for {
		var err error
		if from == nil {
			from, err = b.get(ctx, request{
				key: r.Object.Key, version: b.pinned(r.Object.Key), match: r.Object.Version, offset: offset + int64(got), length: int64(len(data) - got),
			})
			if err != nil {
				return err
			}
		}
		if from.Size != r.Object.Size || from.Version != r.Object.Version {
			_ = from.body.Close() // of another object
			return &answer{reason: replaced, status: http.StatusPreconditionFailed, message: "the object was replaced while it was read"}
		}
		n, err := io.ReadFull(from.body, data[got:])
		_ = from.body.Close() // only read
		from = nil
		got += n
		if err == nil {
			return nil
		}
		if n > 0 {
			idle = 0
		}
		if idle++; idle == maxTries || ctx.Err() != nil || !temporary(orCut(err)) {
			return fmt.Errorf("the connection ends at byte %d of %d: %w", offset+int64(got), r.Object.Size, orCut(err))
		}
		if err := b.pause(ctx, "read from", idle, orCut(err)); err != nil {
			return err
		}
	}
}

// orCut is err, or what the end of a body means that should have been longer.
func orCut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// pinned is the version that the place asks for, if it is the place of key.
func (b *Bucket) pinned(key string) string {
	if key == b.place.Key {
		return b.place.Version
	}
	return ""
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 || r.err != nil {
		return 0, r.err
	}
	if r.current == nil {
		if r.err = r.next(); r.err != nil {
			return 0, r.err
		}
	}
	n := copy(p, r.current.data[r.read:])
	r.read += n
	if r.read == len(r.current.data) {
		r.free <- r.current.data // there is room for each buffer
		r.current, r.read = nil, 0
	}
	return n, nil
}

// next waits for the next part.
func (r *Reader) next() error {
	p, ok := <-r.parts
	if !ok {
		return io.EOF
	}
	<-p.done
	if p.err != nil {
		r.cancel(p.err)
		return p.err
	}
	r.current = p
	return nil
}

// Close ends what is under way and waits for it. It is idempotent.
func (r *Reader) Close() error {
	r.cancel(errReaderClosed)
	r.workers.Wait()
	if r.err == nil {
		r.err = errReaderClosed
	}
	return nil
}
