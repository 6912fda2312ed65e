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
	names    []string
	values   []attribute
}

// ruleSet are the rules of one .gitattributes file, which lies in the directory dir.
type ruleSet struct {
	dir   string
	rules []rule
	// above are the rules of the nearest directory above with any; nil if there is none.
	above *ruleSet
}

// parseAttributes reads a .gitattributes file.
func parseAttributes(dir, text string, above *ruleSet) *ruleSet {
	s := &ruleSet{dir: dir, above: above}
	macros := map[string][]string{"binary": {"-diff", "-merge", "-text"}}
	for line := range strings.Lines(strings.TrimPrefix(text, "\uFEFF")) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || len(line) > maxAttributeLine {
			continue
		}
		pattern, rest := cutPattern(line)
		words := strings.Fields(rest)
		if name, ok := strings.CutPrefix(pattern, "[attr]"); ok {
			if dir == "." && name != "" { // macros count in the top directory only
				macros[name] = words
			}
			continue
		}
		if pattern == "" || pattern[0] == '!' {
			continue // git does not take negative patterns here
		}
		r := rule{pattern: strings.TrimPrefix(pattern, "/"), anchored: strings.Contains(pattern, "/")}
		if strings.HasSuffix(pattern, "/") {
			continue // it would match directories only, which have no attributes
		}
		for _, w := range words {
			r.add(w, macros)
		}
		s.rules = append(s.rules, r)
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

// add takes one word: "text", "-text", "!text", "eol=crlf", or a macro.
func (r *rule) add(word string, macros map[string][]string) {
	a := attribute{state: set}
	name, value, hasValue := strings.Cut(word, "=")
	switch {
	case hasValue:
		a = attribute{state: valued, value: value}
	case strings.HasPrefix(word, "-"):
		a.state, name = unset, word[1:]
	case strings.HasPrefix(word, "!"):
		a.state, name = unspecified, word[1:]
	}
	r.names, r.values = append(r.names, name), append(r.values, a)
	if words, ok := macros[name]; ok && a.state == set {
		for _, w := range words {
			if _, again := macros[strings.TrimLeft(w, "-!")]; !again { // macros are not looked for in macros
				r.add(w, nil)
			}
		}
	}
}

// of returns the attributes of the file at p that are among names.
func (s *ruleSet) of(p string, names []string) map[string]attribute {
	out := map[string]attribute{}
	for ; s != nil; s = s.above {
		rel := p
		if s.dir != "." {
			rel = strings.TrimPrefix(p, s.dir+"/")
		}
		for i := len(s.rules) - 1; i >= 0; i-- {
			r := &s.rules[i]
			if !r.matches(rel) {
				continue
			}
			r.apply(out)
		}
	}
	for name := range out {
		if !contains(names, name) {
			delete(out, name)
		}
	}
	return out
}

// apply notes the attributes of the rule that no stronger rule has spoken of. In one line the last word counts.
func (r *rule) apply(out map[string]attribute) {
	for j := len(r.names) - 1; j >= 0; j-- {
		if _, known := out[r.names[j]]; !known {
			out[r.names[j]] = r.values[j]
		}
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
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
