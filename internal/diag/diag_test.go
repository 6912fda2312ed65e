package diag_test

import (
	"errors"
	"fmt"
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
