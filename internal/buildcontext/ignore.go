package buildcontext

import (
	"bytes"
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
)

// parseIgnore reads the patterns of an ignore file.
func parseIgnore(content []byte) ([]string, error) {
	return ignorefile.ReadAll(bytes.NewReader(content))
}

// matcher decides what patterns leave out. The last pattern that matches a path or one of the directories that it is
// in wins. It may be used from many goroutines.
type matcher struct {
	ctx      context.Context //nolint:containedctx // tree.Tree has no place for it; a matcher lives as long as its context
	patterns []*pattern
	// exceptions are the patterns with "!", without it and without a final "/*" or "/**".
	exceptions []string
	// prefixes says that no exception has another wildcard: only directories on the way to one can hold something
	// that comes back.
	prefixes bool

	mu   sync.Mutex // guards dirs
	dirs map[string][]bool
}

const (
	// maxMatched bounds what is remembered of directories: one byte for each and each pattern.
	maxMatched = 16 << 20 // 16 MiB
	// checkEvery is how many patterns are tried between two looks at the context.
	checkEvery = 64
)

// newMatcher compiles patterns. Matching ends with ctx.
func newMatcher(ctx context.Context, patterns []string) (*matcher, error) {
	for _, p := range patterns {
		if err := CheckPattern(p); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	m := &matcher{ctx: ctx, prefixes: true, dirs: map[string][]bool{}}
	for _, from := range pm.Patterns() {
		p, err := newPattern(from)
		if err != nil {
			return nil, err
		}
		m.patterns = append(m.patterns, p)
		if !p.exception {
			continue
		}
		s := strings.TrimSuffix(strings.TrimSuffix(p.text, "/**"), "/*")
		m.exceptions = append(m.exceptions, s)
		if strings.ContainsAny(s, `*[]?^\|{`) {
			m.prefixes = false
		}
	}
	return m, nil
}

// CheckPattern says what is wrong with a pattern of a .dockerignore or of --exclude.
func CheckPattern(p string) error {
	if _, err := patternmatcher.New([]string{p}); err != nil {
		return err
	}
	one, err := patternmatcher.New([]string{strings.TrimPrefix(p, "!")})
	if err != nil {
		return err
	}
	_, err = one.MatchesOrParentMatches("x")
	return err
}

// excluded tells whether path, which is not the root, is left out.
func (m *matcher) excluded(path string) (bool, error) {
	above, err := m.matchedBy(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	out, _, err := m.match(path, above)
	return out, err
}

// matchedBy tells which patterns a directory matches, nil for the root.
func (m *matcher) matchedBy(dir string) ([]bool, error) {
	if dir == "." {
		return nil, nil
	}
	m.mu.Lock()
	known, ok := m.dirs[dir]
	m.mu.Unlock()
	if ok {
		return known, nil
	}
	above, err := m.matchedBy(filepath.Dir(dir))
	if err != nil {
		return nil, err
	}
	_, matched, err := m.match(dir, above)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.dirs)*len(m.patterns) > maxMatched {
		clear(m.dirs)
	}
	m.dirs[dir] = matched
	return matched, nil
}

// match tries all patterns in turn: those that would not change the answer are passed over, and count as not matched, also
// for what is in the directory, as in BuildKit. above are the patterns that the directory of path matches.
func (m *matcher) match(path string, above []bool) (out bool, matched []bool, err error) {
	matched = make([]bool, len(m.patterns))
	for i, p := range m.patterns {
		if i%checkEvery == 0 && m.ctx.Err() != nil {
			return false, nil, context.Cause(m.ctx)
		}
		found := above != nil && above[i]
		if !found {
			if p.exception != out {
				continue
			}
			if found, err = p.match(path); err != nil {
				return false, nil, err
			}
		}
		if matched[i] = found; found {
			out = !p.exception
		}
	}
	return out, matched, nil
}

// mayHold tells whether something inside dir, which is left out, may come back by an exception.
func (m *matcher) mayHold(dir string) bool {
	if len(m.exceptions) == 0 || !m.prefixes {
		return len(m.exceptions) > 0
	}
	for _, e := range m.exceptions {
		if strings.HasPrefix(e+"/", dir+"/") {
			return true
		}
	}
	return false
}

// cause returns the pattern that leaves path out, for people.
func (m *matcher) cause(path string) string {
	cause := ""
	for _, p := range m.patterns {
		if m.ctx.Err() != nil || !p.matchesAny(path) {
			continue
		}
		cause = ""
		if !p.exception {
			cause = p.text
		}
	}
	return cause
}

// matchesAny says whether the pattern is about a path or a directory that it is in.
func (p *pattern) matchesAny(path string) bool {
	for ; path != "."; path = filepath.Dir(path) {
		if ok, err := p.match(path); ok || err != nil {
			return ok
		}
	}
	return false
}
