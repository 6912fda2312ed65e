package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"hako/internal/diag"
	"hako/internal/web"
)

// ResponseError is an answer of a registry that we did not hope for. It holds no secret.
type ResponseError struct {
	// Method and URL are those of the request; the URL has neither user nor foreign query values.
	Method, URL string
	// Status is the HTTP status code.
	Status int
	// Codes are the error codes of the distribution specification in the answer: "NAME_UNKNOWN".
	Codes []string
	// Message is what the registry said, shortened to one line; it may be empty.
	Message string
	// RetryAfter is how long the registry asks to be left alone; zero if it does not.
	RetryAfter time.Duration
}

// Error is "GET https://…: 404 Not Found: NAME_UNKNOWN: …".
func (e *ResponseError) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.Method, e.URL, e.Status, http.StatusText(e.Status))
	s = strings.TrimRight(s, " ")
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Has says whether the registry answered with one of the error codes.
func (e *ResponseError) Has(codes ...string) bool {
	return slices.ContainsFunc(codes, func(c string) bool { return slices.Contains(e.Codes, c) })
}

// IsImmutableTag says whether err is a registry's refusal to give a tag another image. The answers are those of Artifact
// Registry ("… has enabled tag immutability"), ECR (TAG_INVALID, "… cannot be overwritten because the tag is immutable", in
// older times "the repository"), Harbor (PRECONDITION, "… configured as immutable") and Quay, or a code that says it.
func IsImmutableTag(err error) bool {
	var e *ResponseError
	if !errors.As(err, &e) || e.Method != http.MethodPut || e.Status < 400 || e.Status >= 500 {
		return false
	}
	if strings.Contains(strings.ToLower(e.Message), "immutab") {
		return true
	}
	return slices.ContainsFunc(e.Codes, func(c string) bool {
		c = strings.ReplaceAll(strings.ToUpper(c), "_", "")
		return strings.Contains(c, "TAGALREADYEXISTS") || strings.Contains(c, "IMMUTABLE")
	})
}

// errRefused is the kind of error for answers that no well-meaning registry gives.
var errRefused = errors.New("refused")

type refusedError struct{ text string }

func (e *refusedError) Error() string        { return e.text }
func (e *refusedError) Is(target error) bool { return target == errRefused }

func refuse(format string, args ...any) error { return &refusedError{fmt.Sprintf(format, args...)} }

// temporary says whether the same request may succeed a little later.
func temporary(err error) bool { return !errors.Is(err, errRefused) && web.Temporary(err) }

// checkStatus returns nil if the status is wanted, else the answer as an error.
// In that case it has read and closed the body.
func checkStatus(resp *http.Response, want ...int) error {
	if slices.Contains(want, resp.StatusCode) {
		return nil
	}
	defer web.Discard(resp.Body)
	e := &ResponseError{
		Method: resp.Request.Method, URL: redactURL(resp.Request.URL), Status: resp.StatusCode,
		RetryAfter: web.RetryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, errorBodyLimit))
	if err != nil {
		return e // the status says enough
	}
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Errors) == 0 {
		if !strings.Contains(resp.Header.Get("Content-Type"), "html") {
			e.Message = firstLine(string(body))
		}
		return e
	}
	var said []string
	for _, a := range answer.Errors[:min(len(answer.Errors), 3)] {
		code := firstLine(a.Code)
		e.Codes = append(e.Codes, code)
		said = append(said, strings.Trim(code+": "+firstLine(a.Message), ": "))
	}
	e.Message = strings.Join(said, "; ")
	return e
}

// retryAfter is how long the registry that answered with err asks to be left alone.
func retryAfter(err error) time.Duration {
	var answer *ResponseError
	if !errors.As(err, &answer) {
		return 0
	}
	return answer.RetryAfter
}

// redactURL is the URL without user, password and the values of query parameters that may be secret:
// all but the protocol's own.
func redactURL(u *url.URL) string {
	if u != nil {
		u = unalias(u)
	}
	return web.RedactURL(u, "digest", "mount", "from", "scope", "service")
}

// redactText takes users and query values out of what looks like a URL in free text.
func redactText(s string) string { return web.RedactText(s, redactURL) }

// firstLine is the first line of what a registry says.
func firstLine(s string) string { return web.FirstLine(s, redactURL) }

// redactError takes the URLs out of errors of net/http and of go-containerregistry.
func redactError(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) && !spokeHTTP(answer, err) {
		return fromTransport(answer)
	}
	return web.RedactError(err, redactURL)
}

