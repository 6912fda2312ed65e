package buildcontext

import (
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/patternmatcher"

	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// walked is what a context holds by BuildKit's way of finding it: one walk from the top, which does not enter
// a directory that is left out unless an exception can be inside, and sends the parents of what it finds.
type walked struct {
	t     tree.Tree
	pm    *patternmatcher.PatternMatcher
	plain bool // no exception has wildcards but a final one
	found []string
}

func walk(t *testing.T, tr tree.Tree, patterns []string) []string {
	t.Helper()
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	w := &walked{t: tr, pm: pm, plain: true}
	for _, p := range pm.Patterns() {
		w.plain = w.plain && (!p.Exclusion() || !strings.ContainsAny(bare(p), `*[]?^\`))
	}
	w.dir(t, ".", patternmatcher.MatchInfo{})
	return w.found
}

func bare(p *patternmatcher.Pattern) string {
	return strings.TrimSuffix(strings.TrimSuffix(p.String(), "/**"), "/*")
}

func (w *walked) dir(t *testing.T, dir string, info patternmatcher.MatchInfo) {
	t.Helper()
	names, err := w.t.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		p := path.Join(dir, name)
		e, err := w.t.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		out, below, err := w.pm.MatchesUsingParentResults(p, info)
		if err != nil {
			t.Fatal(err)
		}
		if !out {
			for up := p; up != "."; up = path.Dir(up) {
				if !slices.Contains(w.found, up) {
					w.found = append(w.found, up)
				}
			}
		}
		if e.Kind == tree.Dir && (!out || w.enters(p)) {
			w.dir(t, p, below)
		}
	}
}

func (w *walked) enters(dir string) bool {
	if !w.plain || !w.pm.Exclusions() {
		return w.pm.Exclusions()
	}
	return slices.ContainsFunc(w.pm.Patterns(), func(p *patternmatcher.Pattern) bool {
		return p.Exclusion() && strings.HasPrefix(bare(p)+"/", dir+"/")
	})
}

// names lists what a tree shows.
func names(t *testing.T, tr tree.Tree, dir string) []string {
	t.Helper()
	list, err := tr.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range list {
		p := path.Join(dir, name)
		e, err := tr.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
		if e.Kind == tree.Dir {
			out = append(out, names(t, tr, p)...)
		}
	}
	return out
}

// FuzzIgnore compares the filtered tree with the walk, and without exceptions with the matcher's plain answer.
func FuzzIgnore(f *testing.F) {
	for _, s := range []string{
		"", "a", "*\n!a", "*\n!a/b/c", "**/c\n!a/**/c", "a\n!a/b\na/b/c", "a/b/c\n!a/b", "/a/\n!./a/b/", "**\n!**/c", "*/*\n!?/b",
		"a/*\n!a/*", "a/**\n!a/b/**", "[ab]\n!a/[b-c]", "\ufeff#a\nb", "a\n!", "\\a\n!\\a/b", "a\r\n!a/b\r\n", "!a\n*", "..\n!../a", ".",
	} {
		f.Add(s)
	}
	var files strings.Builder
	for _, a := range "abc" {
		for _, b := range "abc" {
			for _, c := range "abc" {
				files.WriteString(string([]rune{a, '/', b, '/', c, '\n'}))
			}
		}
	}
	files.WriteString("d\n.dockerignore\na.b\ne/\n")
	tr, err := treetest.Parse(files.String())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		patterns, err := parseIgnore([]byte(text))
		if err != nil || len(text) > 200 {
			return // no list of patterns, or a slow one
		}
		m, err := newMatcher(t.Context(), patterns)
		if err != nil {
			return // refused, as it should be
		}
		filtered := newFiltered(tr, m, ".dockerignore")
		got, want := names(t, filtered, "."), walk(t, tr, patterns)
		slices.SortFunc(want, tree.Compare)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("paths (-walk +tree):\n%s", diff)
		}
		checkLookups(t, tr, filtered, got)
		if len(m.exceptions) > 0 {
			return
		}
		for _, p := range tr.Paths() {
			out, err := patternmatcher.MatchesOrParentMatches(p, patterns)
			if err != nil || out == slices.Contains(got, p) {
				t.Errorf("%s: left out is %v, %v", p, out, err)
			}
		}
	})
}

// checkLookups verifies that what is not listed cannot be looked up either.
func checkLookups(t *testing.T, all *treetest.Tree, filtered *filtered, listed []string) {
	t.Helper()
	for _, p := range all.Paths() {
		_, err := filtered.Lstat(p)
		if there := slices.Contains(listed, p); there != (err == nil) {
			t.Errorf("%s: listed is %v, look-up %v", p, there, err)
		}
	}
}
