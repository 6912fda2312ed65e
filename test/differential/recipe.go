package main

import (
	"crypto/sha256"
	"fmt"
	"path"
	"slices"
	"strings"
)

// unit is the smallest piece of a recipe that can be left out.
type unit struct {
	// section is where the text goes: "" is the script that prepares the context, any other is a section of the case.
	section string
	// text is a line, or the whole content if whole is set.
	text  string
	whole bool
	// head and body tie a heredoc together: the unit with head n is followed by those with body n, and by "EOF".
	head, body int
}

const dockerfile = "Dockerfile"

// imageName stands in a recipe for the name of its own image, which depends on what the image holds.
const imageName = "@IMAGE@"

const imageSection = "image:" + imageName

// recipe is a generated case, as units in order.
type recipe struct {
	units []unit
}

// text is the case in the form that test/conformance reads.
func (r recipe) text() string {
	sections, bodies := r.render()
	var b strings.Builder
	b.WriteString("# Found by test/differential.\n")
	b.WriteString(bodies[""])
	for _, s := range sections {
		if s != "" {
			fmt.Fprintf(&b, "-- %s --\n%s", s, bodies[s])
		}
	}
	sum := sha256.Sum256([]byte(bodies[imageSection]))
	return strings.ReplaceAll(b.String(), imageName, fmt.Sprintf("random%x", sum[:6]))
}

// render returns the sections in the order of their first units, and what each holds.
func (r recipe) render() (sections []string, bodies map[string]string) {
	bodies = map[string]string{dockerfile: ""}
	open := map[int]bool{}
	for i, u := range r.units {
		if u.body != 0 && !open[u.body] {
			continue
		}
		if !slices.Contains(sections, u.section) {
			sections = append(sections, u.section)
		}
		text := u.text
		if !u.whole {
			text += "\n"
		}
		bodies[u.section] += text
		if u.head != 0 {
			open[u.head] = true
		}
		last := i+1 == len(r.units) || r.units[i+1].body == 0
		if (u.head != 0 || u.body != 0) && last {
			bodies[u.section] += "EOF\n"
		}
	}
	if !slices.Contains(sections, dockerfile) {
		sections = append(sections, dockerfile)
	}
	return sections, bodies
}

// without returns the recipe less the units from the i-th up to but not including the j-th.
func (r recipe) without(i, j int) recipe {
	return recipe{slices.Concat(r.units[:i], r.units[j:])}
}

// with returns the recipe with the text of the i-th unit replaced.
func (r recipe) with(i int, text string) recipe {
	units := slices.Clone(r.units)
	units[i].text = text
	return recipe{units}
}

// withoutLine returns the recipe less the instruction that covers the line of the Dockerfile, counted from 1.
func (r recipe) withoutLine(line int) (recipe, bool) {
	n, found := 0, -1
	open := map[int]bool{}
	for i, u := range r.units {
		if u.section != dockerfile || u.body != 0 && !open[u.body] {
			continue
		}
		n++
		if u.head != 0 {
			open[u.head] = true
		}
		if n == line {
			found = i
			break
		}
		if (u.head != 0 || u.body != 0) && (i+1 == len(r.units) || r.units[i+1].body == 0) {
			n++
		}
	}
	if found < 0 {
		return r, false
	}
	for r.units[found].body != 0 {
		found--
	}
	end := found + 1
	for end < len(r.units) && r.units[end].body != 0 {
		end++
	}
	return r.without(found, end), true
}

// sound says whether the layers of the recipe's own image are such as builders write:
// every layer has the directories of what is in it, before it, and no path twice.
func (r recipe) sound() bool {
	m, seen := model{}, map[string]bool{}
	onBase := false
	for _, u := range r.units {
		words := strings.Fields(u.text)
		if u.section != imageSection || u.whole || len(words) == 0 {
			continue
		}
		switch words[0] {
		case "from":
			onBase = true
			continue
		case "config":
			continue
		case "layer":
			seen = map[string]bool{}
			continue
		}
		p := strings.Trim(words[1], `"`)
		if !onBase || !m.takes(words[0], p, seen) {
			return false
		}
	}
	return true
}

// takes puts an entry of a layer on the tree, if that is possible.
func (m model) takes(kind, p string, seen map[string]bool) bool {
	switch kind {
	case "whiteout":
		if d := path.Dir(p); m[p] == "" || seen[p] || !seen[d] {
			return false
		}
		m.remove(p)
		seen[p] = true
		return true
	case "opaque":
		if !seen[p] {
			return false
		}
		below := slices.Clone(m.paths())
		for _, b := range below {
			if strings.HasPrefix(b, p+"/") {
				m.remove(b)
			}
		}
		return m[p] == "dir"
	}
	parent := path.Dir(p)
	if seen[p] || parent != "." && (m[parent] != "dir" || !seen[parent]) {
		return false
	}
	if m[p] == "dir" && kind != "dir" {
		for s := range seen {
			if strings.HasPrefix(s, p+"/") {
				return false
			}
		}
		m.remove(p)
	}
	seen[p] = true
	m[p] = kind
	return true
}

// writer collects the units of a recipe.
type writer struct {
	units []unit
	heads int
}

func (w *writer) line(section, format string, args ...any) {
	w.units = append(w.units, unit{section: section, text: fmt.Sprintf(format, args...)})
}

func (w *writer) file(name, content string) {
	w.units = append(w.units, unit{section: name, text: content, whole: true})
}

// heredoc adds an instruction with a heredoc.
func (w *writer) heredoc(head string, lines []string) {
	w.heads++
	w.units = append(w.units, unit{section: dockerfile, text: head, head: w.heads})
	for _, l := range lines {
		w.units = append(w.units, unit{section: dockerfile, text: l, body: w.heads})
	}
}
