package sentry

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/socket/unix/transport"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/syserr"

	"hako/internal/sandbox/remote"
	"hako/internal/tree"
)

// socketName is the one name in the tree that a socket is mounted from.
const socketName = "socket"

// openSocket makes s show a socket whose other end is with the builder. number is its index in the step's mounts.
func (b *box) openSocket(s *source, run *remote.Run, number int) error {
	m, err := b.mount(tmpfs.Name, false, "", nil)
	if err != nil {
		return err
	}
	defer m.DecRef(b.ctx)
	root := rootOf(m)
	err = b.kernel.VFS().MknodAt(b.ctx, b.creds, at(root, socketName), &vfs.MknodOptions{
		Mode: linux.S_IFSOCK | 0o600, Endpoint: &endpoint{run: run, number: number, target: s.Target},
	})
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	e := tree.Entry{
		Path: socketName, Kind: tree.Socket, Mode: s.Socket.Mode, UID: s.Socket.UID, GID: s.Socket.GID,
		ModTime: time.Unix(0, b.kernel.RealtimeClock().Now().Nanoseconds()),
	}
	if err := b.setMetadata(at(root, socketName), &e); err != nil {
		return err
	}
	return b.openPart(s, root, socketName)
}

// endpoint is a socket of a step that the builder answers for. It does what those of gVisor's gofer file system do.
type endpoint struct {
	run    *remote.Run
	number int
	target string
}

var _ transport.BoundEndpoint = (*endpoint)(nil)

// BidirectionalConnect implements transport.BoundEndpoint.
func (e *endpoint) BidirectionalConnect(_ context.Context, ce transport.ConnectingEndpoint, returnConnect func(transport.Receiver, transport.Sender)) *syserr.Error {
	if ce.Type() != linux.SOCK_STREAM {
		return syserr.ErrWrongProtocolForSocket
	}
	ce.Lock()
	switch {
	case ce.Connected():
		ce.Unlock()
		return syserr.ErrAlreadyConnected
	case ce.ListeningLocked():
		ce.Unlock()
		return syserr.ErrInvalidEndpointState
	}
	c, serr := e.connection(ce)
	if serr == nil {
		returnConnect(c, c)
	}
	ce.Unlock()
	if serr != nil {
		return serr
	}
	if err := c.Init(); err != nil {
		return syserr.FromError(err)
	}
	return nil
}

// connection asks the builder for a connection.
func (e *endpoint) connection(ce transport.ConnectingEndpoint) (*transport.SCMSender, *syserr.Error) {
	f, err := e.run.Connect(e.number)
	if err != nil {
		log.Warningf("connect to %s: %v", e.target, err)
		return nil, syserr.ErrConnectionRefused
	}
	defer f.Close() //nolint:errcheck // the connection has its own
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, syserr.FromError(err)
	}
	c, serr := transport.NewSCMSender(fd, ce.WaiterQueue(), e.target)
	if serr != nil {
		_ = unix.Close(fd)
		return nil, serr
	}
	return c, nil
}

// UnidirectionalConnect implements transport.BoundEndpoint; it is for datagrams.
func (e *endpoint) UnidirectionalConnect(context.Context) (transport.Sender, *syserr.Error) {
	return nil, syserr.ErrWrongProtocolForSocket
}

// Passcred implements transport.BoundEndpoint.
func (e *endpoint) Passcred() bool { return false }

// Release implements transport.BoundEndpoint. There is nothing to release: connections have descriptors of their own.
func (e *endpoint) Release(context.Context) {}
