package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"hako/internal/event"
	"hako/internal/web"
)

const maxRedirects = 10

// session is a repository reached with one set of credentials.
type session struct {
	client *http.Client
	// source says where the credentials come from; empty if there are none.
	source string
	// note is why the source gave nothing, if it could not be asked.
	note error
	// denied says that no token was given for the credentials.
	denied bool
}

// errNoCredentials says that a source has nothing for the repository, or that there is no further source.
var errNoCredentials = errors.New("no credentials")

// call is one request that can be sent more than once.
type call struct {
	method string
	url    string
	header http.Header
	// body opens the content, of size bytes, or -1 if that is not known; nil for none.
	body func() (io.ReadCloser, error)
	size int64
	// want are the status codes that count as success.
	want []int
}

// url makes an address in the repository: "manifests", "latest".
func (r *Repository) url(elem ...string) string {
	u := url.URL{
		Scheme: r.repo.Scheme(),
		Host:   r.repo.RegistryStr(),
		Path:   "/v2/" + r.repo.RepositoryStr() + "/" + strings.Join(elem, "/"),
	}
	return u.String()
}

// send sends the call with the credentials that worked last; if they are refused, with the next ones.
// If all are refused, the error is that of the first. The caller closes the body.
func (r *Repository) send(ctx context.Context, c call) (*http.Response, error) {
	var first error
	for i := int(r.current.Load()); ; i++ {
		s, err := r.session(ctx, i)
		if errors.Is(err, errNoCredentials) {
			if s == nil {
				return nil, r.exhausted(first)
			}
			continue
		}
		if err == nil {
			var resp *http.Response
			if resp, err = s.send(ctx, c); err == nil {
				r.current.Store(int32(i))
				return resp, nil
			}
		}
		if err = redactError(err); !denied(err) || ctx.Err() != nil {
			return nil, err
		}
		if first == nil {
			first = err
		}
		r.client.options.Events.Emit(event.Debug{Message: fmt.Sprintf("%s refused the credentials from %q: %s", r.Name(), s.name(), err)})
	}
}

// Connect makes the first contact and asks for a token, so that later requests need not wait for that. They say what goes wrong.
func (r *Repository) Connect(ctx context.Context) {
	for i := int(r.current.Load()); ; i++ {
		if s, err := r.session(ctx, i); s == nil || !errors.Is(err, errNoCredentials) {
			return
		}
	}
}

func (s *session) name() string {
	if s == nil {
		return ""
	}
	if s.source == "" {
		return "nowhere"
	}
	return s.source
}

// exhausted is the error when no source is left: the first refusal, and what kept sources from answering.
func (r *Repository) exhausted(first error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first == nil {
		first = errNoCredentials // the credentials that worked before are gone
	}
	for _, s := range r.sessions {
		if s != nil && s.note != nil {
			first = fmt.Errorf("%w; no credentials from %s: %w", first, s.source, s.note)
		}
	}
	return first
}

// used lists the sources that gave credentials.
func (r *Repository) used() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for _, s := range r.sessions {
		if s != nil && s.note == nil && s.source != "" && (s.client != nil || s.denied) {
			out = append(out, s.source)
		}
	}
	return out
}

// session returns the session for the i-th source. The error Is errNoCredentials if the source has none;
// then the session is nil if there is no i-th source. On other errors the session still names its source.
func (r *Repository) session(ctx context.Context, i int) (*session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sources == nil {
		r.sources = append(r.client.keychain.sources(r.repo.Name()), source{})
		r.sessions = make([]*session, len(r.sources))
	}
	if i >= len(r.sources) {
		return nil, errNoCredentials
	}
	if s := r.sessions[i]; s != nil && (s.client != nil || s.note != nil) {
		return s, s.absent()
	}
	s, err := r.openLocked(ctx, i)
	if ctx.Err() == nil {
		r.sessions[i] = s
	}
	return s, err
}

