// Package blob keeps bytes under their digest: written once, streaming, and read from many places at a time.
//
// A Store lies in a build's work directory and goes with it (New), or in a plain directory that outlives the
// process and may be shared by several of them (OpenDir). Where there is no directory at all, blobs live in memory.
// A blob appears under its digest only when it is complete.
package blob

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hako/internal/workdir"
)

// Store holds blobs by their sha256 digest. It may be used from many goroutines.
type Store struct {
	dir  string       // directory of the store; empty: mem holds everything
	mode fs.FileMode  // of blobs in a directory that outlives the process
	work *workdir.Dir // makes files in memory if dir is empty

	mu  sync.Mutex
	mem map[digest.Digest]*memBlob // guarded by mu
}

// memBlob is a blob without a name. Its file is never written again.
type memBlob struct {
	file *os.File
	size int64
}

// New makes an empty store in a build's work directory. It is valid until the directory is closed.
func New(d *workdir.Dir) (*Store, error) {
	s := &Store{work: d, mem: map[digest.Digest]*memBlob{}}
	if d.Path() == "" {
		return s, nil
	}
	s.dir = filepath.Join(d.Path(), "blobs")
	return s, s.makeDirs(0o700)
}

func (s *Store) makeDirs(mode fs.FileMode) error {
	for _, name := range []string{s.dir, s.blobDir(), s.tempDir()} {
		if err := os.Mkdir(name, mode); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("create blob store: %w", err)
		}
	}
	return nil
}

func (s *Store) blobDir() string { return filepath.Join(s.dir, "sha256") }
func (s *Store) tempDir() string { return filepath.Join(s.dir, "new") }

func (s *Store) path(d digest.Digest) string { return filepath.Join(s.blobDir(), d.Encoded()) }

// Close releases the store. Blobs that are open stay readable; those of a store without a directory are lost.
// It is idempotent.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, b := range s.mem {
		errs = append(errs, b.file.Close())
	}
	clear(s.mem)
	return errors.Join(errs...)
}

// Has tells whether the store holds the blob.
func (s *Store) Has(d digest.Digest) bool {
	if validate(d) != nil {
		return false
	}
	if s.dir == "" {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.mem[d] != nil
	}
	st, err := os.Lstat(s.path(d))
	return err == nil && st.Mode().IsRegular()
}

// Blob is an open blob. ReadAt may be called from many goroutines; Read and Seek share one position.
type Blob struct {
	io.SectionReader
	file *os.File
}

// Close releases the blob.
func (b *Blob) Close() error { return b.file.Close() }

// Open opens the blob for reading. A blob that the store does not hold is an error that Is fs.ErrNotExist.
// The content is not verified again. The caller closes the result.
func (s *Store) Open(d digest.Digest) (*Blob, error) {
	if err := validate(d); err != nil {
		return nil, err
	}
	if s.dir == "" {
		return s.openMem(d)
	}
	f, size, err := OpenFile(s.path(d))
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return &Blob{SectionReader: *io.NewSectionReader(f, 0, size), file: f}, nil
}

// OpenFile opens a file for reading in a directory that others can write to, and says how long it is. It never waits; what is no
// regular file is an error, a *fs.PathError as all that it returns. The caller closes the file.
func OpenFile(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // not to wait at a pipe
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: ErrIrregular}
	}
	if err != nil {
		_ = f.Close() // nothing was written
		return nil, 0, err
	}
	return f, st.Size(), nil
}

// ErrIrregular is the kind of error of a name that is a pipe, a directory or a device instead of a file.
var ErrIrregular = errors.New("it is not a regular file")

func (s *Store) openMem(d digest.Digest) (*Blob, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.mem[d]
	if b == nil {
		return nil, fmt.Errorf("open blob %s: %w", d, fs.ErrNotExist)
	}
	// A descriptor of its own keeps the blob readable when the store closes. Its position is shared, but unused.
	f, err := dup(b.file)
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", d, err)
	}
	return &Blob{SectionReader: *io.NewSectionReader(f, 0, b.size), file: f}, nil
}

