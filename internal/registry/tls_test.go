package registry_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// asHost returns a transport that reaches the address under the name registry.test, for which no rule
// about loopback addresses holds.
func asHost(address string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set    func(o *registry.Options)
		access registry.Access
		ok     bool
	}{
		"not trusted":         {set: func(*registry.Options) {}, access: registry.Pull},
		"skip all":            {set: func(o *registry.Options) { o.SkipTLSVerify = true }, access: registry.Push, ok: true},
		"skip all, pull":      {set: func(o *registry.Options) { o.SkipTLSVerify = true }, access: registry.Pull, ok: true},
		"skip pull":           {set: func(o *registry.Options) { o.SkipTLSVerifyPull = true }, access: registry.Pull, ok: true},
		"skip pull, push":     {set: func(o *registry.Options) { o.SkipTLSVerifyPull = true }, access: registry.Push},
		"skip host":           {set: func(o *registry.Options) { o.SkipTLSVerifyRegistries = []string{"registry.test"} }, access: registry.Push, ok: true},
		"skip another host":   {set: func(o *registry.Options) { o.SkipTLSVerifyRegistries = []string{"other.test"} }, access: registry.Push},
		"insecure is no skip": {set: func(o *registry.Options) { o.Insecure = true }, access: registry.Push},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			address, _ := reg.StartTLS(t)
			o := quick()
			o.Transport = asHost(address)
			c.set(&o)
			_, err := open(t, o, "registry.test/a", c.access).Has(t.Context(), digest.FromString("x"))
			if (err == nil) != c.ok {
				t.Error(err)
			}
			if name == "not trusted" {
				wantError(t, err, "HOST",
					"ask for registry.test/a@"+digest.FromString("x").String()+`: Get https://registry.test/v2/: tls: failed to verify certificate: x509: certificate is valid for example.com, *.example.com, not registry.test`,
					"Trust the registry's authority with --registry-certificate=registry.test=FILE, or skip the check with --skip-tls-verify-registry=registry.test.")
			}
		})
	}
}

func TestTrustedCertificate(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	reg.Auth = registrytest.Auth{Bearer: true, PublicPull: true, Users: map[string]string{"u": "p"}}
	host, server := reg.StartTLS(t)
	o := quick()
	o.Transport = server.Client().Transport
	if _, err := open(t, o, host+"/a", registry.Pull).Has(t.Context(), digest.FromString("x")); err != nil {
		t.Error(err)
	}
}

func TestPlainHTTP(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		set    func(o *registry.Options)
		access registry.Access
		ok     bool
	}{
		"not allowed":     {set: func(*registry.Options) {}, access: registry.Pull},
		"push":            {set: func(o *registry.Options) { o.Insecure = true }, access: registry.Push, ok: true},
		"push, pull":      {set: func(o *registry.Options) { o.Insecure = true }, access: registry.Pull},
		"pull":            {set: func(o *registry.Options) { o.InsecurePull = true }, access: registry.Pull, ok: true},
		"pull, push":      {set: func(o *registry.Options) { o.InsecurePull = true }, access: registry.Push},
		"host":            {set: func(o *registry.Options) { o.InsecureRegistries = []string{"Registry.test"} }, access: registry.Push, ok: true},
		"host, pull":      {set: func(o *registry.Options) { o.InsecureRegistries = []string{"registry.test"} }, access: registry.Pull, ok: true},
		"host and scheme": {set: func(o *registry.Options) { o.InsecureRegistries = []string{"http://registry.test/"} }, access: registry.Pull, ok: true},
		"host and port":   {set: func(o *registry.Options) { o.InsecureRegistries = []string{"registry.test:80"} }, access: registry.Pull},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := quick()
			o.Transport = asHost(registrytest.New().Start(t))
			c.set(&o)
			_, err := open(t, o, "registry.test/a", c.access).Has(t.Context(), digest.FromString("x"))
			if (err == nil) != c.ok {
				t.Error(err)
			}
			if name == "not allowed" {
				wantError(t, err, "HOST",
					"ask for registry.test/a@"+digest.FromString("x").String()+": Get https://registry.test/v2/: http: server gave HTTP response to HTTPS client",
					"registry.test speaks plain HTTP; allow that with --insecure-registry=registry.test.")
			}
		})
	}
}

// TestRedirectsStayPublic: a registry with a public name must not send us to addresses of our own network.
func TestRedirectsStayPublic(t *testing.T) {
	t.Parallel()
	data := noise(10)
	for location, want := range map[string]string{
		"https://169.254.169.254/latest": "the registry redirects to the private address 169.254.169.254",
		"https://127.0.0.1:1/x":          "the registry redirects to the private address 127.0.0.1:1",
		"https://[::1]/x":                "the registry redirects to the private address [::1]",
		"https://10.1.2.3/x":             "the registry redirects to the private address 10.1.2.3",
		"http://example.com/x":           "the registry redirects from https to http at example.com",
	} {
		t.Run(location, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			address, _ := reg.StartTLS(t)
			reg.Inject(registrytest.Fault{Path: "/blobs/", Method: "GET", Status: 307, Header: http.Header{"Location": {location}}})
			reg.Inject(registrytest.Fault{Path: "/uploads/", Method: "POST", Status: 202, Header: http.Header{"Location": {location}}})
			o := quick()
			o.Transport = asHost(address)
			o.SkipTLSVerify = true
			_, err := read(t, open(t, o, "registry.test/a", registry.Pull), descriptorOf(data))
			wantError(t, err, "HOST", "fetch registry.test/a@"+descriptorOf(data).Digest.String()+": Get "+location+": "+want, "")
			err = open(t, o, "registry.test/a", registry.Push).Upload(t.Context(), blobOf(data))
			wantError(t, err, "HOST", "upload registry.test/a@"+descriptorOf(data).Digest.String()+": "+want, "")
		})
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	if err := l.Close(); err != nil { // nobody listens there now
		t.Fatal(err)
	}
	_, err = open(t, quick(), host+"/a", registry.Pull).Manifest(t.Context(), "1")
	wantError(t, err, host,
		"fetch the manifest of HOST/a:1: Get https://HOST/v2/: dial tcp HOST: connect: connection refused",
		"Check that HOST is a registry and can be reached from here (port, proxy, firewall).")
}

func TestPutURL(t *testing.T) {
	t.Parallel()
	got := make(chan string, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path == "/refuse" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		got <- r.Method + " " + r.URL.Path + " " + r.Header.Get("Content-Type") + " " + string(body)
	}))
	t.Cleanup(server.Close)
	o := quick()
	o.Transport = server.Client().Transport
	c, err := registry.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PutURL(t.Context(), server.URL+"/digest?token=x", "text/plain", []byte("sha256:1")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("PUT /digest text/plain sha256:1", <-got); diff != "" {
		t.Error(diff)
	}
	err = c.PutURL(t.Context(), server.URL+"/refuse?token=x", "text/plain", []byte("sha256:1"))
	want := "put a file: PUT " + server.URL + "/refuse?token=REDACTED: 403 Forbidden"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if err := c.PutURL(t.Context(), "http://u:secret@h/x", "text/plain", nil); err == nil || strings.Contains(err.Error(), "secret") {
		t.Error(err)
	}
}
