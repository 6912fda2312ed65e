package matrix

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"hako/internal/diag"
)

// reader turns nodes of a file into values, and says where one is wrong.
type reader struct {
	file  string
	lines []string
}

// span is the line of a node.
func (r *reader) span(n *yaml.Node) diag.Span {
	s := diag.Span{File: r.file, Start: n.Line, End: n.Line}
	if n.Line > 0 && n.Line <= len(r.lines) {
		s.Source = []string{strings.TrimRight(r.lines[n.Line-1], "\r")}
	}
	return s
}

func (r *reader) fail(n *yaml.Node, hint, format string, args ...any) error {
	return &diag.Error{What: fmt.Sprintf(format, args...), Span: r.span(n), Hint: hint}
}

// pair is an entry of a mapping.
type pair struct{ key, value *yaml.Node }

// pairs are the entries of a mapping in their order; a key that comes twice is an error.
func (r *reader) pairs(n *yaml.Node) ([]pair, error) {
	if n.Kind != yaml.MappingNode {
		return nil, r.fail(n, "Write KEY: VALUE.", "this has to be a mapping")
	}
	var out []pair
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		name, err := r.text(k)
		if err != nil {
			return nil, err
		}
		if v.Kind == yaml.AliasNode || name == "<<" {
			return nil, r.fail(k, "Write what builds have in common below \"defaults:\".", "aliases are not supported")
		}
		if seen[name] {
			return nil, r.fail(k, "Leave one of them out.", "%q comes twice", name)
		}
		seen[name] = true
		out = append(out, pair{k, v})
	}
	return out, nil
}

// fields are the entries of a mapping whose keys must be known.
func (r *reader) fields(n *yaml.Node, known []string) (map[string]*yaml.Node, error) {
	list, err := r.pairs(n)
	if err != nil {
		return nil, err
	}
	out := map[string]*yaml.Node{}
	for _, p := range list {
		if !slices.Contains(known, p.key.Value) {
			return nil, r.fail(p.key, nearHint(p.key.Value, known), "unknown field %q", p.key.Value)
		}
		out[p.key.Value] = p.value
	}
	return out, nil
}

// text is a scalar as it is written.
func (r *reader) text(n *yaml.Node) (string, error) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return "", r.fail(n, "Write one value, in quotes if it has special characters.", "this has to be a text")
	}
	return n.Value, nil
}

// list is a sequence of texts, or one text.
func (r *reader) list(n *yaml.Node) ([]*yaml.Node, error) {
	if n.Kind == yaml.ScalarNode {
		n = &yaml.Node{Kind: yaml.SequenceNode, Line: n.Line, Content: []*yaml.Node{n}}
	}
	if n.Kind != yaml.SequenceNode {
		return nil, r.fail(n, "Write [A, B].", "this has to be a list")
	}
	for _, e := range n.Content {
		if _, err := r.text(e); err != nil {
			return nil, err
		}
	}
	return n.Content, nil
}

// scope is what ${NAME} stands for.
type scope map[string]string

// expand fills in ${NAME}; $$ is a dollar sign.
func (r *reader) expand(n *yaml.Node, text string, vars scope) (string, error) {
	var b strings.Builder
	for {
		i := strings.IndexByte(text, '$')
		if i < 0 || i == len(text)-1 {
			b.WriteString(text)
			return b.String(), nil
		}
		b.WriteString(text[:i])
		switch text[i+1] {
		case '$':
			b.WriteByte('$')
			text = text[i+2:]
		case '{':
			name, rest, ok := strings.Cut(text[i+2:], "}")
			if !ok {
				return "", r.fail(n, "Write ${NAME}, or $$ for a dollar sign.", "%q has no end", text[i:])
			}
			v, known := vars[name]
			if !known {
				return "", r.fail(n, nearHint(name, vars.names()), "there is no variable %q", name)
			}
			b.WriteString(v)
			text = rest
		default:
			b.WriteByte('$')
			text = text[i+1:]
		}
	}
}

func (s scope) names() []string {
	var out []string
	for k := range s {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
