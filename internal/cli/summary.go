package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/matrix"
	"hako/internal/sandbox"
	"hako/internal/submit"
)

// unfinishedError says that not all builds of a file are done.
type unfinishedError struct {
	done, all int
	// code is the exit code: that of the first build in the table that failed.
	code int
}

// Error says how many are done.
func (e *unfinishedError) Error() string {
	return fmt.Sprintf("%d of %d builds are done", e.done, e.all)
}

// codeOf is the program's exit code for a failure: that of a RUN command, here or in a pod, or 1.
func codeOf(err error) int {
	var unfinished *unfinishedError
	if errors.As(err, &unfinished) {
		return unfinished.code
	}
	var inPod *submit.FailedError
	if errors.As(err, &inPod) {
		return inPod.Code
	}
	if errors.As(err, new(*contextsource.IncompleteError)) {
		return exitAgain
	}
	var exit *sandbox.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	return 1
}

// tally tells how far a run of many builds is.
type tally struct {
	m         *many
	all, done int
}

// tell says what has become of a build. It is not called twice at a time.
func (t *tally) tell(r matrix.Result) {
	switch r.State {
	case matrix.Done:
		t.done++
		text := fmt.Sprintf("done in %s: %d of %d", r.Took.Round(100*time.Millisecond), t.done, t.all)
		t.m.ui.Emit(event.Of{Build: r.Name, Event: event.Info{Message: text}})
	case matrix.Failed:
		t.m.ui.Emit(event.Of{Build: r.Name, Event: event.Warning{Message: "the build failed:\n" + diag.Format(r.Err)}})
	case matrix.Skipped:
	}
}

// summary prints the table, writes the metadata and says whether something is missing.
func (m *many) summary(results []matrix.Result) error {
	type line struct {
		Result   matrix.State `json:"result"`
		Digest   string       `json:"containerimage.digest,omitempty"`
		Seconds  float64      `json:"seconds"`
		Error    string       `json:"error,omitempty"`
		ExitCode int          `json:"exitCode,omitempty"`
	}
	all := map[string]line{}
	w := tabwriter.NewWriter(m.env.Stdout, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintln(w, "NAME\tRESULT\tTIME\tDIGEST")
	errs := []error{err}
	left := &unfinishedError{all: len(results), code: 1}
	failed := false
	for _, r := range results {
		l := line{Result: r.State, Digest: r.Digest, Seconds: r.Took.Seconds()}
		if r.Err != nil {
			l.Error = r.Err.Error()
		}
		switch r.State {
		case matrix.Done:
			left.done++
		case matrix.Failed:
			l.ExitCode = codeOf(r.Err)
			if !failed {
				left.code, failed = l.ExitCode, true
			}
		case matrix.Skipped:
		}
		all[r.Name] = l
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, r.State, r.Took.Round(100*time.Millisecond), r.Digest)
		errs = append(errs, err)
	}
	errs = append(errs, w.Flush())
	if name := m.vs.str("metadata-file"); name != "" {
		errs = append(errs, m.writeSummary(name, all))
	}
	if left.done < left.all {
		errs = append(errs, buildError{left})
	}
	return errors.Join(errs...)
}

// writeSummary writes the table as JSON.
func (m *many) writeSummary(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write the metadata: %w", err)
	}
	if err := os.WriteFile(m.absolute(name), append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the metadata: %w", err)
	}
	return nil
}
