package gitwire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"hako/internal/web"
)

const maxRedirects = 10

// httpLink is gitprotocol-http(5).
type httpLink struct {
	client *Client
	base   *url.URL // of the repository, after redirects
	named  *url.URL // what somebody asked for
}

// StatusError is an http answer that is not what was asked for.
type StatusError struct {
	Status int
	// Message is what the server said, on one line; it may be empty.
	Message string
	// Asked says that credentials were sent.
	Asked bool
}

// Error is "the server answers 404 Not Found".
func (e *StatusError) Error() string { return web.Answer("the server", e.Status, e.Message) }

var (
	errDowngrade  = errors.New("it redirects from https to http")
	errRedirects  = errors.New("it redirects more than 10 times")
	errNotGit     = errors.New("the server does not answer like one of git (smart http)")
	errNoRedirect = errors.New("it redirects elsewhere in the middle of a conversation")
)

// namedKey marks the context of a request with the repository that somebody asked for.
type namedKey struct{}

// checkRedirect lets only the first request be redirected, as git does, and keeps it on https. What one server is told of
// who we are is not told to another, not even to one with a name below the first one's, as net/http would.
func (c *Client) checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case via[0].Method != http.MethodGet:
		return errNoRedirect
	case len(via) >= maxRedirects:
		return errRedirects
	case req.URL.Scheme != "https" && req.URL.Scheme != "http":
		return errors.New("it redirects to something that is not http")
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme == "http":
		return errDowngrade
	}
	first := via[0].URL
	if web.SameOrigin(req.URL, first) {
		if req.URL.User == nil {
			req.URL.User = first.User
		}
		return nil
	}
	req.Header.Del("Authorization")
	named, _ := req.Context().Value(namedKey{}).(*url.URL)
	_, err := c.authorize(req, named)
	return err
}

// authorize adds the login that we have for the request's server, and says whether there is one.
func (c *Client) authorize(req *http.Request, named *url.URL) (bool, error) {
	get := c.options.Credentials
	if req.URL.User != nil || get == nil {
		return req.URL.User != nil, nil
	}
	value, err := get(req.Context(), req.URL, named)
	if err != nil || value == "" {
		return false, err
	}
	req.Header.Set("Authorization", value)
	return true, nil
}

const infoRefs = "/info/refs"

func (l *httpLink) advertisement(ctx context.Context) (io.ReadCloser, error) {
	u := *l.base
	u.Path = strings.TrimSuffix(u.Path, "/") + infoRefs
	u.RawPath = ""
	u.RawQuery = "service=git-upload-pack"
	req, err := http.NewRequestWithContext(context.WithValue(ctx, namedKey{}, l.named), http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := l.do(req)
	if err != nil {
		return nil, err
	}
	if t := resp.Header.Get("Content-Type"); t != "application/x-git-upload-pack-advertisement" {
		web.Discard(resp.Body)
		return nil, fmt.Errorf("%w: its answer is of the type %q", errNotGit, clip(t))
	}
	at := *resp.Request.URL
	path, ok := strings.CutSuffix(at.Path, infoRefs)
	if !ok {
		web.Discard(resp.Body)
		return nil, fmt.Errorf("%w: it redirects to another kind of address", errNotGit)
	}
	at.Path, at.RawPath, at.RawQuery = path, "", ""
	if at.User == nil && web.SameOrigin(&at, l.base) {
		at.User = l.base.User
	}
	l.base = &at
	return resp.Body, nil
}

func (l *httpLink) request(ctx context.Context, body []byte) (io.ReadCloser, error) {
	u := *l.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/git-upload-pack"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	req.Header.Set("Accept", "application/x-git-upload-pack-result")
	resp, err := l.do(req)
	if err != nil {
		return nil, err
	}
	if t := resp.Header.Get("Content-Type"); t != "application/x-git-upload-pack-result" {
		web.Discard(resp.Body)
		return nil, fmt.Errorf("%w: its answer is of the type %q", errNotGit, clip(t))
	}
	return resp.Body, nil
}

// do sends a request with credentials, and wants the status 200.
func (l *httpLink) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("Git-Protocol", "version=2")
	asked, err := l.client.authorize(req, l.named)
	if err != nil {
		return nil, err
	}
	resp, err := l.client.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer web.Discard(resp.Body)
	e := &StatusError{Status: resp.StatusCode, Asked: asked}
	if !strings.Contains(resp.Header.Get("Content-Type"), "html") {
		if b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10)); err == nil {
			e.Message = web.FirstLine(string(b), redact)
		}
	}
	return nil, e
}

func (l *httpLink) close() error { return nil }
