package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// counts are what went to a registry and what came from it.
type counts struct {
	requests       int64
	sent, received int64 // bytes of content
}

func (c counts) since(before counts) counts {
	return counts{c.requests - before.requests, c.sent - before.sent, c.received - before.received}
}

func (c counts) String() string {
	return fmt.Sprintf("%d requests, %d bytes sent, %d received", c.requests, c.sent, c.received)
}

// counter stands before a registry and counts.
type counter struct {
	requests, sent, received atomic.Int64
}

func (c *counter) counts() counts {
	return counts{c.requests.Load(), c.sent.Load(), c.received.Load()}
}

// start listens before the registry at addr, and returns where, and how to stop.
func (c *counter) start(addr string) (string, func() error, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listen before the registry: %w", err)
	}
	target := &url.URL{Scheme: "http", Host: addr}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the registry says where to go on by this name
			c.requests.Add(1)
			if r.Out.Body != nil && r.Out.Body != http.NoBody {
				r.Out.Body = &countedBody{r.Out.Body, &c.sent}
			}
		},
		ModifyResponse: func(resp *http.Response) error {
			resp.Body = &countedBody{resp.Body, &c.received}
			return nil
		},
		FlushInterval: -1,
	}
	s := &http.Server{Handler: proxy} //nolint:gosec // for clients of this machine
	go func() { _ = s.Serve(l) }()    // ends with Close
	return l.Addr().String(), s.Close, nil
}

// countedBody adds what is read of it to n.
type countedBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}