// spokeHTTP says whether the answer is what a server that wants TLS says to plain HTTP, which was tried because HTTPS failed:
// then err has both, and why HTTPS failed is what counts.
func spokeHTTP(answer *transport.Error, err error) bool {
	return answer.StatusCode == http.StatusBadRequest && errors.As(err, new(*url.Error)) && !errors.As(err, new(tls.RecordHeaderError))
}

// fromTransport translates the library's form of an answer, which comes from the first contact and from token servers.
func fromTransport(t *transport.Error) *ResponseError {
	e := &ResponseError{Status: t.StatusCode}
	if t.Request != nil {
		e.Method, e.URL = t.Request.Method, redactURL(t.Request.URL)
	}
	var said []string
	for _, d := range t.Errors[:min(len(t.Errors), 3)] {
		code := firstLine(string(d.Code))
		e.Codes = append(e.Codes, code)
		said = append(said, strings.Trim(code+": "+firstLine(d.Message), ": "))
	}
	e.Message = strings.Join(said, "; ")
	return e
}

// denied says whether other credentials may help.
func denied(err error) bool {
	var e *ResponseError
	return errors.As(err, &e) && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Has("DENIED", "UNAUTHORIZED"))
}

// explain turns an error into one for people: what was attempted, the answer, and what to do.
func (r *Repository) explain(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	if errors.As(err, new(*diag.Error)) {
		return err
	}
	err = redactError(err)
	return &diag.Error{What: what, Cause: err, Hint: r.hint(err)}
}

func (r *Repository) hint(err error) string {
	var answer *ResponseError
	var dns *net.DNSError
	switch {
	case errors.As(err, &answer):
		return r.answerHint(answer)
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Sprintf("%s speaks plain HTTP; allow that with --insecure-registry=%s.", r.Host(), r.Host())
	case web.IsTLSRefusal(err):
		return fmt.Sprintf("The registry does not accept this client: show it a certificate with --registry-client-cert=%s=CERTIFICATE,KEY.", r.Host())
	case web.IsTLS(err):
		return fmt.Sprintf("Trust the registry's authority with --registry-certificate=%[1]s=FILE, or skip the check with --skip-tls-verify-registry=%[1]s.", r.Host())
	case errors.As(err, &dns):
		return fmt.Sprintf("Check the registry's name %q and that this machine can resolve it.", r.Host())
	case errors.Is(err, errRefused):
		return ""
	case errors.Is(err, syscall.ECONNREFUSED), web.IsNetwork(err):
		return fmt.Sprintf("Check that %s is a registry and can be reached from here (port, proxy, firewall).", r.Host())
	}
	return ""
}

func (r *Repository) answerHint(e *ResponseError) string {
	switch {
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Has("DENIED", "UNAUTHORIZED"):
		return r.credentialsHint()
	case e.Status == http.StatusTooManyRequests || e.Has("TOOMANYREQUESTS"):
		return "The registry limits requests: log in, or try again later."
	case e.Has("NAME_UNKNOWN") || e.Status == http.StatusNotFound && r.access == Push:
		return fmt.Sprintf("The repository %s does not exist: create it first, or correct the name.", r.Name())
	case e.Status == http.StatusNotFound:
		return "Check the image's name and tag."
	case e.Status == http.StatusRequestEntityTooLarge:
		return "The registry, or a proxy before it, limits the size of uploads."
	case web.TemporaryStatus(e.Status):
		return "The registry has a problem of its own: try again later."
	}
	return ""
}

// credentialsHint says which credentials were used, or where they were looked for.
func (r *Repository) credentialsHint() string {
	verb := "pull from"
	switch r.access {
	case Push:
		verb = "push to"
	case Delete:
		verb = "delete from"
	}
	if used := r.used(); len(used) > 0 {
		return fmt.Sprintf("Check that the credentials from %s are valid and may %s %s.", strings.Join(used, ", "), verb, r.Name())
	}
	key := r.Host()
	if key == canonicalKey(hubServer) {
		key = hubServer
	}
	where := "a docker config.json"
	if dirs := r.client.options.DockerConfigDirs; len(dirs) > 0 {
		where = "config.json in " + strings.Join(dirs, " or ")
	}
	if hidden := r.client.keychain.unreadable; len(hidden) > 0 {
		return fmt.Sprintf("No credentials for %s were found, and this user may not read %s: change its mode or owner, or run the build as its owner.",
			familiarHost(r.Host()), strings.Join(hidden, " and "))
	}
	return fmt.Sprintf("No credentials for %s were found: add them as auths[%q] to %s, or correct the name.", familiarHost(r.Host()), key, where)
}

func familiarHost(h string) string { return strings.TrimSuffix(familiar(h+"/"), "/") }
