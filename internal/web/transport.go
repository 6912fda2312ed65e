// Package web is what all HTTP of the builder has in common: connections, timeouts, what is worth a second try,
// and what may be said of a URL. It knows nothing of what is transferred.
package web

import (
	"net"
	"net/http"
	"time"
)

const (
	dialTimeout      = 30 * time.Second
	handshakeTimeout = 30 * time.Second
)

// NewTransport returns a transport with the proxies of the environment. The caller may change it before its first use.
func NewTransport() *http.Transport {
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout, KeepAlive: dialTimeout}).DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   handshakeTimeout,
		ExpectContinueTimeout: time.Second,
	}
}
