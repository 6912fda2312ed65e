package blob

import (
	"context"
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
	// Shared allows to read and to add blobs. Many processes can have it at once.
	Shared Access = iota
	// Exclusive allows to delete blobs as well. It waits until nobody else has the directory.
	Exclusive
	// ReadOnly allows to read a directory that this process cannot write to, and that must be there.
	ReadOnly
)

// staleAfter is the age at which an unfinished blob has lost its writer.
const staleAfter = 24 * time.Hour

// OpenDir opens a store in a plain directory, which outlives the process and is created if missing.
// It waits for the lock as long as another process holds it in a way that excludes this access,
// at most until ctx ends. The lock is held until Close.
func OpenDir(ctx context.Context, path string, access Access) (*Store, error) {
	s := &Store{dir: path, mode: 0o644}
	if access == ReadOnly {
		return s, s.lockReadOnly(ctx)
	}
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, fmt.Errorf("create blob store: %w", err)
	}
	if err := s.makeDirs(0o777); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockName), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return nil, fmt.Errorf("lock blob store: %w", err)
	}
	if err := flock(ctx, lock, access); err != nil {
		return nil, errors.Join(fmt.Errorf("lock blob store %s: %w", path, err), lock.Close())
	}
	s.lock = lock
	if access == Exclusive {
		s.dropUnfinished(0)
	} else {
		s.dropUnfinished(staleAfter)
	}
	return s, nil
}

const lockName = "lock"

// lockReadOnly takes the lock for reading, if there is one. Where nobody can write, nobody needs it.
func (s *Store) lockReadOnly(ctx context.Context) error {
	if _, err := os.Stat(s.blobDir()); err != nil {
		return fmt.Errorf("open blob store: %w", err)
	}
	lock, err := os.Open(filepath.Join(s.dir, lockName))
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	if err := flock(ctx, lock, ReadOnly); err != nil {
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("lock blob store %s: %w", s.dir, err), lock.Close())
		}
		return lock.Close() // a file system without locks
	}
	s.lock = lock
	return nil
}

// flock tries until it has the lock or ctx ends; flock(2) itself cannot be interrupted safely from Go.
func flock(ctx context.Context, f *os.File, access Access) error {
	how := unix.LOCK_SH
	if access == Exclusive {
		how = unix.LOCK_EX
	}
	const pause = 20 * time.Millisecond
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// dropUnfinished removes what killed writers left: what is older than that, and all if nobody else can be writing.
func (s *Store) dropUnfinished(than time.Duration) {
	names, err := os.ReadDir(s.tempDir())
	if err != nil {
		return
	}
	for _, n := range names {
		if st, err := n.Info(); err != nil || than > 0 && time.Since(st.ModTime()) < than {
			continue
		}
		_ = os.Remove(filepath.Join(s.tempDir(), n.Name())) // waste, not harm: the next owner tries again
	}
}

// Delete removes a blob. Whoever has it open can read on. In a directory shared with other processes
// it needs Exclusive access. Deleting what is not there is no error.
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
