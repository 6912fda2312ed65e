package gitwire

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// origins is where requests with a login have come from and gone to.
type recorder struct{ got []string }

// serve answers as a repository does, and writes down who asked what.
func (r *recorder) serve(name string, next http.HandlerFunc) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		auth := req.Header.Get("Authorization")
		if text, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(auth, "Basic ")); err == nil {
			auth = string(text)
		}
		r.got = append(r.got, req.Method+" "+name+" "+auth)
		next(w, req)
	}))
}

func repository(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
	_, _ = w.Write([]byte(v2Greeting)) // the client says what is wrong
}

func redirect(to func() string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, to()+r.URL.Path+"?"+r.URL.RawQuery, http.StatusFound)
	}
}

func mustParse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// TestLoginsStay: net/http would send the login to another port of the same host, and drop that of the URL on the same one.
func TestLoginsStay(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		user  string // in the URL
		login bool   // there are credentials for the first server
		other bool   // there are credentials for the second
		moves bool   // to another server, and not to another path
		want  []string
	}{
		"user, same server":          {user: "u:p@", want: []string{"GET a u:p", "GET a u:p", "POST a u:p"}},
		"user, other server":         {user: "u:p@", moves: true, want: []string{"GET a u:p", "GET b ", "POST b "}},
		"login, same server":         {login: true, want: []string{"GET a x:y", "GET a x:y", "POST a x:y"}},
		"login, other server":        {login: true, moves: true, want: []string{"GET a x:y", "GET b ", "POST b "}},
		"logins of both":             {login: true, other: true, moves: true, want: []string{"GET a x:y", "GET b other:", "POST b other:"}},
		"login of the other":         {other: true, moves: true, want: []string{"GET a ", "GET b other:", "POST b other:"}},
		"user, login for the other ": {user: "u:p@", other: true, moves: true, want: []string{"GET a u:p", "GET b other:", "POST b other:"}},
	} {
		r := &recorder{}
		b := r.serve("b", repository)
		var a *httptest.Server
		a = r.serve("a", func(w http.ResponseWriter, req *http.Request) {
			switch {
			case tc.moves:
				redirect(func() string { return b.URL })(w, req)
			case strings.HasPrefix(req.URL.Path, "/old"):
				http.Redirect(w, req, a.URL+"/new"+strings.TrimPrefix(req.URL.Path, "/old")+"?"+req.URL.RawQuery, http.StatusFound)
			default:
				repository(w, req)
			}
		})
		c := New(Options{RetryDelay: time.Microsecond, Credentials: func(_ context.Context, u, named *url.URL) (string, error) {
			switch {
			case named.Host != mustParse(t, a.URL).Host:
				t.Errorf("%s: named is %s", name, named)
			case tc.login && u.Host == named.Host:
				return "Basic " + base64.StdEncoding.EncodeToString([]byte("x:y")), nil
			case tc.other && u.Host != named.Host:
				return "Basic " + base64.StdEncoding.EncodeToString([]byte("other:")), nil
			}
			return "", nil
		}})
		remote := strings.Replace(a.URL, "://", "://"+tc.user, 1) + "/old/r.git"
		s, err := c.Open(t.Context(), remote, remote)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := s.Refs(t.Context()); err == nil {
			t.Error(name, "no error")
		}
		if got, want := strings.Join(r.got, "\n"), strings.Join(tc.want, "\n"); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
		a.Close()
		b.Close()
		c.Close()
	}
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	var own *httptest.Server
	answer := func(contentType, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			_, _ = w.Write([]byte(text)) // the client says what is wrong
		}
	}
	status := func(code int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			w.WriteHeader(code)
			_, _ = w.Write([]byte(text)) // the client says what is wrong
		}
	}
	for name, tc := range map[string]struct {
		handler    http.HandlerFunc
		want, hint string
	}{
		"html":           {answer("text/html", "<html>"), `its answer is of the type "text/html"`, "git clone"},
		"dumb":           {answer("text/plain", sha("a")+"\trefs/heads/main\n"), "smart http", "git clone"},
		"loop":           {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) }, "more than 10 times", ""},
		"elsewhere":      {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/login?x=secret", http.StatusFound) }, "text/plain", ""},
		"ftp":            {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "ftp://x/y", http.StatusFound) }, "not http", ""},
		"401":            {status(401, ""), "401 Unauthorized", "GIT_TOKEN"},
		"403":            {status(403, "token has expired\nmore"), "403 Forbidden: token has expired", "valid"},
		"404":            {status(404, ""), "404 Not Found", "If it is private"},
		"500":            {status(501, "x"), "501 Not Implemented: x", ""},
		"cut at once":    {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF", "can be reached"},
		"colours":        {status(403, "\x1b[31mred"), "403 Forbidden: [31mred", ""},
		"secret in text": {status(403, "see https://u:secret@h/x?token=secret"), "https://h/x", ""},
	} {
		own = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if name == "elsewhere" && strings.HasPrefix(r.URL.Path, "/login") {
				w.Header().Set("Content-Type", "text/plain")
				return
			}
			tc.handler(w, r)
		}))
		c := New(Options{RetryDelay: time.Microsecond})
		_, err := c.Open(t.Context(), own.URL+"/r.git", own.URL+"/r.git")
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(Hint(err), tc.hint) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v (%s), want %s (%s)", name, err, Hint(err), tc.want, tc.hint)
		}
		if !errors.As(err, new(*Error)) {
			t.Errorf("%s: %T", name, err)
		}
		own.Close()
		c.Close()
	}
}

