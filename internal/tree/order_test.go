package tree_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/tree"
)

func TestCompareOrdersAsTreesAreWalked(t *testing.T) {
	t.Parallel()
	want := []string{".", "a", "a/\x01", "a/b", "a/b/c", "a/b.", "a\x01", "a!", "a-b", "a.b", "a0", "b"}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortFunc(got, tree.Compare)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for i, a := range want {
		for j, b := range want {
			wantSign := 0
			if i < j {
				wantSign = -1
			} else if i > j {
				wantSign = 1
			}
			if c := tree.Compare(a, b); c != wantSign {
				t.Errorf("Compare(%q, %q) = %d, want %d", a, b, c, wantSign)
			}
		}
	}
}

func TestWithin(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path, dir string
		want      bool
	}{
		{"a", ".", true}, {".", ".", true}, {"a", "a", true}, {"a/b", "a", true},
		{"ab", "a", false}, {"a", "a/b", false}, {".", "a", false},
	} {
		if got := tree.Within(c.path, c.dir); got != c.want {
			t.Errorf("Within(%q, %q) = %v", c.path, c.dir, got)
		}
	}
}
