package filecopy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// filterOf is a filter that drops and, unless keep is empty, keeps what is asked for; nil if a pattern is bad.
func filterOf(keep string, drop []string) *filter {
	c := &copier{name: "COPY", req: &Request{Exclude: drop}}
	var part *Part
	if keep != "" {
		part = &Part{Pattern: keep}
	}
	f, err := c.newFilter(part)
	if err != nil {
		return nil
	}
	return f
}

// walk returns what f takes of a tree, whose directories end in a slash, and the directories that it looks into.
func walk(f *filter, paths []string) (taken, opened []string, err error) {
	verdicts := map[string]*verdict{".": {}}
	for _, p := range paths {
		rel, isDir := strings.CutSuffix(p, "/")
		up := "."
		if i := strings.LastIndexByte(rel, '/'); i >= 0 {
			up = rel[:i]
		}
		if verdicts[up] == nil {
			continue
		}
		v, err := f.judge(rel, verdicts[up])
		if err != nil {
			return nil, nil, err
		}
		if v.take {
			taken = append(taken, p)
		}
		if isDir && v.open {
			verdicts[rel] = &v
			opened = append(opened, p)
		}
	}
	return taken, opened, nil
}

func smallTree() []string {
	var paths []string
	names := []string{"a", "b", "ab", "a.b"}
	for _, x := range names {
		paths = append(paths, x+"/", x+"f")
		for _, y := range names {
			paths = append(paths, x+"/"+y+"/", x+"/"+y+"f")
			for _, z := range names {
				paths = append(paths, x+"/"+y+"/"+z)
			}
		}
	}
	slices.Sort(paths) // parents come before what is in them
	return paths
}

func TestFilterLooksOnlyWhereItHasTo(t *testing.T) {
	t.Parallel()
	tree := []string{"a/", "a/b/", "a/b/x", "a/c/", "a/c/x", "d/", "d/b/", "d/b/x"}
	for name, tt := range map[string]struct {
		keep          string
		drop          []string
		taken, opened string
	}{
		"everything":             {"", nil, "a/ a/b/ a/b/x a/c/ a/c/x d/ d/b/ d/b/x", "a/ a/b/ a/c/ d/ d/b/"},
		"one file":               {"a/b/x", nil, "a/b/x", "a/ a/b/"},
		"a directory":            {"a/b", nil, "a/b/ a/b/x", "a/ a/b/"},
		"wildcard":               {"a/*/x", nil, "a/b/x a/c/x", "a/ a/b/ a/c/"},
		"double star":            {"d/**", nil, "d/b/ d/b/x", "d/ d/b/"},
		"wildcard at the front":  {"*/b/x", nil, "a/b/x d/b/x", "a/ a/b/ a/c/ d/ d/b/"},
		"similar name":           {"a/bb", nil, "", "a/"},
		"nothing":                {"!a", nil, "", "a/ a/b/ a/c/"},
		"dropped":                {"", []string{"a/b"}, "a/ a/c/ a/c/x d/ d/b/ d/b/x", "a/ a/c/ d/ d/b/"},
		"dropped and taken back": {"", []string{"a", "!a/b/x"}, "a/b/x d/ d/b/ d/b/x", "a/ a/b/ a/c/ d/ d/b/"},
		"both":                   {"a", []string{"**/x"}, "a/ a/b/ a/c/", "a/ a/b/ a/c/"},
		"all of it dropped":      {"a/b", []string{"a"}, "", ""},
	} {
		taken, opened, err := walk(filterOf(tt.keep, tt.drop), tree)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff([]string{tt.taken, tt.opened}, []string{strings.Join(taken, " "), strings.Join(opened, " ")}); d != "" {
			t.Errorf("%s: taken and opened (-want +got):\n%s", name, d)
		}
	}
}

// FuzzFilter compares a filter with one that looks into every directory.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		"a/b -", "a/*/b a/ab", "**/a !a", "a/./b/../ab b\n!b/a", "- **\n!**/a.b", `\a/[ab] a?b`, "a/**/b *\n!a/b", "/a /b/", "** -",
		"x|/*/b -", "a/{0}b -", "a/{2}b -", "a/b+/? -",
	} {
		keep, drop, _ := strings.Cut(s, " ")
		f.Add(strings.Trim(keep, "-"), strings.Trim(drop, "-"))
	}
	tree := smallTree()
	f.Fuzz(func(t *testing.T, keep, drop string) {
		fast, slow := filterOf(keep, strings.Split(drop, "\n")), filterOf(keep, strings.Split(drop, "\n"))
		if fast == nil {
			return
		}
		slow.fixed = ""
		want, _, err := walk(slow, tree)
		if err != nil {
			return // a pattern that only turns out to be bad when it is used
		}
		got, _, err := walk(fast, tree)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("keep %q, drop %q (-slow +fast):\n%s", keep, drop, d)
		}
	})
}
