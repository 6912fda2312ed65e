package blob

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// ErrDropped is what readers of a [Tail] get when the blob will not be finished.
var ErrDropped = errors.New("the blob was dropped")

// Tail reads a blob while it is written: from the start, and at the end waiting for more. It may be used from many goroutines.
type Tail struct {
	file *os.File

	mu    sync.Mutex    // guards what follows
	size  int64         // bytes that can be read
	end   error         // io.EOF when there will be no more, or why there will not
	moved chan struct{} // closed, and replaced, when size or end changes
}

// Tail returns the tail of the blob. It is called by the goroutine that writes, at most once. The caller closes it.
func (w *Writer) Tail() (*Tail, error) {
	if w.done {
		return nil, errDone
	}
	f, err := dup(w.file)
	if err != nil {
		return nil, fmt.Errorf("read a blob while it is written: %w", err)
	}
	w.tail = &Tail{file: f, size: w.size, moved: make(chan struct{})}
	return w.tail, nil
}

// Close ends all readers.
func (t *Tail) Close() error {
	t.move(0, os.ErrClosed)
	return t.file.Close()
}

// move tells the readers that there is more, or that there will be no more. A nil Tail has none.
func (t *Tail) move(n int, end error) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.size += int64(n)
	if t.end == nil || errors.Is(end, os.ErrClosed) {
		t.end = end
	}
	close(t.moved)
	t.moved = make(chan struct{})
}

// Open returns a reader that is at the start of the blob. Its Read ends with io.EOF after the last byte of a committed blob,
// with ErrDropped if the blob is not committed, and with os.ErrClosed after Close of the reader or of the tail.
func (t *Tail) Open() io.ReadCloser { return &tailReader{tail: t, closed: make(chan struct{})} }

type tailReader struct {
	tail   *Tail
	offset int64
	once   sync.Once
	closed chan struct{}
}

func (r *tailReader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

func (r *tailReader) Read(p []byte) (int, error) {
	for {
		r.tail.mu.Lock()
		left, end, moved := r.tail.size-r.offset, r.tail.end, r.tail.moved
		r.tail.mu.Unlock()
		switch {
		case end != nil && (left == 0 || !errors.Is(end, io.EOF)):
			return 0, end
		case len(p) == 0:
			return 0, nil
		case left > 0:
			n, err := r.tail.file.ReadAt(p[:min(int64(len(p)), left)], r.offset)
			r.offset += int64(n)
			if n > 0 {
				err = nil
			}
			return n, err
		}
		select {
		case <-moved:
		case <-r.closed:
			return 0, os.ErrClosed
		}
	}
}
