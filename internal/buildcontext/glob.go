package buildcontext

import (
	"strings"
	"unicode/utf8"

	"github.com/moby/patternmatcher"
)

// pattern is one line of an ignore file. It says what patternmatcher says, in time that is linear in the path for all patterns
// that are not written to be slow: those with classes of characters are left to regular expressions.
type pattern struct {
	text      string // cleaned, without "!"
	exception bool
	// One of these is set. prefix and suffix are what patternmatcher takes "a/**" and "**/a" for.
	exact, prefix, suffix bool
	glob                  *glob
	slow                  *patternmatcher.PatternMatcher
}

// newPattern compiles a pattern that patternmatcher has accepted.
func newPattern(from *patternmatcher.Pattern) (*pattern, error) {
	p := &pattern{text: from.String(), exception: from.Exclusion()}
	switch {
	case !strings.ContainsAny(p.text, `*?[]\^`):
		p.exact = true
		return p, nil
	case plain(strings.TrimSuffix(p.text, "**")) && strings.HasSuffix(p.text, "**") && p.text != "**":
		p.prefix = true
		return p, nil
	case plain(strings.TrimPrefix(p.text, "**")) && strings.HasPrefix(p.text, "**"):
		p.suffix = true
		return p, nil
	}
	if p.glob = newGlob(p.text); p.glob != nil {
		return p, nil
	}
	var err error
	p.slow, err = patternmatcher.New([]string{p.text})
	return p, err
}

// plain says whether a part of a pattern stands for itself.
func plain(s string) bool { return !strings.ContainsAny(s, `*?[]\^`) }

// match says whether the pattern is about a path.
func (p *pattern) match(path string) (bool, error) {
	switch {
	case p.exact:
		return path == p.text, nil
	case p.prefix:
		return strings.HasPrefix(path, p.text[:len(p.text)-2]), nil
	case p.suffix:
		end := p.text[2:]
		return strings.HasSuffix(path, end) || end[0] == '/' && path == end[1:], nil
	case p.glob != nil:
		return p.glob.match(path), nil
	}
	//lint:ignore SA1019 it looks at this path alone, as it should
	return p.slow.MatchesUsingParentResult(path, false) //nolint:staticcheck // likewise
}

// glob is a pattern as an automaton whose states are bits: bit i is set while the first i characters of the pattern have been
// found. All states take a step at once, so that no pattern makes a path be read twice.
//
// Three things can stand between two characters: "*" stays on anything but a slash; "**" before more is an optional part that
// ends with a slash; "**" at the end takes all. No wildcard but "*" crosses a line end, as in patternmatcher.
type glob struct {
	takes map[rune][]uint64 // the characters of the pattern that a character stands for
	other []uint64          // likewise, for characters that the pattern does not have: "?" takes them
	star  []uint64
	deep  []uint64
	rest  []uint64
	size  int // in characters
}

// newGlob compiles a pattern, or returns nil if it has what is left to regular expressions.
func newGlob(text string) *glob {
	tokens, ok := scanGlob(text)
	if !ok {
		return nil
	}
	g := &glob{takes: map[rune][]uint64{}}
	for _, t := range tokens {
		if !t.between() {
			g.size++
		}
	}
	words := g.size/64 + 1
	g.other, g.star, g.deep, g.rest = make([]uint64, words), make([]uint64, words), make([]uint64, words), make([]uint64, words)
	g.fill(tokens, words)
	return g
}

// fill sets the bits of the tokens.
func (g *glob) fill(tokens []token, words int) {
	set := func(bits []uint64, at int) { bits[at/64] |= 1 << (at % 64) }
	at := 0
	for _, t := range tokens {
		switch t.kind {
		case literalToken:
			if g.takes[t.char] == nil {
				g.takes[t.char] = make([]uint64, words)
			}
			set(g.takes[t.char], at)
		case anyToken:
			set(g.other, at)
		case starToken:
			set(g.star, at)
		case deepToken:
			set(g.deep, at)
		case restToken:
			set(g.rest, at)
		}
		if !t.between() {
			at++
		}
	}
	for char, bits := range g.takes {
		for i := range bits {
			if char != '/' {
				bits[i] |= g.other[i]
			}
		}
	}
	if g.takes['/'] == nil {
		g.takes['/'] = make([]uint64, words)
	}
}

// token is a part of a pattern.
type token struct {
	kind tokenKind
	char rune
}

type tokenKind uint8

const (
	literalToken tokenKind = iota + 1
	anyToken               // ?
	starToken              // *
	deepToken              // ** before more
	restToken              // ** at the end
)

// between says whether the token takes no character of its own.
func (t token) between() bool { return t.kind >= starToken }

// scanGlob splits a pattern. ok is false if it has what is left to regular expressions: classes, and what patternmatcher
// scanGlob splits a pattern. ok is false if it has what is left to regular expressions: classes, and what patternmatcher
// hands on to them as it is.
func scanGlob(text string) (tokens []token, ok bool) {
	if !utf8.ValidString(text) || strings.ContainsAny(text, "[]^{|}\x00\ufeff\ufffd") {
		return nil, false
	}
	for text != "" {
		if after, ok := strings.CutPrefix(text, "**"); ok {
			if text = strings.TrimPrefix(after, "/"); text == "" {
				return append(tokens, token{kind: restToken}), true
			}
			tokens = append(tokens, token{kind: deepToken})
			continue
		}
		char, size := utf8.DecodeRuneInString(text)
		text = text[size:]
		switch char {
		case '*':
			tokens = append(tokens, token{kind: starToken})
		case '?':
			tokens = append(tokens, token{kind: anyToken})
		case '\\':
			char, size = utf8.DecodeRuneInString(text)
			if size == 0 || char >= utf8.RuneSelf || isAlphanumeric(char) { // some are classes
				return nil, false
			}
			text = text[size:]
			tokens = append(tokens, token{literalToken, char})
		default:
			tokens = append(tokens, token{literalToken, char})
		}
	}
	return tokens, true
}

func isAlphanumeric(c rune) bool {
	return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
}

// match says whether the pattern is about a path. It may be called from many goroutines.
func (g *glob) match(path string) bool {
	const most = 8 // words that need no memory of their own
	var buf [2 * most]uint64
	words := len(g.star)
	states, inside := buf[:most], buf[most:]
	if words > most {
		states, inside = make([]uint64, words), make([]uint64, words)
	}
	states[0] = 1
	inside[0] = g.deep[0] & 1
	for _, char := range path {
		if !g.step(char, states[:words], inside[:words]) {
			return false
		}
	}
	return states[g.size/64]&(1<<(g.size%64)) != 0
}

// step takes one character in all states; inside are those in the middle of a "**". It returns false if no state is left.
func (g *glob) step(char rune, states, inside []uint64) bool {
	takes := g.takes[char]
	if takes == nil {
		takes = g.other
	}
	var carry, alive uint64
	for i, s := range states {
		found := s & takes[i]
		arrived := found<<1 | carry
		carry = found >> 63
		stay := s & g.star[i]
		if char == '/' {
			arrived |= inside[i]
			stay = 0
		}
		if char == '\n' {
			inside[i] = 0
		} else {
			stay |= s & g.rest[i]
		}
		states[i] = arrived | stay
		inside[i] |= arrived & g.deep[i]
		alive |= states[i] | inside[i]
	}
	return alive != 0
}
