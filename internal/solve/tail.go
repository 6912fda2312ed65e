package solve

import (
	"slices"
	"strings"
	"sync"
)

const (
	tailLines = 20
	tailWidth = 1 << 10 // bytes of a line
)

// tail keeps the last lines that a step wrote, for the error if it fails. It may be used from many goroutines.
type tail struct {
	mu    sync.Mutex // guards lines
	lines []string   // the oldest first
}

func (t *tail) add(line []byte) {
	s := strings.TrimRight(string(line[:min(len(line), tailWidth)]), "\r\n")
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.lines) == tailLines {
		t.lines = slices.Delete(t.lines, 0, 1)
	}
	t.lines = append(t.lines, s)
}

// text is what was kept, as people would have seen it on a terminal, without empty lines at its ends.
func (t *tail) text() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]string, len(t.lines))
	for i, l := range t.lines {
		out[i] = lastWritten(plainText(l))
	}
	for len(out) > 0 && out[0] == "" {
		out = out[1:]
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}

// plainText is a line without escape sequences (ECMA-48, 5.4) and blanks at its end.
func plainText(s string) string {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "\x1b")
		b.WriteString(before)
		if !found {
			return strings.TrimRight(b.String(), " \t\r")
		}
		s = skipEscape(after)
	}
}

// skipEscape returns what follows an escape sequence, whose first byte is gone already.
func skipEscape(s string) string {
	if s == "" {
		return ""
	}
	final := func(r rune) bool { return r >= 0x40 && r <= 0x7e }
	switch s[0] {
	case ']': // a string that ends with BEL or ST: a title, for instance
		if i := strings.IndexAny(s, "\a\x1b"); i >= 0 {
			return strings.TrimPrefix(s[i+1:], "\\")
		}
		return ""
	case '[':
		s = s[1:]
	default:
		final = func(r rune) bool { return r < 0x20 || r > 0x2f }
	}
	if i := strings.IndexFunc(s, final); i >= 0 {
		return s[i+1:]
	}
	return ""
}

// lastWritten is what is left of a line that was overwritten, as progress bars are. A carriage return that is quoted
// in a message (`./a.sh\r: not found`) is one of a script with Windows line ends, and stays.
func lastWritten(s string) string {
	i := strings.LastIndexByte(s, '\r')
	if i < 0 || strings.HasPrefix(s[i+1:], ":") || strings.HasPrefix(s[i+1:], "'") || strings.HasPrefix(s[i+1:], "’") {
		return s
	}
	return s[i+1:]
}
