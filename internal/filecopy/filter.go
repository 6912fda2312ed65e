package filecopy

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/moby/patternmatcher"

	"hako/internal/diag"
	"hako/internal/tree"
)

// filter says what is copied of a directory: what the pattern of a Part matches, less what Request.Exclude does.
// Paths are relative to the directory, which is itself never filtered. It is not safe for concurrent use.
type filter struct {
	keep *patternmatcher.PatternMatcher // nil keeps everything
	drop *patternmatcher.PatternMatcher // nil drops nothing
	// fixed is where everything is that keep matches: its pattern before the first component with a wildcard.
	fixed string
}

// verdict is what a filter says about one path. The zero value is what holds for the source itself.
type verdict struct {
	take bool // it is copied
	open bool // if it is a directory, what is in it may be copied
	// keep and drop are for what is in it.
	keep, drop patternmatcher.MatchInfo
}

// newFilter makes the filter of one source; part is nil unless --parents is given.
func (c *copier) newFilter(part *Part) (*filter, error) {
	f := &filter{}
	var err error
	if len(c.req.Exclude) > 0 {
		if f.drop, err = patternmatcher.New(c.req.Exclude); err != nil {
			return nil, c.patternError("--exclude", c.req.Exclude, err)
		}
	}
	if part == nil {
		return f, nil
	}
	if f.keep, err = patternmatcher.New([]string{part.Pattern}); err != nil {
		return nil, c.patternError("--parents", []string{part.Pattern}, err)
	}
	for _, p := range f.keep.Patterns() {
		f.fixed = fixedPart(p.String())
	}
	return f, nil
}

func (c *copier) patternError(flag string, patterns []string, err error) error {
	return &diag.Error{What: fmt.Sprintf("%s %s: bad pattern in %q", c.name, flag, patterns), Cause: err}
}

// fixedPart is a clean pattern's directory that has no wildcard in it, "" for the root.
func fixedPart(pattern string) string {
	if strings.ContainsAny(pattern, "|{") || !utf8.ValidString(pattern) {
		return "" // patternmatcher leaves them in the regular expression that it makes
	}
	var fixed []string
	for part := range strings.SplitSeq(pattern, "/") {
		if strings.ContainsAny(part, `*?[]\^`) {
			break
		}
		fixed = append(fixed, part)
	}
	return strings.Join(fixed, "/")
}

// judge says what is to be done with the path rel, which is in a directory with the verdict up.
func (f *filter) judge(rel string, up *verdict) (v verdict, err error) {
	v = verdict{take: true, open: true}
	if f.keep != nil {
		if v.take, v.keep, err = f.keep.MatchesUsingParentResults(rel, up.keep); err != nil {
			return verdict{}, err
		}
		v.open = v.take || f.leads(rel)
	}
	if f.drop == nil {
		return v, nil
	}
	dropped := false
	if dropped, v.drop, err = f.drop.MatchesUsingParentResults(rel, up.drop); err != nil {
		return verdict{}, err
	}
	if dropped {
		v.take = false
		v.open = v.open && f.drop.Exclusions()
	}
	return v, nil
}

// leads tells whether keep may match something below the directory rel, which it does not match.
func (f *filter) leads(rel string) bool {
	return f.fixed == "" || strings.HasPrefix(f.fixed+"/", rel+"/") || strings.HasPrefix(rel, f.fixed+"/")
}

// pivots are those of the paths that are directories with something in them that f keeps, whatever it drops.
func (c *copier) pivots(paths []string, f *filter) ([]string, error) {
	var out []string
	keep := &filter{keep: f.keep, fixed: f.fixed}
	for _, p := range paths {
		at, err := tree.Resolve(c.source.Tree, p, true)
		if err != nil {
			return nil, c.sourceError(p, err)
		}
		ok, err := c.holds(keep, at, ".", &verdict{})
		if err != nil {
			return nil, c.readError(at, err)
		}
		if ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// holds tells whether f takes anything that is in dir, which is rel relative to the source.
func (c *copier) holds(f *filter, dir, rel string, up *verdict) (bool, error) {
	if c.ctx.Err() != nil {
		return false, context.Cause(c.ctx)
	}
	e, err := c.source.Tree.Lstat(dir)
	if err != nil || e.Kind != tree.Dir {
		return false, err
	}
	names, err := c.source.Tree.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		v, err := f.judge(join(rel, name), up)
		if err != nil || v.take {
			return v.take, err
		}
		if !v.open {
			continue
		}
		if ok, err := c.holds(f, join(dir, name), join(rel, name), &v); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}
