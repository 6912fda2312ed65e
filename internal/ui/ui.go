// Package ui shows the event stream of a build: as text, as text with color, or as one JSON object per line.
// Every line goes out in one write, so lines of steps that run at the same time never mix.
//
// Text goes to two places: what RUN commands write to standard output goes to ours, everything else to standard error.
// A command's lines pass unchanged while steps run one at a time; from the moment that two run together,
// each line starts with its step's name. Where several builds are shown together, all lines have the name of their build. In JSON everything is on standard error; see record for the fields.
package ui

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"hako/internal/blob"
	"hako/internal/event"
)

// Format is how events are shown.
type Format uint8

// The formats.
const (
	Text Format = iota + 1
	Color
	JSON
)

// ParseFormat reads "text", "color" or "json".
func ParseFormat(s string) (Format, error) {
	switch s {
	case "text":
		return Text, nil
	case "color":
		return Color, nil
	case "json":
		return JSON, nil
	}
	return 0, fmt.Errorf("not a log format: %q (there are text, color and json)", s)
}

// Level is how much is shown: events above it are left out. Output of commands is always shown.
type Level uint8

// The levels, with kaniko's names.
const (
	Panic Level = iota + 1
	Fatal
	Error
	Warn
	Info
	Debug
	Trace
)

// ParseLevel reads a level's name in any case; "warning" is "warn".
func ParseLevel(s string) (Level, error) {
	for l := Panic; l <= Trace; l++ {
		if strings.EqualFold(s, l.String()) {
			return l, nil
		}
	}
	if strings.EqualFold(s, "warning") {
		return Warn, nil
	}
	return 0, fmt.Errorf("not a log level: %q (there are trace, debug, info, warn, error, fatal and panic)", s)
}

// String is the name, in lower case.
func (l Level) String() string {
	names := [...]string{"", "panic", "fatal", "error", "warn", "info", "debug", "trace"}
	if int(l) >= len(names) {
		return ""
	}
	return names[l]
}

// Options say how to show events.
type Options struct {
	// Format and Level are Color and Info if zero.
	Format Format
	Level  Level
	// Timestamps puts the time of day in front of text lines instead of the seconds since the start.
	Timestamps bool
	// Stdout and Stderr must not be nil.
	Stdout, Stderr io.Writer
	// Now is the clock.
	Now func() time.Time
}

// progressInterval is the least time between two lines about one transfer.
const progressInterval = 5 * time.Second

// UI is an event.Sink. Lines that cannot be written are dropped: a build does not fail for its log.
type UI struct {
	opts  Options
	start time.Time

	mu sync.Mutex // guards all below, and the writers
	// active holds the steps that run; parallel stays true once two did.
	active   map[ofBuild]bool
	parallel bool
	// shown is when each transfer was last mentioned.
	shown map[ofBuild]time.Time
}

// ofBuild is a step or transfer of one of several builds, or of the only one, whose name is empty.
type ofBuild struct{ build, id string }

var _ event.Sink = (*UI)(nil)

// New returns a UI that starts its clock now.
func New(opts Options) *UI {
	if opts.Format == 0 {
		opts.Format = Color
	}
	if opts.Level == 0 {
		opts.Level = Info
	}
	return &UI{opts: opts, start: opts.Now(), active: map[ofBuild]bool{}, shown: map[ofBuild]time.Time{}}
}

// Emit shows e.
func (u *UI) Emit(e event.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if of, ok := e.(event.Of); ok {
		u.emit(of.Build, of.Event)
		return
	}
	u.emit("", e)
}

// emit shows an event of a build, whose name is empty if it is the only one.
func (u *UI) emit(build string, e event.Event) {
	switch e := e.(type) {
	case event.StepStarted:
		u.active[ofBuild{build, e.Step}] = true
		u.parallel = u.parallel || len(u.active) > 1
		u.line(record{level: Info, Type: "step", Build: build, Step: e.Step, Message: e.Name})
	case event.StepOutput:
		u.output(build, e)
	case event.StepDone:
		delete(u.active, ofBuild{build, e.Step})
		u.done(build, e)
	case event.CacheMiss:
		u.line(record{
			level: Info, Type: "miss", Build: build, Step: e.Step, Message: "not cached: " + e.Message, File: e.Span.File, Line: e.Span.Start,
			Kind: e.Kind, Subject: e.Subject, Change: e.Change, Cause: e.Cause,
		})
	case event.Progress:
		u.progress(build, e)
	case event.Warning:
		u.line(warning(build, e))
	case event.Info:
		u.line(record{level: Info, Type: "log", Build: build, Message: e.Message})
	case event.Debug:
		u.line(record{level: Debug, Type: "log", Build: build, Message: e.Message})
	}
}

