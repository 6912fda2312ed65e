// Package trace writes the event stream of a build as a trace in Chrome's format, which Perfetto, Speedscope and the
// tracing page of Chromium show: one lane for each stage, and as many as needed for what happens beside the steps.
package trace

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"hako/internal/event"
)

// Trace is an event.Sink. It may be used from many goroutines.
type Trace struct {
	now   func() time.Time
	start time.Time

	mu    sync.Mutex // guards all below
	w     *bufio.Writer
	err   error // the first of writing
	lanes []lane
	// open are the steps and transfers that have begun.
	open map[string]begun
	any  bool
}

var _ event.Sink = (*Trace)(nil)

// lane is a row of the picture: a stage's own, or one that several activities share after each other.
type lane struct {
	name string
	busy time.Time // until when
}

type begun struct {
	name string
	at   time.Time
}

// entry is one object of the format: https://github.com/google/trace-viewer, "Trace Event Format", complete and metadata events.
type entry struct {
	Name  string         `json:"name"`
	Phase string         `json:"ph"`
	Micro int64          `json:"ts"`
	Took  int64          `json:"dur"`
	PID   int            `json:"pid"`
	Lane  int            `json:"tid"`
	Args  map[string]any `json:"args,omitempty"`
}

// New starts a trace whose zero is now. The caller calls Close, and then closes what w writes to.
func New(w io.Writer, now func() time.Time) *Trace {
	return &Trace{now: now, start: now(), w: bufio.NewWriter(w), open: map[string]begun{}}
}

// Emit notes e.
func (t *Trace) Emit(e event.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch e := e.(type) {
	case event.StepStarted:
		t.open["step "+e.Step] = begun{e.Name, e.Time}
	case event.StepDone:
		t.stepLocked(e)
	case event.Progress:
		t.progressLocked(e)
	case event.Span:
		t.spanLocked(e)
	}
}

// stepLocked writes a step that has ended into its stage's lane.
func (t *Trace) stepLocked(e event.StepDone) {
	b, ok := t.open["step "+e.Step]
	if !ok {
		return
	}
	delete(t.open, "step "+e.Step)
	args := map[string]any{"step": e.Step}
	if e.Err != nil {
		args["error"] = e.Err.Error()
	}
	if e.Cached {
		args["cached"] = true
	}
	stage := stageOf(e.Step)
	t.writeLocked(entry{Name: b.name, Lane: t.laneLocked(stage), Args: args}, b.at, b.at.Add(e.Duration))
}

// progressLocked writes a transfer when it is finished.
func (t *Trace) progressLocked(e event.Progress) {
	b, ok := t.open["transfer "+e.ID]
	if !ok {
		b = begun{e.What, t.now()}
		t.open["transfer "+e.ID] = b
	}
	if !e.Finished {
		return
	}
	delete(t.open, "transfer "+e.ID)
	end := t.now()
	t.writeLocked(entry{Name: b.name, Lane: t.freeLocked("transfer", b.at, end), Args: map[string]any{"bytes": e.Done}}, b.at, end)
}

// spanLocked writes an activity into the lane of its step's stage, or into a free one.
func (t *Trace) spanLocked(e event.Span) {
	if e.Step != "" {
		stage := stageOf(e.Step)
		t.writeLocked(entry{Name: e.Name, Lane: t.laneLocked(stage), Args: map[string]any{"step": e.Step}}, e.Start, e.End)
		return
	}
	t.writeLocked(entry{Name: e.Name, Lane: t.freeLocked("builder", e.Start, e.End)}, e.Start, e.End)
}

// laneLocked is the number of the lane with this name.
func (t *Trace) laneLocked(name string) int {
	for i := range t.lanes {
		if t.lanes[i].name == name {
			return i
		}
	}
	return t.newLaneLocked(name)
}

// freeLocked is a lane of this kind in which nothing ends after start; it is busy until end.
func (t *Trace) freeLocked(kind string, start, end time.Time) int {
	for n := 1; ; n++ {
		i := t.laneLocked(fmt.Sprintf("%s %d", kind, n))
		if !t.lanes[i].busy.After(start) {
			t.lanes[i].busy = end
			return i
		}
	}
}

func (t *Trace) newLaneLocked(name string) int {
	t.lanes = append(t.lanes, lane{name: name})
	i := len(t.lanes) - 1
	t.putLocked(entry{Name: "thread_name", Phase: "M", PID: 1, Lane: i, Args: map[string]any{"name": name}})
	return i
}

func (t *Trace) writeLocked(e entry, start, end time.Time) {
	e.Phase, e.PID = "X", 1
	e.Micro, e.Took = start.Sub(t.start).Microseconds(), end.Sub(start).Microseconds()
	t.putLocked(e)
}

// putLocked writes one object. The array has one object a line.
func (t *Trace) putLocked(e entry) {
	if t.err != nil {
		return
	}
	text, err := json.Marshal(e)
	if err != nil {
		t.err = err
		return
	}
	sep := ",\n"
	if !t.any {
		t.any, sep = true, "[\n"
	}
	_, t.err = t.w.WriteString(sep + string(text))
}

// Close ends the trace and reports the first error of writing it. Events that come later are lost.
func (t *Trace) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := "\n]\n"
	if !t.any {
		end = "[]\n"
	}
	if t.err == nil {
		_, t.err = t.w.WriteString(end)
	}
	if t.err == nil {
		t.err = t.w.Flush()
	}
	if t.err != nil {
		return fmt.Errorf("write the trace: %w", t.err)
	}
	return nil
}

// stageOf is the stage of a step's ID, which may have a platform in front: "linux/arm64 build/3".
func stageOf(step string) string {
	if i := strings.LastIndexByte(step, '/'); i >= 0 {
		return step[:i]
	}
	return step
}
