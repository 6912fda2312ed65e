package gitwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"hako/internal/gitpack"
)

// greet reads what the server says first: its version and its abilities, and in version 0 all references.
func (s *Session) greet(ctx context.Context) error {
	r, err := s.link.advertisement(ctx)
	if err != nil {
		return err
	}
	p := newPacketReader(r)
	err = s.readGreeting(p)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	s.format, err = gitpack.ParseFormat(s.caps["object-format"])
	return err
}

func (s *Session) readGreeting(p *packetReader) error {
	kind, line, err := p.line()
	if err != nil {
		return early(err)
	}
	if strings.HasPrefix(line, "# service=") { // gitprotocol-http(5)
		if kind, _, err = p.line(); err != nil || kind != flushPacket {
			return early(errors.Join(err, errPacket))
		}
		if kind, line, err = p.line(); err != nil {
			return early(err)
		}
	}
	switch {
	case kind == flushPacket: // version 0, no references at all
		return nil
	case line == "version 2":
		s.v2 = true
		return s.readCapabilities(p)
	case line == "version 1":
		if kind, line, err = p.line(); err != nil || kind == flushPacket {
			return err
		}
	}
	return s.readRefs(p, line)
}

// early explains an answer that ends before it has begun.
func early(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the answer ends at once", errPacket)
	}
	return err
}

// readCapabilities reads those of version 2.
func (s *Session) readCapabilities(p *packetReader) error {
	for range 1000 {
		kind, line, err := p.line()
		if err != nil {
			return err
		}
		if kind != dataPacket {
			return nil
		}
		name, value, _ := strings.Cut(line, "=")
		s.caps[name] = value
	}
	return errPacket
}

// readRefs reads the references of version 0, of which the first line is known. It also has the capabilities.
func (s *Session) readRefs(p *packetReader, first string) error {
	line, caps, _ := strings.Cut(first, "\x00")
	symrefs := map[string]string{}
	for word := range strings.FieldsSeq(caps) {
		name, value, _ := strings.Cut(word, "=")
		if from, to, ok := strings.Cut(value, ":"); ok && name == "symref" {
			symrefs[from] = to
			continue
		}
		s.caps[name] = value
	}
	format, err := gitpack.ParseFormat(s.caps["object-format"])
	if err != nil {
		return err
	}
	list := &refList{format: format}
	for kind := dataPacket; kind == dataPacket; {
		if err := list.add(line); err != nil {
			return err
		}
		if kind, line, err = p.line(); err != nil {
			return err
		}
	}
	for i := range list.refs {
		list.refs[i].Target = symrefs[list.refs[i].Name]
	}
	s.refs = list.refs
	return nil
}

// refList collects references.
type refList struct {
	format gitpack.Format
	refs   []Ref
	bytes  int
}

// add takes "ID NAME" of version 0, where "NAME^{}" is what the tag before stands for.
func (l *refList) add(line string) error {
	text, name, ok := strings.Cut(line, " ")
	if text == "shallow" || strings.HasPrefix(name, "capabilities^{}") {
		return nil
	}
	id, err := gitpack.ParseID(l.format, text)
	if err != nil || !ok {
		return fmt.Errorf("%w: a reference %q", errPacket, clip(line))
	}
	if tag, peeled := strings.CutSuffix(name, "^{}"); peeled {
		if n := len(l.refs); n > 0 && l.refs[n-1].Name == tag {
			l.refs[n-1].Peeled = id
		}
		return nil
	}
	return l.append(Ref{Name: name, ID: id})
}

// addV2 takes "ID NAME [symref-target:NAME] [peeled:ID]" (gitprotocol-v2(5), ls-refs).
func (l *refList) addV2(line string) error {
	words := strings.Split(line, " ")
	if len(words) < 2 {
		return fmt.Errorf("%w: a reference %q", errPacket, clip(line))
	}
	if words[0] == "unborn" {
		return nil
	}
	id, err := gitpack.ParseID(l.format, words[0])
	if err != nil {
		return fmt.Errorf("%w: a reference %q", errPacket, clip(line))
	}
	ref := Ref{Name: words[1], ID: id}
	for _, w := range words[2:] {
		if target, ok := strings.CutPrefix(w, "symref-target:"); ok {
			ref.Target = target
		}
		if text, ok := strings.CutPrefix(w, "peeled:"); ok {
			if ref.Peeled, err = gitpack.ParseID(l.format, text); err != nil {
				return fmt.Errorf("%w: a reference %q", errPacket, clip(line))
			}
		}
	}
	return l.append(ref)
}

func (l *refList) append(r Ref) error {
	l.bytes += len(r.Name) + len(r.Target) + 100 // 100: about what a Ref takes
	if l.bytes > maxRefBytes {
		return fmt.Errorf("the server has too many references, more than %d", len(l.refs))
	}
	l.refs = append(l.refs, r)
	return nil
}

// Refs returns the references whose names begin with one of the prefixes, or all if there are none.
// A server may return others, too.
func (s *Session) Refs(ctx context.Context, prefixes ...string) ([]Ref, error) {
	if !s.v2 {
		return s.refs, nil
	}
	var req packets
	s.command(&req, "ls-refs")
	req.line("peel")
	req.line("symrefs")
	for _, p := range prefixes {
		if p != "" && !strings.ContainsAny(p, "\n\x00") && len(p) < maxData-100 {
			req.line("ref-prefix %s", p)
		}
	}
	req.flush()
	r, err := s.link.request(ctx, req.b)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	list := &refList{format: s.format}
	err = list.readAll(newPacketReader(r))
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return list.refs, nil
}

func (l *refList) readAll(p *packetReader) error {
	for {
		kind, line, err := p.line()
		if err != nil {
			return err
		}
		if kind != dataPacket {
			return nil
		}
		if err := l.addV2(line); err != nil {
			return err
		}
	}
}

// command begins a request of version 2.
func (s *Session) command(req *packets, name string) {
	req.line("command=%s", name)
	if _, ok := s.caps["agent"]; ok {
		req.line("agent=%s", s.agent())
	}
	if _, ok := s.caps["object-format"]; ok {
		req.line("object-format=%s", s.format)
	}
	req.delim()
}

// agent is what we are to the server.
func (s *Session) agent() string {
	return "git/" + strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, s.client.options.UserAgent)
}
