package diag_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
)

// TestFormatKeepsForeignTextFromTheTerminal is about names in images and answers of registries.
func TestFormatKeepsForeignTextFromTheTerminal(t *testing.T) {
	t.Parallel()
	located := &diag.Error{
		What: "find user a\x1b[2Jb", Cause: errors.New("no\rsuch\x00user \xff \u009b"), Hint: "Use ü.",
		Span: diag.Span{File: "Dockerfile", Start: 2, End: 2, Source: []string{"USER\ta\x1b[2Jb"}},
	}
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"plain":  {errors.New("first\nsecond\ttab\x1b]0;title\a"), "first\nsecond\ttab" + `\x1b]0;title\x07`},
		"line":   {located, "find user a\\x1b[2Jb: no\\x0dsuch\\x00user \\xff \\x9b\n  Dockerfile:2\n     2 | USER\ta\\x1b[2Jb\n  Use ü."},
		"nested": {fmt.Errorf("outer: %w", &diag.Error{What: "a\x7fb"}), `a\x7fb`},
	} {
		if d := cmp.Diff(tt.want, diag.Format(tt.err)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

// TestFormatShowsEveryJoinedError: what went wrong while cleaning up was once swallowed by the error before it.
func TestFormatShowsEveryJoinedError(t *testing.T) {
	t.Parallel()
	located := &diag.Error{What: "COPY", Span: diag.Span{File: "Dockerfile", Start: 2, End: 2, Source: []string{"COPY a /"}}, Hint: "Make it."}
	cleaning := errors.New("remove /w: busy")
	const first = "COPY\n  Dockerfile:2\n     2 | COPY a /\n  Make it."
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"joined": {errors.Join(located, cleaning), first + "\nremove /w: busy"},
		"nested": {errors.Join(errors.Join(located), errors.Join(nil, cleaning)), first + "\nremove /w: busy"},
		"text":   {fmt.Errorf("both %w and %w", errors.New("x"), cleaning), "both x and remove /w: busy"},
	} {
		if d := cmp.Diff(tt.want, diag.Format(tt.err)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestFormatMarksAndShortensTheSource(t *testing.T) {
	t.Parallel()
	long := make([]string, 30)
	for i := range long {
		long[i] = fmt.Sprintf("  line %d", i)
	}
	long[1] = strings.Repeat("w", 1000)
	e := &diag.Error{What: "RUN", Span: diag.Span{File: "Dockerfile", Start: 9, End: 38, Source: long, Before: []string{"FROM x", ""}, After: []string{"CMD y"}}}
	want := `RUN
  Dockerfile:9
     7 | FROM x
     8 | 
   > 9 |   line 0
  > 10 | ` + strings.Repeat("w", 240) + `…
  > 11 |   line 2
  > 12 |   line 3
  > 13 |   line 4
  > 14 |   line 5
  > 15 |   line 6
  > 16 |   line 7
  > 17 |   line 8
  > 18 |   line 9
     … | (19 lines more)
  > 38 |   line 29
    39 | CMD y`
	if d := cmp.Diff(want, diag.Format(e)); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	e.Span = e.Span.Alone()
	if got := diag.Format(e); strings.Contains(got, ">") || strings.Contains(got, "FROM") {
		t.Errorf("alone, it still has marks or what is around it:\n%s", got)
	}
}
