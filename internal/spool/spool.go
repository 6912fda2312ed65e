// Package spool keeps many contents one after the other in one file without a name. Zeros take no room in it.
package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Spool is the file. One goroutine fills it; when it is finished, any may read it. The zero value holds nothing.
type Spool struct {
	create func() (*os.File, error)
	file   *os.File
	size   int64
	// buf holds the last bytes, which are not in the file yet. short says that the file may have to grow to its size.
	buf   []byte
	zero  []byte
	short bool
}

// New returns a spool that makes its file, an empty one without a name, by create when it is needed.
func New(create func() (*os.File, error)) *Spool { return &Spool{create: create} }

// chunk is how much is written at once, and left out if it is zero.
const chunk = 256 << 10 // 256 KiB

var errNowhere = errors.New("there is no place for the content of archives")

// Add stores the next size bytes of r, which must be all, and returns where. When ctx ends, Add returns its cause: what r
// yields can be far longer than what that is made of.
func (s *Spool) Add(ctx context.Context, r io.Reader, size int64) (at int64, err error) {
	if s.file == nil {
		if s.create == nil {
			return 0, errNowhere
		}
		if s.file, err = s.create(); err != nil {
			return 0, fmt.Errorf("make a file for the content of archives: %w", err)
		}
		s.buf, s.zero = make([]byte, 0, chunk), make([]byte, chunk)
	}
	at = s.size
	if err := s.fill(ctx, r); err != nil {
		return 0, err
	}
	if n := s.size - at; n != size {
		return 0, fmt.Errorf("got %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	return at, nil
}

// fill stores r.
func (s *Spool) fill(ctx context.Context, r io.Reader) error {
	for ctx.Err() == nil {
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
	return context.Cause(ctx)
}

// write writes what is in the buffer. Zeros take no room.
func (s *Spool) write() error {
	if s.short = bytes.Equal(s.buf, s.zero[:len(s.buf)]); !s.short {
		if _, err := s.file.WriteAt(s.buf, s.size-int64(len(s.buf))); err != nil {
			return err
		}
	}
	s.buf = s.buf[:0]
	return nil
}

// Finish writes all that was added. Nothing can be added any more.
func (s *Spool) Finish() error {
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

// Punch gives back the room of a part that nobody reads any more, as far as it is written. Not every file system can.
func (s *Spool) Punch(at, size int64) {
	if end := s.size - int64(len(s.buf)); s.file != nil && at < end {
		const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		_ = unix.Fallocate(int(s.file.Fd()), mode, at, min(size, end-at)) //nolint:gosec // a descriptor; failing costs only room
	}
}

// Size is how much was added, in bytes, holes included.
func (s *Spool) Size() int64 { return s.size }

// Open reads a part. Closing what it returns frees nothing.
func (s *Spool) Open(at, size int64) (io.ReadCloser, error) {
	if size == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if s.file == nil {
		return nil, os.ErrClosed
	}
	return io.NopCloser(io.NewSectionReader(s.file, at, size)), nil
}

// Close frees all contents; nobody may read them any more, nor add to them. It is idempotent.
func (s *Spool) Close() error {
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file, s.create, s.buf, s.zero = nil, nil, nil, nil
	return f.Close()
}
