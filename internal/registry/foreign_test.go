package registry_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// TestCredentialsStayWithTheirRegistry sends downloads and uploads to another host, which asks for credentials in every way.
func TestCredentialsStayWithTheirRegistry(t *testing.T) {
	t.Parallel()
	for name, bearer := range map[string]bool{"password": false, "token": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex // guards what follows
			var came []string
			stranger := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				mu.Lock()
				came = append(came, req.Header.Get("Authorization"))
				mu.Unlock()
				if strings.HasPrefix(req.URL.Path, "/token") {
					_, _ = io.WriteString(w, `{"token":"theirs"}`)
					return
				}
				w.Header().Add("WWW-Authenticate", `Basic realm="r"`)
				w.Header().Add("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="s",scope="repository:a:pull"`, req.Host))
				w.WriteHeader(http.StatusUnauthorized)
			}))
			t.Cleanup(stranger.Close)
			reg := registrytest.New()
			reg.Auth = registrytest.Auth{Bearer: bearer, Users: map[string]string{"u": "p"}}
			host := reg.Start(t)
			reg.Inject(registrytest.Fault{Method: "GET", Path: "/blobs/", Status: 307, Header: http.Header{"Location": {stranger.URL + "/blob"}}})
			reg.Inject(registrytest.Fault{Method: "POST", Path: "/uploads/", Status: 202, Header: http.Header{"Location": {stranger.URL + "/upload"}}})
			o := quick()
			o.DockerConfigDirs = []string{configDir(t, fmt.Sprintf(`{"auths":{%q:{"username":"u","password":"p"}}}`, host))}
			if _, err := read(t, open(t, o, host+"/a", registry.Pull), descriptorOf(noise(10))); err == nil {
				t.Error("read from a host that wants credentials")
			}
			if err := open(t, o, host+"/a", registry.Push).Upload(t.Context(), blobOf(noise(10))); err == nil {
				t.Error("written to a host that wants credentials")
			}
			mu.Lock()
			defer mu.Unlock()
			if len(came) < 2 {
				t.Errorf("%d requests came to the other host", len(came))
			}
			for _, a := range came {
				if a != "" && a != "Bearer theirs" {
					t.Errorf("it was shown %q", a)
				}
			}
		})
	}
}

// TestWrongRanges cuts a download, and continues it with other bytes than were asked for.
func TestWrongRanges(t *testing.T) {
	t.Parallel()
	data := noise(1000)
	for header, want := range map[string]string{
		"bytes 0-999/1000":         `the registry answers "bytes 0-999/1000" when asked for the bytes from 500 on`,
		"bytes 501-999/1000":       `the registry answers "bytes 501-999/1000" when asked for the bytes from 500 on`,
		"bytes -500-999/1000":      `the registry answers "bytes -500-999/1000" when asked for the bytes from 500 on`,
		"":                         `the registry answers "" when asked for the bytes from 500 on`,
		"bytes 500-999/1000":       "the registry sent content with another digest", // so it says, but sends the first
		"bytes 500-18446744073/99": "the registry sent content with another digest",
	} {
		t.Run(header, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				switch {
				case req.URL.Path == "/v2/":
				case req.Header.Get("Range") != "":
					w.Header().Set("Content-Range", header)
					w.WriteHeader(http.StatusPartialContent)
					_, _ = w.Write(data[:500])
				default:
					w.Header().Set("Content-Length", "1000")
					_, _ = w.Write(data[:500]) // and no more: the connection is closed
				}
			}))
			t.Cleanup(s.Close)
			host := strings.TrimPrefix(s.URL, "http://")
			want := "fetch HOST/a@" + descriptorOf(data).Digest.String() + ": " + want
			_, err := read(t, open(t, quick(), host+"/a", registry.Pull), descriptorOf(data))
			wantError(t, err, host, want, "")
		})
	}
}
