// Package gitwire speaks git's smart protocol as a client: it asks a server for its references and fetches packs, over http,
// https, ssh and git's own TCP protocol. It needs no program git, no repository and no working copy.
//
// Version 2 of the protocol is asked for, since it can name the references that are wanted, and can fetch any commit by its
// id; a server that does not know it is spoken to in version 0. Everything that a server says is bounded.
package gitwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"hako/internal/event"
	"hako/internal/gitpack"
	"hako/internal/web"
)

const (
	defaultIdle  = 60 * time.Second
	defaultDelay = time.Second
	maxRefBytes  = 64 << 20 // 64 MiB: what is kept of references
)

// Options says how servers are reached.
type Options struct {
	// Transport reaches http servers; nil means a new one with the proxies of the environment.
	Transport http.RoundTripper
	// Credentials returns the value of an Authorization header for a URL, or "". A password in the URL comes before it.
	// named is the repository that somebody asked for: u can be on another server, if that redirects, or for a submodule.
	Credentials func(ctx context.Context, u, named *url.URL) (string, error)
	// SSH says who we are to ssh servers, and which of them we believe.
	SSH SSH
	// UserAgent is sent to servers; empty means "hako".
	UserAgent string
	// Events receives Debug events about what servers say; nil drops them.
	Events event.Sink
	// RetryDelay is the first pause between two tries, doubled each time; zero means one second.
	RetryDelay time.Duration
	// IdleTimeout ends a transfer in which nothing moves; zero means a minute.
	IdleTimeout time.Duration
}

// Client reaches git servers. It may be used from many goroutines.
type Client struct {
	options Options
	http    *http.Client
	own     *http.Transport
}

