// Package diag holds the errors that a user can do something about: what was attempted,
// where in the Dockerfile, why it went wrong and what to do next.
package diag

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Span is a range of lines in a Dockerfile.
type Span struct {
	// File is the name as the user gave it.
	File string
	// Start and End are 1-based and inclusive; Start is 0 where there is no position.
	Start, End int
	// Source holds the lines Start to End, without line ends.
	Source []string
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

// Format returns the form for people: the message, the marked source lines and the hint, over several lines.
// Control characters are spelled out, because messages quote names of images and answers of registries,
// which could otherwise command a terminal.
func Format(err error) string { return printable(format(err)) }

func format(err error) string {
	if parts := joined(err); len(parts) > 0 {
		texts := make([]string, len(parts))
		for i, p := range parts {
			texts[i] = format(p)
		}
		return strings.Join(texts, "\n")
	}
	var e *Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	var b strings.Builder
	b.WriteString(e.What)
	if e.Cause != nil {
		b.WriteString(": " + e.Cause.Error())
	}
	if e.Span.Start != 0 {
		b.WriteString("\n  " + e.Span.String())
		for i, l := range e.Span.Source {
			fmt.Fprintf(&b, "\n%6d | %s", e.Span.Start+i, l)
		}
	}
	if e.Hint != "" {
		b.WriteString("\n  " + e.Hint)
	}
	return b.String()
}

// joined are the parts of an error of errors.Join.
func joined(err error) []error {
	many, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // about this error, not what it wraps
	if !ok {
		return nil
	}
	text := ""
	for _, p := range many.Unwrap() {
		text += p.Error() + "\n"
	}
	if text != err.Error()+"\n" {
		return nil // a sentence around them
	}
	return many.Unwrap()
}

// printable spells out what a terminal would obey, but for tabs and line ends, and what is no UTF-8.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsControl(r) && r != '\n' && r != '\t':
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
