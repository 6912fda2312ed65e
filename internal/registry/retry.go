package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hako/internal/event"
)

const (
	maxTries = 4
	// maxRetryAfter is the longest pause that a registry can ask for; beyond it we give up instead.
	maxRetryAfter = 2 * time.Minute
	drainLimit    = 64 << 10
)

// retrier repeats requests that failed for a passing reason. A request with a body is repeated only
// if the body can be had again; an upload's PATCH never is, because the server may have kept a part of it.
type retrier struct {
	inner  http.RoundTripper
	delay  time.Duration
	events event.Sink
}

func (r *retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		fresh, err := freshBody(req)
		if err != nil {
			return nil, err
		}
		resp, err := r.inner.RoundTrip(fresh)
		pause, again := r.again(req, resp, err)
		if !again || try == maxTries {
			return resp, err
		}
		pause = max(pause, r.delay<<(try-1))
		r.events.Emit(event.Debug{Message: fmt.Sprintf("retry %s %s in %s: %s", req.Method, redactURL(req.URL), pause, outcome(resp, err))})
		if resp != nil {
			discard(resp.Body)
		}
		if err := sleep(req.Context(), pause); err != nil {
			return nil, err
		}
	}
}

// freshBody returns the request with an unread body. Authentication above us sends a request again
// with the same body, so that even the first try here cannot trust the body it gets.
func freshBody(req *http.Request) (*http.Request, error) {
	if req.GetBody == nil || req.Body == nil {
		return req, nil
	}
	body, err := req.GetBody()
	if err != nil {
		return nil, err
	}
	_ = req.Body.Close() // net/http opens one of its own after a redirect
	fresh := req.Clone(req.Context())
	fresh.Body = body
	return fresh, nil
}

// again decides whether a try is repeated, and after what pause at least.
func (r *retrier) again(req *http.Request, resp *http.Response, err error) (time.Duration, bool) {
	if req.Context().Err() != nil || req.Method == http.MethodPatch {
		return 0, false
	}
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return 0, false
	}
	if err != nil {
		return 0, temporary(err)
	}
	if !temporaryStatus(resp.StatusCode) {
		return 0, false
	}
	pause := retryAfter(resp.Header.Get("Retry-After"), time.Now())
	return pause, pause <= maxRetryAfter
}

func outcome(resp *http.Response, err error) string {
	if err != nil {
		return redactError(err).Error()
	}
	return resp.Status
}

// discard reads a little of a body, so that the connection can be used again, and closes it.
func discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, drainLimit) // best effort: the answer is not wanted
	_ = body.Close()                              // likewise
}

// sleep waits, or returns the context's cause.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retryAfter reads the header of that name: seconds, or a date.
func retryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, int(24*time.Hour/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// temporaryStatus says whether the same request may succeed a little later.
func temporaryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		499: // nginx: client closed request
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return code >= 500
}

// temporary says whether a network error may go away by itself. Errors that say that we were
// told a wrong name, port or protocol do not.
func temporary(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, errRefused) {
		return false
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	return !isTLS(err) && isNetwork(err)
}

// isTLS says whether the two sides could not agree on a secure connection.
func isTLS(err error) bool {
	var (
		record      tls.RecordHeaderError
		verify      *tls.CertificateVerificationError
		alert       tls.AlertError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		certificate x509.CertificateInvalidError
	)
	return errors.As(err, &record) || errors.As(err, &verify) || errors.As(err, &alert) ||
		errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &certificate)
}

// isNetwork says whether the error came from the connection and not from us.
func isNetwork(err error) bool {
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}
