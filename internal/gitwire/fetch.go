package gitwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"hako/internal/event"
	"hako/internal/gitpack"
	"hako/internal/web"
)

// Request says what to fetch.
type Request struct {
	// Wants are the objects, commits or tags, that the pack shall have, with all that they need.
	Wants []gitpack.ID
	// Depth is how many commits are wanted of each history; 0 means all.
	Depth int
	// Filter leaves objects out ("tree:0", "blob:none"), where the server can do that: see CanFilter.
	Filter string
}

// maxShallow bounds how many commits without parents a pack may have.
const maxShallow = 1_000_000

// ErrRefused says that the server does not give out an object by its id.
var ErrRefused = errors.New("the server does not give out this object by its id")

// CanFilter says whether the server can leave objects out of a pack.
func (s *Session) CanFilter() bool {
	if !s.v2 {
		_, ok := s.caps["filter"]
		return ok
	}
	return hasWord(s.caps["fetch"], "filter")
}

// CanPick says whether objects can be left out of a pack and then be fetched by their ids, with the same session.
func (s *Session) CanPick() bool { return s.v2 && s.CanFilter() }

func hasWord(list, word string) bool {
	for w := range strings.FieldsSeq(list) {
		if w == word {
			return true
		}
	}
	return false
}

// Fetched is a pack on its way.
type Fetched struct {
	io.ReadCloser
	// Shallow are the commits of the pack whose parents are not in it.
	Shallow []gitpack.ID
}

