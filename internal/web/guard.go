package web

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"
)

// commitFactor times the idle timeout is how long a server may think about a request that changes something:
// some registries hash a whole blob, or copy it, before they answer.
const commitFactor = 10

// Guard is a round tripper that sets the user agent and ends requests in which nothing moves. The clock runs only while
// we wait for the network: a slow reader of a body, or a slow source of one, is not the server's fault.
type Guard struct {
	Inner http.RoundTripper
	// Idle is how long nothing may move. Commit is how long a server may think about a request that changes something; zero
	// means commitFactor times Idle.
	Idle, Commit time.Duration
	UserAgent    string
}

// idleError is why a request was ended. It is a net.Error.
type idleError struct{ after time.Duration }

func (e *idleError) Error() string   { return "nothing was received for " + e.after.String() }
func (e *idleError) Timeout() bool   { return true }
func (e *idleError) Temporary() bool { return true }

// RoundTrip implements http.RoundTripper.
func (g *Guard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watchdog{cancel: cancel}
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", g.UserAgent)
	g.watchBody(req, w)
	w.start(g.patience(req.Method))
	resp, err := g.Inner.RoundTrip(req)
	w.finishHeaders()
	if err != nil {
		err = idleCause(ctx, err)
		cancel(nil)
		return nil, err
	}
	resp.Body = &guardedResponse{ReadCloser: resp.Body, ctx: ctx, w: w, idle: g.Idle}
	return resp, nil
}

// watchBody puts the clock into the request's body, also when net/http opens it again on a new connection.
func (g *Guard) watchBody(req *http.Request, w *watchdog) {
	if req.Body == nil || req.Body == http.NoBody {
		return
	}
	req.Body = &guardedRequest{ReadCloser: req.Body, w: w, idle: g.Idle, commit: g.commit()}
	reopen := req.GetBody
	if reopen == nil {
		return
	}
	req.GetBody = func() (io.ReadCloser, error) {
		body, err := reopen()
		if err != nil {
			return nil, err
		}
		return &guardedRequest{ReadCloser: body, w: w, idle: g.Idle, commit: g.commit()}, nil
	}
}

// patience is how long the answer to a request without a body may take to begin.
func (g *Guard) patience(method string) time.Duration {
	if method == http.MethodGet || method == http.MethodHead {
		return g.Idle
	}
	return g.commit()
}

func (g *Guard) commit() time.Duration { return cmp.Or(g.Commit, commitFactor*g.Idle) }

// idleCause is the watchdog's error if it ended the context, else err.
func idleCause(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && errors.As(cause, new(*idleError)) {
		return cause
	}
	return err
}

// watchdog cancels a request when it is not stopped in time.
type watchdog struct {
	cancel context.CancelCauseFunc

	mu      sync.Mutex // guards what follows
	timer   *time.Timer
	headers bool // the response has begun; the request's body no longer matters
}

func (w *watchdog) start(after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.startLocked(after)
}

func (w *watchdog) startLocked(after time.Duration) {
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = time.AfterFunc(after, func() { w.cancel(&idleError{after}) })
}

func (w *watchdog) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
}

func (w *watchdog) finishHeaders() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.headers = true
	w.timer.Stop()
}

// whileSending starts (after > 0) or stops the clock, unless the response has begun.
func (w *watchdog) whileSending(after time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.headers {
		return
	}
	if after == 0 {
		w.timer.Stop()
		return
	}
	w.startLocked(after)
}

// guardedRequest runs the clock between reads: that is when the network has the data.
type guardedRequest struct {
	io.ReadCloser
	w            *watchdog
	idle, commit time.Duration
}

func (r *guardedRequest) Read(p []byte) (int, error) {
	r.w.whileSending(0)
	n, err := r.ReadCloser.Read(p)
	if err != nil {
		r.w.whileSending(r.commit)
	} else {
		r.w.whileSending(r.idle)
	}
	return n, err
}

// guardedResponse runs the clock during reads.
type guardedResponse struct {
	io.ReadCloser
	ctx  context.Context // of the request: what the watchdog cancels
	w    *watchdog
	idle time.Duration
}

func (r *guardedResponse) Read(p []byte) (int, error) {
	r.w.start(r.idle)
	n, err := r.ReadCloser.Read(p)
	r.w.stop()
	if err != nil && err != io.EOF {
		err = idleCause(r.ctx, err)
	}
	return n, err
}

func (r *guardedResponse) Close() error {
	r.w.stop()
	err := r.ReadCloser.Close()
	r.w.cancel(nil)
	return err
}
