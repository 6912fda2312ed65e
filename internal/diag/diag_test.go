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
