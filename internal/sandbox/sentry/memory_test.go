package sentry

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"hako/internal/rootfs"
	"hako/internal/tree"
)

const (
	mostMemory        = 120 << 20 // of a child, whatever it holds
	mostMemoryPerFile = 4 << 10   // of uppers
)

// TestMemoryOfManyFiles holds the child to its limit with many small files in writable trees.
func TestMemoryOfManyFiles(t *testing.T) {
	t.Parallel()
	const files = 20_000
	e := newEngine(t, Options{UpperFile: func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "uppers") }})
	lowers, _ := stackOf(t, exits())
	m, err := lowers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	run := m.Image.Index.Entries[len(m.Image.Index.Entries)-1]
	patch := rootfs.Patch{Entries: []rootfs.PatchEntry{{Entry: tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755}, Offset: -1}}}
	for i := range files {
		f := run.Entry
		f.Path = fmt.Sprintf("f%06d", i)
		patch.Entries = append(patch.Entries, rootfs.PatchEntry{Entry: f, Offset: run.Offset})
	}
	lowers[0].Open = func(context.Context) (*rootfs.Mountable, error) {
		return &rootfs.Mountable{Image: m.Image, Patch: patch}, nil
	}
	out, err := e.Run(t.Context(), runStep(lowers))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // reported elsewhere
	used := residentAnon(t, e.Child().Pid())
	t.Logf("%d MiB with %d files", used>>20, files)
	if used > mostMemory+files*mostMemoryPerFile {
		t.Errorf("%d bytes", used)
	}
}

// residentAnon is the memory of a process that no file stands behind, in bytes.
func residentAnon(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "RssAnon:" {
			n, err := strconv.Atoi(f[1])
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Skip("no RssAnon in /proc/PID/status: Linux before 4.5")
	return 0
}