func warning(build string, e event.Warning) record {
	r := record{level: Warn, Type: "warning", Build: build, Message: e.Message, Rule: e.Rule, Description: e.Description, URL: e.URL}
	if e.Rule != "" {
		r.Message = e.Rule + ": " + e.Message
	}
	if e.Span.Start != 0 {
		r.File, r.Line, r.EndLine, r.Source = e.Span.File, e.Span.Start, e.Span.End, e.Span.Source
	}
	return r
}

func (u *UI) output(build string, e event.StepOutput) {
	line := strings.TrimSuffix(string(e.Line), "\n")
	if u.opts.Format == JSON {
		stream := "stdout"
		if e.Stderr {
			stream = "stderr"
		}
		u.json(record{level: Info, Type: "output", Build: build, Step: e.Step, Stream: stream, Message: line})
		return
	}
	if build != "" || u.parallel || e.Named {
		line = u.paint(stepColor, "["+strings.TrimSpace(build+" "+e.Step)+"]") + " " + line
	}
	w := u.opts.Stdout
	if e.Stderr {
		w = u.opts.Stderr
	}
	u.write(w, line+"\n")
}

func (u *UI) done(build string, e event.StepDone) {
	r := record{level: Info, Type: "done", Build: build, Step: e.Step, Seconds: e.Duration.Seconds(), Cached: e.Cached}
	r.Message = "done in " + round(e.Duration).String()
	switch {
	case errors.Is(e.Err, blob.ErrLost):
		r.Type, r.Message = "again", "begins again: the cache has lost what it needs"
	case e.Err != nil:
		r.level, r.Type, r.Message = Error, "failed", "failed after "+round(e.Duration).String()
		r.Error = e.Err.Error()
		r.ExitCode = exitCode(e.Err)
	case e.Cached:
		r.Message = "cached"
	case e.Duration < quickStep && u.opts.Format != JSON:
		r.level = Debug // the line that announced the step says enough
	}
	u.line(r)
}

// quickStep is the time below which the end of a step is not worth a line of text.
const quickStep = 500 * time.Millisecond

func round(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(100 * time.Millisecond)
}

// progress shows a transfer only while it takes long: its first line comes after one interval.
func (u *UI) progress(build string, e event.Progress) {
	now, id := u.opts.Now(), ofBuild{build, e.ID}
	last, known := u.shown[id]
	if e.Finished {
		delete(u.shown, id)
		u.line(record{level: Debug, Type: "progress", Build: build, Transfer: e.ID, Done: e.Done, Total: e.Total, Finished: true, Message: e.What + ": " + Size(e.Done)})
		return
	}
	if !known && !e.Due {
		u.shown[id] = now
		return
	}
	if !e.Due && now.Sub(last) < progressInterval {
		return
	}
	u.shown[id] = now
	message := e.What + ": " + Size(e.Done)
	if e.Total > 0 {
		message += " of " + Size(e.Total)
	}
	u.line(record{level: Info, Type: "progress", Build: build, Transfer: e.ID, Done: e.Done, Total: e.Total, Message: message})
}

// Size is a number of bytes for people.
func Size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// line shows r unless its level is above ours.
func (u *UI) line(r record) {
	if r.level > u.opts.Level {
		return
	}
	if u.opts.Format == JSON {
		u.json(r)
		return
	}
	text := r.Message
	if r.File != "" && r.Type != "miss" {
		text = fmt.Sprintf("%s:%d: %s", r.File, r.Line, text)
	}
	if r.Step != "" {
		text = u.paint(stepColor, r.Step) + " " + text
	}
	if r.Build != "" {
		text = u.paint(stepColor, r.Build) + ": " + text
	}
	stamp := fmt.Sprintf("%04d", int(u.opts.Now().Sub(u.start).Seconds()))
	if u.opts.Timestamps {
		stamp = u.opts.Now().UTC().Format(time.RFC3339)
	}
	label := strings.ToUpper(r.level.String())
	u.write(u.opts.Stderr, u.paint(levelColor(r.level), label)+"["+stamp+"] "+text+"\n")
}

const stepColor = "36" // cyan, SGR 36 of ECMA-48

func levelColor(l Level) string {
	switch {
	case l <= Error:
		return "31" // red
	case l == Warn:
		return "33" // yellow
	case l == Info:
		return "32" // green
	}
	return "37" // white
}

func (u *UI) paint(color, text string) string {
	if u.opts.Format != Color {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// write is one call of Write for one whole line.
func (u *UI) write(w io.Writer, s string) {
	_, _ = io.WriteString(w, s) // a build does not fail for its log
}
