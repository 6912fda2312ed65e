package conformance

import (
	"fmt"
	"strconv"
	"strings"
)

// line is one line of a script or of a list of entries: words, and where it stands.
type line struct {
	number int
	words  []string
}

// parseLines splits text into lines of words. Empty lines and lines that start with "#" do not count.
func parseLines(text string) ([]line, error) {
	var lines []line
	for i, l := range strings.Split(text, "\n") {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		words, err := splitWords(l)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		lines = append(lines, line{i + 1, words})
	}
	return lines, nil
}

// splitWords splits s at blanks. Any part of a word may be a Go string literal in double or back quotes.
func splitWords(s string) ([]string, error) {
	var words []string
	for s = strings.TrimLeft(s, " \t"); s != ""; s = strings.TrimLeft(s, " \t") {
		w, rest, err := nextWord(s)
		if err != nil {
			return nil, err
		}
		words, s = append(words, w), rest
	}
	return words, nil
}

func nextWord(s string) (word, rest string, err error) {
	var b strings.Builder
	for s != "" && s[0] != ' ' && s[0] != '\t' {
		if s[0] != '"' && s[0] != '`' {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		q, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", fmt.Errorf("unquote %s: %w", s, err)
		}
		u, err := strconv.Unquote(q)
		if err != nil {
			return "", "", fmt.Errorf("unquote %s: %w", q, err)
		}
		b.WriteString(u)
		s = s[len(q):]
	}
	return b.String(), s, nil
}
