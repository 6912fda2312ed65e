package registry

import (
	"encoding/hex"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// aliasDomain ends the names that stand for private addresses of token servers between us and go-containerregistry
// (RFC 2606: nobody has such a name).
const aliasDomain = ".token-server.invalid"

// privateRealm lets a registry name a token server at a private address, as one that is private itself may: GitLab's on
// another port of the same machine. go-containerregistry refuses that of every registry, so it gets to see a name instead.
type privateRealm struct{ inner http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (p privateRealm) RoundTrip(req *http.Request) (*http.Response, error) {
	if real := unalias(req.URL); real != req.URL {
		req = req.Clone(req.Context())
		req.URL, req.Host = real, real.Host
	}
	resp, err := p.inner.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	challenges := resp.Header.Values("WWW-Authenticate")
	for i, c := range challenges {
		challenges[i] = aliasRealm(c)
	}
	return resp, nil
}

// aliasRealm puts a name in place of a private address in a challenge: Bearer realm="https://10.0.0.5/jwt/auth",service="…".
func aliasRealm(challenge string) string {
	const key = `realm="`
	start := strings.Index(challenge, key)
	if start < 0 {
		return challenge
	}
	start += len(key)
	length := strings.IndexByte(challenge[start:], '"')
	if length < 0 {
		return challenge
	}
	u, err := url.Parse(challenge[start : start+length])
	if err != nil {
		return challenge
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if err != nil || ip.Zone() != "" || !isPrivateHost(u.Host) {
		return challenge
	}
	u.Host = joinPort(hex.EncodeToString(ip.AsSlice())+aliasDomain, u.Port())
	return challenge[:start] + u.String() + challenge[start+length:]
}

// unalias is u, or a copy with the address that its host's name stands for.
func unalias(u *url.URL) *url.URL {
	digits, ok := strings.CutSuffix(u.Hostname(), aliasDomain)
	if !ok {
		return u
	}
	data, err := hex.DecodeString(digits)
	if err != nil {
		return u
	}
	ip, ok := netip.AddrFromSlice(data)
	if !ok {
		return u
	}
	real := *u
	real.Host = joinPort(ip.String(), u.Port())
	return &real
}

// joinPort is host:port, or the host if there is no port, in brackets where it needs them.
func joinPort(host, port string) string {
	switch {
	case port != "":
		return net.JoinHostPort(host, port)
	case strings.Contains(host, ":"):
		return "[" + host + "]"
	}
	return host
}
