package archive

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// spool is the file that holds all contents one after the other. One goroutine fills it; any may read it then.
type spool struct {
	create func() (*os.File, error)
	file   *os.File
	size   int64
	// buf holds the last bytes, which are not in the file yet. short says that the file may have to grow to its size.
	buf   []byte
	zero  []byte
	short bool
}

// spoolChunk is how much is written at once, and left out if it is zero.
const spoolChunk = 256 << 10 // 256 KiB

// add stores the next size bytes of r, which must be all, and returns where.
func (s *spool) add(r io.Reader, size int64) (at int64, err error) {
	if s.file == nil {
		if s.file, err = s.create(); err != nil {
			return 0, fmt.Errorf("make a file for the content of archives: %w", err)
		}
		s.buf, s.zero = make([]byte, 0, spoolChunk), make([]byte, spoolChunk)
	}
	at = s.size
	if err := s.fill(r); err != nil {
		return 0, err
	}
	if n := s.size - at; n != size {
		return 0, fmt.Errorf("got %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
	}
	return at, nil
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

// write writes what is in the buffer. Zeros take no room.
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

// punch gives back the room of a part that nobody reads any more, as far as it is written. Not every file system can.
func (s *spool) punch(at, size int64) {
	if end := s.size - int64(len(s.buf)); s.file != nil && at < end {
		const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
		_ = unix.Fallocate(int(s.file.Fd()), mode, at, min(size, end-at)) //nolint:gosec // a descriptor; failing costs only room
	}
}

// open reads a part.
func (s *spool) open(at, size int64) (io.ReadCloser, error) {
	if size == 0 {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if s.file == nil {
		return nil, os.ErrClosed
	}
	return io.NopCloser(io.NewSectionReader(s.file, at, size)), nil
}

func (s *spool) close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
