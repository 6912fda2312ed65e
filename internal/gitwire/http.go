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
func (e *StatusError) Error() string {
	s := strings.TrimRight(fmt.Sprintf("the server answers %d %s", e.Status, http.StatusText(e.Status)), " ")
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

var (
	errDowngrade  = errors.New("it redirects from https to http")
	errRedirects  = errors.New("it redirects more than 10 times")
	errNotGit     = errors.New("the server does not answer like one of git (smart http)")
	errNoRedirect = errors.New("it redirects elsewhere in the middle of a conversation")
)

// checkRedirect lets only the first request be redirected, as git does, and keeps it on https.
func checkRedirect(req *http.Request, via []*http.Request) error {
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
	return nil
}

const infoRefs = "/info/refs"

func (l *httpLink) advertisement(ctx context.Context) (io.ReadCloser, error) {
	u := *l.base
	u.Path = strings.TrimSuffix(u.Path, "/") + infoRefs
	u.RawPath = ""
	u.RawQuery = "service=git-upload-pack"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := l.do(ctx, req)
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
	if at.User == nil && sameHost(&at, l.base) {
		at.User = l.base.User
	}
	l.base = &at
	return resp.Body, nil
}

// sameHost says whether both are the same server, reached in the same way.
func sameHost(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Host, b.Host)
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
	resp, err := l.do(ctx, req)
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
func (l *httpLink) do(ctx context.Context, req *http.Request) (*http.Response, error) {
	req.Header.Set("Git-Protocol", "version=2")
	asked := req.URL.User != nil
	if get := l.client.options.Credentials; !asked && get != nil {
		value, err := get(ctx, req.URL, l.named)
		if err != nil {
			return nil, err
		}
		if value != "" {
			req.Header.Set("Authorization", value)
			asked = true
		}
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
