package plan

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"hako/internal/image"
)

// String is the plan for people: each stage with its steps, what they do, and what they can see.
// Values of variables whose names look like secrets are masked.
func (g *Graph) String() string {
	t := &text{secret: newSecretNames()}
	for _, s := range g.Stages {
		t.stage(s)
	}
	t.line("target %s", g.Target.ID())
	for _, w := range g.Warnings {
		t.line("warning %s: %s", w.Span, w)
	}
	return t.b.String()
}

type text struct {
	b      strings.Builder
	secret *secretNames
}

func (t *text) line(format string, args ...any) {
	fmt.Fprintf(&t.b, format, args...)
	t.b.WriteByte('\n')
}

func (t *text) stage(s *Stage) {
	t.line("stage %s  %s  %s  FROM %s", s.ID(), s.Span, image.FormatPlatform(s.Platform), s.Base)
	for _, step := range s.Steps {
		t.step(step)
	}
	for _, trigger := range s.Config.Config.OnBuild {
		t.line("  onbuild %s", quote(trigger))
	}
}

func (t *text) step(s *Step) {
	t.line("  %s  %s  %s", s.ID, s.Span, s.Text)
	switch op := s.Op.(type) {
	case *Run:
		t.run(s, op)
	case *Copy:
		t.copy(op)
	case *Mkdir:
		t.line("    mkdir %s%s", quote(op.Path), field(" user=", op.User))
	}
}

func (t *text) run(s *Step, op *Run) {
	t.line("    run %s", quoteAll(op.Args))
	t.line("    in %s%s%s", quote(op.Dir), field(" user=", op.User), field(" hostname=", op.Hostname))
	t.line("    env %s", t.pairs(op.Env))
	if len(s.Args) > 0 {
		t.line("    args %s", t.pairs(s.Args))
	}
	if op.Network != NetworkDefault {
		t.line("    network %s", op.Network)
	}
	for _, m := range op.Mounts {
		t.line("    mount %s", m)
	}
	for _, f := range op.Files {
		t.line("    file %s %d bytes", quote(f.Path), len(f.Data))
	}
	for _, h := range op.ExtraHosts {
		t.line("    host %s %s", h.Name, h.IP)
	}
	if op.ShmSize > 0 {
		t.line("    shm %d bytes", op.ShmSize)
	}
}

func (t *text) copy(op *Copy) {
	verb := "copy"
	if op.Add {
		verb = "add"
	}
	sources := quoteAll(op.Paths)
	if len(op.Parents) > 0 {
		sources = ""
		for i, p := range op.Parents {
			sources += " " + quote(strings.TrimSuffix(op.Paths[i], "/")+"/./"+p.Pattern)
		}
	}
	for _, s := range op.Fetched {
		if s != nil {
			sources += " [" + s.String() + "]"
		}
	}
	for _, f := range op.Inline {
		sources += fmt.Sprintf(" <<%s (%d bytes)", quote(f.Path), len(f.Data))
	}
	more := field(" chown=", op.Chown) + field(" chmod=", op.Chmod)
	if op.Link {
		more += " link"
	}
	if op.Unpack != nil {
		more += fmt.Sprintf(" unpack=%t", *op.Unpack)
	}
	if len(op.Parents) > 0 {
		more += " parents"
	}
	for _, p := range op.Exclude {
		more += " exclude=" + quote(p)
	}
	t.line("    %s %s to %s from %s%s", verb, strings.TrimSpace(sources), quote(op.Dest), op.From, more)
}

// pairs are "K=V", with the values of secrets masked.
func (t *text) pairs(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		k, v := splitPair(s)
		switch {
		case t.secret.match(k):
			v = "****"
		case proxyName(k) != "":
			v = withoutUser(v)
		}
		out[i] = quote(k + "=" + v)
	}
	return strings.Join(out, " ")
}

// withoutUser masks user and password of a URL.
func withoutUser(s string) string {
	start := 0
	if i := strings.Index(s, "://"); i >= 0 {
		start = i + len("://")
	}
	host, _, _ := strings.Cut(s[start:], "/")
	at := strings.LastIndex(host, "@")
	if at < 0 {
		return s
	}
	return s[:start] + "****" + s[start+at:]
}

// String is the name of what a stage starts from.
func (b Base) String() string {
	switch {
	case b.Stage != nil:
		return "stage " + b.Stage.ID()
	case b.Image != nil:
		return b.Image.String()
	}
	return scratch
}

// String is the name of what is copied from.
func (f From) String() string {
	switch {
	case f.Stage != nil:
		return "stage " + f.Stage.ID()
	case f.Image != nil:
		return f.Image.String()
	case f.Source != nil:
		return f.Source.String()
	}
	return "context"
}

// String is the full reference, with the digest if it is known.
func (r *ImageRef) String() string {
	if r.Digest == "" || strings.Contains(r.Ref, "@") {
		return r.Ref
	}
	return r.Ref + "@" + r.Digest.String()
}

func field(name, value string) string {
	if value == "" {
		return ""
	}
	return name + quote(value)
}

func quoteAll(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = quote(s)
	}
	return strings.Join(out, " ")
}

// quote puts s in quotes if it is empty or holds anything but plain visible characters.
func quote(s string) string {
	plain := func(r rune) bool { return unicode.IsGraphic(r) && r != ' ' && r != '"' }
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return strconv.Quote(s)
}
