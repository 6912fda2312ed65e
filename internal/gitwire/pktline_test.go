package gitwire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// packetsOf reads packets up to the end, one word each, and the error.
func packetsOf(data string) (out []string, err error) {
	p := newPacketReader(strings.NewReader(data))
	for {
		kind, text, err := p.line()
		if err != nil {
			return out, err
		}
		out = append(out, map[packetKind]string{flushPacket: "flush", delimPacket: "delim", endPacket: "end", dataPacket: "=" + text}[kind])
	}
}

func TestPackets(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxData)
	for name, tc := range map[string]struct {
		data string
		want []string
		err  error // that the end is; io.EOF where all is well
		text string
	}{
		"kinds":        {data: "0000" + "0001" + "0002" + "0004" + "0005a" + "0006a\n", want: []string{"flush", "delim", "end", "=", "=a", "=a"}, err: io.EOF},
		"upper case":   {data: "000Aabcdef", want: []string{"=abcdef"}, err: io.EOF},
		"longest":      {data: "fff0" + long, want: []string{"=" + long}, err: io.EOF},
		"too long":     {data: "fff1" + long + "x", err: errPacket},
		"three":        {data: "0003", err: errPacket},
		"no number":    {data: "HTTP/1.1", err: errPacket, text: `it says "HTTP"`},
		"a sign":       {data: "+00fabcdefghijk", err: errPacket},
		"cut length":   {data: "00", err: io.ErrUnexpectedEOF},
		"cut data":     {data: "0009abc", err: io.ErrUnexpectedEOF},
		"without data": {data: "0009", err: io.ErrUnexpectedEOF},
		"error":        {data: "0010ERR no\x1b[2J!!", text: "the server says: no [2J!!"},
	} {
		got, err := packetsOf(tc.data)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
		if tc.err != nil && !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v, want %v %s", name, err, tc.err, tc.text)
		}
	}
}

// endless repeats a text for ever.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.text[e.at:])
	e.at = (e.at + n) % len(e.text)
	return n, nil
}

func TestLinesEnd(t *testing.T) {
	t.Parallel()
	p := newPacketReader(&endless{text: "fff0" + strings.Repeat("x", maxData)})
	for n := range maxText/maxPacket + 2 {
		if _, _, err := p.line(); err != nil {
			if !errors.Is(err, errEndless) || n < maxText/maxPacket {
				t.Errorf("after %d lines: %v", n, err)
			}
			return
		}
	}
	t.Error("it does not end")
}

func TestPacketsThatAreWritten(t *testing.T) {
	t.Parallel()
	var p packets
	p.line("want %s", "x")
	p.delim()
	p.flush()
	if got, want := string(p.b), "000bwant x\n00010000"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSideband(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		data, want, said string
		err              error
		text             string
	}{
		"all bands":  {data: "0007\x01ab" + "0006\x02x" + "0005\x01" + "0006\x01c" + "0000", want: "abc", said: "x", err: io.EOF},
		"end packet": {data: "0006\x01c" + "0002", want: "c", err: io.EOF},
		"cut":        {data: "0006\x01c", want: "c", err: io.ErrUnexpectedEOF},
		"cut packet": {data: "000a\x01c", err: io.ErrUnexpectedEOF},
		"band 3":     {data: "0007\x03no", text: "the server says: no"},
		"an error":   {data: "000aERR no", text: "the server says: no"},
		"band 0":     {data: "0006\x00c", err: errPacket, text: "unknown band 0"},
		"no band":    {data: "0004", err: errPacket},
		"garbage":    {data: "zzzz", err: errPacket},
	} {
		var said []string
		s := &sideband{p: newPacketReader(strings.NewReader(tc.data)), progress: func(s string) { said = append(said, s) }}
		got, err := readAll(s)
		if got != tc.want || strings.Join(said, "|") != tc.said {
			t.Errorf("%s: %q %q", name, got, said)
		}
		if tc.err != nil && !errors.Is(err, tc.err) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v, want %v %s", name, err, tc.err, tc.text)
		}
	}
}

// readAll reads up to the error, which may be io.EOF.
func readAll(r io.Reader) (string, error) {
	var b bytes.Buffer
	piece := make([]byte, 1000)
	for {
		n, err := r.Read(piece)
		b.Write(piece[:n])
		if err != nil {
			return b.String(), err
		}
	}
}

func TestSidebandOfNothing(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"0005\x01", "0006\x02x"} {
		s := &sideband{p: newPacketReader(&endless{text: text}), progress: func(string) {}}
		if _, err := s.Read(make([]byte, 10)); !errors.Is(err, errEndless) {
			t.Error(err)
		}
	}
}

func TestClip(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\r\n\tb\x7f": "a   b", "\x1b]0;x\x07": "]0;x", "a\xffb": "ab", strings.Repeat("ä", 400): strings.Repeat("ä", 300) + "…",
	} {
		if got := clip(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzPackets(f *testing.F) {
	for _, s := range []string{"0000", "0006a\n0001", "0009ERR x0002", "fff0abc", "0004", "+001", "0005\x010006\x02x0000", "0007\x01ab0006\x03x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		lines, err := packetsOf(string(data))
		if err == nil || len(lines) > len(data)/4 {
			t.Errorf("%d lines, %v", len(lines), err)
		}
		s := &sideband{p: newPacketReader(bytes.NewReader(data)), progress: func(text string) {
			if strings.ContainsAny(text, "\n\x1b") {
				t.Errorf("progress %q", text)
			}
		}}
		if text, err := readAll(s); err == nil || len(text) > len(data) {
			t.Errorf("%d bytes of %d, %v", len(text), len(data), err)
		}
	})
}
