// Package event is the one stream of what happens in a build. Everything that a user sees of a running
// build, on a terminal, in a plain log or as JSON, is made from these events; nothing else is printed.
package event

import (
	"time"

	"hako/internal/diag"
)

// Sink receives events. Emit may be called from many goroutines and must not block for long.
type Sink interface {
	Emit(Event)
}

// Event is one of the types below.
type Event interface{ event() }

// StepStarted says that the step with this ID began to run.
type StepStarted struct {
	// Step is "stage/number", as the plan prints it.
	Step string
	// Name is the instruction as written, on one line.
	Name string
	Time time.Time
}

// StepOutput is one whole line, or the unfinished last line, that a step wrote.
type StepOutput struct {
	Step   string
	Stderr bool
	Line   []byte
	// Named says that the line is to be shown with its step even if no other runs.
	Named bool
}

// StepDone says that the step ended. Err is nil on success.
type StepDone struct {
	Step     string
	Err      error
	Duration time.Duration
	// Cached says that the result was taken from a cache.
	Cached bool
}

// CacheMiss says why a step is not taken from the cache.
type CacheMiss struct {
	Step string
	// Kind is what kind of thing has changed since the last record: "new", "instruction", "removed", "base", "above", "part", "file",
	// "source", or "gone" if nothing has. Subject names it (a path, "ARG VERSION"), and Change says how (content, added);
	// Cause is the step further up that it happened to, or empty. No values are told, since they may be secret.
	Kind, Subject, Change, Cause string
	// Message says all that to people.
	Message string
	Span    diag.Span
}

// Progress counts the bytes of one transfer.
type Progress struct {
	// ID is unique among the transfers of a build; What says what is moved, for people.
	ID, What string
	// Done and Total are in bytes; Total is 0 if unknown.
	Done, Total int64
	Finished    bool
	// Due says that it is to be shown whenever the last one was: somebody else has left out the many that come between.
	Due bool
}

// Span is something that took time, told when it has ended. It is for traces; nobody is shown it.
type Span struct {
	// Name says what was done. Step is the ID of the step that it is a part of, or empty.
	Name, Step string
	Start, End time.Time
}

// Warning is something the user should know although the build goes on.
type Warning struct {
	// Rule is the name of the rule for Dockerfiles that is broken, Description what it is about and URL where it is explained;
	// empty if it is about something else.
	Rule, Description, URL string
	Message                string
	Span                   diag.Span
}

// Of is an event of one build where several are shown together.
type Of struct {
	// Build is its name.
	Build string
	// Event is not an Of.
	Event Event
}

// Info is a line for the log.
type Info struct{ Message string }

// Debug is a line for the log of those who look for a fault.
type Debug struct{ Message string }

func (StepStarted) event() {}
func (StepOutput) event()  {}
func (StepDone) event()    {}
func (CacheMiss) event()   {}
func (Progress) event()    {}
func (Span) event()        {}
func (Warning) event()     {}
func (Info) event()        {}
func (Debug) event()       {}
func (Of) event()          {}

// Sinks passes every event on to each of its sinks.
type Sinks []Sink

// Emit emits e to all.
func (s Sinks) Emit(e Event) {
	for _, to := range s {
		to.Emit(e)
	}
}

// Named is a Sink that says of every event which of several builds it is of.
type Named struct {
	Build string
	To    Sink
}

// Emit passes e on.
func (n Named) Emit(e Event) { n.To.Emit(Of{n.Build, e}) }

// Discard is a Sink that drops everything.
type Discard struct{}

// Emit does nothing.
func (Discard) Emit(Event) {}
