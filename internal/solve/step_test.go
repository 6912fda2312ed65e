package solve

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
	"hako/internal/plan"
)

func TestErrorsOfStepsAreLocated(t *testing.T) {
	t.Parallel()
	step := &plan.Step{Text: "COPY a /", Span: diag.Span{File: "Dockerfile", Start: 3, End: 3, Source: []string{"COPY a /"}}}
	full := fmt.Errorf("write layer: %w", &os.PathError{Op: "write", Path: "/w/blob", Err: syscall.ENOSPC})
	const where = "\n  Dockerfile:3\n     3 | COPY a /"
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"plain":       {errors.New("oh"), "COPY a /: oh" + where},
		"advice":      {&diag.Error{What: "COPY: no a", Hint: "Make it."}, "COPY: no a" + where + "\n  Make it."},
		"its own":     {&diag.Error{What: "x", Span: diag.Span{File: "F", Start: 1}}, "x\n  F:1"},
		"full disk":   {full, "COPY a /: write layer: write /w/blob: no space left on device" + where + "\n  Free space in the work directory, or choose another place with --kaniko-dir."},
		"full, add":   {&diag.Error{What: "ADD: unpack", Cause: full}, "ADD: unpack: write layer: write /w/blob: no space left on device" + where + "\n  Free space in the work directory, or choose another place with --kaniko-dir."},
		"cancelled":   {context.Canceled, "context canceled"},
		"out of time": {fmt.Errorf("x: %w", context.DeadlineExceeded), "x: context deadline exceeded"},
	} {
		if d := cmp.Diff(tt.want, diag.Format(located(step, tt.err))); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if err := located(step, nil); err != nil {
		t.Errorf("no error became %v", err)
	}
}
