package contextsource_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/download"
	"hako/internal/event"
	"hako/internal/tree/treetest"
)

// pack makes an archive of names and contents.
func pack(t testing.TB, files ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := 0; i < len(files); i += 2 {
		h := &tar.Header{Name: files[i], Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[i+1])), ModTime: time.Unix(5, 0)}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func zip(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// noise is text that does not compress.
func noise(size int) string {
	var b strings.Builder
	for sum := sha256.Sum256(nil); b.Len() < size; sum = sha256.Sum256(sum[:]) {
		b.WriteString(hex.EncodeToString(sum[:]))
	}
	return b.String()[:size]
}

// world is what contexts are opened in. Every file that it makes is closed at the end of the test.
type world struct {
	contextsource.Options
	mu       sync.Mutex // guards what follows
	files    []*os.File
	warnings []string
}

func (w *world) Emit(e event.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if warning, ok := e.(event.Warning); ok {
		w.warnings = append(w.warnings, warning.Message)
	}
}

func newWorld(t testing.TB, transport http.RoundTripper) *world {
	t.Helper()
	return newHastyWorld(t, transport, time.Minute)
}

// newHastyWorld is one that waits only so long for a server.
func newHastyWorld(t testing.TB, transport http.RoundTripper, idle time.Duration) *world {
	t.Helper()
	w := &world{}
	dir := t.TempDir()
	w.Options = contextsource.Options{
		Cwd: dir, Now: time.Unix(9, 0), Events: w, Getenv: func(string) string { return "" },
		File: func(name string) (*os.File, error) {
			f, err := os.CreateTemp(t.TempDir(), name)
			if err != nil {
				return nil, err
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.files = append(w.files, f)
			return f, os.Remove(f.Name())
		},
	}
	client := download.New(download.Options{
		File: w.File, Transport: transport, Events: w, RetryDelay: time.Millisecond, IdleTimeout: idle,
		Credentials: func(_ context.Context, u *url.URL) (string, error) {
			if strings.HasSuffix(u.Path, "/netrc.tar") {
				return "Basic " + base64.StdEncoding.EncodeToString([]byte("me:secret")), nil
			}
			return "", nil
		},
	})
	w.Download = client
	t.Cleanup(func() {
		client.Close()
		for _, f := range w.files {
			if err := f.Close(); err == nil {
				t.Errorf("%s was left open", filepath.Base(f.Name()))
			}
		}
	})
	return w
}

// open opens a context and returns what it holds, or the error.
func (w *world) open(t testing.TB, r contextsource.Request) (*contextsource.Source, string) {
	t.Helper()
	r.Title, r.Flag = "build context", "--context"
	s, err := contextsource.Open(t.Context(), w.Options, r)
	if err != nil {
		var d *diag.Error
		if !errors.As(err, &d) {
			t.Errorf("no diag.Error: %v", err)
			return nil, err.Error()
		}
		return nil, fmt.Sprintf("%v [%s]", err, d.Hint)
	}
	t.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	text, err := treetest.Dump(s.Tree)
	if err != nil {
		t.Error(err)
	}
	return s, strings.TrimSpace(text)
}

const tree = "a 0644 0:0 @5 = e3b0c44298fc"

// server answers as its path says.
func server(t testing.TB, good []byte) *httptest.Server {
	t.Helper()
	send := func(w http.ResponseWriter, data []byte) { _, _ = w.Write(data) } // a test's client may go away
	mux := http.NewServeMux()
	mux.HandleFunc("/good.tar.gz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		send(w, good)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/good.tar.gz", http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/cut", func(w http.ResponseWriter, r *http.Request) {
		from := 0
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(good)-1, len(good)))
			w.Header().Set("Content-Length", strconv.Itoa(len(good)-from))
			w.WriteHeader(http.StatusPartialContent)
			send(w, good[from:])
			return
		}
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Length", strconv.Itoa(len(good)))
		send(w, good[:len(good)/2])
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/always-cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(good)))
		send(w, good[:len(good)/2])
		panic(http.ErrAbortHandler)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(good)))
		w.WriteHeader(http.StatusOK)
		<-r.Context().Done()
	})
	mux.HandleFunc("/truncated", func(w http.ResponseWriter, _ *http.Request) { send(w, good[:len(good)/2]) })
	mux.HandleFunc("/corrupt", func(w http.ResponseWriter, _ *http.Request) {
		bad := bytes.Clone(good)
		bad[len(bad)-8] ^= 1 // its checksum
		send(w, bad)
	})
	mux.HandleFunc("/page", func(w http.ResponseWriter, _ *http.Request) { send(w, []byte("\n<!DOCTYPE html><p>log in")) })
	mux.HandleFunc("/empty", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/binary", func(w http.ResponseWriter, _ *http.Request) { send(w, bytes.Repeat([]byte{0, 1, 2, 255}, 1000)) })
	mux.HandleFunc("/Dockerfile", func(w http.ResponseWriter, _ *http.Request) { send(w, []byte("FROM scratch\n")) })
	mux.HandleFunc("/forbidden", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "token has expired", http.StatusForbidden) })
	mux.HandleFunc("/netrc.tar", func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		send(w, good)
	})
	s := httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	return s
}

