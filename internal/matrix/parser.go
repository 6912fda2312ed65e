package matrix

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// kind is the form of a field.
type kind uint8

const (
	textKind kind = iota
	listKind
	pairsKind
	boolKind
)

// field is what a build can have, and the flag of "hako build" that it stands for; "" if it is treated apart.
type field struct {
	name string
	kind kind
	flag string
}

func fieldTable() []field {
	return []field{
		{"context", textKind, "context"}, {"dockerfile", textKind, "dockerfile"}, {"target", textKind, "target"},
		{"args", pairsKind, "build-arg"}, {"labels", pairsKind, "label"}, {"annotations", pairsKind, "annotation"},
		{"platforms", listKind, "platform"}, {"tags", listKind, ""}, {"contexts", pairsKind, ""},
		{"cache", boolKind, "cache"}, {"cache-repo", textKind, "cache-repo"}, {"cache-from", listKind, "cache-from"}, {"no-cache", boolKind, "no-cache"},
		{"flags", listKind, ""}, {"depends-on", listKind, ""},
	}
}

// defaultNames are the fields that all builds can share.
func defaultNames() []string {
	var out []string
	for _, f := range fieldTable() {
		if f.name != "depends-on" {
			out = append(out, f.name)
		}
	}
	return out
}

func buildNames() []string { return append(defaultNames(), "depends-on", "matrix", "name") }

// parser reads the parts of a file.
type parser struct {
	*reader
	out      *File
	vars     scope
	defaults map[string]*yaml.Node
}

// variables reads the names that the environment can set, with what they are otherwise.
func (p *parser) variables(n *yaml.Node, getenv func(string) string) error {
	if n == nil {
		return nil
	}
	list, err := p.pairs(n)
	if err != nil {
		return err
	}
	for _, v := range list {
		if p.vars[v.key.Value], err = p.text(v.value); err != nil {
			return err
		}
		if set := getenv(v.key.Value); set != "" {
			p.vars[v.key.Value] = set
		}
	}
	return nil
}

// builds reads all builds.
func (p *parser) builds(n *yaml.Node) error {
	list, err := p.pairs(n)
	if err != nil {
		return err
	}
	for _, b := range list {
		fields, err := p.fields(b.value, buildNames())
		if err != nil {
			return err
		}
		if err := p.family(b.key, fields); err != nil {
			return err
		}
	}
	return nil
}

// axis is a variable of a matrix with its values.
type axis struct {
	name   string
	values []string
}

