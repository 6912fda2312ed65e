package download

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"hako/internal/diag"
	"hako/internal/web"
)

// StatusError is an answer that is not the file. It holds no secret.
type StatusError struct {
	// Status is the HTTP status code; Message is what the server said, shortened to one line, or empty.
	Status  int
	Message string
}

// Error is "the server answers 404 Not Found: …".
func (e *StatusError) Error() string { return web.Answer("the server", e.Status, e.Message) }

// newStatusError reads a little of the answer.
func newStatusError(resp *http.Response) error {
	e := &StatusError{Status: resp.StatusCode}
	if strings.Contains(resp.Header.Get("Content-Type"), "html") || resp.Header.Get("Content-Encoding") != "" {
		return e
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, errorBodyLimit))
	if err == nil {
		e.Message = web.FirstLine(string(body), redact)
	}
	return e
}

// explain turns an error into one for people.
func (t *transfer) explain(ctx context.Context, err error) error {
	what := "download " + redact(t.url)
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	if errors.As(err, new(*diag.Error)) {
		return err
	}
	hint := t.hint(err)
	err = web.RedactError(err, redact)
	if errors.Is(err, errRestart) {
		err = fmt.Errorf("the connection is cut again and again, last at byte %d, and the server cannot resume", t.offset)
	}
	return &diag.Error{What: what, Cause: err, Hint: hint}
}

// hint is what to do about err.
func (t *transfer) hint(err error) string {
	var answer *StatusError
	var dns *net.DNSError
	switch {
	case errors.As(err, &answer):
		return t.answerHint(answer.Status)
	case errors.As(err, new(*mismatchError)):
		return "The file is not the one that the checksum was made of: look at it before you change the checksum."
	case errors.Is(err, errDowngrade):
		return "Use the final address, or pin the content with a checksum."
	case errors.Is(err, http.ErrSchemeMismatch):
		return "The server speaks plain HTTP: write http://."
	case web.IsTLS(err):
		return "Trust the server's certificate: SSL_CERT_FILE or SSL_CERT_DIR name what is trusted."
	case errors.As(err, &dns):
		return fmt.Sprintf("Check the name %q and that this machine can resolve it.", t.url.Hostname())
	case errors.Is(err, syscall.ENOSPC):
		return "Free space in the work directory, or choose another place with --kaniko-dir."
	case errors.Is(err, syscall.ECONNREFUSED), web.IsNetwork(err):
		return fmt.Sprintf("Check that %s can be reached from here (port, proxy, firewall).", t.url.Host)
	}
	return ""
}

func (t *transfer) answerHint(status int) string {
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Sprintf("Check the credentials for %s: a user in the URL, .netrc, or the secret HTTP_AUTH_TOKEN_%s.", t.url.Host, t.url.Hostname())
	case status == http.StatusNotFound || status == http.StatusGone:
		return "Check the URL."
	case web.TemporaryStatus(status):
		return "The server has a problem of its own: try again later."
	}
	return ""
}
