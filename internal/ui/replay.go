package ui

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"hako/internal/diag"
	"hako/internal/event"
)

// RemoteError is an error that was told by a line of JSON.
type RemoteError struct {
	text string
	code int
}

// Error is the message on one line.
func (e *RemoteError) Error() string { return e.text }

// ExitCode is that of the command that failed, or 0.
func (e *RemoteError) ExitCode() int { return e.code }

// Parse reads a line that a UI with the format JSON has written, and returns the event that it was; or nil and why the build
// failed, if it is the line about that. ok is false for a line that is none of ours.
func Parse(line []byte) (e event.Event, failure error, ok bool) {
	var r record
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &r) != nil || r.Time == "" || r.Type == "" {
		return nil, nil, false
	}
	if r.Type == "error" {
		return nil, r.failure(), true
	}
	return r.event(), nil, true
}

// event is the one that r tells of. What is unknown is a line for the log.
func (r *record) event() event.Event {
	span := diag.Span{File: r.File, Start: r.Line, End: max(r.Line, r.EndLine), Source: r.Source}
	seconds := time.Duration(r.Seconds * float64(time.Second))
	switch r.Type {
	case "step":
		at, _ := time.Parse(time.RFC3339Nano, r.Time) // without one, it is the zero time
		return event.StepStarted{Step: r.Step, Name: r.Message, Time: at}
	case "output":
		return event.StepOutput{Step: r.Step, Stderr: r.Stream == "stderr", Line: r.line()}
	case "done":
		return event.StepDone{Step: r.Step, Duration: seconds, Cached: r.Cached}
	case "failed":
		return event.StepDone{Step: r.Step, Duration: seconds, Err: &RemoteError{r.Error, r.ExitCode}}
	case "miss":
		return event.CacheMiss{
			Step: r.Step, Kind: r.Kind, Subject: r.Subject, Change: r.Change, Cause: r.Cause,
			Message: strings.TrimPrefix(r.Message, "not cached: "), Span: span,
		}
	case "progress":
		what, _, _ := strings.Cut(r.Message, ": "+Size(r.Done))
		return event.Progress{ID: r.Transfer, What: what, Done: r.Done, Total: r.Total, Finished: r.Finished, Due: true}
	case "warning":
		return event.Warning{Rule: r.Rule, Description: r.Description, URL: r.URL, Span: span, Message: strings.TrimPrefix(r.Message, r.Rule+": ")}
	}
	if level, err := ParseLevel(r.LevelStr); err == nil && level >= Debug {
		return event.Debug{Message: r.Message}
	}
	return event.Info{Message: r.text()}
}

// line is what a command wrote.
func (r *record) line() []byte {
	if data, err := base64.StdEncoding.DecodeString(r.Base64); err == nil && r.Base64 != "" {
		return data
	}
	return []byte(r.Message)
}

// text is the message, after the step that it is about.
func (r *record) text() string {
	if r.Step == "" {
		return r.Message
	}
	return r.Step + " " + r.Message
}

// failure is the error that r tells of.
func (r *record) failure() error {
	d := &diag.Error{Hint: r.Hint, Output: r.Output}
	text := r.Error
	if r.File != "" {
		d.Span = diag.Span{File: r.File, Start: r.Line, End: max(r.Line, r.EndLine), Source: r.Source, Before: r.Before, After: r.After}
		text = strings.TrimPrefix(text, d.Span.String()+": ")
	}
	// The cause says the rest of the message, and has the exit code.
	d.What, text, _ = strings.Cut(text, ": ")
	d.Cause = &RemoteError{text, r.ExitCode}
	switch {
	case text != "":
		return d
	case r.ExitCode != 0:
		return &RemoteError{d.What, r.ExitCode}
	}
	d.Cause = nil
	return d
}