// family reads a build, or one for each combination of its matrix, which are a group of its name.
func (p *parser) family(key *yaml.Node, fields map[string]*yaml.Node) error {
	axes, err := p.axes(fields["matrix"])
	if err != nil {
		return err
	}
	template := key.Value
	for _, a := range axes {
		template += "-${" + a.name + "}"
	}
	if n := fields["name"]; n != nil {
		if template, err = p.text(n); err != nil {
			return err
		}
	}
	var members []string
	for _, vars := range combinations(axes, p.vars) {
		name, err := p.expand(key, template, vars)
		if err != nil {
			return err
		}
		if !regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`).MatchString(name) || len(name) > 200 {
			return p.fail(key, "Use letters, digits, points, dashes and underscores; give matrix builds a \"name:\".", "%q cannot be the name of a build", name)
		}
		if p.out.find(name) != nil {
			return p.fail(key, "Put every key of the matrix into \"name:\".", "there are two builds %q", name)
		}
		if len(p.out.Builds) >= maxBuilds {
			return p.fail(key, "Split the file.", "there are more than %d builds", maxBuilds)
		}
		b, err := p.build(name, fields, vars)
		if err != nil {
			return err
		}
		b.Span = p.span(key)
		p.out.index[name] = len(p.out.Builds)
		p.out.Builds = append(p.out.Builds, *b)
		members = append(members, name)
	}
	if len(axes) > 0 || fields["name"] != nil {
		p.out.groups[key.Value] = members
	}
	return nil
}

// axes reads a matrix.
func (p *parser) axes(n *yaml.Node) ([]axis, error) {
	if n == nil {
		return nil, nil
	}
	list, err := p.pairs(n)
	if err != nil {
		return nil, err
	}
	var out []axis
	count := 1
	for _, e := range list {
		values, err := p.list(e.value)
		if err != nil {
			return nil, err
		}
		if count *= len(values); count == 0 || count > maxBuilds {
			return nil, p.fail(e.key, "Give each key of a matrix a few values.", "the matrix has %d builds", count)
		}
		a := axis{name: e.key.Value}
		for _, v := range values {
			a.values = append(a.values, v.Value)
		}
		out = append(out, a)
	}
	return out, nil
}

// combinations are the variables of each build of a matrix, the last key changing first.
func combinations(axes []axis, vars scope) []scope {
	out := []scope{vars}
	for _, a := range axes {
		var next []scope
		for _, s := range out {
			for _, v := range a.values {
				c := maps.Clone(s)
				c[a.name] = v
				next = append(next, c)
			}
		}
		out = next
	}
	return out
}

// build reads one build.
func (p *parser) build(name string, fields map[string]*yaml.Node, vars scope) (*Build, error) {
	b := &Build{Name: name}
	for _, f := range fieldTable() {
		var nodes []*yaml.Node
		own, shared := fields[f.name], p.defaults[f.name]
		if shared != nil && (own == nil || f.kind == pairsKind) {
			nodes = append(nodes, shared)
		}
		if own != nil {
			nodes = append(nodes, own)
		}
		if f.name == "context" && len(nodes) == 0 {
			b.Flags = append(b.Flags, "--context=.") // docker bake's default; kaniko's is /workspace
		}
		values, err := p.values(f, nodes, vars)
		if err != nil {
			return nil, err
		}
		if err := p.take(b, f, values); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// value is a text that is filled in, and where it is written.
type value struct {
	text string
	at   *yaml.Node
}

// values reads a field from the defaults and the build; of pairs, a later one of a name wins.
func (p *parser) values(f field, nodes []*yaml.Node, vars scope) ([]value, error) {
	var out []value
	index := map[string]int{}
	for _, n := range nodes {
		texts, err := p.texts(f.kind, n)
		if err != nil {
			return nil, err
		}
		for _, t := range texts {
			if t.text, err = p.expand(t.at, t.text, vars); err != nil {
				return nil, err
			}
			name, _, isPair := strings.Cut(t.text, "=")
			if i, ok := index[name]; ok && f.kind == pairsKind {
				out[i] = t
				continue
			}
			if f.kind == pairsKind && (!isPair || name == "") {
				return nil, p.fail(t.at, "Write KEY: VALUE, or KEY=VALUE in a list.", "%s: %q is not KEY=VALUE", f.name, t.text)
			}
			index[name] = len(out)
			out = append(out, t)
		}
	}
	return out, nil
}

// texts are what a node of this kind has.
func (p *parser) texts(k kind, n *yaml.Node) ([]value, error) {
	if k == pairsKind && n.Kind == yaml.MappingNode {
		list, err := p.pairs(n)
		if err != nil {
			return nil, err
		}
		var out []value
		for _, e := range list {
			v, err := p.text(e.value)
			if err != nil {
				return nil, err
			}
			out = append(out, value{e.key.Value + "=" + v, e.value})
		}
		return out, nil
	}
	if k == listKind || k == pairsKind {
		list, err := p.list(n)
		if err != nil {
			return nil, err
		}
		var out []value
		for _, e := range list {
			out = append(out, value{e.Value, e})
		}
		return out, nil
	}
	v, err := p.text(n)
	if err == nil && k == boolKind && v != "true" && v != "false" {
		return nil, p.fail(n, "Use true or false.", "%q is not a bool", v)
	}
	return []value{{v, n}}, err
}

// take gives a build the values of a field.
func (p *parser) take(b *Build, f field, values []value) error {
	for _, v := range values {
		switch {
		case f.flag != "":
			b.Flags = append(b.Flags, "--"+f.flag+"="+v.text)
		case f.name == "tags":
			b.Tags = append(b.Tags, v.text)
			b.Flags = append(b.Flags, "--destination="+v.text)
		case f.name == "depends-on":
			b.Needs = append(b.Needs, v.text)
		case f.name == "contexts":
			name, place, _ := strings.Cut(v.text, "=")
			if other, ok := strings.CutPrefix(place, "target:"); ok {
				b.From = append(b.From, From{name, other})
				b.Needs = append(b.Needs, other)
				continue
			}
			b.Flags = append(b.Flags, "--build-context="+v.text)
		case !strings.HasPrefix(v.text, "--") || v.text == "--":
			return p.fail(v.at, "Write --NAME=VALUE.", "flags: %q is no flag", v.text)
		default:
			b.Flags = append(b.Flags, v.text)
		}
	}
	return nil
}

// groups reads the groups, whose members may be groups.
func (p *parser) groups(n *yaml.Node) error {
	if n == nil {
		return nil
	}
	list, err := p.pairs(n)
	if err != nil {
		return err
	}
	type named struct{ group, member *yaml.Node }
	var all []named
	for _, g := range list {
		if _, ok := p.out.groups[g.key.Value]; ok || p.out.find(g.key.Value) != nil {
			return p.fail(g.key, "Choose another name.", "group %q: a build has that name", g.key.Value)
		}
		members, err := p.reader.list(g.value)
		if err != nil {
			return err
		}
		p.out.groups[g.key.Value] = []string{}
		for _, m := range members {
			p.out.groups[g.key.Value] = append(p.out.groups[g.key.Value], m.Value)
			all = append(all, named{g.key, m})
		}
	}
	names := p.out.names()
	for _, m := range all {
		if _, ok := slices.BinarySearch(names, m.member.Value); !ok {
			return p.fail(m.member, nearHint(m.member.Value, names), "group %q: there is no build or group %q", m.group.Value, m.member.Value)
		}
	}
	return nil
}
