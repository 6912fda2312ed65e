// Package registry reaches container registries: it finds credentials, speaks TLS or plain HTTP as told,
// retries what is worth retrying, resumes what was cut, and believes no byte that it has not hashed.
//
// Names and authentication are go-containerregistry's; the requests are our own, because a build needs
// what the library does not do: a second try with other credentials, Range resumption, idle timeouts,
// limits on what a hostile registry may send, and errors without secrets.
package registry

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"hako/internal/event"
)

const (
	defaultIdleTimeout = 60 * time.Second
	defaultRetryDelay  = time.Second
	defaultPatience    = 10 * time.Second
	defaultTransfers   = 6
	manifestLimit      = 4 << 20 // 4 MiB: what OCI distribution-spec asks registries to accept
	configLimit        = 16 << 20
	errorBodyLimit     = 64 << 10
	smallTimeout       = 5 * time.Minute // for a whole manifest or config, retries included
)

// Options says how registries are reached. The zero value works: TLS, no credentials.
type Options struct {
	// Insecure allows plain HTTP for pushes, InsecurePull for pulls, InsecureRegistries ("host[:port]") for both.
	// HTTPS is tried first.
	Insecure, InsecurePull bool
	InsecureRegistries     []string
	// SkipTLSVerify leaves out certificate checks everywhere, as kaniko's flag does; SkipTLSVerifyPull for pulls;
	// SkipTLSVerifyRegistries for single hosts.
	SkipTLSVerify, SkipTLSVerifyPull bool
	SkipTLSVerifyRegistries          []string
	// Certificates are PEM files of authorities to trust beside those of the system.
	Certificates []string
	// ClientCertificates are shown to the hosts that they belong to ("host[:port]").
	ClientCertificates map[string]KeyPair
	// DockerConfigDirs are searched for config.json; credentials of an earlier directory are tried first.
	DockerConfigDirs []string
	// AuthConfig is the text of a config.json, tried before all files (DOCKER_AUTH_CONFIG); AuthFiles are files of the same
	// form, tried after docker's, if they exist. Helpers are asked last.
	AuthConfig string
	AuthFiles  []string
	Helpers    []Helper
	// Programs stand in for docker-credential-NAME programs that a configuration file names and that are not there.
	Programs map[string]Helper
	// UserAgent is sent with each request; empty means "hako".
	UserAgent string
	// Transport reaches registries; nil means a new one with the proxies of the environment.
	// A TLS option can only be kept if it is an *http.Transport.
	Transport http.RoundTripper
	// Events receives Debug events about retries and credentials; nil drops them.
	Events event.Sink
	// RetryDelay is the first pause between two tries, doubled each time; zero means one second.
	RetryDelay time.Duration
	// IdleTimeout ends a transfer in which nothing moves; zero means a minute.
	IdleTimeout time.Duration
	// Patience is what IdleTimeout is for repositories that are not waited for, see Hurry; zero means ten seconds.
	Patience time.Duration
	// Transfers is how many blobs are moved at once from or to one host; zero means six.
	Transfers int
}

// Access is what a repository is opened for.
type Access uint8

// The kinds of access. They differ in token scope and in which "insecure" options apply; Delete is Push and more.
const (
	Pull Access = iota + 1
	Push
	Delete
)

// Client reaches registries. It may be used from many goroutines.
type Client struct {
	options  Options
	keychain *keychain
	stacks   map[stackKey]http.RoundTripper // immutable
	idle     []*http.Transport              // immutable; what Close closes

	mu    sync.Mutex // guards what follows
	hurry map[string]bool
	repos map[repositoryKey]*Repository
	slots map[slotKey]chan struct{}
}

type repositoryKey struct {
	name   string
	access Access
}

type slotKey struct {
	host   string
	access Access
}

// New returns a client. It reads the docker configuration files, and fails if one of them is damaged.
func New(o Options) (*Client, error) {
	if o.UserAgent == "" {
		o.UserAgent = "hako"
	}
	if o.Events == nil {
		o.Events = event.Discard{}
	}
	o.RetryDelay = positive(o.RetryDelay, defaultRetryDelay)
	o.IdleTimeout = positive(o.IdleTimeout, defaultIdleTimeout)
	o.Patience = positive(o.Patience, defaultPatience)
	o.Transfers = positive(o.Transfers, defaultTransfers)
	keys, err := newKeychain(&o)
	if err != nil {
		return nil, err
	}
	c := &Client{
		options:  o,
		keychain: keys,
		repos:    map[repositoryKey]*Repository{},
		slots:    map[slotKey]chan struct{}{},
		hurry:    map[string]bool{},
	}
	c.stacks, c.idle, err = newStacks(&o)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func positive[T ~int | ~int64](v, otherwise T) T {
	if v > 0 {
		return v
	}
	return otherwise
}

// Close drops idle connections. Transfers under way go on.
func (c *Client) Close() {
	for _, t := range c.idle {
		t.CloseIdleConnections()
	}
}

// Hurry makes repo one that is not waited for: what it is asked fails after Options.Patience without an answer, and is hardly
// tried again. It has to be called before the repository is first used.
func (c *Client) Hurry(repo name.Repository) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hurry[repo.Name()] = true
}

// Repository returns the repository for that access. The same Repository is returned each time,
// so that tokens are asked for once.
func (c *Client) Repository(repo name.Repository, access Access) *Repository {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := repositoryKey{repo.Name(), access}
	if r, ok := c.repos[key]; ok {
		return r
	}
	r := &Repository{
		client: c,
		repo:   c.withScheme(repo, access),
		access: access,
		stack:  stackKey{access, c.hurry[key.name]},
		slots:  c.slotsLocked(slotKey{repo.RegistryStr(), access}),
		mounts: map[string]*session{},
	}
	c.repos[key] = r
	return r
}

// slotsLocked returns the semaphore for transfers with a host. The caller holds c.mu.
func (c *Client) slotsLocked(key slotKey) chan struct{} {
	s, ok := c.slots[key]
	if !ok {
		s = make(chan struct{}, c.options.Transfers)
		c.slots[key] = s
	}
	return s
}

// insecure says whether plain HTTP was allowed for the host by an option.
func (c *Client) insecure(host string, access Access) bool {
	all := c.options.Insecure
	if access == Pull {
		all = c.options.InsecurePull
	}
	return all || listed(c.options.InsecureRegistries, host)
}

// withScheme marks the repository's registry as insecure if an option says so.
func (c *Client) withScheme(repo name.Repository, access Access) name.Repository {
	if !c.insecure(repo.RegistryStr(), access) {
		return repo
	}
	insecure, err := name.NewRepository(repo.Name(), name.WeakValidation, name.Insecure)
	if err != nil {
		return repo // cannot be: the name has been parsed before
	}
	return insecure
}

// listed says whether the list names the host, by any of Docker Hub's names if it is that.
func listed(hosts []string, host string) bool {
	for _, h := range hosts {
		if canonicalHost(h) == canonicalHost(host) {
			return true
		}
	}
	return false
}

// Repository is one repository, opened for pulling or for pushing. It may be used from many goroutines.
type Repository struct {
	client *Client
	repo   name.Repository
	access Access
	stack  stackKey
	slots  chan struct{}
	// current is the index of the credentials that worked last.
	current atomic.Int32
	// referrers is held while the list of a subject's referrers is changed.
	referrers sync.Mutex

	mu       sync.Mutex // guards what follows
	sources  []source   // nil until first needed
	sessions []*session // by index of sources
	mounts   map[string]*session
}

// Name is the full name, "docker.io/library/debian".
func (r *Repository) Name() string { return familiar(r.repo.Name()) }

// Host is the registry's host and port as go-containerregistry names it; Docker Hub is "index.docker.io".
func (r *Repository) Host() string { return r.repo.RegistryStr() }

// trusted says whether the registry may send us on to private addresses: it is one itself,
// or the user allowed plain HTTP for it.
func (r *Repository) trusted() bool {
	return r.client.insecure(r.Host(), r.access) || isPrivateHost(r.Host())
}

// isPrivateHost says whether the host is an IP address that is not public, or this machine by name.
func isPrivateHost(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	ip = ip.Unmap()
	return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsUnspecified()
}

// errBodyTooLarge says that a registry sent more than a manifest or configuration may have.
var errBodyTooLarge = errors.New("the registry's answer is too large")
