package trace_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/event"
	"hako/internal/trace"
)

// clock is a time that the test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func (c *clock) set(ms int) time.Time {
	c.at = time.UnixMilli(int64(1_000_000 + ms))
	return c.at
}

func TestTrace(t *testing.T) {
	t.Parallel()
	var c clock
	c.set(0)
	var out bytes.Buffer
	tr := trace.New(&out, c.now)
	tr.Emit(event.StepStarted{Step: "linux/arm64 a/1", Name: "RUN true", Time: c.set(10)})
	tr.Emit(event.Progress{ID: "x", What: "pull x", Total: 7})
	c.set(15)
	tr.Emit(event.Progress{ID: "y", What: "pull y"})
	tr.Emit(event.Progress{ID: "x", What: "pull x", Done: 7, Finished: true})
	c.set(20)
	tr.Emit(event.Progress{ID: "y", What: "pull y", Done: 9, Finished: true})
	tr.Emit(event.Span{Name: "layer", Step: "linux/arm64 a/1", Start: c.set(21), End: c.set(22)})
	tr.Emit(event.StepDone{Step: "linux/arm64 a/1", Err: errors.New("broken"), Duration: 12 * time.Millisecond})
	tr.Emit(event.Span{Name: "plan", Start: c.set(1), End: c.set(2)})
	tr.Emit(event.StepDone{Step: "never/1"})
	tr.Emit(event.Info{Message: "nothing for a trace"})
	if err := tr.Close(); err != nil {
		t.Fatal(err)
	}
	type row struct {
		Name, Ph          string
		Ts, Dur, Pid, Tid int
		Args              map[string]any
	}
	lane := func(i int, name string) row {
		return row{Name: "thread_name", Ph: "M", Pid: 1, Tid: i, Args: map[string]any{"name": name}}
	}
	want := []row{
		lane(0, "transfer 1"),
		{Name: "pull x", Ph: "X", Ts: 10_000, Dur: 5_000, Pid: 1, Tid: 0, Args: map[string]any{"bytes": 7.0}},
		{Name: "pull y", Ph: "X", Ts: 15_000, Dur: 5_000, Pid: 1, Tid: 0, Args: map[string]any{"bytes": 9.0}},
		lane(1, "linux/arm64 a"),
		{Name: "layer", Ph: "X", Ts: 21_000, Dur: 1_000, Pid: 1, Tid: 1, Args: map[string]any{"step": "linux/arm64 a/1"}},
		{Name: "RUN true", Ph: "X", Ts: 10_000, Dur: 12_000, Pid: 1, Tid: 1, Args: map[string]any{"step": "linux/arm64 a/1", "error": "broken"}},
		lane(2, "builder 1"),
		{Name: "plan", Ph: "X", Ts: 1_000, Dur: 1_000, Pid: 1, Tid: 2},
	}
	var got []row
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestEmptyTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := trace.New(&out, time.Now).Close(); err != nil || !json.Valid(out.Bytes()) {
		t.Errorf("%v, %q", err, out.String())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestErrorOfWriting(t *testing.T) {
	t.Parallel()
	tr := trace.New(broken{}, time.Now)
	tr.Emit(event.Span{Name: "x"})
	if tr.Close() == nil {
		t.Error("no error")
	}
}
