package registry

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/event"
)

func TestRedactURL(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"https://u:secret@h/p?digest=sha256:1&sig=secret#secret":           "https://h/p?digest=sha256%3A1&sig=REDACTED",
		"https://h/token?scope=repository:a:pull&service=s&account=secret": "https://h/token?account=REDACTED&scope=repository%3Aa%3Apull&service=s",
		"http://h:1/v2/": "http://h:1/v2/",
	} {
		u, err := url.Parse(in)
		if err != nil {
			t.Fatal(err)
		}
		if got := redactURL(u); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzRedactText(f *testing.F) {
	for _, s := range []string{"see https://u:SECRET@h/p?t=SECRET.", "(http://h?a=SECRET)", "https://SECRET@[::1", "x://%zz?SECRET"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := redactText(s)
		// Whatever stands as user or query value of something that looks like an address must be gone.
		if strings.Contains(s, "://SECRET@") && !strings.Contains(strings.ReplaceAll(s, "://SECRET@", ""), "SECRET") && strings.Contains(got, "SECRET") {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func TestSourcesOrder(t *testing.T) {
	t.Parallel()
	c := &dockerConfig{path: "F", CredsStore: "store"}
	c.Auths = map[string]json.RawMessage{"https://index.docker.io/v1/": nil, "docker.io/library": nil, "docker.io/lib": nil, "ghcr.io": nil}
	c.CredHelpers = map[string]string{"docker.io": "hub", "ghcr.io": "other"}
	k := &keychain{configs: []*dockerConfig{c}, helpers: newHelperCache(nil)}
	var got []string
	for _, s := range k.sources("index.docker.io/library/debian") {
		got = append(got, s.name)
	}
	want := []string{
		`F (auths "docker.io/library")`,
		"docker-credential-hub, named by F",
		`F (auths "https://index.docker.io/v1/")`,
		"docker-credential-store, named by F",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestServerOf(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"docker.io": hubServer, "index.docker.io": hubServer, hubServer: hubServer, "registry-1.docker.io": hubServer,
		"ghcr.io": "ghcr.io", "https://ghcr.io": "https://ghcr.io",
	} {
		if got := serverOf(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func FuzzDecodeAuth(f *testing.F) {
	for _, s := range []string{`{}`, `{"auth":"dTpw"}`, `{"auth":"dTpw\n"}`, `{"username":"u","password":"p"}`, `{"identitytoken":"x"}`, `{"auth":"!"}`, `null`, `[]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := decodeAuth([]byte(s))
		if err == nil && a != nil && a.Username == "" && a.IdentityToken == "" && a.RegistryToken == "" {
			t.Errorf("%q gives nothing to log in with: %+v", s, a)
		}
	})
}

func TestOwnTransportOnlyWithVerification(t *testing.T) {
	t.Parallel()
	other := roundTripper(func(*http.Request) (*http.Response, error) { return nil, http.ErrServerClosed })
	if _, err := New(Options{Transport: other, Events: event.Discard{}}); err != nil {
		t.Error(err)
	}
	if _, err := New(Options{Transport: other, SkipTLSVerify: true}); err == nil {
		t.Error("a TLS option was silently ignored")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
