package diag

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// LineKind is what a line of a formatted error is about.
type LineKind uint8

// The kinds.
const (
	Message LineKind = iota + 1
	Place            // "Dockerfile:12", and other headings
	Around           // a line of the Dockerfile near the one that is meant
	Marked           // a line of the Dockerfile that is meant
	Output           // what a command wrote
	Hint
)

// Line is one line of a formatted error. Gutter is what stands before Text: a line number and a bar, or blanks.
type Line struct {
	Kind         LineKind
	Gutter, Text string
}

// Format returns the form for people: the message, the marked source lines, what the command wrote and the hint, over
// several lines. Control characters are spelled out, because messages quote names of images and answers of registries,
// which could otherwise command a terminal.
func Format(err error) string {
	var b strings.Builder
	for i, l := range Lines(err) {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(l.Gutter + l.Text)
	}
	return b.String()
}

// Lines are those of Format.
func Lines(err error) []Line {
	if parts := joined(err); len(parts) > 0 {
		var out []Line
		for _, p := range parts {
			out = append(out, Lines(p)...)
		}
		return out
	}
	var e *Error
	if !errors.As(err, &e) {
		return message(err.Error())
	}
	text := e.What
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	out := message(text)
	if e.Span.Start != 0 {
		out = append(out, Line{Place, "  ", printable(e.Span.String())})
		out = append(out, excerpt(e.Span)...)
	}
	if len(e.Output) > 0 {
		out = append(out, Line{Place, "  ", "Its last output:"})
		for _, l := range e.Output {
			out = append(out, Line{Output, "       | ", clip(l)})
		}
	}
	if e.Hint != "" {
		out = append(out, Line{Hint, "  ", printable(e.Hint)})
	}
	return out
}

func message(text string) []Line {
	var out []Line
	for l := range strings.SplitSeq(text, "\n") {
		out = append(out, Line{Message, "", printable(l)})
	}
	return out
}

// maxExcerpt is how many lines of an instruction are shown; of a longer one, the beginning and the last line.
const maxExcerpt = 12

// excerpt shows the lines of s, marked if there are others around them.
func excerpt(s Span) []Line {
	var out []Line
	add := func(kind LineKind, number int, text string) {
		n := strconv.Itoa(number)
		if kind == Marked && len(s.Before)+len(s.After) > 0 {
			n = "> " + n
		}
		out = append(out, Line{kind, fmt.Sprintf("%6s | ", n), clip(text)})
	}
	for i, l := range s.Before {
		add(Around, s.Start-len(s.Before)+i, l)
	}
	for i, l := range s.Source {
		switch last := len(s.Source) - 1; {
		case last < maxExcerpt || i < maxExcerpt-2 || i == last:
			add(Marked, s.Start+i, l)
		case i == last-1:
			out = append(out, Line{Around, "     … | ", fmt.Sprintf("(%d lines more)", last-maxExcerpt+2)})
		}
	}
	for i, l := range s.After {
		add(Around, s.End+1+i, l)
	}
	return out
}

// clip bounds the length of a line that is quoted.
func clip(s string) string {
	const most = 240
	s = printable(s)
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
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

// printable spells out what a terminal would obey, but for tabs, and what is no UTF-8.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		_, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsControl(r) && r != '\t':
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
