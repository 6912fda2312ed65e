package download_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
	"hako/internal/download"
	"hako/internal/event"
	"hako/internal/tree"
	"hako/internal/web"
)

const lastModified = "Tue, 03 Feb 2004 05:06:07 GMT"

// content is the same for every test: too large for a few buffers.
func content() []byte {
	b := make([]byte, 3<<20)
	r := rand.NewChaCha8([32]byte{1})
	if _, err := r.Read(b); err != nil {
		panic(err) // it never fails
	}
	return b
}

// log collects events.
type log struct {
	mu  sync.Mutex
	all []event.Event
}

func (l *log) Emit(e event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, e)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("%+v", l.all)
}

// world is a client of a test and what it left.
type world struct {
	client *download.Client
	log    *log
	dir    string
}

func newWorld(t *testing.T, change func(*download.Options)) *world {
	t.Helper()
	w := &world{log: &log{}, dir: t.TempDir()}
	o := download.Options{
		File:   func(name string) (*os.File, error) { return os.CreateTemp(w.dir, name) },
		Events: w.log, RetryDelay: time.Microsecond,
	}
	if change != nil {
		change(&o)
	}
	w.client = download.New(o)
	t.Cleanup(w.client.Close)
	return w
}

// fetch gets a file that is there.
func (w *world) fetch(t *testing.T, r download.Request) *download.File {
	t.Helper()
	f, err := w.client.Fetch(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func read(t *testing.T, f *download.File) []byte {
	t.Helper()
	r := f.Reader()
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return b
}

func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// whole serves the content with all that net/http knows: ranges, validators.
func whole(w http.ResponseWriter, r *http.Request) {
	at, _ := http.ParseTime(lastModified)
	http.ServeContent(w, r, "", at, bytes.NewReader(content()))
}

func TestFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	f := w.fetch(t, download.Request{URL: serve(t, whole) + "/file", Checksum: digest.FromBytes(content())})
	if !bytes.Equal(read(t, f), content()) || f.Size != int64(len(content())) || f.Digest != digest.FromBytes(content()) {
		t.Error("other content")
	}
	at, _ := http.ParseTime(lastModified)
	if !f.ModTime.Equal(at) {
		t.Error(f.ModTime)
	}
	if !strings.Contains(w.log.String(), "Finished:true") {
		t.Error("no progress:", w.log)
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	now := time.Unix(1e9, 0)
	f := w.fetch(t, download.Request{URL: serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") })})
	tr := f.Tree("a b", now)
	var got []tree.Entry
	for _, p := range []string{".", "a b"} {
		e, err := tr.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e)
	}
	want := []tree.Entry{
		{Path: ".", Kind: tree.Dir, Mode: 0o755, ModTime: now},
		{Path: "a b", Kind: tree.Regular, Mode: 0o600, Size: 1, ModTime: time.Unix(0, 0)},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	names, err := tr.ReadDir(".")
	if d := cmp.Diff([]string{"a b"}, names); d != "" || err != nil {
		t.Error(d, err)
	}
	for _, p := range []string{"b", "a b/c", ""} {
		if _, err := tr.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", p, err)
		}
		if _, err := tr.Open(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// cutter hangs up after n bytes of each answer.
func cutter(n int64, h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		h(&cutWriter{ResponseWriter: w, left: n}, r)
	}
}

type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (c *cutWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.ResponseWriter.Write(p)
	c.left -= int64(n)
	if c.left == 0 {
		c.ResponseWriter.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestCutConnectionsAreResumed(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]http.HandlerFunc{
		"Last-Modified": whole,
		"ETag": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"one"`)
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			w := newWorld(t, nil)
			f := w.fetch(t, download.Request{URL: serve(t, cutter(1<<20, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				h(w, r)
			}))})
			if !bytes.Equal(read(t, f), content()) || f.Digest != digest.FromBytes(content()) {
				t.Error("other content")
			}
			if n := requests.Load(); n != 3 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestTransferBeginsAnewWhereItCannotBeResumed(t *testing.T) {
	t.Parallel()
	cut := func(w http.ResponseWriter, r *http.Request) { cutter(1<<20, whole)(w, r) }
	for name, second := range map[string]http.HandlerFunc{
		"no ranges": func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			whole(w, r)
		},
		"another range": func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", "bytes 7-9/10")
				w.WriteHeader(http.StatusPartialContent)
				return
			}
			whole(w, r)
		},
		"another size": func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.Header().Set("Content-Range", "bytes 1048576-1048577/1048578")
				w.WriteHeader(http.StatusPartialContent)
				return
			}
			whole(w, r)
		},
		"range not satisfiable": func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return
			}
			whole(w, r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			w := newWorld(t, nil)
			f := w.fetch(t, download.Request{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) == 1 {
					cut(w, r)
					return
				}
				second(w, r)
			})})
			if !bytes.Equal(read(t, f), content()) {
				t.Error("other content")
			}
		})
	}
}

// TestAnotherFileIsNotAppended serves another file after the cut: If-Range must keep the two apart.
func TestAnotherFileIsNotAppended(t *testing.T) {
	t.Parallel()
	var requests atomic.Int64
	other := bytes.Repeat([]byte("o"), len(content()))
	w := newWorld(t, nil)
	f := w.fetch(t, download.Request{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		body := other
		if requests.Add(1) == 1 {
			body = content()
			w = &cutWriter{ResponseWriter: w, left: 1 << 20}
		}
		w.Header().Set("ETag", `"`+digest.FromBytes(body).Encoded()+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
	})})
	if !bytes.Equal(read(t, f), other) {
		t.Error("the two files are mixed")
	}
}

func TestGzipEncodingIsUndoneAndResumed(t *testing.T) {
	t.Parallel()
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	if _, err := zw.Write(content()); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	var requests atomic.Int64
	w := newWorld(t, nil)
	f := w.fetch(t, download.Request{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
		if requests.Add(1) == 1 {
			w = &cutWriter{ResponseWriter: w, left: 1 << 20}
		}
		if r.Header.Get("Accept-Encoding") != "gzip" {
			t.Error("asks for", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("ETag", `"z"`)
		http.ServeContent(w, r, "x", time.Time{}, bytes.NewReader(z.Bytes()))
	}), Checksum: digest.FromBytes(content())})
	if !bytes.Equal(read(t, f), content()) || requests.Load() < 2 {
		t.Error("other content, or nothing was resumed")
	}
}

func TestBusyServerIsAskedAgain(t *testing.T) {
	t.Parallel()
	for _, status := range []int{429, 500, 502, 503, 504} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			w := newWorld(t, nil)
			f := w.fetch(t, download.Request{URL: serve(t, func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) < 3 {
					w.Header().Set("Retry-After", "0")
					w.WriteHeader(status)
					return
				}
				whole(w, r)
			})})
			if f.Size != int64(len(content())) {
				t.Error(f.Size)
			}
		})
	}
}

func TestRedirectsAreFollowed(t *testing.T) {
	t.Parallel()
	var seen atomic.Value
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r.Header.Get("Authorization"))
		whole(w, r)
	})
	// Another name of the same machine: net/http must not send the password there.
	other = strings.Replace(other, "127.0.0.1", "localhost", 1)
	w := newWorld(t, nil)
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if user, pw, ok := r.BasicAuth(); !ok || user != "u" || pw != "p" {
			w.WriteHeader(401)
			return
		}
		http.Redirect(w, r, other+"/x", http.StatusFound)
	})
	f := w.fetch(t, download.Request{URL: strings.Replace(u, "http://", "http://u:p@", 1)})
	if f.Size != int64(len(content())) || seen.Load() != "" {
		t.Errorf("%d bytes; the other host saw %q", f.Size, seen.Load())
	}
}

func TestCredentialsOfTheCaller(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *download.Options) {
		o.Credentials = func(_ context.Context, u *url.URL) (string, error) {
			return web.FindLogin("machine "+u.Hostname()+" login n password rc", u.Hostname()).Authorization(), nil
		}
	})
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		user, pw, _ := r.BasicAuth()
		fmt.Fprint(w, user, "/", pw)
	})
	if got := string(read(t, w.fetch(t, download.Request{URL: u}))); got != "n/rc" {
		t.Error(got)
	}
	if got := string(read(t, w.fetch(t, download.Request{URL: strings.Replace(u, "http://", "http://u:p@", 1)}))); got != "u/p" {
		t.Error(got)
	}
}

func TestPrivateAuthority(t *testing.T) {
	t.Parallel()
	s := httptest.NewTLSServer(http.HandlerFunc(whole))
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	w := newWorld(t, func(o *download.Options) {
		tr := web.NewTransport()
		tr.TLSClientConfig = &tls.Config{RootCAs: pool}
		t.Cleanup(tr.CloseIdleConnections)
		o.Transport = tr
	})
	w.fetch(t, download.Request{URL: s.URL})
	if _, err := newWorld(t, nil).client.Fetch(t.Context(), download.Request{URL: s.URL}); err == nil || !strings.Contains(diag.Format(err), "SSL_CERT_FILE") {
		t.Error(err)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	const secret = "SECRET"
	plain := serve(t, whole)
	gone := httptest.NewServer(nil)
	gone.Close()
	zeros := digest.Digest("sha256:" + strings.Repeat("0", 64))
	tests := map[string]struct {
		handler    http.HandlerFunc
		tls        bool
		url        string
		checksum   digest.Digest
		what, hint string
	}{
		"403": {handler: func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not you: https://u:"+secret+"@host/?a="+secret, http.StatusForbidden)
		}, what: "the server answers 403 Forbidden: not you", hint: "Check the credentials for 127.0.0.1:"},
		"404":         {handler: http.NotFound, what: "404 Not Found", hint: "Check the URL."},
		"503 forever": {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, what: "503", hint: "try again later"},
		"redirect loop": {handler: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/again?token="+secret, http.StatusFound)
		}, what: "it redirects more than 10 times"},
		"downgrade": {tls: true, handler: func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain, http.StatusFound) },
			what: "it redirects from https to http", hint: "pin the content"},
		"file redirect": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		}, what: "it redirects to something that is not http"},
		"wrong checksum": {handler: whole, checksum: zeros, what: "its content has the digest " + digest.FromBytes(content()).String() + ", not " + zeros.String(), hint: "look at it before you change the checksum"},
		"broken gzip": {handler: func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, "not gzip at all")
		}, what: "undo its gzip encoding"},
		"strange encoding":    {handler: func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "br") }, what: `content encoding "br"`},
		"cut again and again": {handler: cutter(100, whole), what: "the connection is cut again and again"},
		"cut, no validators": {handler: cutter(1000, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(content())))
			_, _ = w.Write(content()) // it is cut
		}), what: "the server cannot resume"},
		"too large":      {handler: func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Content-Length", "99999999") }, what: "it is too large: 99999999 bytes"},
		"no server":      {url: gone.URL + "/?sig=" + secret, what: "connection refused", hint: "can be reached from here"},
		"no such scheme": {url: "ftp://u:" + secret + "@host/x", what: "neither http nor https"},
		"no host":        {url: "http:///x", what: "has no host"},
		"no URL":         {url: "http://u:" + secret + "@h/%zz", what: "read the URL http://…"},
		"plain on tls":   {url: strings.Replace(plain, "http://", "https://u:"+secret+"@", 1), what: "download https://127.0.0.1:", hint: "write http://"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *download.Options) { o.MaxBytes = 8 << 20 })
			if tc.handler != nil && !tc.tls {
				tc.url = strings.Replace(serve(t, tc.handler), "http://", "http://u:"+secret+"@", 1) + "/x?sig=" + secret + "#" + secret
			}
			if tc.tls {
				s := httptest.NewTLSServer(tc.handler)
				t.Cleanup(s.Close)
				tc.url = s.URL
				w = newWorld(t, func(o *download.Options) { o.Transport = s.Client().Transport })
			}
			_, err := w.client.Fetch(t.Context(), download.Request{URL: tc.url, Checksum: tc.checksum})
			if !errors.As(err, new(*diag.Error)) {
				t.Fatalf("%v is no diag.Error", err)
			}
			text := diag.Format(err)
			if !strings.Contains(text, tc.what) || !strings.Contains(text, tc.hint) {
				t.Error(text)
			}
			if strings.Contains(text+w.log.String(), secret) {
				t.Errorf("a secret is shown: %s\n%s", text, w.log)
			}
			left, err := filepath.Glob(w.dir + "/*")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range left { // unnamed in the program
				if err := os.Remove(f); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestDowngradeOfPinnedContent follows to http only where a checksum says what has to come, without the password.
func TestDowngradeOfPinnedContent(t *testing.T) {
	t.Parallel()
	plain := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			t.Error("the password is sent in the clear")
		}
		whole(w, r)
	})
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, plain, http.StatusFound) }))
	t.Cleanup(s.Close)
	w := newWorld(t, func(o *download.Options) { o.Transport = s.Client().Transport })
	w.fetch(t, download.Request{URL: strings.Replace(s.URL, "https://", "https://u:p@", 1), Checksum: digest.FromBytes(content())})
	if !strings.Contains(w.log.String(), "redirects from https to http") {
		t.Error("nobody was warned")
	}
}

func TestBombIsBounded(t *testing.T) {
	t.Parallel()
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	if _, err := zw.Write(make([]byte, 9<<20)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, func(o *download.Options) { o.MaxBytes = 1 << 20 })
	_, err := w.client.Fetch(t.Context(), download.Request{URL: serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(z.Bytes()) // the client hangs up
	})})
	if err == nil || !strings.Contains(err.Error(), "it is too large: more than 1048576 bytes") {
		t.Error(err)
	}
}

func TestSilentServer(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.(http.Flusher).Flush()
		<-hang
	})
	t.Cleanup(func() { close(hang) })
	w := newWorld(t, func(o *download.Options) { o.IdleTimeout = 20 * time.Millisecond })
	_, err := w.client.Fetch(t.Context(), download.Request{URL: u})
	if err == nil || !strings.Contains(err.Error(), "cut again and again") {
		t.Error(err)
	}
}

func TestCancellation(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	u := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.(http.Flusher).Flush()
		cancel(why)
		<-r.Context().Done()
	})
	if _, err := newWorld(t, nil).client.Fetch(ctx, download.Request{URL: u}); !errors.Is(err, why) {
		t.Error(err)
	}
}