// Create starts a new blob. The caller ends it with Commit or Close.
// Once ctx has ended, writes and Commit return its cause.
func (s *Store) Create(ctx context.Context) (*Writer, error) {
	f, err := s.tempFile()
	if err != nil {
		return nil, fmt.Errorf("create blob: %w", err)
	}
	return &Writer{ctx: ctx, store: s, file: f, hash: digest.Canonical.Hash()}, nil
}

// CreateHashed is Create for bytes that somebody else hashes: Commit has to be given their digest, and believes it.
func (s *Store) CreateHashed(ctx context.Context) (*Writer, error) {
	w, err := s.Create(ctx)
	if err == nil {
		w.hash = nil
	}
	return w, err
}

func (s *Store) tempFile() (*os.File, error) {
	if s.dir == "" {
		return s.work.File("blob")
	}
	f, err := os.CreateTemp(s.tempDir(), "blob-*")
	if err != nil || s.mode == 0 {
		return f, err
	}
	if err := f.Chmod(s.mode); err != nil {
		return nil, errors.Join(err, os.Remove(f.Name()), f.Close())
	}
	return f, nil
}

// Add stores the blob that open reads, in place of one that may be there. Its digest is verified.
func (s *Store) Add(ctx context.Context, d digest.Digest, open func(ctx context.Context) (io.ReadCloser, error)) (err error) {
	rc, err := open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	w, err := s.Create(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	if _, err := io.Copy(w, rc); err != nil {
		return err
	}
	_, _, err = w.Commit(d)
	return err
}

// ErrLost says that a blob is no longer where it was found, or cannot be read any more.
var ErrLost = errors.New("the blob is lost")

// Writer receives the bytes of one blob. It is used by one goroutine.
type Writer struct {
	ctx   context.Context //nolint:containedctx // io.Writer has no place for it; a Writer lives as long as one transfer
	store *Store
	file  *os.File
	hash  hash.Hash // nil if somebody else hashes
	size  int64
	done  bool
	tail  *Tail // nil if nobody reads meanwhile
}

var errDone = errors.New("blob writer is closed")

// Write appends to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	if w.done {
		return 0, errDone
	}
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.file.Write(p)
	if w.hash != nil {
		w.hash.Write(p[:n])
	}
	w.size += int64(n)
	w.tail.move(n, nil)
	if err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	return n, nil
}

// Size is the number of bytes written so far.
func (w *Writer) Size() int64 { return w.size }

// Digest is that of the bytes written so far. It must not be called if somebody else hashes.
func (w *Writer) Digest() digest.Digest { return digest.NewDigest(digest.Canonical, w.hash) }

// Commit makes the blob visible under its digest, which it returns with the size in bytes.
// If want is not empty and the digest is another, the blob is dropped and the error names both.
// Committing what the store holds already is no error.
func (w *Writer) Commit(want digest.Digest) (digest.Digest, int64, error) {
	if w.done {
		return "", 0, errDone
	}
	if w.ctx.Err() != nil {
		return "", 0, errors.Join(context.Cause(w.ctx), w.Close())
	}
	got := want
	if w.hash != nil {
		got = w.Digest()
	} else if err := validate(want); err != nil {
		return "", 0, errors.Join(err, w.Close())
	}
	if want != "" && want != got {
		err := fmt.Errorf("store blob %s: content has digest %s", want, got)
		return "", 0, errors.Join(err, w.Close())
	}
	if err := w.publish(got); err != nil {
		w.tail.move(0, ErrDropped)
		return "", 0, fmt.Errorf("store blob %s: %w", got, err)
	}
	w.tail.move(0, io.EOF)
	return got, w.size, nil
}

func (w *Writer) publish(d digest.Digest) error {
	w.done = true
	s := w.store
	if s.dir != "" {
		return errors.Join(os.Rename(w.file.Name(), s.path(d)), w.file.Close())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mem[d] != nil {
		return w.file.Close()
	}
	s.mem[d] = &memBlob{file: w.file, size: w.size}
	return nil
}

// Close drops the blob if it was not committed. It is idempotent.
func (w *Writer) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	w.tail.move(0, ErrDropped)
	if w.store.dir != "" {
		return errors.Join(os.Remove(w.file.Name()), w.file.Close())
	}
	return w.file.Close()
}

func validate(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("blob %q: %w", string(d), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("blob %s: only sha256 digests are supported", d)
	}
	return nil
}
