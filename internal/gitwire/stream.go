package gitwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const dialTimeout = 30 * time.Second

// streamLink is a connection in both directions: git's TCP protocol, or a program run by ssh. Answers follow requests
// in the same stream.
type streamLink struct {
	in    io.Reader
	out   io.Writer
	guard *idleGuard
	end   func() error
	once  sync.Once
}

func (l *streamLink) advertisement(ctx context.Context) (io.ReadCloser, error) {
	return l.answer(ctx), nil
}

func (l *streamLink) request(ctx context.Context, body []byte) (io.ReadCloser, error) {
	stop := context.AfterFunc(ctx, l.guard.cut)
	defer stop()
	if _, err := l.out.Write(body); err != nil {
		return nil, err
	}
	return l.answer(ctx), nil
}

// answer reads from the stream until it is closed; the stream stays open.
func (l *streamLink) answer(ctx context.Context) io.ReadCloser {
	stop := context.AfterFunc(ctx, l.guard.cut)
	return struct {
		io.Reader
		io.Closer
	}{byteReader{l.in}, closer(func() error { stop(); return nil })}
}

type closer func() error

func (c closer) Close() error { return c() }

// byteReader hides everything but Read: buffers above it must not take more than their answer, and every packet is read
// with its own length, so nothing is lost between answers.
type byteReader struct{ io.Reader }

func (l *streamLink) close() error {
	var err error
	l.once.Do(func() { err = l.end() })
	return err
}

// idleGuard ends a connection in which nothing moves.
type idleGuard struct {
	idle time.Duration
	kill func()

	once sync.Once
}

// cut ends the connection.
func (g *idleGuard) cut() { g.once.Do(g.kill) }

// watch runs fn, which waits for the network, and ends the connection if it takes too long.
func (g *idleGuard) watch(fn func() (int, error)) (int, error) {
	var slow atomic.Bool
	t := time.AfterFunc(g.idle, func() { slow.Store(true); g.cut() })
	n, err := fn()
	if t.Stop(); err != nil && slow.Load() {
		err = fmt.Errorf("nothing was received for %s: %w", g.idle, err)
	}
	return n, err
}

// guardedReader and guardedWriter watch a connection.
type guardedReader struct {
	r io.Reader
	g *idleGuard
}

func (r guardedReader) Read(p []byte) (int, error) {
	return r.g.watch(func() (int, error) { return r.r.Read(p) })
}

type guardedWriter struct {
	w io.Writer
	g *idleGuard
}

func (w guardedWriter) Write(p []byte) (int, error) {
	return w.g.watch(func() (int, error) { return w.w.Write(p) })
}

// dialDaemon connects to git daemon (gitprotocol-pack(5), "git transport").
func (c *Client) dialDaemon(ctx context.Context, a *address) (link, error) {
	const port = "9418" // IANA: git
	conn, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", a.hostPort(port))
	if err != nil {
		return nil, err
	}
	g := &idleGuard{idle: c.options.IdleTimeout, kill: func() { _ = conn.Close() }} // whoever waits on it sees the error
	l := &streamLink{in: guardedReader{conn, g}, out: guardedWriter{conn, g}, guard: g, end: func() error {
		if err := conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}}
	host := a.host
	if a.port != "" {
		host = net.JoinHostPort(a.host, a.port)
	}
	hello := fmt.Sprintf("git-upload-pack %s\x00host=%s\x00\x00version=2\x00", a.path, host)
	if _, err := fmt.Fprintf(l.out, "%04x%s", len(hello)+4, hello); err != nil {
		return nil, errors.Join(err, l.close())
	}
	return l, nil
}
