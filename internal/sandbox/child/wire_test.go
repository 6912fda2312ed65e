package child

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// body is what the messages of these tests hold.
type body struct {
	Name   string
	Values map[string]string
}

// wires returns the two ends of a connection.
func wires(t testing.TB) (a, b *wire) {
	t.Helper()
	x, y, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = newWire(x); err != nil {
		t.Fatal(err)
	}
	if b, err = newWire(y); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = a.close() // may be closed already
		_ = b.close()
	})
	return a, b
}

func TestMessagesKeepBytesAndDescriptors(t *testing.T) {
	t.Parallel()
	a, b := wires(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer CloseAll([]*os.File{r, w})
	want := message[body]{Seq: 7, Err: "e", Body: body{Name: "not\xffutf8", Values: map[string]string{"security.capability": "\x00\xff"}}}
	if err := a.send(&want, int(w.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := a.send(&message[body]{Seq: 8}); err != nil {
		t.Fatal(err)
	}
	var got, next message[body]
	files, err := b.receive(&got)
	if err != nil || len(files) != 1 {
		t.Fatalf("got %d descriptors, %v", len(files), err)
	}
	defer CloseAll(files)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("request (-want +got):\n%s", d)
	}
	if _, err := files[0].WriteString("x"); err != nil {
		t.Error(err)
	}
	if p := make([]byte, 1); true {
		if _, err := io.ReadFull(r, p); err != nil || p[0] != 'x' {
			t.Errorf("read %q, %v", p, err)
		}
	}
	if files, err := b.receive(&next); err != nil || len(files) != 0 || next.Seq != 8 {
		t.Errorf("got %+v, %v", next, err)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.receive(&next); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want %v", err, io.EOF)
	}
}

func TestDamagedFramesAreRefused(t *testing.T) {
	t.Parallel()
	header := func(version byte, size uint32) []byte {
		h := make([]byte, frameHeaderSize)
		h[0] = version
		binary.LittleEndian.PutUint32(h[4:], size)
		return h
	}
	for name, c := range map[string]struct {
		bytes []byte
		want  error
	}{
		"version": {header(protocolVersion+1, 0), errVersion},
		"size":    {header(protocolVersion, maxResponse+1), errFrame},
		"cut":     {header(protocolVersion, 0)[:3], io.ErrUnexpectedEOF},
		"empty":   {header(protocolVersion, 0), io.ErrUnexpectedEOF},
		"body":    {append(header(protocolVersion, 100), 80, 2, 3), io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := wires(t)
			b.most = maxResponse
			if _, err := a.conn.Write(c.bytes); err != nil {
				t.Fatal(err)
			}
			if err := a.close(); err != nil {
				t.Fatal(err)
			}
			var res message[body]
			if _, err := b.receive(&res); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	a, _ := wires(t)
	if err := a.send(&message[body]{}, make([]int, maxFrameFDs+1)...); !errors.Is(err, errFrame) {
		t.Errorf("too many descriptors: got %v, want %v", err, errFrame)
	}
}

// FuzzResponse feeds the builder what a sentry that was taken over might send.
func FuzzResponse(f *testing.F) {
	a, b := wires(f)
	if err := a.send(&message[body]{Seq: 3, Err: "e", Body: body{Name: "n", Values: map[string]string{"a": "b"}}}); err != nil {
		f.Fatal(err)
	}
	frame := make([]byte, 1<<12)
	n, err := b.conn.Read(frame)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(frame[:n])
	f.Add([]byte{protocolVersion, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{protocolVersion, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			t.Skip("would fill the socket")
		}
		a, b := wires(t)
		b.most = maxResponse
		if _, err := a.conn.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := a.close(); err != nil {
			t.Fatal(err)
		}
		for {
			var res message[body]
			files, err := b.receive(&res)
			CloseAll(files)
			if err != nil {
				return
			}
		}
	})
}

func TestLogKeepsBothEnds(t *testing.T) {
	t.Parallel()
	var l tail
	line := []byte("0123456789abcde\n")
	for range 2 * logSize / len(line) {
		if n, err := l.Write(line); n != len(line) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
	}
	if _, err := l.Write([]byte("last")); err != nil {
		t.Fatal(err)
	}
	s := l.String()
	if len(s) > logSize+16 || s[:5] != "01234" || s[len(s)-4:] != "last" {
		t.Errorf("%d bytes, %q…%q", len(s), s[:5], s[len(s)-4:])
	}
	e := CrashError{Name: "the sentry", How: "exit status 2", Log: "W0101 something\npanic: no stubs\n\ngoroutine 1"}
	if got, want := e.Error(), "the sentry ended: exit status 2: panic: no stubs\nW0101 something\npanic: no stubs\n\ngoroutine 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
