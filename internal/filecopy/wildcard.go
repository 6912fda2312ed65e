package filecopy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"

	"hako/internal/diag"
	"hako/internal/tree"
)

// matches returns the paths of From that a source pattern stands for, in tree order. A pattern without wildcards
// stands for itself. One with wildcards may match nothing, which copies nothing; but the directories before the first
// wildcard must exist. Links are followed in those, and never where wildcards are.
func (c *copier) matches(pattern string) ([]string, error) {
	src := path.Join("/", pattern)
	fixed, wild := splitWildcards(src)
	if wild == "" {
		return []string{fixed}, nil
	}
	if _, err := path.Match(wild, ""); err != nil {
		return nil, &diag.Error{
			What: fmt.Sprintf("%s: bad pattern %q", c.name, pattern), Cause: err,
			Hint: `Write a "[" that is meant literally as "[[]".`,
		}
	}
	base, err := tree.Resolve(c.source.Tree, fixed, true)
	if err != nil {
		return nil, c.sourceError(fixed, err)
	}
	if _, err := c.source.Tree.Lstat(base); err != nil {
		return nil, c.sourceError(fixed, err)
	}
	g := &glob{copier: c, pattern: wild, depth: 1 + strings.Count(wild, "/") + strings.Count(wild, "[")}
	if !strings.ContainsAny(wild, `[\`) {
		g.parts = strings.Split(wild, "/")
	}
	if err := g.walk(base, ""); err != nil {
		return nil, err
	}
	return g.found, nil
}

// splitWildcards cuts a clean absolute pattern before the first component with a wildcard.
func splitWildcards(p string) (fixed, wild string) {
	parts := strings.Split(p[1:], "/")
	i := slices.IndexFunc(parts, hasWildcard)
	if i < 0 {
		return p, ""
	}
	return "/" + strings.Join(parts[:i], "/"), strings.Join(parts[i:], "/")
}

func hasWildcard(name string) bool {
	for i := 0; i < len(name); i++ {
		switch name[i] {
		case '\\':
			i++
		case '*', '?', '[':
			return true
		}
	}
	return false
}

// glob finds the paths below a directory that match a pattern. What is inside a match is no match of its own.
type glob struct {
	*copier
	pattern string
	// parts are the components of the pattern, if each matches one component of a path: a class of characters
	// may match a slash.
	parts []string
	depth int // of the deepest path that can match
	found []string
}

// walk looks at what is in the directory dir, which is rel relative to where the pattern starts.
func (g *glob) walk(dir, rel string) error {
	if g.ctx.Err() != nil {
		return context.Cause(g.ctx)
	}
	e, err := g.source.Tree.Lstat(dir)
	if err == nil && e.Kind != tree.Dir {
		return nil
	}
	var names []string
	if err == nil {
		names, err = g.source.Tree.ReadDir(dir)
	}
	if err != nil {
		return g.readError(dir, err)
	}
	level := 1
	if rel != "" {
		level = strings.Count(rel, "/") + 2
	}
	for _, name := range names {
		if g.parts != nil {
			if ok, _ := path.Match(g.parts[level-1], name); !ok { // the pattern is known to be good
				continue
			}
		}
		at := path.Join(rel, name)
		if ok, _ := path.Match(g.pattern, at); ok {
			g.found = append(g.found, join(dir, name))
			continue
		}
		if level < g.depth {
			if err := g.walk(join(dir, name), at); err != nil {
				return err
			}
		}
	}
	return nil
}

// sourceError is a source that does not exist or cannot be reached.
func (c *copier) sourceError(src string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return c.readError(literal(src), err)
	}
	missing := errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
	if !missing && !errors.Is(err, syscall.ELOOP) {
		return fmt.Errorf("%s: look up %q in %s: %w", c.name, src, c.source.Name, err)
	}
	name := strings.TrimPrefix(src, "/")
	e := &diag.Error{What: fmt.Sprintf("%s: %q not found in %s", c.name, name, c.source.Name)}
	if !missing {
		e.Cause = err
	}
	e.Hint = hint(c.source.Tree, literal(src))
	return e
}

// checkPivot makes sure that the directory that a part is required of is one. A symbolic link is not, as for BuildKit.
func (c *copier) checkPivot(pivot string, part *Part) error {
	p, err := tree.Resolve(c.source.Tree, pivot, false)
	if err != nil {
		return c.sourceError(path.Join(pivot, part.Pattern), err)
	}
	e, err := c.source.Tree.Lstat(p)
	if err != nil {
		return c.sourceError(path.Join(pivot, part.Pattern), err)
	}
	if e.Kind != tree.Dir {
		return c.partError(pivot, part)
	}
	return nil
}

// partError is a part of a directory that is required, and of which nothing was taken.
func (c *copier) partError(pivot string, part *Part) error {
	src := path.Join(pivot, part.Pattern)
	e := &diag.Error{What: fmt.Sprintf("%s: %q not found in %s", c.name, strings.TrimPrefix(src, "/"), c.source.Name)}
	p, err := tree.Resolve(c.source.Tree, src, false)
	if err == nil {
		_, err = c.source.Tree.Lstat(p)
	}
	switch {
	case err != nil:
		e.Hint = hint(c.source.Tree, literal(src))
	case p != literal(src):
		e.Hint = fmt.Sprintf("--parents follows no symbolic links: copy %q instead.", p)
	case len(c.req.Exclude) > 0:
		e.Hint = "--exclude leaves out all of it."
	}
	return e
}
