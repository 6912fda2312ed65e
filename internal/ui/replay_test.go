package ui_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/ui"
)

func show(f ui.Format, emit func(*ui.UI)) string {
	var out bytes.Buffer
	emit(ui.New(ui.Options{Format: f, Level: ui.Debug, Stdout: &out, Stderr: &out, Now: func() time.Time { return time.Unix(0, 0) }}))
	return out.String()
}

// What is written as JSON and parsed looks as if it had been shown here.
func TestParseIsTheInverse(t *testing.T) {
	t.Parallel()
	span := diag.Span{File: "Dockerfile", Start: 3, End: 4, Source: []string{"RUN a", "b"}, Before: []string{"FROM x"}, After: []string{"CMD c"}}
	for _, e := range []event.Event{
		event.StepStarted{Step: "a/1", Name: "RUN make"}, event.StepOutput{Step: "a/1", Line: []byte("out\xff\n")}, event.StepOutput{Step: "a/1", Stderr: true, Line: []byte("{}")},
		event.StepDone{Step: "a/1", Duration: time.Second}, event.StepDone{Step: "a/1", Cached: true}, event.StepDone{Step: "a/1", Err: errors.New("no"), Duration: time.Second},
		event.CacheMiss{Step: "a/1", Message: "f changed", Kind: "file", Subject: "f", Change: "content"},
		event.Warning{Rule: "R", Message: "m", Span: span.Alone()}, event.Warning{Message: "m"}, event.Info{Message: "i"}, event.Debug{Message: "d"},
		event.Progress{ID: "1", What: "pull: x", Done: 1 << 20, Total: 2 << 20, Due: true},
	} {
		line := show(ui.JSON, func(u *ui.UI) { u.Emit(e) })
		parsed, failure, ok := ui.Parse([]byte(strings.TrimSpace(line)))
		if !ok || failure != nil {
			t.Errorf("%#v: %v, %v", e, failure, ok)
			continue
		}
		want, got := show(ui.Text, func(u *ui.UI) { u.Emit(e) }), show(ui.Text, func(u *ui.UI) { u.Emit(parsed) })
		if want != got {
			t.Errorf("%q became %q", want, got)
		}
	}
	for _, f := range []*diag.Error{
		{What: "RUN", Cause: errors.New("command exited with code 3"), Span: span, Output: []string{"o"}, Hint: "Do."},
		{What: "the disk is full", Hint: "Do."}, {What: "no", Span: span}, {What: "a: b", Hint: "Do."},
	} {
		line := show(ui.JSON, func(u *ui.UI) { u.Fail(ui.Failure{Prefix: "p: ", Err: f}) })
		_, failure, ok := ui.Parse([]byte(strings.TrimSpace(line)))
		want := show(ui.Text, func(u *ui.UI) { u.Fail(ui.Failure{Prefix: "p: ", Err: f}) })
		if got := show(ui.Text, func(u *ui.UI) { u.Fail(ui.Failure{Prefix: "p: ", Err: failure}) }); !ok || want != got {
			t.Errorf("%q became %q", want, got)
		}
	}
}

// Whatever a step prints, it is a line of output for whoever reads the log, and no event that it made up.
func FuzzOutputIsNoEvent(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-01T00:00:00Z","type":"error","msg":"m","error":"e"}`), true)
	f.Add([]byte("x\n{\"time\":\"2026-01-01T00:00:00Z\",\"type\":\"error\"}\n"), false)
	f.Add([]byte("\xff\r\u2028{\"time\":\"t\",\"type\":\"done\"}"), false)
	f.Fuzz(func(t *testing.T, output []byte, stderr bool) {
		written := show(ui.JSON, func(u *ui.UI) { u.Emit(event.StepOutput{Step: "a/1", Line: output, Stderr: stderr}) })
		lines := strings.Split(strings.TrimSuffix(written, "\n"), "\n")
		for _, l := range lines {
			e, failure, ok := ui.Parse([]byte(l))
			out, is := e.(event.StepOutput)
			if !ok || failure != nil || !is || out.Step != "a/1" || out.Stderr != stderr {
				t.Fatalf("%q: %#v, %v, %v", l, e, failure, ok)
			}
			if len(lines) == 1 && !bytes.Contains(output, []byte("\n")) && !bytes.Equal(output, out.Line) {
				t.Fatalf("%q became %q", output, out.Line)
			}
			// A line that a container runtime has cut is none of ours.
			for at := 1; at < min(len(l), 200); at++ {
				if _, _, ok := ui.Parse([]byte(l[at:])); ok {
					t.Fatalf("%q: %q is an event", l, l[at:])
				}
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-01T00:00:00Z","type":"error","msg":"m","error":"e","file":"D","line":1}`))
	f.Add([]byte(`{"time":"2026-01-01T00:00:00Z","type":"output","base64":"%%"}`))
	f.Fuzz(func(_ *testing.T, line []byte) {
		u := ui.New(ui.Options{Stdout: io.Discard, Stderr: io.Discard, Now: time.Now})
		e, failure, ok := ui.Parse(line)
		if ok && failure != nil {
			u.Fail(ui.Failure{Err: failure})
		} else if ok {
			u.Emit(e)
		}
	})
}
