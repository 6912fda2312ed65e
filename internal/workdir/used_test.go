package workdir_test

import (
	"os"
	"path/filepath"
	"testing"

	"hako/internal/workdir"
)

// TestUsedCountsWhatNoListingShows: most files have no name, and one is open in another process only.
func TestUsedCountsWhatNoListingShows(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	d := open(t, workdir.Options{Explicit: t.TempDir()})
	empty := d.Used()
	check := func(what string, want int64) {
		t.Helper()
		if got := d.Used() - empty; got < want || got > want+64<<10 {
			t.Errorf("%s: %d bytes, want %d", what, got, want)
		}
	}
	fill := func(f *os.File, err error) *os.File {
		t.Helper()
		if err == nil {
			_, err = f.Write(make([]byte, size))
		}
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	closed := func(f *os.File) {
		t.Helper()
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	unnamed := fill(d.File("blob"))
	check("without a name", size)
	closed(unnamed)
	check("closed", 0)
	lent := fill(d.Lend("upper"))
	check("lent", size)
	closed(lent)
	check("lent, and closed here", size)
	closed(fill(d.Lend("upper")))
	check("lent again", size)
	name := filepath.Join(d.Path(), "a")
	if err := os.WriteFile(name, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(name, name+"2"); err != nil {
		t.Fatal(err)
	}
	check("with two names", 2*size)
}
