package sbom

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"hako/internal/tree"
)

// maxBuffered bounds what is read into memory of a file that has no random access.
const maxBuffered = 256 << 20 // 256 MiB

// file is an open regular file of the tree.
type file struct {
	io.ReaderAt
	entry tree.Entry
	close func()
}

var errTooLarge = errors.New("the file is too large")

// open opens e for random access.
func (s *scanner) open(e tree.Entry) (*file, error) {
	rc, err := s.tree.Open(e.Path)
	if err != nil {
		return nil, err
	}
	shut := func() { _ = rc.Close() } // read only: nothing to lose
	if at, ok := rc.(io.ReaderAt); ok {
		return &file{ReaderAt: at, entry: e, close: shut}, nil
	}
	defer shut()
	if e.Size > maxBuffered {
		return nil, errTooLarge
	}
	data, err := io.ReadAll(io.LimitReader(rc, maxBuffered))
	if err != nil {
		return nil, err
	}
	return &file{ReaderAt: bytes.NewReader(data), entry: e, close: func() {}}, nil
}

// path is the file's place in the tree.
func (f *file) path() string { return f.entry.Path }

// reader reads the file from its start.
func (f *file) reader() io.Reader { return io.NewSectionReader(f, 0, f.entry.Size) }

// all reads the whole file, which may have at most limit bytes.
func (f *file) all(limit int64) ([]byte, error) {
	if f.entry.Size > limit {
		return nil, errTooLarge
	}
	return io.ReadAll(f.reader())
}

// content reads a small file of the tree whole.
func content(t tree.Tree, path string, limit int64) (_ []byte, err error) {
	e, err := t.Lstat(path)
	if err != nil {
		return nil, err
	}
	if e.Kind != tree.Regular || e.Size > limit {
		return nil, errTooLarge
	}
	rc, err := t.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	return io.ReadAll(io.LimitReader(rc, limit))
}

// maxLine bounds a line of a text database.
const maxLine = 1 << 20 // 1 MiB

// lines calls fn for every line of r, without its end. The bytes are valid during the call only.
func lines(r io.Reader, fn func([]byte) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	for sc.Scan() {
		if err := fn(sc.Bytes()); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("read a line: %w", err)
	}
	return nil
}
