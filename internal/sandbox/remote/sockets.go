package remote

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
)

// A child cannot reach what a sandbox.Socket leads to; only the builder can. So a step that mounts any comes with a
// socket pair of its own. For each connection of the step the child writes the number of the mount, and gets one end of
// a new stream socket pair, of which the builder joins the other end with what Dial returns.

// maxConnections bounds what a step can have open at the same time: a step is not trusted.
const maxConnections = 128

var errRefused = errors.New("connection refused")

// sockets are those of one step, on the side of the builder.
type sockets struct {
	dials map[uint32]dial // by index in Step.Mounts
	near  *net.UnixConn   // nil if there are none
	far   []*os.File      // the child's end, at most one

	group  errgroup.Group
	cancel context.CancelFunc
	open   chan struct{} // one token for each connection
}

type dial = func(ctx context.Context) (net.Conn, error)

// newSockets readies the sockets of step. The caller closes them, and sends far to the child.
func newSockets(step *sandbox.Step) (*sockets, error) {
	s := &sockets{dials: map[uint32]dial{}, open: make(chan struct{}, maxConnections)}
	for i := range step.Mounts {
		if src, ok := step.Mounts[i].Source.(*sandbox.Socket); ok {
			s.dials[uint32(i)] = src.Dial //nolint:gosec // an index
		}
	}
	if len(s.dials) == 0 {
		return s, nil
	}
	near, far, err := socketPair(unix.SOCK_SEQPACKET)
	if err != nil {
		return nil, err
	}
	if s.near, err = unixConn(near); err != nil {
		return nil, errors.Join(err, far.Close())
	}
	s.far = []*os.File{far}
	return s, nil
}

// serve starts to answer the child. What it joins ends with ctx.
func (s *sockets) serve(ctx context.Context) {
	child.CloseAll(s.far)
	s.far = nil
	ctx, s.cancel = context.WithCancel(ctx)
	if s.near == nil {
		return
	}
	s.group.Go(func() error {
		number := make([]byte, 4)
		for {
			n, err := s.near.Read(number)
			if err != nil || n != len(number) {
				return nil // the child is done with the step, or it does not know the protocol
			}
			s.answer(ctx, binary.LittleEndian.Uint32(number))
		}
	})
}

// answer sends one end of a new connection to the mount with this number, or nothing but a byte.
func (s *sockets) answer(ctx context.Context, number uint32) {
	var rights []byte
	if far := s.connection(ctx, number); far != nil {
		defer far.Close() //nolint:errcheck // the child has its own
		rights = unix.UnixRights(int(far.Fd()))
	}
	_, _, _ = s.near.WriteMsgUnix([]byte{0}, rights, nil) // fails if the child is gone
}

// connection starts a connection and returns the child's end, or nil.
func (s *sockets) connection(ctx context.Context, number uint32) *os.File {
	dial := s.dials[number]
	if dial == nil {
		return nil
	}
	select {
	case s.open <- struct{}{}:
	default:
		return nil
	}
	near, far, err := socketPair(unix.SOCK_STREAM)
	if err != nil {
		<-s.open
		return nil
	}
	s.group.Go(func() error {
		s.join(ctx, near, dial)
		<-s.open
		return nil
	})
	return far
}

// join copies between near and what dial returns.
func (s *sockets) join(ctx context.Context, near *os.File, dial dial) {
	a, err := unixConn(near)
	if err != nil {
		return
	}
	defer a.Close() //nolint:errcheck // nothing is buffered
	b, err := dial(ctx)
	if err != nil {
		return // the step sees the end of the connection, as with an agent that has gone
	}
	defer b.Close() //nolint:errcheck // likewise
	stop := context.AfterFunc(ctx, func() { _, _ = a.Close(), b.Close() })
	defer stop()
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // both sides have gone their way if it fails
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
			return
		}
		_ = to.Close()
	}
	both.Go(func() { pass(a, b) })
	both.Go(func() { pass(b, a) })
	both.Wait()
}

// close ends all connections and waits for them.
func (s *sockets) close() {
	child.CloseAll(s.far)
	if s.cancel != nil {
		s.cancel()
	}
	if s.near != nil {
		_ = s.near.Close()
	}
	_ = s.group.Wait() // it has no errors
}

// connector is the child's end of the sockets of one step.
type connector struct {
	mu   sync.Mutex // held from a question to its answer
	file *os.File
}

// Connect makes a connection to the Socket that is the mount with this index. The caller closes it.
// It makes no system calls but write and recvmsg.
func (r *Run) Connect(mount int) (*os.File, error) {
	if r.connector == nil {
		return nil, errRefused
	}
	return r.connector.connect(mount)
}

func (c *connector) connect(mount int) (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fd := int(c.file.Fd())
	if _, err := unix.Write(fd, binary.LittleEndian.AppendUint32(nil, uint32(mount))); err != nil { //nolint:gosec // an index
		return nil, fmt.Errorf("ask the builder for a connection: %w", err)
	}
	rights := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(fd, make([]byte, 1), rights, unix.MSG_CMSG_CLOEXEC)
	if err == nil && n == 0 {
		err = errRefused
	}
	if err != nil {
		return nil, fmt.Errorf("get a connection from the builder: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(errRefused, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(errRefused, err)
	}
	return os.NewFile(uintptr(fds[0]), "connection"), nil
}

func socketPair(kind int) (near, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket of a step: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "builder"), os.NewFile(uintptr(fds[1]), "step"), nil
}

// unixConn takes f over.
func unixConn(f *os.File) (*net.UnixConn, error) {
	c, err := net.FileConn(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("use a socket of a step: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("a socket of a step is not a unix socket"), c.Close())
	}
	return u, nil
}