// TestSilence is a server that takes a request and says nothing more, before the answer and in the middle of it.
func TestSilence(t *testing.T) {
	t.Parallel()
	for _, first := range []string{"", "001e# service=git-upl"} {
		done := make(chan struct{})
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			if first != "" {
				_, _ = w.Write([]byte(first)) // the client says what is wrong
				if f, ok := w.(http.Flusher); ok {
					f.Flush()
				}
			}
			select {
			case <-r.Context().Done():
			case <-done:
			}
		}))
		c := New(Options{RetryDelay: time.Microsecond, IdleTimeout: 20 * time.Millisecond})
		_, err := c.Open(t.Context(), s.URL+"/r.git", s.URL+"/r.git")
		if err == nil || !strings.Contains(err.Error(), "nothing was received for") {
			t.Errorf("%q: %v", first, err)
		}
		close(done)
		s.Close()
		c.Close()
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://h/r.git": "https h  /r.git ", "HTTPS://h:1/r.git": "https h 1 /r.git ", "ssh://u@h:22/r": "ssh h 22 /r u", "ssh://h/~u/r": "ssh h  ~u/r ",
		"git@h:o/r.git": "ssh h  o/r.git git", "u@h:/r": "ssh h  /r u", "git://h/r": "git h  /r ", "ssh://u:p@h/r": "ssh h  /r u",
		"file:///r": "file is not supported", "h/r": "neither a URL", "/r": "neither a URL", "u@h": "neither a URL", "git@:r": "neither a URL",
		"https://h": "no path", "https://h/": "no path", "https:///r": "no host", "ssh://-oProxyCommand=x/r": "no host", "ssh://h/-x": "", "git@h:-x": "no path",
		"git@h:a\nb": "no address can have", "https://h/%zz": "not a valid URL", "git://h/a%00b": "no address can have", "ssh://h/a%0ab": "no address can have",
	} {
		a, err := parseAddress(in)
		if err != nil {
			if want == "" || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %s", in, err, want)
			}
			continue
		}
		if got := strings.Join([]string{a.scheme, a.host, a.port, a.path, a.user}, " "); want != "" && got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"https://u:p@h:1/r.git", "git@h:o/r", "ssh://h/~u/r", "git://[::1]:9/r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := parseAddress(text)
		if err != nil {
			return
		}
		if a.host == "" || a.path == "" || a.host[0] == '-' || a.path[0] == '-' || strings.ContainsAny(a.host+a.path+a.user, "\x00\n\r") {
			t.Errorf("%q: %+v", text, a)
		}
	})
}

func TestRedact(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://u:p@h/r.git?x=y#z": "https://h/r.git?x=REDACTED", "https://token@h/r": "https://h/r", "ssh://git@h/r": "ssh://git@h/r", "ssh://u:p@h/r": "ssh://h/r",
		"git@h:r": "git@h:r", "https://u:p@h/%zz": "https://…", "/dir": "/dir",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
