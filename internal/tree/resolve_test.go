package tree_test

import (
	"errors"
	"path"
	"strings"
	"syscall"
	"testing"

	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// FuzzResolve looks for paths and links that lead out of the root or nowhere.
func FuzzResolve(f *testing.F) {
	for _, s := range []string{"a", "../a", "l/x", "l/../..", "m//./x/", "loop", "d/up/x", "none/../d", "", "/", "d/f/x"} {
		f.Add(s, "/d", "../../l/none")
	}
	f.Fuzz(func(t *testing.T, p, one, two string) {
		if one == "" || two == "" {
			return // no link has an empty target
		}
		tr := links{Tree: treetest.New(t, "d/f \n d/up \n l \n loop -> loop \n m -> l"), targets: map[string]string{"l": one, "d/up": two}}
		for _, last := range []bool{false, true} {
			got, err := tree.Resolve(tr, p, last)
			if errors.Is(err, syscall.ELOOP) || errors.Is(err, syscall.ENOTDIR) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if path.Clean(got) != got || path.IsAbs(got) || got == ".." || strings.HasPrefix(got, "../") {
				t.Errorf("Resolve(%q) = %q, which is no path inside", p, got)
			}
			again, err := tree.Resolve(tr, got, false)
			if err != nil || again != got {
				t.Errorf("Resolve(%q) = %q, which resolves to %q, %v", p, got, again, err)
			}
		}
	})
}

// links is a tree with links of any targets.
type links struct {
	*treetest.Tree
	targets map[string]string
}

func (l links) Lstat(p string) (tree.Entry, error) {
	e, err := l.Tree.Lstat(p)
	if target, ok := l.targets[p]; ok {
		e.Kind, e.Linkname = tree.Symlink, target
	}
	return e, err
}
