package manifests

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamplesAreListed holds examples/README.md against the files that are there.
func TestExamplesAreListed(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(moduleRoot(t), "examples")
	page := read(t, filepath.Join(dir, "README.md"))
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && name == "hello" {
			return fs.SkipDir // the page names it as a whole
		}
		if err == nil && !d.IsDir() && name != "README.md" && !strings.Contains(page, "["+name+"]("+name+")") {
			t.Errorf("examples/README.md does not list %s", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(page, "](") {
		name, _, _ := strings.Cut(part, ")")
		if _, err := os.Stat(filepath.Join(dir, name)); strings.Contains(name, "/") && !strings.ContainsAny(name, " \n") && err != nil {
			t.Errorf("examples/README.md: %v", err)
		}
	}
}
