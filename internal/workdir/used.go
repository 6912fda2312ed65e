package workdir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"weak"

	"golang.org/x/sys/unix"
)

// handed are the files that a Dir gave away, to be counted as long as they are open. Files without a name are in no listing.
type handed struct {
	mu    sync.Mutex // guards the rest
	files []weak.Pointer[os.File]
	lent  *os.File
}

func (h *handed) add(f *os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.files = append(h.files, weak.Make(f))
}

// size is what is in those that are still open.
func (h *handed) size() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var sum int64
	kept := h.files[:0]
	for _, p := range h.files {
		f := p.Value()
		if f == nil {
			continue
		}
		info, err := f.Stat()
		if errors.Is(err, os.ErrClosed) {
			continue
		}
		kept = append(kept, p)
		if err == nil {
			sum += blocks(info)
		}
	}
	clear(h.files[len(kept):])
	h.files = kept
	return sum
}

// keep holds f in place of what it held before.
func (h *handed) keep(f *os.File) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := h.lent
	h.lent = f
	if before == nil {
		return nil
	}
	return before.Close()
}

// Lend is ExecFile for somebody who passes the file on to another process and closes it. Used counts the file until Lend is called
// again, when that process is no more, or the directory is closed.
func (d *Dir) Lend(name string) (*os.File, error) {
	f, err := d.ExecFile(name)
	if err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("dup", err), f.Close())
	}
	own := os.NewFile(uintptr(fd), f.Name())
	d.handed.add(own)
	d.handed.forget(f)
	if err := d.handed.keep(own); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// forget no longer counts f.
func (h *handed) forget(f *os.File) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, p := range h.files {
		if p.Value() == f {
			h.files = append(h.files[:i], h.files[i+1:]...)
			return
		}
	}
}

// Used is how much room everything takes that is stored now, in bytes, named or not. What belongs to users of a user namespace may be missing.
func (d *Dir) Used() int64 {
	sum := d.handed.size()
	for i, p := range []*private{d.data, d.exec} {
		if p != nil && (i == 0 || p != d.data) {
			sum += Size(p.path)
		}
	}
	return sum
}

// Size is how much room a directory and all below it takes, in bytes: files with several names once. What cannot be read is left out.
func Size(dir string) int64 {
	var sum int64
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error { // what cannot be read is left out
		if err != nil {
			return nil //nolint:nilerr // likewise
		}
		info, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // likewise
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 && !e.IsDir() {
			if seen[st.Ino] {
				return nil
			}
			seen[st.Ino] = true
		}
		sum += blocks(info)
		return nil
	})
	return sum
}

// blocks is the room that a file takes.
func blocks(info fs.FileInfo) int64 {
	const unit = 512 // stat(2), st_blocks
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * unit
	}
	return info.Size()
}
