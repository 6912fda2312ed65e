package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	ws "k8s.io/client-go/transport/websocket"

	"hako/internal/diag"
)

// Standard input of a container goes over a WebSocket: each message begins with the number of a stream. Version 5 of Kubernetes'
// protocol for it (API servers from 1.30 on) can close a stream; older ones know version 4, which differs in nothing else. The
// receiver knows when it has everything, so both will do. client-go's remotecommand takes version 5 only and SPDY for the rest,
// and brings that with it; it also keeps to itself that a stream broke while it was being sent.

// SendInput sends what in yields to the standard input of a running container, and returns when the container has taken all, or
// has ended. sent is how much went out, in bytes: of a refusal it is 0. When ctx ends, SendInput returns its cause.
func (c *Client) SendInput(ctx context.Context, pod, container string, in io.Reader) (sent int64, err error) {
	what := "send the context to pod " + pod
	conn, err := c.dial(ctx, pod, container)
	if err != nil {
		return 0, c.explain(ctx, what, err)
	}
	defer conn.Close() //nolint:errcheck // what counts has been said by then
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	answer := make(chan error, 1)
	go func() { answer <- listen(conn) }()
	sent, err = send(conn, in)
	if err == nil && conn.Subprotocol() == remotecommand.StreamProtocolV5Name {
		err = conn.WriteMessage(websocket.BinaryMessage, []byte{remotecommand.StreamClose, remotecommand.StreamStdIn})
	}
	if err != nil {
		_ = conn.Close() // the listener ends with it
		if told := <-answer; errors.As(told, new(*apierrors.StatusError)) {
			err = told // why the connection broke
		}
		return sent, c.explain(ctx, what, err)
	}
	return sent, c.explain(ctx, what, <-answer)
}

// dial opens the connection.
func (c *Client) dial(ctx context.Context, pod, container string) (*websocket.Conn, error) {
	at := c.core.Get().Namespace(c.Namespace).Resource("pods").Name(pod).SubResource("attach").
		VersionedParams(&corev1.PodAttachOptions{Container: container, Stdin: true}, c.codec).URL()
	rt, holder, err := ws.RoundTripperFor(c.config)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout) // of the handshake
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	conn, err := ws.Negotiate(rt, holder, req, remotecommand.StreamProtocolV5Name, remotecommand.StreamProtocolV4Name)
	var refused *httpstream.UpgradeFailureError
	if !errors.As(err, &refused) {
		return conn, err
	}
	if errors.As(refused.Cause, new(*apierrors.StatusError)) {
		return nil, refused.Cause
	}
	return nil, &noStreamError{refused.Cause}
}

// noStreamError is a server, or a proxy before it, that does not let WebSockets through.
type noStreamError struct{ error }

func (e *noStreamError) Unwrap() error { return e.error }

// explainStream says what to do about a noStreamError.
func (c *Client) explainStream(what string, err error) error {
	return &diag.Error{
		What: what, Cause: err,
		Hint: "Let what is between here and " + c.Server + " pass WebSockets, or send the context to a registry with --context-repo.",
	}
}

// chunk is how much goes into a message, in bytes: no more than client-go sends, whose servers have buffers of that size.
const chunk = 32 << 10

// send sends what in yields as standard input.
func send(conn *websocket.Conn, in io.Reader) (sent int64, err error) {
	buffer := make([]byte, 1+chunk)
	buffer[0] = remotecommand.StreamStdIn
	for {
		n, err := io.ReadFull(in, buffer[1:])
		if n > 0 {
			if err := conn.WriteMessage(websocket.BinaryMessage, buffer[:1+n]); err != nil {
				return sent, err
			}
			sent += int64(n)
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return sent, nil
		case err != nil:
			return sent, fmt.Errorf("read what is to be sent: %w", err)
		}
	}
}

// listen reads until the server has told how it ended, or has hung up.
func listen(conn *websocket.Conn) error {
	const most = 1 << 20 // 1 MiB: a status has some hundred bytes
	conn.SetReadLimit(most)
	for {
		_, message, err := conn.ReadMessage()
		if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(message) < 2 || message[0] != remotecommand.StreamErr {
			continue
		}
		status := metav1.Status{}
		if err := json.Unmarshal(message[1:], &status); err != nil || status.Status == metav1.StatusSuccess {
			return nil
		}
		return &apierrors.StatusError{ErrStatus: status}
	}
}
