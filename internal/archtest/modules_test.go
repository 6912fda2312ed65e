package archtest

import (
	goflag "flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/modfile"
)

var update = goflag.Bool("update", false, "rewrite the committed lists")

// direct are the modules that our own files import.
func direct(t *testing.T) []string {
	t.Helper()
	mod, err := modfile.Parse("go.mod", []byte(read(t, "go.mod")), nil)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, s := range sources(t) {
		for _, i := range s.imports() {
			best := ""
			for _, r := range mod.Require {
				if (i == r.Mod.Path || strings.HasPrefix(i, r.Mod.Path+"/")) && len(r.Mod.Path) > len(best) {
					best = r.Mod.Path
				}
			}
			if best != "" {
				used[best] = true
			}
		}
	}
	var out []string
	for m := range used {
		out = append(out, m)
	}
	slices.Sort(out)
	return out
}

func TestEveryModuleIsExplained(t *testing.T) {
	t.Parallel()
	var explained []string
	for line := range strings.Lines(read(t, "docs/dependencies.md")) {
		if cell, ok := strings.CutPrefix(line, "| `"); ok {
			name, _, _ := strings.Cut(cell, "`")
			explained = append(explained, name)
		}
	}
	slices.Sort(explained)
	if diff := cmp.Diff(direct(t), explained); diff != "" {
		t.Errorf("modules we import (-) and docs/dependencies.md explains (+):\n%s", diff)
	}
}

// TestLinkedPackages compares what the program links with docs/linked-packages.txt; a change needs a reason in its commit.
func TestLinkedPackages(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	cmd := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./cmd/hako")
	cmd.Dir = root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list linked packages: %v", err)
	}
	var linked []string
	for line := range strings.Lines(string(out)) {
		if p := strings.TrimSpace(line); p != "" && p != module && !strings.HasPrefix(p, module+"/") {
			linked = append(linked, p)
		}
	}
	slices.Sort(linked)
	text := strings.Join(linked, "\n") + "\n"
	const name = "docs/linked-packages.txt"
	if *update {
		if err := os.WriteFile(filepath.Join(root(t), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(read(t, name), text); diff != "" {
		t.Errorf("%s (-) and what is linked now (+); run with -update and say why in the commit:\n%s", name, diff)
	}
}
