package ui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
	"hako/internal/event"
)

// clock is a time that tests move.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time          { return c.now }
func (c *clock) advance(d time.Duration) { c.now = c.now.Add(d) }

func story(c *clock, u *UI) {
	u.Emit(event.StepStarted{Step: "build/1", Name: "RUN make"})
	u.Emit(event.StepOutput{Step: "build/1", Line: []byte("cc main.c\n")})
	u.Emit(event.StepOutput{Step: "build/1", Stderr: true, Line: []byte("no end of line")})
	c.advance(3 * time.Second)
	u.Emit(event.StepDone{Step: "build/1", Duration: 3 * time.Second})
	u.Emit(event.Warning{Message: "odd", Span: diag.Span{File: "Dockerfile", Start: 7, End: 7}})
	u.Emit(event.Debug{Message: "detail"})
	u.Emit(event.StepStarted{Step: "build/2", Name: "COPY a /"})
	u.Emit(event.StepDone{Step: "build/2", Duration: time.Millisecond})
	u.Emit(event.StepStarted{Step: "build/3", Name: "RUN false"})
	u.Emit(event.StepDone{Step: "build/3", Duration: time.Millisecond, Err: errors.New("command exited with code 1")})
	u.Fail(Failure{Prefix: "error building image: ", Err: errors.New("RUN: command exited with code 1")})
}

func TestText(t *testing.T) {
	t.Parallel()
	c := newClock()
	var out, log bytes.Buffer
	story(c, New(Options{Format: Text, Stdout: &out, Stderr: &log, Now: c.Now}))
	want := `INFO[0000] build/1 RUN make
no end of line
INFO[0003] build/1 done in 3s
WARN[0003] Dockerfile:7: odd
INFO[0003] build/2 COPY a /
INFO[0003] build/3 RUN false
ERROR[0003] build/3 failed after 1ms
error building image: RUN: command exited with code 1
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("standard error (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff("cc main.c\n", out.String()); diff != "" {
		t.Errorf("standard output (-want +got):\n%s", diff)
	}
}

func TestLevelsAndStamps(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		opts Options
		want string
	}{
		{"warnings only", Options{Format: Text, Level: Warn}, "WARN[0000] careful\n"},
		{"debug", Options{Format: Text, Level: Debug}, "INFO[0000] hello\nDEBUG[0000] detail\nWARN[0000] careful\n"},
		{"time of day", Options{Format: Text, Timestamps: true, Level: Warn}, "WARN[2026-01-02T03:04:05Z] careful\n"},
		{"color is the default", Options{}, "\x1b[32mINFO\x1b[0m[0000] hello\n\x1b[33mWARN\x1b[0m[0000] careful\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			test.opts.Stdout, test.opts.Stderr, test.opts.Now = &log, &log, newClock().Now
			u := New(test.opts)
			u.Emit(event.Info{Message: "hello"})
			u.Emit(event.Debug{Message: "detail"})
			u.Emit(event.Warning{Message: "careful"})
			if diff := cmp.Diff(test.want, log.String()); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	c := newClock()
	var out, log bytes.Buffer
	u := New(Options{Format: JSON, Stdout: &out, Stderr: &log, Now: c.Now})
	u.Emit(event.StepStarted{Step: "a/1", Name: "RUN <x> & y"})
	u.Emit(event.StepOutput{Step: "a/1", Line: []byte("\xff\n")})
	u.Emit(event.StepDone{Step: "a/1", Duration: 1500 * time.Millisecond})
	u.Fail(Failure{Prefix: "oh: ", Err: &diag.Error{What: "boom", Span: diag.Span{File: "Dockerfile", Start: 1, End: 1}}, Advice: "Stop."})
	want := `{"time":"2026-01-02T03:04:05Z","level":"info","type":"step","msg":"RUN <x> & y","step":"a/1"}
{"time":"2026-01-02T03:04:05Z","level":"info","type":"output","msg":"\ufffd","step":"a/1","stream":"stdout","base64":"/w=="}
{"time":"2026-01-02T03:04:05Z","level":"info","type":"done","msg":"done in 1.5s","step":"a/1","seconds":1.5}
{"time":"2026-01-02T03:04:05Z","level":"error","type":"error","msg":"oh: boom\n  Dockerfile:1\nStop.","error":"Dockerfile:1: boom","file":"Dockerfile","line":1,"endLine":1}
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
	if out.Len() > 0 {
		t.Errorf("standard output has %q, want nothing", out.String())
	}
}

func TestPrefixOnceStepsRunTogether(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	u := New(Options{Format: Text, Stdout: &out, Stderr: &bytes.Buffer{}, Now: newClock().Now})
	say := func(step, line string) { u.Emit(event.StepOutput{Step: step, Line: []byte(line)}) }
	u.Emit(event.StepStarted{Step: "a/1"})
	say("a/1", "alone\n")
	u.Emit(event.StepOutput{Step: "a/1", Line: []byte("of several pods\n"), Named: true})
	u.Emit(event.StepStarted{Step: "b/1"})
	say("a/1", "one\n")
	say("b/1", "two\n")
	u.Emit(event.StepDone{Step: "a/1"})
	say("b/1", "still named\n")
	want := "alone\n[a/1] of several pods\n[a/1] one\n[b/1] two\n[b/1] still named\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("standard output (-want +got):\n%s", diff)
	}
}

