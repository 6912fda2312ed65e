package filecopy

import (
	"fmt"
	"path"
	"strings"

	"hako/internal/tree"
)

// excluder is a tree that leaves paths out on purpose, as a build context with a .dockerignore does.
type excluder interface {
	// Excluded returns the pattern that leaves path out, and the file that it is in.
	Excluded(path string) (pattern, file string, ok bool)
}

// hint is what to do about a path that is not in t.
func hint(t tree.Tree, p string) string {
	if x, ok := t.(excluder); ok {
		if pattern, file, ok := x.Excluded(p); ok {
			return fmt.Sprintf("%s leaves it out with %q; change that pattern or add %q after it.", file, pattern, "!"+p)
		}
	}
	if e, err := t.Lstat(p); err == nil && e.Kind == tree.Symlink {
		return fmt.Sprintf("It is a symbolic link to %q, which is not there.", e.Linkname)
	}
	dir, base := path.Dir(p), path.Base(p)
	for dir != "." {
		e, err := t.Lstat(dir)
		if err == nil && e.Kind == tree.Dir {
			break
		}
		dir, base = path.Dir(dir), path.Base(dir)
	}
	names, err := t.ReadDir(dir)
	if err != nil {
		return ""
	}
	if near := nearest(names, base); near != "" {
		return fmt.Sprintf("Did you mean %q?", join(dir, near))
	}
	if dir == "." {
		return "Check the path; it is relative to the root of the source."
	}
	if len(names) == 0 {
		return fmt.Sprintf("Check the path; the directory %q is empty.", dir)
	}
	const few = 5
	list := names[:min(few, len(names))]
	if len(names) > few {
		list = append(list[:few:few], "…")
	}
	return fmt.Sprintf("Check the path; the directory %q has %s.", dir, strings.Join(list, ", "))
}

// nearest returns the name most like want, or "" if none is.
func nearest(names []string, want string) string {
	best, bestCost := "", min(1+len(want)/3, len(want)-1) // one letter is like any other
	for _, n := range names {
		cost := distance(strings.ToLower(n), strings.ToLower(want))
		if strings.EqualFold(strings.TrimSuffix(n, path.Ext(n)), strings.TrimSuffix(want, path.Ext(want))) {
			cost = min(cost, 1)
		}
		if cost < bestCost || cost == bestCost && cost > 0 && best == "" {
			best, bestCost = n, cost
		}
	}
	return best
}

// distance is how many bytes have to be put in, taken out or replaced to make b from a. Long names are cut.
func distance(a, b string) int {
	const most = 64
	a, b = a[:min(len(a), most)], b[:min(len(b), most)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