func TestWeb(t *testing.T) {
	t.Parallel()
	good := zip(t, pack(t, "a", noise(200<<10)))
	srv := server(t, good)
	sum := sha256.Sum256(good)
	right := hex.EncodeToString(sum[:])
	tests := []struct{ name, path, want string }{
		{"archive", "/good.tar.gz", tree},
		{"digest", "/good.tar.gz#sha256=" + right, tree},
		{"redirect", "/moved", tree},
		{"cut and resumed", "/cut", tree},
		{"credentials of .netrc", "/netrc.tar", tree},
		{"a Dockerfile", "/Dockerfile", `context 0600 0:0 @0 = FROM scratch\n`},
		{"another digest", "/good.tar.gz#sha256=" + strings.Repeat("0", 64), "not the one that the checksum was made of"},
		{"a bad digest", "/good.tar.gz#sha256=12", "it is not a digest"},
		{"a branch", "/good.tar.gz#main", "Write #sha256="},
		{"redirect loop", "/loop", "it redirects more than 10 times"},
		{"cut again and again", "/always-cut", "the connection is cut again and again"},
		{"slow", "/slow", "nothing was received for 300ms"},
		{"truncated", "/truncated", "unexpected EOF [Check that whatever made the archive ended well"},
		{"corrupt", "/corrupt", "checksum"},
		{"page", "/page", "the server sent a page for people (HTML), not an archive"},
		{"empty", "/empty", "the server sent an empty file"},
		{"binary", "/binary", "it is not a tar archive"},
		{"forbidden", "/forbidden", "403 Forbidden: token has expired [Check the credentials"},
		{"missing", "/none", "404 Not Found"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, srv.Client().Transport)
			if tt.path == "/slow" {
				w = newHastyWorld(t, srv.Client().Transport, 300*time.Millisecond)
			}
			s, got := w.open(t, contextsource.Request{Place: srv.URL + tt.path})
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if s != nil && tt.path != "/Dockerfile" && s.Digest != "sha256:"+right {
				t.Errorf("digest %s, want %s", s.Digest, right)
			}
		})
	}
}

func TestWebSource(t *testing.T) {
	t.Parallel()
	good := zip(t, pack(t, "a", noise(200<<10)))
	srv := server(t, good)
	w := newWorld(t, srv.Client().Transport)
	place := strings.Replace(srv.URL, "https://", "https://me:secret@", 1)
	s, _ := w.open(t, contextsource.Request{Place: place + "/good.tar.gz?token=t"})
	if strings.Contains(s.Name+s.URI, "secret") || strings.Contains(s.Name+s.URI, "token=t") {
		t.Errorf("the name has a secret: %q %q", s.Name, s.URI)
	}
	if want := time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC); s.Time == nil || !s.Time.Equal(want) {
		t.Errorf("time is %v", s.Time)
	}
	if _, got := w.open(t, contextsource.Request{Place: strings.Replace(srv.URL, "https://", "https://me:wrong@", 1) + "/netrc.tar"}); !strings.Contains(got, "401") || strings.Contains(got, "wrong") {
		t.Errorf("wrong credentials: %s", got)
	}
	if _, got := newWorld(t, nil).open(t, contextsource.Request{Place: srv.URL + "/good.tar.gz"}); !strings.Contains(got, "SSL_CERT_FILE") {
		t.Errorf("unknown authority: %s", got)
	}
	file, err := contextsource.FetchDockerfile(t.Context(), w.Download, srv.URL+"/Dockerfile")
	if err != nil || string(file.Content) != "FROM scratch\n" {
		t.Errorf("Dockerfile: %v, %v", file, err)
	}
	if _, err := contextsource.FetchDockerfile(t.Context(), w.Download, srv.URL+"/page"); err == nil || !strings.Contains(err.Error(), "HTML") {
		t.Errorf("page: %v", err)
	}
}