// TestBuildsHaveNames shows two builds whose steps have the same names: each line says which build it is of.
func TestBuildsHaveNames(t *testing.T) {
	t.Parallel()
	c := newClock()
	tell := func(u *UI) {
		a, b := event.Named{Build: "a", To: u}, event.Named{Build: "b", To: u}
		a.Emit(event.StepStarted{Step: "base/1", Name: "RUN make"})
		a.Emit(event.StepOutput{Step: "base/1", Line: []byte("cc\n")})
		b.Emit(event.StepOutput{Line: []byte("not of hako's\n")})
		a.Emit(event.StepDone{Step: "base/1", Duration: 2 * time.Second})
		b.Emit(event.Progress{ID: "x", What: "pull", Done: 1, Due: true})
		b.Emit(event.CacheMiss{Step: "base/1", Message: "new"})
		b.Emit(event.Warning{Message: "odd", Span: diag.Span{File: "Dockerfile", Start: 7, End: 7}})
		u.Emit(event.Info{Message: "all"})
	}
	var log bytes.Buffer
	tell(New(Options{Format: Text, Stdout: &log, Stderr: &log, Now: c.Now}))
	want := `INFO[0000] a: base/1 RUN make
[a base/1] cc
[b] not of hako's
INFO[0000] a: base/1 done in 2s
INFO[0000] b: pull: 1 B
INFO[0000] b: base/1 not cached: new
WARN[0000] b: Dockerfile:7: odd
INFO[0000] all
`
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Error(diff)
	}
	log.Reset()
	tell(New(Options{Format: JSON, Stdout: &log, Stderr: &log, Now: c.Now}))
	if got := strings.Count(log.String(), `"build":"`); got != 7 {
		t.Errorf("%d of 8 lines name their build: %s", got, log.String())
	}
}

func TestProgressSpeaksOnlyOfLongTransfers(t *testing.T) {
	t.Parallel()
	c := newClock()
	var log bytes.Buffer
	u := New(Options{Format: Text, Stdout: &log, Stderr: &log, Now: c.Now})
	for done := range int64(13) {
		u.Emit(event.Progress{ID: "x", What: "push layer", Done: done << 20, Total: 12 << 20})
		c.advance(time.Second)
	}
	u.Emit(event.Progress{ID: "x", What: "push layer", Done: 12 << 20, Total: 12 << 20, Finished: true})
	want := "INFO[0005] push layer: 5.0 MiB of 12.0 MiB\nINFO[0010] push layer: 10.0 MiB of 12.0 MiB\n"
	if diff := cmp.Diff(want, log.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

// wholeLines fails a test that writes anything but one whole line at a time.
type wholeLines struct {
	t     *testing.T
	lines map[string]int
}

func (w *wholeLines) Write(p []byte) (int, error) {
	if strings.Count(string(p), "\n") != 1 || p[len(p)-1] != '\n' {
		w.t.Errorf("one write has %q, want exactly one line", p)
	}
	w.lines[string(p)]++
	return len(p), nil
}

func TestLinesOfManyStepsStayWhole(t *testing.T) {
	t.Parallel()
	for _, format := range []Format{Text, Color, JSON} {
		w := &wholeLines{t: t, lines: map[string]int{}}
		u := New(Options{Format: format, Stdout: w, Stderr: w, Now: newClock().Now})
		var wg sync.WaitGroup
		for step := range 8 {
			wg.Go(func() {
				name := fmt.Sprintf("s/%d", step)
				u.Emit(event.StepStarted{Step: name})
				for i := range 50 {
					u.Emit(event.StepOutput{Step: name, Stderr: i%2 == 0, Line: fmt.Appendf(nil, "%d-%d", step, i)})
				}
				u.Emit(event.StepDone{Step: name, Duration: time.Second})
			})
		}
		wg.Wait()
		total := 0
		for _, n := range w.lines {
			total += n
		}
		if want := 8 * 52; total != want {
			t.Errorf("format %d: %d lines, want %d", format, total, want)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Level{"trace": Trace, "DEBUG": Debug, "warning": Warn, "warn": Warn, "panic": Panic} {
		if got, err := ParseLevel(text); err != nil || got != want {
			t.Errorf("ParseLevel(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("ParseLevel takes \"loud\"")
	}
	if _, err := ParseFormat("xml"); err == nil {
		t.Error("ParseFormat takes \"xml\"")
	}
}

func TestRecordsAlwaysParse(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	c := newClock()
	story(c, New(Options{Format: JSON, Level: Trace, Stdout: &log, Stderr: &log, Now: c.Now}))
	for line := range strings.Lines(log.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		for _, key := range []string{"time", "level", "type", "msg"} {
			if _, ok := r[key]; !ok {
				t.Errorf("line %q has no %q", line, key)
			}
		}
	}
}
