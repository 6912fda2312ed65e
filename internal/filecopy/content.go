package filecopy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

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

// spool is a file that holds the content of unpacked archives one after the other. It is not safe for concurrent use.
type spool struct {
	create func() (*os.File, error)
	limit  int64 // of size
	file   *os.File
	size   int64
	// buf holds the last bytes, which are not in the file yet.
	buf  []byte
	zero []byte
	// short says that the file may have to grow to its size: what is zero was left out.
	short bool
}

// spoolChunk is how much is written at once, and left out if it is zero: 256 KiB.
const spoolChunk = 256 << 10

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

var (
	errNoSpool = errors.New("there is no place for the content of archives")
	errTooMuch = errors.New("archives hold too much")
)

// add stores the next size bytes of r, which must be all. Holes of sparse files take no room.
func (s *spool) add(r io.Reader, size int64) (opener, error) {
	if size > s.limit-s.size {
		return nil, fmt.Errorf("%w: more than %d bytes", errTooMuch, s.limit)
	}
	if s.file == nil {
		if s.create == nil {
			return nil, errNoSpool
		}
		f, err := s.create()
		if err != nil {
			return nil, fmt.Errorf("make a file for the content of archives: %w", err)
		}
		s.file, s.buf, s.zero = f, make([]byte, 0, spoolChunk), make([]byte, spoolChunk)
	}
	o := spoolOpener{spool: s, offset: s.size, size: size}
	if err := s.fill(r); err != nil {
		return nil, err
	}
	if n := s.size - o.offset; n != size {
		return nil, fmt.Errorf("got %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	return o, nil
}

// fill stores r.
func (s *spool) fill(r io.Reader) error {
	for {
		n, err := r.Read(s.buf[len(s.buf):cap(s.buf)])
		s.buf = s.buf[:len(s.buf)+n]
		s.size += int64(n)
		if err == io.EOF { //nolint:errorlint // a Reader returns it as it is; a cut off archive says something else
			return nil
		}
		if err != nil {
			return err
		}
		if len(s.buf) < cap(s.buf) {
			continue
		}
		if err := s.write(); err != nil {
			return err
		}
	}
}

// write writes what is in the buffer.
func (s *spool) write() error {
	if s.short = bytes.Equal(s.buf, s.zero[:len(s.buf)]); !s.short {
		if _, err := s.file.WriteAt(s.buf, s.size-int64(len(s.buf))); err != nil {
			return err
		}
	}
	s.buf = s.buf[:0]
	return nil
}

// finish writes all that was added. Nothing can be added any more.
func (s *spool) finish() error {
	if len(s.buf) > 0 {
		if err := s.write(); err != nil {
			return err
		}
	}
	s.buf, s.zero = nil, nil
	if !s.short {
		return nil
	}
	return s.file.Truncate(s.size) // a hole at the end counts
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file, s.create, s.buf, s.zero = nil, nil, nil, nil
	return f.Close()
}

// spoolOpener is a file in a spool.
type spoolOpener struct {
	spool        *spool
	offset, size int64
}

func (o spoolOpener) open() (io.ReadCloser, error) {
	if o.spool.file == nil {
		return nil, os.ErrClosed
	}
	return io.NopCloser(io.NewSectionReader(o.spool.file, o.offset, o.size)), nil
}

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
