package child

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Server answers requests in a child.
type Server[Q, A any] interface {
	// Accept is called with each request in the order they came, before the next one is read. A request for which it
	// returns true is handled at once, before anything else happens; the others get a goroutine each.
	Accept(q *Q) (now bool)
	// Handle fulfils a request and fills in the answer, which is sent even with an error. It owns files.
	Handle(q *Q, files []*os.File, a *A) error
}

// Serve answers the builder until it closes the connection, and returns nil then. Requests that are still being handled
// are not waited for: the process is expected to end.
func Serve[Q, A any](s Server[Q, A]) error {
	unix.CloseOnExec(Socket)
	weighIn()
	w, err := newWire(os.NewFile(Socket, "builder"))
	if err != nil {
		return err
	}
	for {
		var q message[Q]
		files, err := w.receive(&q)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer := func() {
			a := message[A]{Seq: q.Seq}
			if err := s.Handle(&q.Body, files, &a.Body); err != nil {
				a.Err = err.Error()
			}
			_ = w.send(&a) // nobody is there to be told that the builder is gone
		}
		if s.Accept(&q.Body) {
			answer()
		} else {
			go answer()
		}
	}
}