// absent is errNoCredentials for a session that has none.
func (s *session) absent() error {
	if s.client == nil {
		return errNoCredentials
	}
	return nil
}

// openLocked asks the i-th source, and the registry for a token. The last source is no credentials at all.
// The caller holds r.mu.
func (r *Repository) openLocked(ctx context.Context, i int) (*session, error) {
	src := r.sources[i]
	s := &session{source: src.name}
	auth := authn.Anonymous
	switch {
	case src.load != nil:
		config, err := src.load(ctx)
		if ctx.Err() != nil {
			return s, context.Cause(ctx)
		}
		if err != nil || config == nil {
			s.note = err
			return s, errNoCredentials
		}
		auth = authn.FromConfig(*config)
	case r.access != Pull && r.refusedLocked():
		return nil, errNoCredentials // nobody may push without credentials if he may not with some
	}
	client, err := r.authenticate(ctx, auth, r.repo.Scope(r.scope()))
	if err != nil {
		s.denied = denied(redactError(err))
		return s, err
	}
	s.client = client
	return s, nil
}

// refusedLocked says whether credentials were found and, since we are here, refused.
func (r *Repository) refusedLocked() bool {
	for _, s := range r.sessions {
		if s != nil && s.source != "" && s.note == nil && (s.client != nil || s.denied) {
			return true
		}
	}
	return false
}

func (r *Repository) scope() string {
	switch r.access {
	case Push:
		return transport.PushScope
	case Delete:
		return transport.DeleteScope
	}
	return transport.PullScope
}

// authenticate makes a client whose requests carry what the registry asks for.
func (r *Repository) authenticate(ctx context.Context, auth authn.Authenticator, scopes ...string) (*http.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, smallTimeout)
	defer cancel()
	below := r.client.stacks[r.stack]
	if r.trusted() {
		below = privateRealm{below}
	}
	rt, err := transport.NewWithContext(ctx, r.repo.Registry, auth, below, scopes)
	if err != nil {
		return nil, cleanHandshake(err)
	}
	return &http.Client{Transport: rt, CheckRedirect: r.checkRedirect}, nil
}

// cleanHandshake keeps what a token server said out of the error: it may hold a token.
func cleanHandshake(err error) error {
	if errors.As(err, new(*transport.Error)) || errors.As(err, new(*url.Error)) {
		return err
	}
	return web.OneLine(err, redactURL)
}

// checkRedirect ends loops, keeps us on HTTPS and away from private addresses that a public registry points to.
func (r *Repository) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return refuse("the registry redirects more than %d times", maxRedirects)
	}
	return r.checkLocation(via[0].URL, req.URL)
}

// checkLocation refuses an address that the registry sends us to if it must not: see checkRedirect.
func (r *Repository) checkLocation(from, to *url.URL) error {
	if to.Scheme != "https" && to.Scheme != "http" {
		return refuse("the registry redirects to a %q address", to.Scheme)
	}
	if to.Host == from.Host {
		return nil // the scheme of the registry itself is corrected below us
	}
	if from.Scheme == "https" && to.Scheme == "http" && !r.trusted() {
		return refuse("the registry redirects from https to http at %s", to.Host)
	}
	if isPrivateHost(to.Host) && !r.trusted() {
		return refuse("the registry redirects to the private address %s", to.Host)
	}
	return nil
}

// send sends the call once (retries for passing reasons happen below).
func (s *session) send(ctx context.Context, c call) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, c.method, c.url, nil)
	if err != nil {
		return nil, err
	}
	for key, values := range c.header {
		req.Header[key] = values
	}
	if c.body != nil && c.size != 0 {
		// Body is never read: retrier opens the content for each try.
		req.Body = io.NopCloser(strings.NewReader(""))
		req.GetBody = c.body
		req.ContentLength = c.size
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err
	}
	if err := checkStatus(resp, c.want...); err != nil {
		return nil, err
	}
	return resp, nil
}
