// Package matrix reads a file that names many builds, and runs them in the order of what they need.
//
// The words are those of docker's bake where it has some: see docs/builds.md. Reading does no I/O; what runs a build is
// given by the caller.
package matrix

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"hako/internal/diag"
)

// What a file may have.
const (
	maxFile   = 4 << 20 // bytes
	maxBuilds = 10_000
	maxNeeds  = 1_000_000
)

// Build is one build of a file, with all values filled in.
type Build struct {
	Name string
	// Flags are those of "hako build", but for From.
	Flags []string
	// Tags are the references that it is pushed to.
	Tags []string
	// Needs are the names of builds that come before.
	Needs []string
	// From are named contexts that are other builds, in order.
	From []From
	// Span is where the file has it.
	Span diag.Span
}

// From is a named context that is the image of another build.
type From struct{ Context, Build string }

// File is what a file of builds says.
type File struct {
	// Builds come in the order of the file.
	Builds []Build
	index  map[string]int // of Builds, by name
	groups map[string][]string
}

// Parse reads a file; name is for errors. Values have variables that getenv or the file knows. What is wrong is a *diag.Error
// with the line.
func Parse(name string, data []byte, getenv func(string) string) (*File, error) {
	r := &reader{file: name, lines: strings.Split(string(data), "\n")}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read %s: it has more than %d bytes", name, maxFile)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, &diag.Error{What: "read " + name, Cause: err, Hint: "Write it as YAML or JSON: see docs/builds.md."}
	}
	if len(doc.Content) == 0 {
		return nil, &diag.Error{What: "read " + name + ": it is empty", Hint: "Name builds below \"builds:\"."}
	}
	top, err := r.fields(doc.Content[0], []string{"variables", "defaults", "builds", "groups"})
	if err != nil {
		return nil, err
	}
	p := &parser{reader: r, out: &File{index: map[string]int{}, groups: map[string][]string{}}, vars: map[string]string{}, defaults: map[string]*yaml.Node{}}
	if err := p.variables(top["variables"], getenv); err != nil {
		return nil, err
	}
	if n := top["defaults"]; n != nil {
		if p.defaults, err = r.fields(n, defaultNames()); err != nil {
			return nil, err
		}
	}
	if top["builds"] == nil {
		return nil, r.fail(doc.Content[0], "Name builds below \"builds:\".", "there are no builds")
	}
	if err := p.builds(top["builds"]); err != nil {
		return nil, err
	}
	if err := p.groups(top["groups"]); err != nil {
		return nil, err
	}
	return p.out, p.link()
}

// Select are the builds of these names and groups with all that they need, those first that others need. Without names it is the
// group "default", or all.
func (f *File) Select(names []string) ([]Build, error) {
	if len(names) == 0 {
		names = f.groups["default"]
	}
	wanted := map[string]bool{}
	if len(names) == 0 {
		for _, b := range f.Builds {
			wanted[b.Name] = true
		}
	}
	for _, name := range names {
		if err := f.want(name, wanted, map[string]bool{}); err != nil {
			return nil, err
		}
	}
	var out []Build
	done := map[string]bool{}
	var add func(Build)
	add = func(b Build) { // the file has no cycles
		if done[b.Name] {
			return
		}
		done[b.Name] = true
		for _, n := range b.Needs {
			add(*f.find(n))
		}
		out = append(out, b)
	}
	for _, b := range f.Builds {
		if wanted[b.Name] {
			add(b)
		}
	}
	return out, nil
}

// want notes the builds that a name stands for.
func (f *File) want(name string, wanted, seen map[string]bool) error {
	if f.find(name) != nil {
		wanted[name] = true
		return nil
	}
	members, ok := f.groups[name]
	if !ok {
		return &diag.Error{What: fmt.Sprintf("there is no build or group %q", name), Hint: nearHint(name, f.names())}
	}
	if seen[name] {
		return nil
	}
	seen[name] = true
	for _, m := range members {
		if err := f.want(m, wanted, seen); err != nil {
			return err
		}
	}
	return nil
}

func (f *File) find(name string) *Build {
	i, ok := f.index[name]
	if !ok {
		return nil
	}
	return &f.Builds[i]
}

// names are those of all builds and groups.
func (f *File) names() []string {
	var out []string
	for _, b := range f.Builds {
		out = append(out, b.Name)
	}
	for g := range f.groups {
		out = append(out, g)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// nearHint names the nearest of options, or some of them.
func nearHint(name string, options []string) string {
	if near, ok := diag.Nearest(name, options); ok {
		return "Did you mean " + near + "?"
	}
	if len(options) == 0 {
		return ""
	}
	return "Use one of " + strings.Join(options[:min(len(options), 20)], ", ") + "."
}
