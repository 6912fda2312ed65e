package download

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// File is a file that was fetched. It may be read from many goroutines.
type File struct {
	// Size is in bytes; Digest is the content's sha256.
	Size   int64
	Digest digest.Digest
	// ModTime is the server's Last-Modified; the zero time if it says none.
	ModTime time.Time

	file *os.File
}

// Reader reads the content from its start. Its Close does nothing.
func (f *File) Reader() io.ReadCloser {
	return struct {
		*io.SectionReader
		io.Closer
	}{io.NewSectionReader(f.file, 0, f.Size), io.NopCloser(nil)}
}

// Close frees the content. Readers must not be used any more.
func (f *File) Close() error { return f.file.Close() }

// Tree is a tree with nothing but the file in it, called name: owned by root, mode 0600, and from 1970 if the server
// did not say when it was changed, as BuildKit has it. now is the time of the root.
func (f *File) Tree(name string, now time.Time) tree.Tree {
	at := f.ModTime
	if at.IsZero() {
		at = time.Unix(0, 0)
	}
	return &single{file: f, name: name, now: now, entry: tree.Entry{Path: name, Kind: tree.Regular, Mode: 0o600, Size: f.Size, ModTime: at}}
}

// single is a tree of one file.
type single struct {
	file  *File
	name  string
	now   time.Time
	entry tree.Entry
}

var _ tree.Tree = (*single)(nil)

// Lstat implements [tree.Tree].
func (s *single) Lstat(p string) (tree.Entry, error) {
	switch p {
	case ".":
		return tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755, ModTime: s.now}, nil
	case s.name:
		return s.entry, nil
	}
	return tree.Entry{}, &fs.PathError{Op: "lstat", Path: p, Err: fs.ErrNotExist}
}

// ContentDigest is the digest of the file at p, which need not be read for it.
func (s *single) ContentDigest(p string) (digest.Digest, bool) { return s.file.Digest, p == s.name }

// ReadDir implements [tree.Tree].
func (s *single) ReadDir(p string) ([]string, error) {
	switch p {
	case ".":
		return []string{s.name}, nil
	case s.name:
		return nil, &fs.PathError{Op: "readdir", Path: p, Err: errors.New("it is not a directory")}
	}
	return nil, &fs.PathError{Op: "readdir", Path: p, Err: fs.ErrNotExist}
}

// Open implements [tree.Tree].
func (s *single) Open(p string) (io.ReadCloser, error) {
	if p != s.name {
		return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
	}
	return s.file.Reader(), nil
}