// Fetch asks for a pack. After the last byte of it, Read returns io.EOF. An object that the server does not give out, or
// does not have, is ErrRefused. The caller closes the result.
func (s *Session) Fetch(ctx context.Context, r Request) (*Fetched, error) {
	var out *Fetched
	var err error
	if s.v2 {
		out, err = s.fetchV2(ctx, r)
	} else {
		out, err = s.fetchV0(ctx, r)
	}
	if err == nil {
		return out, nil
	}
	var said *RemoteError
	if errors.As(err, &said) && notOurs(said.Message) {
		err = fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return nil, s.fail(ctx, err)
}

// notOurs says whether a server's text says that it does not give out an object. There is no code for it.
func notOurs(text string) bool {
	return strings.Contains(text, "not our ref") || strings.Contains(text, "unadvertised object") ||
		strings.Contains(text, "not found") || strings.Contains(text, "no such")
}

func (s *Session) fetchV2(ctx context.Context, r Request) (*Fetched, error) {
	var req packets
	s.command(&req, "fetch")
	req.line("ofs-delta")
	req.line("no-progress")
	if r.Depth > 0 {
		req.line("deepen %d", r.Depth)
	}
	if r.Filter != "" {
		req.line("filter %s", r.Filter)
	}
	for _, id := range r.Wants {
		req.line("want %s", id)
	}
	req.line("done")
	req.flush()
	body, err := s.link.request(ctx, req.b)
	if err != nil {
		return nil, err
	}
	p := newPacketReader(body)
	out := &Fetched{}
	const sections = 100 // gitprotocol-v2(5) knows four
	for range sections {
		kind, line, err := p.line()
		if err == nil && kind != dataPacket {
			err = errPacket
		}
		if err == nil && line == "packfile" {
			out.ReadCloser = s.demultiplex(p, body)
			return out, nil
		}
		if err == nil {
			err = s.section(p, line, out)
		}
		if err != nil {
			return nil, errors.Join(early(err), body.Close())
		}
	}
	return nil, errors.Join(errEndless, body.Close())
}

// section reads a part of the answer that is not the pack (gitprotocol-v2(5), fetch).
func (s *Session) section(p *packetReader, name string, out *Fetched) error {
	for {
		kind, line, err := p.line()
		if err != nil {
			return err
		}
		switch kind {
		case delimPacket:
			return nil
		case dataPacket:
		default:
			return errPacket // the answer ends without a pack
		}
		if name != "shallow-info" {
			continue
		}
		if err := out.shallow(s.format, line); err != nil {
			return err
		}
	}
}

// shallow reads "shallow ID" or "unshallow ID".
func (f *Fetched) shallow(format gitpack.Format, line string) error {
	word, text, _ := strings.Cut(line, " ")
	id, err := gitpack.ParseID(format, text)
	switch {
	case err != nil:
		return errPacket
	case len(f.Shallow) >= maxShallow:
		return errEndless
	}
	if word == "shallow" {
		f.Shallow = append(f.Shallow, id)
	}
	return nil
}

func (s *Session) fetchV0(ctx context.Context, r Request) (*Fetched, error) {
	body, err := s.link.request(ctx, s.requestV0(r))
	if err != nil {
		return nil, err
	}
	p := newPacketReader(body)
	out := &Fetched{}
	if r.Depth > 0 {
		err = s.shallowV0(p, out)
	}
	if err == nil {
		var kind packetKind
		var line string
		if kind, line, err = p.line(); err == nil && (kind != dataPacket || line != "NAK" && !strings.HasPrefix(line, "ACK ")) {
			err = fmt.Errorf("%w: %q instead of NAK", errPacket, clip(line))
		}
	}
	if err != nil {
		if web.IsNetwork(err) && !s.advertised(r.Wants) {
			err = ErrRefused
		}
		return nil, errors.Join(early(err), body.Close())
	}
	out.ReadCloser = s.demultiplex(p, body)
	return out, nil
}

// shallowV0 reads the shallow commits up to a flush packet.
func (s *Session) shallowV0(p *packetReader, out *Fetched) error {
	for {
		kind, line, err := p.line()
		if err != nil || kind != dataPacket {
			return err
		}
		if err := out.shallow(s.format, line); err != nil {
			return err
		}
	}
}

// requestV0 is gitprotocol-pack(5)'s upload-request without anything that we have.
func (s *Session) requestV0(r Request) []byte {
	var caps []string
	for _, name := range []string{"ofs-delta", "side-band-64k", "no-progress"} {
		if _, ok := s.caps[name]; ok {
			caps = append(caps, name)
		}
	}
	if r.Filter != "" {
		caps = append(caps, "filter")
	}
	if _, ok := s.caps["object-format"]; ok {
		caps = append(caps, "object-format="+s.format.String())
	}
	if _, ok := s.caps["agent"]; ok {
		caps = append(caps, "agent="+s.agent())
	}
	var req packets
	for i, id := range r.Wants {
		if i == 0 {
			req.line("want %s %s", id, strings.Join(caps, " "))
			continue
		}
		req.line("want %s", id)
	}
	if r.Depth > 0 {
		req.line("deepen %d", r.Depth)
	}
	if r.Filter != "" {
		req.line("filter %s", r.Filter)
	}
	req.flush()
	req.line("done")
	return req.b
}

// advertised says whether the server has shown all of the ids as references. It may give out others, too, and says so only
// when it is asked; some servers then just hang up.
func (s *Session) advertised(ids []gitpack.ID) bool {
	known := map[gitpack.ID]bool{}
	for _, r := range s.refs {
		known[r.ID], known[r.Peeled] = true, true
	}
	for _, id := range ids {
		if !known[id] {
			return false
		}
	}
	return true
}

// demultiplex returns the pack that follows.
func (s *Session) demultiplex(p *packetReader, body io.Closer) io.ReadCloser {
	var r io.Reader = &sideband{p: p, progress: func(text string) {
		if text != "" {
			s.client.options.Events.Emit(event.Debug{Message: s.remote + ": " + text})
		}
	}}
	if _, ok := s.caps["side-band-64k"]; !s.v2 && !ok {
		r = p.r // old servers send the pack as it is
	}
	return struct {
		io.Reader
		io.Closer
	}{r, body}
}
