package buildcontext

import (
	"context"
	"path"
	"strings"
)

// Sieve tells, while a context is unpacked, whose content its ignore file leaves out, as far as that is known by then. It is
// right about everything that a context then shows once it has seen all of it, unless an ignore file or the Dockerfile is a
// symbolic link. It is used by one goroutine.
type Sieve struct {
	ctx context.Context //nolint:containedctx // matching ends with it; it lives as long as one archive is unpacked
	// prefix is the part of the tree that is the context, with a slash; empty for all.
	prefix string
	// files are the names that the Dockerfile may have in the context, the first that is there counts; none if it is elsewhere.
	files []string
	seen  map[string]bool
	// fixed says that the patterns are known from the start. known are the ignore files that were seen.
	fixed bool
	known map[string][]byte

	match *matcher // of the file that counts by now; nil if nothing is left out
}

// NewSieve returns what tells of the context that o describes, whose tree is not there yet. If further is set, it is
// one without a Dockerfile of its own.
func NewSieve(ctx context.Context, o Options, further bool) *Sieve {
	s := &Sieve{ctx: ctx, seen: map[string]bool{}, known: map[string][]byte{}}
	if sub := path.Clean("/" + o.SubPath)[1:]; sub != "" {
		s.prefix = sub + "/"
	}
	if further || o.Given != nil {
		return s
	}
	outside := (&root{}).reader(o.Cwd, false)
	for _, p := range o.places() {
		for _, name := range spellings(p.name) {
			if p.within {
				s.files = append(s.files, path.Clean("/" + name)[1:])
				continue
			}
			if _, err := outside(name); err != nil || len(s.files) > 0 {
				continue
			}
			if content, err := outside(name + ignoreName); err == nil {
				s.fixed = true
				s.learn(content)
			}
			s.files = nil
			return s
		}
	}
	return s
}

// inside is the path in the context of what is at p in the tree.
func (s *Sieve) inside(p string) (string, bool) { return strings.CutPrefix(p, s.prefix) }

// file is the Dockerfile that counts by now, or else the first that may.
func (s *Sieve) file() string {
	for _, f := range s.files {
		if s.seen[f] {
			return f
		}
	}
	if len(s.files) > 0 {
		return s.files[0]
	}
	return ""
}

// Wants says that the content at p tells what is left out.
func (s *Sieve) Wants(p string) bool {
	at, ok := s.inside(p)
	if !ok {
		return false
	}
	if at == ignoreName {
		return true
	}
	for _, f := range s.files {
		if at == f || at == f+ignoreName {
			return true
		}
	}
	return false
}

// Learn takes the content of a file that is wanted.
func (s *Sieve) Learn(p string, content []byte) {
	at, _ := s.inside(p)
	s.seen[at] = true
	if strings.HasSuffix(at, ignoreName) {
		s.known[at] = append([]byte{}, content...)
	}
	if s.fixed {
		return
	}
	own, found := s.known[s.file()+ignoreName]
	if !found || len(s.files) == 0 {
		own = s.known[ignoreName]
	}
	s.learn(own)
}

// learn takes the patterns that count by now. Bad ones are told when the context is opened.
func (s *Sieve) learn(content []byte) {
	s.match = nil
	patterns, err := parseIgnore(content)
	if err != nil || len(patterns) == 0 {
		return
	}
	if m, err := newMatcher(s.ctx, patterns); err == nil {
		s.match = m
	}
}

// Drops says that the context leaves out the file at p.
func (s *Sieve) Drops(p string) bool {
	at, ok := s.inside(p)
	if !ok || s.match == nil || s.Wants(p) {
		return false
	}
	out, err := s.match.excluded(at)
	return err == nil && out
}