func TestStandardInput(t *testing.T) {
	t.Parallel()
	good := zip(t, pack(t, "a", noise(200<<10)))
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() }) // nothing was written
	tests := []struct {
		name string
		in   io.Reader
		want string
	}{
		{"archive", bytes.NewReader(good), tree},
		{"archive in small pieces", smallPieces{bytes.NewReader(good)}, tree},
		{"Dockerfile", strings.NewReader("FROM scratch\n"), ""},
		{"nothing", strings.NewReader(""), "there is nothing on standard input"},
		{"none", nil, "there is no standard input"},
		{"a terminal", null, "standard input is a terminal, or empty [Pipe an archive"},
		{"truncated", bytes.NewReader(good[:len(good)/2]), "unexpected EOF"},
		{"binary", bytes.NewReader(make([]byte, 300)), "it is not a tar archive"},
		{"a failure", io.MultiReader(bytes.NewReader(good[:len(good)/2]), failing{}), "read build context standard input: broken"},
		{"a failure at once", failing{}, "read build context standard input: broken"},
		{"bytes after the end", io.MultiReader(bytes.NewReader(pack(t, "a", noise(1000))), strings.NewReader("more")), tree},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			s, got := w.open(t, contextsource.Request{Place: "-", Input: tt.in})
			if !strings.Contains(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if s != nil && (s.Dockerfile != nil) != (tt.name == "Dockerfile") {
				t.Errorf("Dockerfile %v", s.Dockerfile)
			}
			if warned := len(w.warnings) > 0; warned != (tt.name == "bytes after the end") {
				t.Errorf("warnings %q", w.warnings)
			}
		})
	}
}

type smallPieces struct{ r io.Reader }

func (o smallPieces) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 7)]) }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken") }

// A program that keeps standard input open without writing does not keep us.
func TestStandardInputIsGivenUp(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	in := readFunc(func([]byte) (int, error) {
		cancel(why)
		select {}
	})
	w := newWorld(t, nil)
	_, err := contextsource.Open(ctx, w.Options, contextsource.Request{Place: "-", Input: in})
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// What .dockerignore leaves out is not stored, wherever in the archive it is.
func TestIgnoredFilesAreNotStored(t *testing.T) {
	t.Parallel()
	big := noise(3 << 20)
	tests := []struct {
		name  string
		r     contextsource.Request
		files []string
		gone  string
		want  string
	}{
		{name: "first", files: []string{".dockerignore", "*.log", "a.log", big, "b", big}, gone: "a.log"},
		{name: "last", files: []string{"a.log", big, "b", big, ".dockerignore", "*.log"}, gone: "a.log"},
		{name: "the Dockerfile's own", files: []string{".dockerignore", "b", "Dockerfile.dockerignore", "*.log", "a.log", big, "b", big}, gone: "a.log"},
		{name: "the Dockerfile's own, elsewhere", r: contextsource.Request{Dockerfile: "docker/X"},
			files: []string{"docker/X.dockerignore", "*.log", "docker/X", "", "a.log", big, "b", big}, gone: "a.log"},
		{name: "exceptions", files: []string{".dockerignore", "*\n!b", "a.log", big, "b", big}, gone: "a.log"},
		{name: "the Dockerfile is kept", files: []string{".dockerignore", "*", "Dockerfile", "FROM scratch"}},
		{name: "a part", r: contextsource.Request{SubPath: "sub"}, files: []string{".dockerignore", "*", "sub/.dockerignore", "a.log", "sub/a.log", big, "a.log", big}, gone: "sub/a.log"},
		{name: "another context", r: contextsource.Request{Further: true}, files: []string{"Dockerfile.dockerignore", "b", ".dockerignore", "*.log", "a.log", big, "b", big}, gone: "a.log"},
		{name: "the Dockerfile's own comes late", files: []string{".dockerignore", "*.log", "a.log", big, "Dockerfile.dockerignore", "b"},
			want: "Put the ignore file at the start of the archive"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, nil)
			data := pack(t, tt.files...)
			tt.r.Title, tt.r.Flag, tt.r.Place, tt.r.Input = "build context", "--context", "-", bytes.NewReader(data)
			if tt.r.Dockerfile == "" {
				tt.r.Dockerfile = "Dockerfile"
			}
			s, err := contextsource.Open(t.Context(), w.Options, tt.r)
			if tt.want != "" {
				var d *diag.Error
				if !errors.As(err, &d) || !strings.Contains(d.Hint, tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				// A file can be read twice.
				path := filepath.Join(t.TempDir(), "a.tar")
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
				tt.r.Place = "tar://" + path
				s, err = contextsource.Open(t.Context(), w.Options, tt.r)
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close() //nolint:errcheck // nothing was written
			for i := 0; i < len(tt.files); i += 2 {
				got, err := treetest.ReadAll(s.Tree, tt.files[i])
				if gone := err != nil; gone != (tt.files[i] == tt.gone) || err == nil && string(got) != tt.files[i+1] {
					t.Errorf("%s: gone is %v", tt.files[i], gone)
				}
			}
		})
	}
}
