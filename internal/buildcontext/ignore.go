package buildcontext

import (
	"bytes"
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
	patterns []string
	// exceptions are the patterns with "!", without it and without a final "/*" or "/**".
	exceptions []string
	// prefixes says that no exception has another wildcard: only directories on the way to one can hold something
	// that comes back.
	prefixes bool

	mu   sync.Mutex // guards what follows
	pm   *patternmatcher.PatternMatcher
	dirs map[string]patternmatcher.MatchInfo
}

func newMatcher(patterns []string) (*matcher, error) {
	for _, p := range patterns {
		if err := CheckPattern(p); err != nil {
			return nil, fmt.Errorf("pattern %q: %w", p, err)
		}
	}
	pm, err := patternmatcher.New(patterns)
	if err != nil {
		return nil, err
	}
	m := &matcher{patterns: patterns, pm: pm, prefixes: true, dirs: map[string]patternmatcher.MatchInfo{}}
	for _, p := range pm.Patterns() {
		if !p.Exclusion() {
			continue
		}
		s := strings.TrimSuffix(strings.TrimSuffix(p.String(), "/**"), "/*")
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
	m.mu.Lock()
	defer m.mu.Unlock()
	parent, err := m.infoLocked(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	out, _, err := m.pm.MatchesUsingParentResults(path, parent)
	return out, err
}

// infoLocked returns what is known about a directory, nothing for the root.
func (m *matcher) infoLocked(dir string) (patternmatcher.MatchInfo, error) {
	if dir == "." {
		return patternmatcher.MatchInfo{}, nil
	}
	if info, ok := m.dirs[dir]; ok {
		return info, nil
	}
	parent, err := m.infoLocked(filepath.Dir(dir))
	if err != nil {
		return patternmatcher.MatchInfo{}, err
	}
	_, info, err := m.pm.MatchesUsingParentResults(dir, parent)
	if err != nil {
		return patternmatcher.MatchInfo{}, err
	}
	m.dirs[dir] = info
	return info, nil
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
		one, err := patternmatcher.New([]string{strings.TrimPrefix(p, "!")})
		if err != nil {
			continue
		}
		if ok, err := one.MatchesOrParentMatches(path); err != nil || !ok {
			continue
		}
		cause = ""
		if !strings.HasPrefix(p, "!") {
			cause = p
		}
	}
	return cause
}
