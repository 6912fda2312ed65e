package workdir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// tryAll tries each place once; a place that comes twice is tried once.
func tryAll(paths []string) []Attempt {
	var out []Attempt
	seen := map[string]bool{}
	for _, p := range paths {
		if p == "" {
			continue
		}
		if abs, err := filepath.Abs(p); err == nil {
			p = abs
		}
		if seen[p] {
			continue
		}
		seen[p] = true
		out = append(out, try(p))
	}
	return out
}

// try finds out, by doing it, what can be done in the directory path.
func try(path string) Attempt {
	a := Attempt{Path: path}
	f, err := unnamedFile(path, "hako-probe")
	if err != nil {
		a.Err = err
		return a
	}
	defer f.Close() //nolint:errcheck // an empty file that is gone already
	a.Tmpfs = isTmpfs(f)
	a.ExecErr = mapExecutable(f)
	return a
}

// Maps says whether files in the directory can be mapped executable. One that cannot be written is judged by how it is mounted.
func Maps(dir string) bool {
	f, err := unnamedFile(dir, "hako-probe")
	if err == nil {
		defer f.Close() //nolint:errcheck // an empty file that is gone already
		return mapExecutable(f) == nil
	}
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Flags&unix.ST_NOEXEC == 0
}

func isTmpfs(f *os.File) bool {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return false
	}
	return st.Type == unix.TMPFS_MAGIC || st.Type == unix.RAMFS_MAGIC
}

// mapExecutable maps a page of f the way the loader of a sandboxed program will.
func mapExecutable(f *os.File) error {
	size := os.Getpagesize()
	if err := f.Truncate(int64(size)); err != nil {
		return fmt.Errorf("grow a file: %w", err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map a file executable: %w", err)
	}
	return unix.Munmap(m)
}

// best returns the first disk that will do, else the first place that will do, else "".
func best(tried []Attempt, usable func(Attempt) bool) string {
	tmpfs := ""
	for _, a := range tried {
		if !usable(a) {
			continue
		}
		if !a.Tmpfs {
			return a.Path
		}
		if tmpfs == "" {
			tmpfs = a.Path
		}
	}
	return tmpfs
}

// unnamedFile creates a file in dir that has no name any more.
func unnamedFile(dir, name string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, name)), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) && !errors.Is(err, unix.EINVAL) {
		return nil, &os.PathError{Op: "create file in", Path: dir, Err: err}
	}
	f, err := os.CreateTemp(dir, ".hako-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// memfd creates a file in memory that can be mapped executable.
func memfd(name string) (*os.File, error) {
	const maxName = 240 // memfd_create(2): 249 bytes
	name = "hako-" + name[:min(len(name), maxName)]
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	}
	if errors.Is(err, unix.EACCES) { // vm.memfd_noexec=2 forbids exec(2) of it, which we do not need
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	}
	if err != nil {
		return nil, fmt.Errorf("create file in memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "memfd:"+name), nil
}
