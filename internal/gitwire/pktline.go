package gitwire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Lengths of pkt-lines (gitprotocol-common(5)).
const (
	maxPacket = 65520
	maxData   = maxPacket - 4
)

// packetKind tells the special packets from data.
type packetKind uint8

const (
	dataPacket packetKind = iota
	flushPacket
	delimPacket
	endPacket // of a response
)

// packetReader reads pkt-lines. One goroutine uses it.
type packetReader struct {
	r    *bufio.Reader
	buf  []byte
	text int // bytes of lines so far
}

func newPacketReader(r io.Reader) *packetReader {
	return &packetReader{r: bufio.NewReaderSize(r, maxPacket), buf: make([]byte, maxData)}
}

var (
	errPacket  = errors.New("the server does not speak git's protocol")
	errEndless = fmt.Errorf("%w: its answer does not end", errPacket)
)

// maxText is how much an answer may hold that is not the pack: about ten million references.
const maxText = 1 << 30 // 1 GiB

// maxEmpty is how many packets in a row may bring nothing of the pack: servers send them so that a connection does not
// look dead, one every few seconds.
const maxEmpty = 1_000_000

// next reads one packet. data is valid until the next call.
func (p *packetReader) next() (kind packetKind, data []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(p.r, head[:]); err != nil {
		return 0, nil, err
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil {
		return 0, nil, fmt.Errorf("%w: it says %q", errPacket, clip(string(head[:])))
	}
	switch n {
	case 0:
		return flushPacket, nil, nil
	case 1:
		return delimPacket, nil, nil
	case 2:
		return endPacket, nil, nil
	case 3:
		return 0, nil, errPacket
	}
	if n > maxPacket {
		return 0, nil, errPacket
	}
	data = p.buf[:n-4]
	if _, err := io.ReadFull(p.r, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return dataPacket, data, nil
}

// line reads a packet of text, without the end of its line. A packet "ERR …" is the server's error.
func (p *packetReader) line() (packetKind, string, error) {
	kind, data, err := p.next()
	if err != nil || kind != dataPacket {
		return kind, "", err
	}
	if p.text += len(data) + 4; p.text > maxText {
		return 0, "", errEndless
	}
	text := strings.TrimSuffix(string(data), "\n")
	if said, ok := strings.CutPrefix(text, "ERR "); ok {
		return kind, "", &RemoteError{Message: clip(said)}
	}
	return kind, text, nil
}

// RemoteError is what the server says is wrong.
type RemoteError struct{ Message string }

// Error is the server's text.
func (e *RemoteError) Error() string { return "the server says: " + e.Message }

// clip makes one short line of what a server says.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	const most = 300
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return strings.TrimSpace(s)
}

// packets is a request of pkt-lines.
type packets struct{ b []byte }

func (p *packets) line(format string, args ...any) {
	text := fmt.Sprintf(format, args...) + "\n"
	p.b = fmt.Appendf(p.b, "%04x%s", len(text)+4, text)
}

func (p *packets) flush() { p.b = append(p.b, "0000"...) }
func (p *packets) delim() { p.b = append(p.b, "0001"...) }

// sideband reads the pack out of a multiplexed stream (gitprotocol-pack(5), "packfile data").
type sideband struct {
	p        *packetReader
	progress func(text string)
	rest     []byte
	done     bool
}

// Read implements io.Reader. The end of the stream is a flush packet.
func (s *sideband) Read(b []byte) (int, error) {
	for empty := 0; len(s.rest) == 0; empty++ {
		switch {
		case s.done:
			return 0, io.EOF
		case empty == maxEmpty:
			return 0, errEndless
		}
		if err := s.packet(); err != nil {
			return 0, err
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *sideband) packet() error {
	kind, data, err := s.p.next()
	switch {
	case errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	case err != nil:
		return err
	case kind != dataPacket:
		s.done = true
		return nil
	case len(data) == 0:
		return errPacket
	}
	switch data[0] {
	case 1:
		s.rest = data[1:]
	case 2:
		s.progress(clip(string(data[1:])))
	case 3:
		return &RemoteError{Message: clip(string(data[1:]))}
	default:
		if said, ok := strings.CutPrefix(string(data), "ERR "); ok {
			return &RemoteError{Message: clip(said)}
		}
		return fmt.Errorf("%w: unknown band %d", errPacket, data[0])
	}
	return nil
}
