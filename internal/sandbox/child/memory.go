package child

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"hako/internal/cgroup"
)

// When a container has no memory left, the kernel ends one of its processes. It should be the child: then the builder says what
// happened, and to which step; if the builder is chosen, a pod is dead without a word. The kernel takes the process with the most
// points: the pages that are mapped in it, and thousandths of the limit by its oom_score_adj (the kernel's mm/oom_kill.c).
//
// The adjustment alone does not do. In a pod that requests less than a node has, the builder has up to 999 itself, and 1000 is the
// most. And the memory of programs in the sentry is that of a file, of which little may be mapped anywhere at that moment. So the
// child also maps one small file many times over: each page counts as often as it is mapped, and costs 8 bytes each time.

// chooseForOOM adjusts the points of a child and of what it starts. That needs no privilege, but has to be done before the child makes
// itself undumpable, with which its files in /proc become root's.
func chooseForOOM(pid int) error {
	const most = "1000" // proc_pid_oom_score_adj(5)
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(most), 0)
}

// weight is how much this process should seem to have in memory, in bytes, beside the builder, whose own heap grows with the limit.
// Without a limit it is nothing: the adjustment decides.
func weight(limit int64) int64 {
	const (
		least = 64 << 20
		share = 16 // of the limit
		most  = 256 << 20
	)
	if limit <= 0 {
		return 0
	}
	return min(least+limit/share, most)
}

var errWeight = errors.New("an empty file is not empty")

// weigh maps so many bytes, for as long as this process lives.
func weigh(size int64) (err error) {
	const (
		piece  = 1 << 20
		around = 64 << 10 // what a fault maps of a file that is in memory; mm/memory.c, fault_around_bytes
	)
	if size <= 0 {
		return nil
	}
	fd, err := unix.MemfdCreate("hako-weight", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // the mappings hold it
	if _, err := unix.Write(fd, make([]byte, piece)); err != nil {
		return fmt.Errorf("fill a file: %w", err)
	}
	for ; size > 0; size -= piece {
		m, err := unix.Mmap(fd, 0, piece, unix.PROT_READ, unix.MAP_SHARED)
		if err == nil {
			err = unix.Madvise(m, unix.MADV_DONTFORK)
		}
		if err != nil {
			return fmt.Errorf("map a file: %w", err)
		}
		for i := 0; i < piece; i += around {
			if m[i] != 0 {
				return errWeight
			}
		}
	}
	return nil
}

// weighIn does what is needed in a child, if it can be done.
func weighIn() {
	_ = weigh(weight(cgroup.MemoryLimit())) // without it the kernel may choose the builder, as it always could
}
