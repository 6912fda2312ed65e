package buildcontext

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/moby/patternmatcher"
)

// FuzzPattern compares each pattern with patternmatcher's regular expression.
func FuzzPattern(f *testing.F) {
	for _, s := range [][2]string{
		{"a", "a"}, {"a/**", "a/b"}, {"**/a", "b/a"}, {"**", "x"}, {"**/*.go", "a/b.go"}, {"a*b*c", "aXbYc"}, {"a/**/b", "a/b"}, {"a/**/b", "a/x/y/b"},
		{"***", "a/b"}, {"****a", "b/a"}, {"a**b", "a/x/b"}, {"**a**", "xax/y"}, {"a?c", "abc"}, {"?", "é"}, {"?", "\xff"}, {`a\*b`, "a*b"}, {`\d`, "7"},
		{"[ab]c", "ac"}, {"*", "a\nb"}, {"**/b*", "a\n/b"}, {"a/***/c", "a/\n/c"}, {"**/*", "\na/b"}, {"*a**", "xa\ny"}, {"a.b+c", "a.b+c"}, {"^a", "a"},
		{"*é?*", "aéb"}, {"a**/", "a/x"}, {"**/**/a", "b/c/a"}, {"?/**", "a/b"}, {strings.Repeat("*a", 70), strings.Repeat("ba", 80)},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, path string) {
		if CheckPattern(text) != nil || path == "" || strings.HasPrefix(text, "!") {
			return
		}
		pm, err := patternmatcher.New([]string{text})
		if err != nil || len(pm.Patterns()) != 1 || pm.Patterns()[0].Exclusion() {
			return
		}
		p, err := newPattern(pm.Patterns()[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.match(path)
		//lint:ignore SA1019 this path alone
		want, wantErr := pm.MatchesUsingParentResult(path, false) //nolint:staticcheck // this path alone
		if got != want || (err == nil) != (wantErr == nil) {
			t.Errorf("%q, %q: %v, %v; want %v, %v (%+v)", text, path, got, err, want, wantErr, p)
		}
	})
}

// Patterns that are written to be slow are not: with regular expressions, this takes minutes.
func TestSlowPatterns(t *testing.T) {
	t.Parallel()
	var patterns []string
	for range 1000 {
		patterns = append(patterns, strings.Repeat("*a", 200)+"b")
	}
	m, err := newMatcher(t.Context(), patterns)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if out, err := m.excluded(strings.Repeat("a", 250)); err != nil || out {
			t.Fatalf("%v, %v", out, err)
		}
	}
}

func TestMatchingIsStopped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	m, err := newMatcher(ctx, []string{"[a]*"})
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	cancel(why)
	if _, err := m.excluded("d/a"); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}
