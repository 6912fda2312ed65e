package ui

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
)

// exited is a command's failure.
type exited int

func (e exited) Error() string { return fmt.Sprintf("command exited with code %d", int(e)) }
func (e exited) ExitCode() int { return int(e) }

func failedStep() Failure {
	return Failure{Prefix: "error building image: ", Err: fmt.Errorf("solve: %w", &diag.Error{
		What: "RUN", Cause: exited(3), Hint: "Install a compiler.", Output: []string{"cc main.c", "sh: 1: cc: not\x1bfound"},
		Span: diag.Span{
			File: "Dockerfile", Start: 3, End: 4, Source: []string{`RUN make \`, "    install"},
			Before: []string{"COPY . /src"}, After: []string{"", "CMD app"},
		},
	})}
}

func shown(f Format, failure Failure) string {
	var out, log bytes.Buffer
	New(Options{Format: f, Stdout: &out, Stderr: &log, Now: newClock().Now}).Fail(failure)
	return out.String() + log.String()
}

func TestFailureOfAStep(t *testing.T) {
	t.Parallel()
	want := `error building image: RUN: command exited with code 3
  Dockerfile:3
     2 | COPY . /src
   > 3 | RUN make \
   > 4 |     install
     5 | 
     6 | CMD app
  Its last output:
       | cc main.c
       | sh: 1: cc: not\x1bfound
  Install a compiler.
`
	if diff := cmp.Diff(want, shown(Text, failedStep())); diff != "" {
		t.Errorf("text (-want +got):\n%s", diff)
	}
	colored := shown(Color, failedStep())
	for _, c := range []string{"31", "36", "2", "33"} {
		colored = strings.ReplaceAll(colored, "\x1b["+c+"m", "")
	}
	if diff := cmp.Diff(want, strings.ReplaceAll(colored, "\x1b[0m", "")); diff != "" {
		t.Errorf("colored text without its colors (-want +got):\n%s", diff)
	}
	first, _, _ := strings.Cut(shown(Color, failedStep()), "\n")
	if want := "\x1b[31merror building image:\x1b[0m RUN: command exited with code 3"; first != want {
		t.Errorf("colored text begins with %q, want %q", first, want)
	}
}

func TestFailureOfAStepAsJSON(t *testing.T) {
	t.Parallel()
	var got map[string]any
	if err := json.Unmarshal([]byte(shown(JSON, failedStep())), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"time": "2026-01-02T03:04:05Z", "level": "error", "type": "error",
		"msg":   strings.TrimSuffix(shown(Text, failedStep()), "\n"),
		"error": "solve: Dockerfile:3: RUN: command exited with code 3",
		"file":  "Dockerfile", "line": 3.0, "endLine": 4.0, "source": []any{`RUN make \`, "    install"},
		"before": []any{"COPY . /src"}, "after": []any{"", "CMD app"},
		"exitCode": 3.0, "output": []any{"cc main.c", "sh: 1: cc: not\x1bfound"}, "hint": "Install a compiler.",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
