package dockerfile

import (
	"bytes"
	"fmt"
	"strings"

	"hako/internal/diag"
)

// The bounds of what is read. BuildKit's parser recurses over nested ONBUILD and "${", and works in quadratic time
// on some input; a file within these bounds costs at most seconds and no deep stack.
const (
	maxBytes        = 4 << 20 // 4 MiB
	maxInstructions = 10_000
	maxNesting      = 100    // of "${" in one instruction
	maxOnbuild      = 8      // ONBUILD words in a row; more than one is refused later, with a better message
	maxComments     = 10_000 // comment lines in a row
)

// precheck refuses text that is no Dockerfile or that would cost too much to parse.
func (f *File) precheck(text []byte) error {
	whole := diag.Span{File: f.Name}
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return &diag.Error{What: "the Dockerfile is empty", Span: whole}
	case len(text) > maxBytes:
		return &diag.Error{What: fmt.Sprintf("the Dockerfile is larger than %d MiB", maxBytes>>20), Span: whole}
	case bytes.HasPrefix(text, []byte{0xFF, 0xFE}), bytes.HasPrefix(text, []byte{0xFE, 0xFF}):
		return &diag.Error{What: "the Dockerfile is encoded in UTF-16", Span: whole, Hint: "Save it as UTF-8."}
	case bytes.IndexByte(text, 0) >= 0:
		return &diag.Error{What: "the Dockerfile contains a NUL byte", Span: whole, Hint: "Is it a text file?"}
	}
	return f.precheckLines()
}

// precheckLines looks at each logical line. It joins at least the lines that the parser would join.
func (f *File) precheckLines() error {
	var line logicalLine
	comments := 0
	for i, l := range f.lines {
		trimmed := strings.TrimSpace(l)
		if strings.HasPrefix(trimmed, "#") {
			if comments++; comments > maxComments {
				return f.limitError(i, fmt.Sprintf("more than %d comment lines in a row", maxComments))
			}
			continue
		}
		comments = 0
		if trimmed == "" {
			continue
		}
		if reason := line.add(trimmed); reason != "" {
			return f.limitError(i, reason)
		}
	}
	return nil
}

func (f *File) limitError(i int, reason string) error {
	return &diag.Error{What: reason, Span: diag.Span{File: f.Name, Start: i + 1, End: i + 1, Source: []string{clip(f.lines[i])}}}
}

// logicalLine follows nesting over the physical lines of one instruction.
type logicalLine struct {
	open    bool // the last line ended with an escape character
	nesting int
	head    []byte // the first bytes, lower case, without blanks
}

// add takes the next physical line, and returns why it is refused, or nothing.
func (l *logicalLine) add(s string) string {
	if !l.open {
		*l = logicalLine{}
	}
	body := strings.TrimRight(s, "\\`")
	l.open = len(body) < len(s)
	for i := 0; i < len(body); i++ {
		switch {
		case body[i] == '}':
			l.nesting = max(l.nesting-1, 0)
		case body[i] == '$' && i+1 < len(body) && body[i+1] == '{', body[i] == '$' && i+1 == len(body) && l.open:
			l.nesting++
		}
	}
	if l.nesting > maxNesting {
		return fmt.Sprintf("more than %d nested \"${\"", maxNesting)
	}
	if room := maxOnbuild * len("onbuild"); len(l.head) < room {
		l.head = append(l.head, strings.Join(strings.Fields(strings.ToLower(body)), "")...)
		if strings.HasPrefix(string(l.head), strings.Repeat("onbuild", maxOnbuild)) {
			return "nested ONBUILD"
		}
	}
	return ""
}
