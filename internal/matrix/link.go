package matrix

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"hako/internal/diag"
)

// link checks what builds need of each other, and resolves names of groups.
func (p *parser) link() error {
	total := 0
	for i := range p.out.Builds {
		b := &p.out.Builds[i]
		for _, f := range b.From {
			if err := p.checkFrom(b, f); err != nil {
				return err
			}
		}
		wanted := map[string]bool{}
		for _, n := range b.Needs {
			if err := p.out.want(n, wanted, map[string]bool{}); err != nil {
				return located(b, fmt.Sprintf("build %s needs %q, which is not there", b.Name, n), nearHint(n, p.out.names()))
			}
		}
		if total += len(wanted); total > maxNeeds {
			return located(b, fmt.Sprintf("builds need others more than %d times", maxNeeds), "Put one build between the two groups.")
		}
		b.Needs = slices.SortedFunc(maps.Keys(wanted), func(a, o string) int { return cmp.Compare(p.out.index[a], p.out.index[o]) })
	}
	state := map[string]int{}
	for i := range p.out.Builds {
		if err := p.out.visit(&p.out.Builds[i], state, nil); err != nil {
			return err
		}
	}
	return nil
}

// checkFrom makes sure that the image of another build can be named.
func (p *parser) checkFrom(b *Build, f From) error {
	other := p.out.find(f.Build)
	switch {
	case other == nil:
		var names []string
		for _, o := range p.out.Builds {
			names = append(names, o.Name)
		}
		return located(b, fmt.Sprintf("build %s: context %s is target:%s, which is not there", b.Name, f.Context, f.Build), nearHint(f.Build, names))
	case len(other.Tags) == 0:
		return located(b, fmt.Sprintf("build %s: context %s is target:%s, which has no tags", b.Name, f.Context, f.Build),
			"Give "+f.Build+" a tag: its image is taken from the registry, by its digest.")
	}
	return nil
}

const (
	entered = 1
	left    = 2
)

// visit finds cycles.
func (f *File) visit(b *Build, state map[string]int, path []string) error {
	if state[b.Name] == left {
		return nil
	}
	path = append(path, b.Name)
	if state[b.Name] == entered {
		cycle := path[slices.Index(path, b.Name):]
		return located(b, "builds need each other: "+strings.Join(cycle, " → "), "Take one of them out of the circle.")
	}
	state[b.Name] = entered
	for _, n := range b.Needs {
		if err := f.visit(f.find(n), state, path); err != nil {
			return err
		}
	}
	state[b.Name] = left
	return nil
}

func located(b *Build, what, hint string) error {
	return &diag.Error{What: what, Span: b.Span, Hint: hint}
}
