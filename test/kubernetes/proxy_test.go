package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// proxy stands between a client and the API server. It counts, and does what networks and busy API servers do: it loses the answer
// of every 10th creation of a Job after it was done, refuses every 15th with 429, and breaks all connections when it is told to.
type proxy struct {
	// kubeconfig leads through it, as the administrator.
	kubeconfig string

	mu sync.Mutex // guards what follows
	// requests are counted by method and resource. streams are the watches and logs that are open, most the most of them at a time.
	requests      map[string]int
	created       int
	streams, most int
	lost, refused int
	down          bool
	connections   map[net.Conn]bool
}

// errLost is an answer that is to be lost.
var errLost = errors.New("lost")

// newProxy starts one that ends with the test.
func newProxy(t *testing.T, f *fixture) *proxy {
	t.Helper()
	config := must[*rest.Config](t)(clientcmd.BuildConfigFromFlags("", f.kubeconfig))
	to := must[*url.URL](t)(url.Parse(config.Host))
	p := &proxy{requests: map[string]int{}, connections: map[net.Conn]bool{}, kubeconfig: filepath.Join(f.newDir(t), "kubeconfig")}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) }, FlushInterval: -1,
		Transport: must[http.RoundTripper](t)(rest.TransportFor(config)),
		ModifyResponse: func(r *http.Response) error {
			if r.Request.Context().Value(lostKey{}) != nil && r.StatusCode == http.StatusCreated {
				return errLost
			}
			return nil
		},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: p.handler(forward), ConnState: p.track, ReadHeaderTimeout: time.Minute}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(l) // it ends with Close
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'http://%s'}}]\ncontexts: [{name: c, context: {cluster: c}}]\ncurrent-context: c\n", l.Addr())
	if err := os.WriteFile(p.kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// lostKey marks requests whose answers are to be lost.
type lostKey struct{}

func (p *proxy) handler(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stream := r.URL.Query().Get("watch") != "" || strings.HasSuffix(r.URL.Path, "/log")
		lose, refuse := p.note(r, stream)
		if stream {
			defer p.streamEnds()
		}
		switch {
		case refuse:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		case lose:
			r = r.WithContext(context.WithValue(r.Context(), lostKey{}, true))
		}
		forward.ServeHTTP(w, r)
	})
}

// note counts a request, and says what is to become of it.
func (p *proxy) note(r *http.Request, stream bool) (lose, refuse bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		panic(http.ErrAbortHandler)
	}
	_, path, _ := strings.Cut(r.URL.Path, "/namespaces/")
	parts := strings.Split(path, "/")
	what := r.Method
	switch {
	case strings.HasSuffix(r.URL.Path, "/log"):
		what = "LOG"
	case stream:
		what = "WATCH"
	}
	if len(parts) > 1 {
		what += " " + parts[1]
	}
	p.requests[what]++
	if stream {
		p.streams++
		p.most = max(p.most, p.streams)
	}
	if what != "POST jobs" {
		return false, false
	}
	p.created++
	lose, refuse = p.created%10 == 3, p.created%15 == 7
	if lose {
		p.lost++
	} else if refuse {
		p.refused++
	}
	return lose, refuse && !lose
}

func (p *proxy) streamEnds() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.streams--
}

func (p *proxy) track(c net.Conn, s http.ConnState) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == http.StateNew {
		p.connections[c] = true
	} else if s == http.StateClosed || s == http.StateHijacked {
		delete(p.connections, c)
	}
}

// cut breaks all connections, and for a while all that are made.
func (p *proxy) cut(while time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	for c := range p.connections {
		_ = c.Close() // that is the point
	}
	time.AfterFunc(while, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.down = false
	})
}

// jobs is how many creations were asked for so far.
func (p *proxy) jobs() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.created
}

// total is the number of requests so far.
func (p *proxy) total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, count := range p.requests {
		n += count
	}
	return n
}
