package blob

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"
)

// Access says what a process may do with a directory that others use, too.
type Access uint8

// The kinds of access.
const (
	// Shared allows to read, to add and to delete blobs.
	Shared Access = iota
	// ReadOnly allows to read a directory that this process cannot write to, and that must be there.
	ReadOnly
)

// staleAfter is the age at which an unfinished blob has lost its writer.
const staleAfter = 24 * time.Hour

// OpenDir opens a store in a plain directory, which outlives the process and, if it is not only read, is created if missing. Many
// processes can use it at once, without locks: blobs appear when they are complete.
func OpenDir(path string, access Access) (*Store, error) {
	s := &Store{dir: path, mode: 0o644}
	if access == ReadOnly {
		if _, err := os.Stat(s.blobDir()); err != nil {
			return nil, fmt.Errorf("open blob store: %w", err)
		}
		return s, nil
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, fmt.Errorf("create blob store: %w", err)
	}
	if err := s.makeDirs(0o777); err != nil {
		return nil, err
	}
	s.dropUnfinished()
	return s, nil
}

// dropUnfinished removes what killed writers left long ago.
func (s *Store) dropUnfinished() {
	names, err := os.ReadDir(s.tempDir())
	if err != nil {
		return
	}
	for _, n := range names {
		if st, err := n.Info(); err != nil || time.Since(st.ModTime()) < staleAfter {
			continue
		}
		_ = os.Remove(filepath.Join(s.tempDir(), n.Name())) // waste, not harm: the next owner tries again
	}
}

// Delete removes a blob. Whoever has it open can read on. Deleting what is not there is no error.
func (s *Store) Delete(d digest.Digest) error {
	if err := validate(d); err != nil {
		return err
	}
	if s.dir != "" {
		if err := os.Remove(s.path(d)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("delete blob: %w", err)
		}
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.mem[d]
	if b == nil {
		return nil
	}
	delete(s.mem, d)
	return b.file.Close()
}

func dup(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
