package ui

import (
	"errors"
	"strings"

	"hako/internal/diag"
)

// Failure is what ended everything.
type Failure struct {
	// Prefix says what failed: "error building image: ".
	Prefix string
	Err    error
	// Advice is a last line, or empty.
	Advice string
}

// Fail shows f. As text it comes as it is, without level and time, so that it is the last thing on standard error.
func (u *UI) Fail(f Failure) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.opts.Format == JSON {
		u.json(f.record())
		return
	}
	u.write(u.opts.Stderr, f.text(u.paint))
}

// text is f for people, over one or more lines.
func (f Failure) text(paint func(color, text string) string) string {
	var b strings.Builder
	b.WriteString(paint(levelColor(Error), strings.TrimSuffix(f.Prefix, " ")))
	if strings.HasSuffix(f.Prefix, " ") {
		b.WriteByte(' ')
	}
	for _, l := range diag.Lines(f.Err) {
		gutter, text := l.Gutter, l.Text
		switch l.Kind {
		case diag.Place:
			text = paint(stepColor, text)
		case diag.Around:
			gutter, text = paint(faint, gutter), paint(faint, text)
		case diag.Marked:
			gutter = paint(levelColor(Error), gutter)
		case diag.Output:
			gutter = paint(faint, gutter)
		case diag.Hint:
			text = paint(levelColor(Warn), text)
		case diag.Message:
		}
		b.WriteString(gutter + text + "\n")
	}
	if f.Advice != "" {
		b.WriteString(f.Advice + "\n")
	}
	return b.String()
}

// Brief is f in few lines, without what commands have printed: the message with its place, and what to do.
func (f Failure) Brief() string {
	text := f.Prefix + f.Err.Error()
	for _, l := range diag.Lines(f.Err) {
		if l.Kind == diag.Hint {
			text += "\n" + l.Text
		}
	}
	return text
}

const faint = "2" // SGR 2 of ECMA-48

// record is f in JSON; msg is all of it as text.
func (f Failure) record() record {
	plain := f.text(func(_, text string) string { return text })
	r := record{level: Error, Type: "error", Message: strings.TrimSuffix(plain, "\n"), Error: f.Err.Error()}
	if d := (*diag.Error)(nil); errors.As(f.Err, &d) {
		r.Hint, r.Output = d.Hint, d.Output
		if d.Span.Start != 0 {
			r.File, r.Line, r.EndLine, r.Source = d.Span.File, d.Span.Start, d.Span.End, d.Span.Source
			r.Before, r.After = d.Span.Before, d.Span.After
		}
	}
	r.ExitCode = exitCode(f.Err)
	return r
}

// exitCode is that of the command that failed, or 0.
func exitCode(err error) int {
	if e := (interface{ ExitCode() int })(nil); errors.As(err, &e) {
		return e.ExitCode()
	}
	return 0
}