// New returns a client.
func New(o Options) *Client {
	if o.Events == nil {
		o.Events = event.Discard{}
	}
	if o.UserAgent == "" {
		o.UserAgent = "hako"
	}
	if o.RetryDelay == 0 {
		o.RetryDelay = defaultDelay
	}
	if o.IdleTimeout == 0 {
		o.IdleTimeout = defaultIdle
	}
	c := &Client{options: o}
	rt := o.Transport
	if rt == nil {
		c.own = web.NewTransport()
		rt = c.own
	}
	rt = &web.Guard{Inner: rt, Idle: o.IdleTimeout, UserAgent: "git/" + strings.ReplaceAll(o.UserAgent, " ", "-")}
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

// redact is what may be said of a URL.
func redact(u *url.URL) string { return web.RedactURL(u, "service") }

// link is a connection to the program git-upload-pack.
type link interface {
	// advertisement reads what the server says first. It is called once, before any request.
	advertisement(ctx context.Context) (io.ReadCloser, error)
	// request sends pkt-lines and returns the answer. The caller closes that before the next request.
	request(ctx context.Context, body []byte) (io.ReadCloser, error)
	close() error
}

// Session is a conversation with a server about one repository. One goroutine uses it.
type Session struct {
	client  *Client
	address string
	remote  string // for people
	link    link
	v2      bool
	caps    map[string]string // capabilities, with what stands after "="
	format  gitpack.Format
	refs    []Ref // of version 0
}

// Ref is a reference of a server.
type Ref struct {
	// Name is "HEAD", "refs/heads/main".
	Name string
	ID   gitpack.ID
	// Peeled is the commit that an annotated tag stands for; zero for other references.
	Peeled gitpack.ID
	// Target is the reference that a symbolic one points to, or empty.
	Target string
}

// Open connects to a repository: an http, https, ssh or git URL, or "user@host:path". named is the repository that somebody
// asked for, which is another one for a submodule. The caller closes the session.
// Errors say what the server answered; they hold no secret. The hint of what to do is [Hint]'s.
func (c *Client) Open(ctx context.Context, remote, named string) (*Session, error) {
	s := &Session{client: c, address: remote, remote: Redact(remote), caps: map[string]string{}}
	var err error
	if s.link, err = c.dial(ctx, remote, named); err != nil {
		return nil, s.fail(ctx, err)
	}
	if err := s.greet(ctx); err != nil {
		return nil, errors.Join(s.fail(ctx, err), s.link.close())
	}
	return s, nil
}

// dial makes the connection that remote asks for.
func (c *Client) dial(ctx context.Context, remote, named string) (link, error) {
	a, err := parseAddress(remote)
	if err != nil {
		return nil, err
	}
	switch a.scheme {
	case "http", "https":
		l := &httpLink{client: c, base: a.url, named: a.url}
		if u, err := url.Parse(named); err == nil {
			l.named = u
		}
		return l, nil
	case "git":
		return c.dialDaemon(ctx, a)
	}
	return c.dialSSH(ctx, a)
}

// address is where a repository lies.
type address struct {
	scheme     string
	url        *url.URL // of http and https
	user       string   // of ssh
	host, port string
	path       string
}

// parseAddress reads a URL or "user@host:path".
func parseAddress(remote string) (*address, error) {
	if !strings.Contains(remote, "://") {
		user, rest, ok := strings.Cut(remote, "@")
		host, path, ok2 := strings.Cut(rest, ":")
		if !ok || !ok2 || host == "" || path == "" {
			return nil, errors.New("it is neither a URL nor user@host:path")
		}
		return checkAddress(&address{scheme: "ssh", user: user, host: host, path: path})
	}
	u, err := url.Parse(remote)
	if err != nil {
		return nil, errors.New("it is not a valid URL") // the reason would repeat it
	}
	a := &address{scheme: strings.ToLower(u.Scheme), host: u.Hostname(), port: u.Port(), path: u.Path}
	switch a.scheme {
	case "http", "https":
		a.url = u
	case "ssh":
		a.user = u.User.Username()
		if strings.HasPrefix(a.path, "/~") { // git-clone(1): ssh://host/~user/repo
			a.path = a.path[1:]
		}
	case "git":
	default:
		return nil, fmt.Errorf("%s is not supported; use https, http, ssh or git", a.scheme)
	}
	return checkAddress(a)
}

// checkAddress refuses what a server or a shell would misunderstand.
func checkAddress(a *address) (*address, error) {
	switch {
	case a.host == "" || strings.HasPrefix(a.host, "-"):
		return nil, errors.New("it has no host")
	case a.path == "" || a.path == "/" || strings.HasPrefix(a.path, "-"):
		return nil, errors.New("it has no path")
	case strings.ContainsAny(a.path+a.host+a.user, "\x00\n\r"):
		return nil, errors.New("it has a character that no address can have")
	}
	return a, nil
}

// Redact is a remote without user, password and query.
func Redact(remote string) string {
	u, err := url.Parse(remote)
	if err != nil || !strings.Contains(remote, "://") {
		if strings.Contains(remote, "://") {
			scheme, _, _ := strings.Cut(remote, "://")
			return scheme + "://…"
		}
		return remote
	}
	if _, secret := u.User.Password(); u.Scheme == "ssh" && !secret {
		return remote
	}
	return web.RedactURL(u)
}

// hostPort adds the port that a scheme has if the address names none.
func (a *address) hostPort(port string) string {
	if a.port != "" {
		port = a.port
	}
	return net.JoinHostPort(a.host, port)
}

// Remote is the repository's address, after redirects. It may hold a user and a password.
func (s *Session) Remote() string {
	if l, ok := s.link.(*httpLink); ok {
		return l.base.String()
	}
	return s.address
}

// Close ends the session.
func (s *Session) Close() error { return s.link.close() }

// Format is the kind of hash that the repository has.
func (s *Session) Format() gitpack.Format { return s.format }

// fail says what was attempted.
func (s *Session) fail(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &Error{Remote: s.remote, Err: web.RedactError(err, redact)}
}

// Error is a failed conversation with a server.
type Error struct {
	// Remote is the repository, without secrets.
	Remote string
	Err    error
}

// Error is "git repository https://…: …".
func (e *Error) Error() string { return "git repository " + e.Remote + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }
