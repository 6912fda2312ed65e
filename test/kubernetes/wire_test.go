package kubernetes

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// wire is what lies between a program and the API server: it can be cut, go silent, and lose answers.
type wire struct {
	// kubeconfig leads over it.
	kubeconfig string

	mu     sync.Mutex // guards what follows
	conns  map[net.Conn]bool
	down   bool
	thawed chan struct{} // closed unless the wire is silent
	// lose are parts of the paths whose next creation gets half an answer.
	lose map[string]bool
	lost int
}

// newWire puts one before the API server of s.
func newWire(t *testing.T, s *submitter) *wire {
	t.Helper()
	w := &wire{conns: map[net.Conn]bool{}, lose: map[string]bool{}, thawed: make(chan struct{})}
	close(w.thawed)
	var config map[string]any
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(s.kubeconfig)), &config); err != nil {
		t.Fatal(err)
	}
	cluster := config["clusters"].([]any)[0].(map[string]any)["cluster"].(map[string]any)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(must[[]byte](t)(base64.StdEncoding.DecodeString(cluster["certificate-authority-data"].(string))))
	to := must[*url.URL](t)(url.Parse(cluster["server"].(string)))
	quiet := log.New(io.Discard, "", 0)
	server := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to) },
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true},
		FlushInterval: -1, ErrorLog: quiet, ModifyResponse: w.answer,
	})
	server.Config.ErrorLog, server.EnableHTTP2 = quiet, true
	server.Listener = wireListener{server.Listener, w}
	server.StartTLS()
	t.Cleanup(func() {
		w.cut()
		server.Close()
	})
	cluster["server"] = server.URL
	cluster["certificate-authority-data"] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	w.kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(w.kubeconfig, must[[]byte](t)(json.Marshal(config)), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

// answer breaks off answers that are to be lost.
func (w *wire) answer(r *http.Response) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for part := range w.lose {
		if r.Request.Method == http.MethodPost && strings.Contains(r.Request.URL.Path, part) {
			delete(w.lose, part)
			w.lost++
			text, err := io.ReadAll(r.Body)
			r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(text[:len(text)/2]), iotest.ErrReader(io.ErrUnexpectedEOF)))
			return err
		}
	}
	return nil
}

// cut breaks all connections, and refuses new ones.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = true
	for c := range w.conns {
		_ = c.Close() // it is broken on purpose
	}
	clear(w.conns)
}

// mend lets connections through again.
func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = false
}

// silence keeps all bytes back, and returns what lets them through.
func (w *wire) silence() (thaw func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.thawed = make(chan struct{})
	return sync.OnceFunc(func() { close(w.thawed) })
}

func (w *wire) await() {
	w.mu.Lock()
	thawed := w.thawed
	w.mu.Unlock()
	<-thawed
}

type wireListener struct {
	net.Listener
	w *wire
}

// Accept returns the next connection that is let through.
func (l wireListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		l.w.mu.Lock()
		if !l.w.down {
			l.w.conns[c] = true
			l.w.mu.Unlock()
			return wireConn{c, l.w}, nil
		}
		l.w.mu.Unlock()
		_ = c.Close() // refused
	}
}

type wireConn struct {
	net.Conn
	w *wire
}

// Read reads what the wire lets through.
func (c wireConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.w.await()
	return n, err
}

// Write writes what the wire lets through.
func (c wireConn) Write(p []byte) (int, error) {
	c.w.await()
	return c.Conn.Write(p)
}

// door is a server for steps to wait at.
type door struct {
	// URL is its address for pods.
	URL string

	open    chan struct{}
	arrived chan struct{}
}

// newDoor makes one that is closed, and opens it at the end of the test.
func newDoor(t *testing.T, f *fixture) *door {
	t.Helper()
	g := &door{open: make(chan struct{}), arrived: make(chan struct{}, 100)}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.arrived <- struct{}{}
		select {
		case <-g.open:
			_, _ = io.WriteString(w, "open\n") // the client's loss
		case <-r.Context().Done():
		}
	}))
	server.Listener = must[net.Listener](t)(net.Listen("tcp", net.JoinHostPort(f.bridge, "0")))
	server.Start()
	g.URL = server.URL
	t.Cleanup(func() {
		g.pass()
		server.Close()
	})
	return g
}

// pass opens the door for all.
func (g *door) pass() {
	select {
	case <-g.open:
	default:
		close(g.open)
	}
}

// await waits for a step to arrive.
func (g *door) await(t *testing.T, p *process) {
	t.Helper()
	select {
	case <-g.arrived:
	case <-p.done:
		t.Fatalf("ended before its step\n%s", p.output())
	case <-time.After(processPatience):
		t.Fatalf("no step has begun\n%s", p.output())
	}
}
