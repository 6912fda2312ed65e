package child

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// The builder and a child talk over one stream socket pair. A message is a frame: eight bytes of header
// (version, three zero bytes, length of the body), then the body in gob. Descriptors travel with the header.
// gob rather than JSON because names and xattrs are bytes, not text.
//
// Each request has a number and gets exactly one response with that number; the order of responses is free,
// so that a step that runs does not hold up a step that starts.

const (
	protocolVersion = 2
	frameHeaderSize = 8
	maxFrame        = 1 << 30 // a patch of a million entries has about 200 MB
	maxResponse     = 1 << 20 // the builder does not trust the child, and expects little from it
	maxFrameFDs     = 32      // far below SCM_MAX_FD, 253
)

var (
	errVersion  = errors.New("the other process speaks another version of the protocol")
	errFrame    = errors.New("damaged frame")
	errConnLost = errors.New("the other process is gone")
)

// message is what a frame holds.
type message[T any] struct {
	Seq uint64
	// Err is what went wrong, in a response.
	Err  string
	Body T
}

// wire sends and receives frames. Sending is safe from many goroutines, receiving is not.
type wire struct {
	conn *net.UnixConn
	most uint32     // bytes of a body that is received
	mu   sync.Mutex // held while a frame is written
}

// newWire takes over f, which must be a connected stream socket.
func newWire(f *os.File) (*wire, error) {
	c, err := net.FileConn(f)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("use the child's socket: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("the child's socket is not a unix socket"), c.Close())
	}
	return &wire{conn: u, most: maxFrame}, nil
}

func (w *wire) close() error { return w.conn.Close() }

// send writes v as one frame together with fds, which stay the caller's.
func (w *wire) send(v any, fds ...int) error {
	if len(fds) > maxFrameFDs {
		return fmt.Errorf("send %d descriptors: %w", len(fds), errFrame)
	}
	var b bytes.Buffer
	b.Write(make([]byte, frameHeaderSize))
	if err := gob.NewEncoder(&b).Encode(v); err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	p := b.Bytes()
	if len(p)-frameHeaderSize > maxFrame {
		return fmt.Errorf("send %d bytes: %w", len(p), errFrame)
	}
	p[0] = protocolVersion
	binary.LittleEndian.PutUint32(p[4:], uint32(len(p)-frameHeaderSize)) //nolint:gosec // bounded just above
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n, _, err := w.conn.WriteMsgUnix(p[:frameHeaderSize], oob, nil)
	if err == nil && n != frameHeaderSize {
		err = io.ErrShortWrite
	}
	if err == nil {
		_, err = w.conn.Write(p[frameHeaderSize:])
	}
	if err != nil {
		return fmt.Errorf("send a message: %w: %w", errConnLost, err)
	}
	return nil
}

// receive reads one frame into v and returns the descriptors that came with it; they are the caller's.
// It returns io.EOF if the other side closed the connection between two frames.
func (w *wire) receive(v any) ([]*os.File, error) {
	var header [frameHeaderSize]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFrameFDs))
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(header[:], oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	files, err := parseRights(oob[:oobn])
	if err == nil && flags&unix.MSG_CTRUNC != 0 {
		err = fmt.Errorf("descriptors lost: %w", errFrame)
	}
	if err == nil {
		_, err = io.ReadFull(w.conn, header[n:])
	}
	if err == nil {
		err = w.body(header, v)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // this was not between two frames
	}
	if err != nil {
		CloseAll(files)
		return nil, err
	}
	return files, nil
}

func (w *wire) body(header [frameHeaderSize]byte, v any) error {
	if header[0] != protocolVersion {
		return errVersion
	}
	size := binary.LittleEndian.Uint32(header[4:])
	if size > w.most {
		return fmt.Errorf("receive %d bytes: %w", size, errFrame)
	}
	r := io.LimitReader(w.conn, int64(size))
	if err := gob.NewDecoder(r).Decode(v); err != nil {
		return fmt.Errorf("decode a message: %w", err)
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return fmt.Errorf("receive a message: %w", err)
	}
	return nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse control message: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			CloseAll(files)
			return nil, fmt.Errorf("parse descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "received"))
		}
	}
	return files, nil
}

// CloseAll drops descriptors of which nothing was written through us, so that Close has nothing to report.
func CloseAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

func socketPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the child's socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "child"), os.NewFile(uintptr(fds[1]), "builder"), nil
}
