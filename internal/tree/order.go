package tree

import "strings"

// Compare orders paths as trees are walked: component by component, bytewise, a directory before what is in it,
// the root "." first. "a" < "a/b" < "a.b". It returns -1, 0 or 1.
func Compare(a, b string) int {
	if a == b {
		return 0
	}
	if a == "." {
		return -1
	}
	if b == "." {
		return 1
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] == b[i] {
			continue
		}
		if a[i] == '/' {
			return -1
		}
		if b[i] == '/' || a[i] > b[i] {
			return 1
		}
		return -1
	}
	if len(a) < len(b) {
		return -1
	}
	return 1
}

// Within tells whether path is dir or lies inside it.
func Within(path, dir string) bool {
	if dir == "." || path == dir {
		return true
	}
	return len(path) > len(dir) && path[len(dir)] == '/' && strings.HasPrefix(path, dir)
}
