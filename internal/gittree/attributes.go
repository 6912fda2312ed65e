package gittree

import (
	"path"
	"strings"
)

// Attributes (gitattributes(5)) say how files are written to a working copy: with which line ends, in which encoding,
// and whether $Id$ is replaced. The files .gitattributes of a file's directory and of those above it count; in one file
// the last line that matches, and the file nearest to the file.

// maxAttributes is the size of a .gitattributes file, as git has it (ATTR_MAX_FILE_SIZE).
const maxAttributes = 100 << 20 // 100 MiB

// maxAttributeLine is git's limit (ATTR_MAX_LINE_LENGTH); longer lines do not count.
const maxAttributeLine = 2048

// attribute is the state of one attribute of a file.
type attribute struct {
	state attributeState
	value string
}

type attributeState uint8

const (
	unspecified attributeState = iota
	set
	unset
	valued
)

// rule is one line of a .gitattributes file.
type rule struct {
	pattern  string
	anchored bool // the pattern is for the whole path, not for the last name
	// words are the attributes as written: few rules match a file, and a short line can stand for many of them.
	words string
}

// ruleSet are the rules of one .gitattributes file, which lies in the directory dir.
type ruleSet struct {
	dir   string
	rules []rule
	// macros are the words that a name stands for. Only the top directory has any of its own.
	macros map[string]string
	// above are the rules of the nearest directory above with any; nil if there is none.
	above *ruleSet
}

// parseAttributes reads a .gitattributes file.
func parseAttributes(dir, text string, above *ruleSet) *ruleSet {
	s := &ruleSet{dir: dir, above: above, macros: map[string]string{"binary": "-diff -merge -text"}}
	if above != nil {
		s.macros = above.macros
	}
	for line := range strings.Lines(strings.TrimPrefix(text, "\uFEFF")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || len(line) > maxAttributeLine {
			continue
		}
		pattern, words := cutPattern(line)
		if name, ok := strings.CutPrefix(pattern, "[attr]"); ok {
			if dir == "." && name != "" { // macros count in the top directory only
				s.macros[name] = words
			}
			continue
		}
		if pattern == "" || pattern[0] == '!' || strings.HasSuffix(pattern, "/") {
			continue // git does not take negative patterns here, and directories have no attributes
		}
		s.rules = append(s.rules, rule{pattern: strings.TrimPrefix(pattern, "/"), anchored: strings.Contains(pattern, "/"), words: words})
	}
	return s
}

// cutPattern cuts the first word off, which may be in quotes.
func cutPattern(line string) (pattern, rest string) {
	if line[0] != '"' {
		end := strings.IndexAny(line, " \t")
		if end < 0 {
			return line, ""
		}
		return line[:end], line[end:]
	}
	var b strings.Builder
	i := 1
	for ; i < len(line) && line[i] != '"'; i++ {
		if line[i] == '\\' && i+1 < len(line) {
			i++
		}
		b.WriteByte(line[i])
	}
	return b.String(), line[min(i+1, len(line)):]
}

// parseAttribute reads one word: "text", "-text", "!text" or "eol=crlf".
func parseAttribute(word string) (string, attribute) {
	name, value, hasValue := strings.Cut(word, "=")
	switch {
	case hasValue:
		return name, attribute{state: valued, value: value}
	case strings.HasPrefix(word, "-"):
		return word[1:], attribute{state: unset}
	case strings.HasPrefix(word, "!"):
		return word[1:], attribute{state: unspecified}
	}
	return name, attribute{state: set}
}

// of returns the attributes of the file at p, and of which macros they come.
func (s *ruleSet) of(p string) map[string]attribute {
	out := map[string]attribute{}
	for at := s; at != nil; at = at.above {
		rel := p
		if at.dir != "." {
			rel = strings.TrimPrefix(p, at.dir+"/")
		}
		for i := len(at.rules) - 1; i >= 0; i-- {
			if r := &at.rules[i]; r.matches(rel) {
				s.apply(r.words, out)
			}
		}
	}
	return out
}

