// Package diag holds the errors that a user can do something about: what was attempted,
// where in the Dockerfile, why it went wrong and what to do next.
package diag

import (
	"fmt"
	"strings"
)

// Span is a range of lines in a Dockerfile.
type Span struct {
	// File is the name as the user gave it.
	File string
	// Start and End are 1-based and inclusive; Start is 0 where there is no position.
	Start, End int
	// Source holds the lines Start to End, without line ends.
	Source []string
	// Before and After are a few lines around them; they may be empty.
	Before, After []string
}

// Alone is s without the lines around it.
func (s Span) Alone() Span {
	s.Before, s.After = nil, nil
	return s
}

// String is "Dockerfile:12".
func (s Span) String() string {
	if s.Start == 0 {
		return s.File
	}
	return fmt.Sprintf("%s:%d", s.File, s.Start)
}

// Error is a failure that a user can mend.
type Error struct {
	// What was attempted or is wrong, lower case, without a full stop: `COPY: no file matches "dist/*.js"`.
	What string
	// Span is the place in the Dockerfile; its zero value means none.
	Span Span
	// Cause is the underlying error, if any.
	Cause error
	// Output is what a command that failed wrote last: a few lines, without what would command a terminal.
	Output []string
	// Hint is one imperative sentence, or empty.
	Hint string
}

// Error is the one-line form: "Dockerfile:12: what: cause".
func (e *Error) Error() string {
	var b strings.Builder
	if e.Span.Start != 0 {
		b.WriteString(e.Span.String() + ": ")
	}
	b.WriteString(e.What)
	if e.Cause != nil {
		b.WriteString(": " + e.Cause.Error())
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }
