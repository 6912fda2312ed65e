package registry

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"

	"hako/internal/diag"
	"hako/internal/web"
)

const maxHeaderBytes = 1 << 20

// newStacks builds the round trippers below authentication: TLS choice, idle timeouts, retries.
// It also returns the transports that they own.
func newStacks(o *Options) (map[stackKey]http.RoundTripper, []*http.Transport, error) {
	verified, unverified, owned, err := newTransports(o)
	if err != nil {
		return nil, nil, err
	}
	stacks := map[stackKey]http.RoundTripper{}
	for access, skipAll := range map[Access]bool{Pull: o.SkipTLSVerify || o.SkipTLSVerifyPull, Push: o.SkipTLSVerify, Delete: o.SkipTLSVerify} {
		for _, hurried := range []bool{false, true} {
			guard := &web.Guard{Idle: o.IdleTimeout, UserAgent: o.UserAgent}
			retrier := &web.Retrier{Inner: guard, Delay: o.RetryDelay, Events: o.Events, Redact: redactURL}
			if hurried {
				guard.Idle, guard.Commit = min(o.Patience, o.IdleTimeout), hurriedCommit*o.Patience
				retrier.Tries, retrier.MaxPause = hurriedTries, o.Patience
			}
			guard.Inner = firstContact{&tlsChoice{verified: verified, unverified: unverified, all: skipAll, hosts: o.SkipTLSVerifyRegistries}}
			stacks[stackKey{access, hurried}] = retrier
		}
	}
	return stacks, owned, nil
}

// Limits for repositories that are not waited for, see [Client.Hurry].
const (
	hurriedTries  = 2
	hurriedCommit = 3 // times Options.Patience
)

// stackKey says what a stack of round trippers is for.
type stackKey struct {
	access  Access
	hurried bool
}

func newTransports(o *Options) (verified, unverified http.RoundTripper, owned []*http.Transport, err error) {
	base, ok := o.Transport.(*http.Transport)
	switch {
	case o.Transport == nil:
		base = web.NewTransport()
	case !ok && o.asksForTLS():
		return nil, nil, nil, &diag.Error{What: "set up TLS: the transport given does not allow it"}
	case !ok:
		return o.Transport, o.Transport, nil, nil
	default:
		base = base.Clone()
	}
	base.DisableCompression = true // a blob marked "Content-Encoding: gzip" must arrive as it is
	base.MaxResponseHeaderBytes = maxHeaderBytes
	if base.TLSClientConfig == nil {
		base.TLSClientConfig = &tls.Config{}
	}
	if err := trust(base.TLSClientConfig, o.Certificates); err != nil {
		return nil, nil, nil, err
	}
	skip := base.Clone()
	skip.TLSClientConfig.InsecureSkipVerify = true
	owned = []*http.Transport{base, skip}
	verified, made, err := withClientCertificates(base, o.ClientCertificates)
	if err != nil {
		return nil, nil, nil, err
	}
	owned = append(owned, made...)
	unverified, made, err = withClientCertificates(skip, o.ClientCertificates)
	return verified, unverified, append(owned, made...), err
}

// asksForTLS says whether an option needs a say in how TLS is spoken.
func (o *Options) asksForTLS() bool {
	return o.SkipTLSVerify || o.SkipTLSVerifyPull || len(o.SkipTLSVerifyRegistries)+len(o.Certificates)+len(o.ClientCertificates) > 0
}

// tlsChoice sends a request with or without certificate checks.
type tlsChoice struct {
	verified, unverified http.RoundTripper
	all                  bool
	hosts                []string
}

func (t *tlsChoice) RoundTrip(req *http.Request) (*http.Response, error) {
	if t.all || listed(t.hosts, req.URL.Host) {
		return t.unverified.RoundTrip(req)
	}
	return t.verified.RoundTrip(req)
}

// firstContact bounds what is read of the answer to a registry's first request: go-containerregistry reads it to the end.
type firstContact struct{ inner http.RoundTripper }

func (f firstContact) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := f.inner.RoundTrip(req)
	if err == nil && strings.HasSuffix(req.URL.Path, "/v2/") {
		resp.Body = limitedBody{io.LimitReader(resp.Body, errorBodyLimit), resp.Body}
	}
	return resp, err
}

type limitedBody struct {
	io.Reader
	io.Closer
}
