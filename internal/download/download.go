// Package download fetches single files by http and https into the work directory.
//
// A transfer survives cut connections (it is resumed with Range), servers that are busy (Retry-After) and those that hang
// (idle timeout). What was fetched is hashed on its way and compared with what the caller expects. No user, password,
// query or header ever enters an error, an event or a log.
package download

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/web"
)

const (
	defaultIdle     = 60 * time.Second
	defaultDelay    = time.Second
	defaultMaxBytes = 1 << 40 // 1 TiB
	defaultMaxTime  = 6 * time.Hour
	maxRedirects    = 10 // as net/http
)

// Options says how servers are reached and where files go.
type Options struct {
	// File makes an empty file without a name. It must be set.
	File func(name string) (*os.File, error)
	// Transport reaches servers; nil means a new one with the proxies of the environment.
	Transport http.RoundTripper
	// Credentials returns the value of an Authorization header for a host ("example.org:8080"), or "".
	// A user in the URL comes before it. nil means that there are none.
	Credentials func(ctx context.Context, u *url.URL) (string, error)
	// UserAgent is sent with each request; empty means "hako".
	UserAgent string
	// Events receives progress, retries and warnings; nil drops them.
	Events event.Sink
	// RetryDelay is the first pause between two tries, doubled each time; zero means one second.
	RetryDelay time.Duration
	// IdleTimeout ends a transfer in which nothing moves; zero means a minute. MaxTime ends any; zero means six hours.
	IdleTimeout, MaxTime time.Duration
	// MaxBytes bounds the size of a file, before and after its content encoding is undone; zero means 1 TiB.
	MaxBytes int64
}

// Client fetches files. It may be used from many goroutines.
type Client struct {
	options Options
	http    *http.Client
	own     *http.Transport // what Close closes; nil if the transport was given
}

// New returns a client.
func New(o Options) *Client {
	if o.Events == nil {
		o.Events = event.Discard{}
	}
	if o.UserAgent == "" {
		o.UserAgent = "hako"
	}
	o.RetryDelay = cmp.Or(o.RetryDelay, defaultDelay)
	o.IdleTimeout = cmp.Or(o.IdleTimeout, defaultIdle)
	o.MaxTime = cmp.Or(o.MaxTime, defaultMaxTime)
	o.MaxBytes = cmp.Or(o.MaxBytes, defaultMaxBytes)
	c := &Client{options: o}
	rt := o.Transport
	if rt == nil {
		c.own = web.NewTransport()
		rt = c.own
	}
	rt = &web.Guard{Inner: rt, Idle: o.IdleTimeout, UserAgent: o.UserAgent}
	rt = &web.Retrier{Inner: rt, Delay: o.RetryDelay, Events: o.Events, Redact: redact}
	c.http = &http.Client{Transport: rt, CheckRedirect: c.checkRedirect}
	return c
}

// Close closes idle connections.
func (c *Client) Close() {
	if c.own != nil {
		c.own.CloseIdleConnections()
	}
}

// Request is one file to fetch.
type Request struct {
	// URL begins with http:// or https://. It may hold a user and a password.
	URL string
	// Checksum is what the content must have, sha256, sha384 or sha512; empty if anything will do.
	Checksum digest.Digest
	// Header is sent to the URL's own server, and not to others that it redirects to. If it is not nil, no other login is used.
	Header http.Header
	// MaxBytes bounds the size of this file; zero means what [Options] says.
	MaxBytes int64
}

// Fetch gets a file. A content encoding of the server's ("gzip") is undone, as browsers and BuildKit do.
// Whatever is wrong with the URL, the server or the content is a *diag.Error without a position.
// When ctx ends, Fetch returns its cause. The caller closes the result.
func (c *Client) Fetch(ctx context.Context, r Request) (_ *File, err error) {
	u, err := parseURL(r.URL)
	if err != nil {
		return nil, err
	}
	t := &transfer{client: c, url: u, pinned: r.Checksum != "", header: r.Header, limit: min(cmp.Or(r.MaxBytes, c.options.MaxBytes), c.options.MaxBytes)}
	ctx, cancel := context.WithTimeoutCause(ctx, c.options.MaxTime, fmt.Errorf("the transfer takes longer than %s", c.options.MaxTime))
	defer cancel()
	f, err := t.run(ctx, r.Checksum)
	if err != nil {
		return nil, t.explain(ctx, err)
	}
	return f, nil
}

// parseURL refuses what is no URL of a file.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		var parse *url.Error
		if errors.As(err, &parse) {
			err = parse.Err // the rest repeats the URL, which may hold a password
		}
		return nil, &diag.Error{What: "read the URL " + beforeSecrets(text), Cause: err, Hint: "Write https://host/path; escape other characters as %20."}
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, &diag.Error{What: fmt.Sprintf("read the URL %s: it is neither http nor https, or has no host", redact(u)), Hint: "Write https://host/path."}
	}
	return u, nil
}

// beforeSecrets is the scheme of what could not be parsed.
func beforeSecrets(text string) string {
	scheme, _, _ := strings.Cut(text, "://")
	return scheme + "://…"
}

// redact is what may be said of a URL.
func redact(u *url.URL) string { return web.RedactURL(u) }

// pinnedKey marks the context of a request whose content is known beforehand, headerKey that of one with headers of its own.
type (
	pinnedKey struct{}
	headerKey struct{}
)

var (
	errManyRedirects = errors.New("it redirects more than 10 times")
	errDowngrade     = errors.New("it redirects from https to http")
	errOtherScheme   = errors.New("it redirects to something that is not http")
)

// checkRedirect bounds redirects and keeps us on https, unless the content is known beforehand. What one server is told of
// who we are is not told to another: net/http would tell it to other ports and to names below.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return errManyRedirects
	}
	if req.URL.Scheme != "http" && req.URL.Scheme != "https" {
		return errOtherScheme
	}
	if !web.SameOrigin(req.URL, via[0].URL) {
		req.Header.Del("Authorization")
		if own, ok := req.Context().Value(headerKey{}).(http.Header); ok {
			for name := range own {
				req.Header.Del(name)
			}
		}
	}
	if req.URL.Scheme == "https" || via[len(via)-1].URL.Scheme == "http" {
		return nil
	}
	if req.Context().Value(pinnedKey{}) == nil {
		return errDowngrade
	}
	c.options.Events.Emit(event.Warning{Message: fmt.Sprintf("%s redirects from https to http: %s", redact(via[0].URL), redact(req.URL))})
	return nil
}
