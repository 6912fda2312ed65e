package web

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hako/internal/event"
)

const (
	// MaxTries is how often something is tried in all.
	MaxTries = 4
	// MaxRetryAfter is the longest pause that a server can ask for; beyond it we give up instead.
	MaxRetryAfter = 2 * time.Minute
	drainLimit    = 64 << 10
)

// Retrier is a round tripper that repeats requests that failed for a passing reason. A request with a body is repeated
// only if the body can be had again; a PATCH never is, because the server may have kept a part of it.
type Retrier struct {
	Inner http.RoundTripper
	// Delay is the first pause between two tries, doubled each time.
	Delay time.Duration
	// Events receives a Debug event about each new try.
	Events event.Sink
	// Redact says what may be said of a URL.
	Redact func(*url.URL) string
	// Tries is how often something is tried in all, and MaxPause the longest pause that a server can ask for;
	// zero means MaxTries and MaxRetryAfter.
	Tries    int
	MaxPause time.Duration
}

// RoundTrip implements http.RoundTripper.
func (r *Retrier) RoundTrip(req *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		fresh, err := freshBody(req)
		if err != nil {
			return nil, err
		}
		resp, err := r.Inner.RoundTrip(fresh)
		pause, again := r.again(req, resp, err)
		if !again || try >= cmp.Or(r.Tries, MaxTries) {
			return resp, err
		}
		pause = max(pause, r.Delay<<(try-1))
		r.Events.Emit(event.Debug{Message: fmt.Sprintf("retry %s %s in %s: %s", req.Method, r.Redact(req.URL), pause, r.outcome(resp, err))})
		if resp != nil {
			Discard(resp.Body)
		}
		if err := Sleep(req.Context(), pause); err != nil {
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
func (r *Retrier) again(req *http.Request, resp *http.Response, err error) (time.Duration, bool) {
	if req.Context().Err() != nil || req.Method == http.MethodPatch {
		return 0, false
	}
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return 0, false
	}
	if err != nil {
		return 0, Temporary(err)
	}
	if !TemporaryStatus(resp.StatusCode) {
		return 0, false
	}
	pause := RetryAfter(resp.Header.Get("Retry-After"), time.Now())
	return pause, pause <= cmp.Or(r.MaxPause, MaxRetryAfter)
}

func (r *Retrier) outcome(resp *http.Response, err error) string {
	if err != nil {
		return RedactError(err, r.Redact).Error()
	}
	return resp.Status
}

// Discard reads a little of a body, so that the connection can be used again, and closes it.
func Discard(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, drainLimit) // best effort: the answer is not wanted
	_ = body.Close()                              // likewise
}

// Sleep waits, or returns the context's cause.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// RetryAfter reads the header of that name: seconds, or a date.
func RetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.Atoi(value); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, int(24*time.Hour/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// TemporaryStatus says whether the same request may succeed a little later.
func TemporaryStatus(code int) bool {
	switch code {
	case http.StatusRequestTimeout, http.StatusTooManyRequests,
		499: // nginx: client closed request
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	}
	return code >= 500
}

// Temporary says whether a network error may go away by itself. Errors that say that we were
// told a wrong name, port or protocol do not.
func Temporary(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, http.ErrSchemeMismatch) {
		return false
	}
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return !dns.IsNotFound
	}
	return !IsTLS(err) && IsNetwork(err)
}

// IsTLS says whether the two sides could not agree on a secure connection.
func IsTLS(err error) bool {
	var (
		record      tls.RecordHeaderError
		verify      *tls.CertificateVerificationError
		alert       tls.AlertError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		certificate x509.CertificateInvalidError
	)
	return IsTLSRefusal(err) || errors.As(err, &record) || errors.As(err, &verify) || errors.As(err, &alert) ||
		errors.As(err, &authority) || errors.As(err, &hostname) || errors.As(err, &certificate)
}

// IsTLSRefusal says whether the other side ended the handshake, as one does that wants a client's certificate.
func IsTLSRefusal(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" // crypto/tls: an alert of the other side
}

// IsNetwork says whether the error came from the connection and not from us.
func IsNetwork(err error) bool {
	var n net.Error
	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, net.ErrClosed)
}
