package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"hako/internal/diag"
)

const (
	dialTimeout      = 30 * time.Second
	handshakeTimeout = 30 * time.Second
	maxHeaderBytes   = 1 << 20
	// commitFactor times the idle timeout is how long a registry may think about a request that changes something:
	// some hash the whole blob, or copy it, before they answer.
	commitFactor = 10
)

// newStacks builds the round trippers below authentication: TLS choice, idle timeouts, retries.
// It also returns the transports that they own.
func newStacks(o *Options) (map[Access]http.RoundTripper, []*http.Transport, error) {
	verified, unverified, owned, err := newTransports(o)
	if err != nil {
		return nil, nil, err
	}
	stack := func(skipAll bool) http.RoundTripper {
		var rt http.RoundTripper = &tlsChoice{verified: verified, unverified: unverified, all: skipAll, hosts: o.SkipTLSVerifyRegistries}
		rt = &guard{inner: rt, idle: o.IdleTimeout, userAgent: o.UserAgent}
		return &retrier{inner: rt, delay: o.RetryDelay, events: o.Events}
	}
	return map[Access]http.RoundTripper{
		Pull: stack(o.SkipTLSVerify || o.SkipTLSVerifyPull),
		Push: stack(o.SkipTLSVerify),
	}, owned, nil
}

func newTransports(o *Options) (verified, unverified http.RoundTripper, owned []*http.Transport, err error) {
	base, ok := o.Transport.(*http.Transport)
	switch {
	case o.Transport == nil:
		base = defaultTransport()
	case !ok && (o.SkipTLSVerify || o.SkipTLSVerifyPull || len(o.SkipTLSVerifyRegistries) > 0):
		return nil, nil, nil, &diag.Error{What: "skip the verification of TLS certificates: the transport given does not allow it"}
	case !ok:
		return o.Transport, o.Transport, nil, nil
	default:
		base = base.Clone()
	}
	base.DisableCompression = true // a blob marked "Content-Encoding: gzip" must arrive as it is
	base.MaxResponseHeaderBytes = maxHeaderBytes
	skip := base.Clone()
	if skip.TLSClientConfig == nil {
		skip.TLSClientConfig = &tls.Config{}
	}
	skip.TLSClientConfig.InsecureSkipVerify = true
	return base, skip, []*http.Transport{base, skip}, nil
}

func defaultTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   handshakeTimeout,
		ExpectContinueTimeout: time.Second,
	}
}

// tlsChoice sends a request with or without certificate checks.
type tlsChoice struct {
	verified, unverified http.RoundTripper
	all                  bool
	hosts                []string
}

func (t *tlsChoice) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.all || listed(t.hosts, req.URL.Host) {
		return t.unverified.RoundTrip(req)
	}
	return t.verified.RoundTrip(req)
}

// guard sets the user agent and ends requests in which nothing moves. The clock runs only while we wait
// for the network: a slow reader of a body, or a slow source of one, is not the registry's fault.
type guard struct {
	inner     http.RoundTripper
	idle      time.Duration
	userAgent string
}

// idleError is why a request was ended.
type idleError struct{ after time.Duration }

func (e *idleError) Error() string   { return "nothing was received for " + e.after.String() }
func (e *idleError) Timeout() bool   { return true }
func (e *idleError) Temporary() bool { return true }

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watchdog{cancel: cancel}
	req = req.Clone(ctx)
	req.Header.Set("User-Agent", g.userAgent)
	g.watchBody(req, w)
	w.start(g.patience(req.Method))
	resp, err := g.inner.RoundTrip(req)
	w.finishHeaders()
	if err != nil {
		err = idleCause(ctx, err)
		cancel(nil)
		return nil, err
	}
	if strings.HasSuffix(req.URL.Path, "/v2/") {
		// go-containerregistry reads the answer to its first request to the end, whatever that is.
		resp.Body = limitedBody{io.LimitReader(resp.Body, errorBodyLimit), resp.Body}
	}
	resp.Body = &guardedResponse{ReadCloser: resp.Body, ctx: ctx, w: w, idle: g.idle}
	return resp, nil
}

type limitedBody struct {
	io.Reader
	io.Closer
}

// watchBody puts the clock into the request's body, also when net/http opens it again on a new connection.
func (g *guard) watchBody(req *http.Request, w *watchdog) {
	if req.Body == nil || req.Body == http.NoBody {
		return
	}
	req.Body = &guardedRequest{ReadCloser: req.Body, w: w, idle: g.idle}
	reopen := req.GetBody
	if reopen == nil {
		return
	}
	req.GetBody = func() (io.ReadCloser, error) {
		body, err := reopen()
		if err != nil {
			return nil, err
		}
		return &guardedRequest{ReadCloser: body, w: w, idle: g.idle}, nil
	}
}

// patience is how long the answer to a request without a body may take to begin.
func (g *guard) patience(method string) time.Duration {
	if method == http.MethodGet || method == http.MethodHead {
		return g.idle
	}
	return commitFactor * g.idle
}

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
	w    *watchdog
	idle time.Duration
}

func (r *guardedRequest) Read(p []byte) (int, error) {
	r.w.whileSending(0)
	n, err := r.ReadCloser.Read(p)
	if err != nil {
		r.w.whileSending(commitFactor * r.idle)
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
