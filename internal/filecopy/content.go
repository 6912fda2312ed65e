package filecopy

import (
	"bytes"
	"context"
	"errors"
	"io"

	"hako/internal/spool"
	"hako/internal/tree"
)

// opener is where the bytes of a file come from.
type opener interface {
	open() (io.ReadCloser, error)
}

// treeOpener is a file of a tree.
type treeOpener struct {
	from tree.Tree
	path string
}

func (o treeOpener) open() (io.ReadCloser, error) { return o.from.Open(o.path) }

// bytesOpener is a file in memory.
type bytesOpener []byte

func (o bytesOpener) open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(o)), nil }

// interruptible is a reader that ends with a context: archives can be far larger than the files that hold them.
type interruptible struct {
	ctx context.Context //nolint:containedctx // io.Reader has no place for it; it lives as long as one instruction
	r   io.Reader
}

// Read returns the context's cause once that has ended.
func (i *interruptible) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, context.Cause(i.ctx)
	}
	return i.r.Read(p)
}

// spoolOpener is a file in a spool.
type spoolOpener struct {
	spool    *spool.Spool
	at, size int64
}

func (o spoolOpener) open() (io.ReadCloser, error) { return o.spool.Open(o.at, o.size) }

// exact reads a file that was said to have a certain size. It opens the file when it is first read.
// A file that turns out shorter or longer is an error, the latter from finish.
type exact struct {
	from   opener
	left   int64
	reader io.ReadCloser
}

var errSizeChanged = errors.New("its size changed while it was copied")

// Read yields the announced number of bytes.
func (e *exact) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if e.reader == nil {
		r, err := e.from.open()
		if err != nil {
			return 0, &sourceReadError{err}
		}
		e.reader = r
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.reader.Read(p)
	e.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if e.left > 0 {
			err = errSizeChanged
		}
	}
	if err != nil {
		err = &sourceReadError{err}
	}
	return n, err
}

// sourceReadError is a failure to read what is copied, as opposed to one of whoever the content is for.
type sourceReadError struct{ err error }

func (e *sourceReadError) Error() string { return e.err.Error() }

func (e *sourceReadError) Unwrap() error { return e.err }

// finish closes the file and reports one that has grown.
func (e *exact) finish() error {
	if e.reader == nil {
		return nil
	}
	var err error
	if e.left == 0 {
		var b [1]byte
		if n, _ := e.reader.Read(b[:]); n > 0 {
			err = &sourceReadError{errSizeChanged}
		}
	}
	return errors.Join(err, e.reader.Close())
}

// sameContent compares two readers byte by byte.
func sameContent(a, b io.Reader) (bool, error) {
	const chunk = 32 << 10 // 32 KiB
	var bufA, bufB [chunk]byte
	for {
		n, errA := io.ReadFull(a, bufA[:])
		m, errB := io.ReadFull(b, bufB[:])
		if errA != nil && !ended(errA) {
			return false, errA
		}
		if errB != nil && !ended(errB) {
			return false, errB
		}
		if !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if ended(errA) || ended(errB) {
			return ended(errA) && ended(errB), nil
		}
	}
}

func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}
