package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMedians(t *testing.T) {
	t.Parallel()
	us := []usage{{wall: 3 * time.Second, cpu: 1, peakBytes: 9}, {wall: time.Second, cpu: 5, peakBytes: 1}, {wall: 2 * time.Second, cpu: 2, peakBytes: 4}}
	want := usage{wall: 2 * time.Second, cpu: 2, peakBytes: 4}
	if d := cmp.Diff(want, medians(us), cmp.AllowUnexported(usage{})); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if got := medians(nil); got != (usage{}) {
		t.Errorf("medians of nothing: %v", got)
	}
}

// Every row's Dockerfile names an existing base, and its context is complete.
func TestRowsWriteContexts(t *testing.T) {
	t.Parallel()
	for _, r := range rows() {
		if r.name == "files" || r.name == "touch" || r.name == "big" {
			r.files = nil // too large for a unit test
		}
		dir := filepath.Join(t.TempDir(), r.name)
		if err := r.write(dir, "127.0.0.1:5000"); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, "Dockerfile"))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), "FROM 127.0.0.1:5000/library/") || strings.Contains(string(text), "@") {
			t.Errorf("%s: %s", r.name, text)
		}
	}
}

func TestStepsDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(debianWith(40, func(int) string { return "true" })), "\n") {
		if seen[line] {
			t.Errorf("%q comes twice", line)
		}
		seen[line] = true
	}
	if len(seen) != 41 {
		t.Errorf("%d lines, want 41", len(seen))
	}
}

func TestFieldReadsNamedLine(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "memory.stat")
	if err := os.WriteFile(file, []byte("anon_thp 7\nanon 42\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := field(file, "anon"); got != 42 || err != nil {
		t.Errorf("%d, %v, want 42", got, err)
	}
	if _, err := field(file, "shmem"); err == nil {
		t.Error("a missing line was found")
	}
}
