package conformance

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hako/internal/sandbox/choice"
)

// TestLint compares what hako and BuildKit find in the Dockerfiles of testdata/lint: rule, lines and message.
func TestLint(t *testing.T) {
	s := newSuite(t, choice.Auto)
	files, err := filepath.Glob("testdata/lint/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			if !s.options.update {
				t.Parallel()
			}
			s.lint(t, f)
		})
	}
}

// lint checks one case and compares, or writes what it got as the expectation.
func (s *suite) lint(t *testing.T, path string) {
	c, err := LoadCase(path, s.shared)
	if err != nil {
		t.Fatal(err)
	}
	job := Job{Case: c, Context: t.TempDir(), Out: filepath.Join(t.TempDir(), "out"), Log: t.Log}
	if err := c.WriteContext(job.Context); err != nil {
		t.Fatal(err)
	}
	if _, err := s.push(c); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the check takes too long"))
	defer cancel()
	got, err := s.builder.(Checker).Check(ctx, job)
	var failed *BuildError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	golden := strings.TrimSuffix(path, ".txtar") + ".json"
	if s.options.update {
		if c.Failure != nil {
			if err := s.builder.Build(ctx, job); !errors.As(err, &failed) {
				t.Logf("BuildKit's build ends with %v, although its check, which looks at all stages, has an error", err)
			}
		}
		if err := saveFindings(golden, got); err != nil {
			t.Fatal(err)
		}
		return
	}
	checkFailure(t, c.Failure, failed, true)
	want, err := loadFindings(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("BuildKit's (-) and hako's (+):\n%s", diff)
	}
}