// apply notes the attributes among words that nothing stronger has spoken of. In one line the last word counts. A macro that
// is set stands for its words, which can be macros.
func (s *ruleSet) apply(words string, out map[string]attribute) {
	list := strings.Fields(words)
	for i := len(list) - 1; i >= 0; i-- {
		name, a := parseAttribute(list[i])
		if _, known := out[name]; known {
			continue
		}
		out[name] = a
		if a.state == set {
			s.apply(s.macros[name], out)
		}
	}
}

// matches says whether the rule is about the path, which is relative to the directory of the rule's file.
func (r *rule) matches(rel string) bool {
	if !r.anchored {
		return wildmatch(r.pattern, path.Base(rel))
	}
	return wildmatch(r.pattern, rel)
}

// wildmatch matches as git does: "*" and "?" do not match "/", "**" between slashes matches any directories.
// Its effort is bounded by the product of the lengths.
func wildmatch(pattern, text string) bool {
	m := &matcher{pattern: pattern, text: text}
	return m.match(0, 0)
}

type matcher struct {
	pattern, text string
	failed        []bool // by position in the pattern and in the text, once a star has been seen
}

// match matches the pattern from p on with the text from t on.
func (m *matcher) match(p, t int) bool {
	key := p*(len(m.text)+1) + t
	if m.failed != nil && m.failed[key] {
		return false
	}
	ok := m.try(p, t)
	if !ok && m.failed != nil {
		m.failed[key] = true
	}
	return ok
}

func (m *matcher) try(p, t int) bool {
	for p < len(m.pattern) {
		switch c := m.pattern[p]; c {
		case '*':
			return m.star(p, t)
		case '?':
			if t == len(m.text) || m.text[t] == '/' {
				return false
			}
		case '[':
			if t == len(m.text) || m.text[t] == '/' {
				return false
			}
			ok, end := matchClass(m.pattern[p:], m.text[t])
			if !ok {
				return false
			}
			p += end - 1
		default:
			if c == '\\' && p+1 < len(m.pattern) {
				p++
				c = m.pattern[p]
			}
			if t == len(m.text) || m.text[t] != c {
				return false
			}
		}
		p++
		t++
	}
	return t == len(m.text)
}

// star matches a "*" or "**" at p.
func (m *matcher) star(p, t int) bool {
	end := p
	for end < len(m.pattern) && m.pattern[end] == '*' {
		end++
	}
	after := m.pattern[end:]
	if m.failed == nil {
		m.failed = make([]bool, (len(m.pattern)+1)*(len(m.text)+1))
	}
	deep := end-p >= 2 && (p == 0 || m.pattern[p-1] == '/') && (after == "" || after[0] == '/')
	switch {
	case m.match(end, t):
		return true
	case deep && after != "" && (t == 0 || m.text[t-1] == '/') && m.match(end+1, t): // "**/" matches no directory at all
		return true
	case t == len(m.text) || !deep && m.text[t] == '/':
		return false
	}
	return m.match(p, t+1)
}

// matchClass matches one byte with "[…]", and returns the length of the class; 0 if it has no end.
func matchClass(class string, c byte) (ok bool, length int) {
	i, negative, found := 1, false, false
	if i < len(class) && (class[i] == '!' || class[i] == '^') {
		negative = true
		i++
	}
	for first := true; i < len(class); first = false {
		if class[i] == ']' && !first {
			return found != negative, i + 1
		}
		if class[i] == '\\' && i+1 < len(class) {
			i++
		}
		low, high := class[i], class[i]
		if i+2 < len(class) && class[i+1] == '-' && class[i+2] != ']' {
			high = class[i+2]
			i += 2
		}
		found = found || low <= c && c <= high
		i++
	}
	return false, 0
}
