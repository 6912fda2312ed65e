package servers

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"

	"hako/test/lab"
)

// private is a registry with a certificate of an authority that nobody knows.
type private struct {
	*lab.Registry
	authority *lab.Authority
	// key and certificate are a client's.
	certificate, key string
	// base is an image in it, reach is how to reach it without hako.
	base  string
	reach []remote.Option
}

func startPrivate(t *testing.T, clients bool) *private {
	t.Helper()
	need(t)
	a := must[*lab.Authority](t)(lab.NewAuthority(t.TempDir()))
	p := &private{authority: a}
	var err error
	if p.certificate, p.key, err = a.Issue("client"); err != nil {
		t.Fatal(err)
	}
	certificate, key, err := a.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	o := lab.RegistryOptions{User: user, Password: password, Certificate: certificate, Key: key}
	if clients {
		o.ClientCA = a.File
	}
	p.Registry = start(t, o)
	config := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{must[tls.Certificate](t)(tls.LoadX509KeyPair(p.certificate, p.key))}}
	config.RootCAs.AppendCertsFromPEM(must[[]byte](t)(os.ReadFile(a.File)))
	p.reach = remotely(p.Registry, remote.WithTransport(&http.Transport{TLSClientConfig: config}))
	p.base = p.Addr + "/base:1"
	pushBase(t, p.base, p.reach...)
	return p
}

// TestPrivateAuthority trusts the authority in each way there is, and in none.
func TestPrivateAuthority(t *testing.T) {
	t.Parallel()
	p := startPrivate(t, false)
	for name, j := range map[string]job{
		"certificate":   {args: []string{"--registry-certificate=" + p.Addr + "=" + p.authority.File}},
		"directory":     {env: []string{"SSL_CERT_DIR=" + filepath.Dir(p.authority.File)}},
		"skip":          {args: []string{"--skip-tls-verify"}},
		"skip-registry": {args: []string{"--skip-tls-verify-registry=" + p.Addr}},
		"skip-pull":     {args: []string{"--skip-tls-verify-pull", "--registry-certificate=" + p.Addr + "=" + p.authority.File}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := p.Addr + "/app:" + name
			j.config = auths(p.Addr, user, password)
			j.args = append(j.args, contextOf(t, p.base), "--destination="+ref)
			j.succeed(t)
			whole(t, ref, 4, p.reach...)
		})
	}
	for name, args := range map[string][]string{
		"nothing":        nil,
		"skip-pull-only": {"--skip-tls-verify-pull"},
		"another":        {"--skip-tls-verify-registry=127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := p.Addr + "/app:" + name
			j := job{config: auths(p.Addr, user, password), args: append([]string{contextOf(t, p.base), "--destination=" + ref}, args...)}
			j.fail(t, "x509: certificate signed by unknown authority", "--registry-certificate="+p.Addr+"=FILE")
			absent(t, ref, p.reach...)
		})
	}
}

// TestClientCertificates has a registry that talks to nobody without one.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	p := startPrivate(t, true)
	trust := "--registry-certificate=" + p.Addr + "=" + p.authority.File
	for name, j := range map[string]job{
		"trusted": {args: []string{trust, "--registry-client-cert=" + p.Addr + "=" + p.certificate + "," + p.key}},
		"skipped": {args: []string{"--skip-tls-verify", "--registry-client-cert=" + p.Addr + "=" + p.certificate + "," + p.key}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := p.Addr + "/app:" + name
			j.config = auths(p.Addr, user, password)
			j.args = append(j.args, contextOf(t, p.base), "--destination="+ref)
			j.succeed(t)
			whole(t, ref, 4, p.reach...)
		})
	}
	ref := p.Addr + "/app:none"
	r := job{config: auths(p.Addr, user, password), args: []string{trust, contextOf(t, p.base), "--destination=" + ref}}.fail(t)
	refused := strings.Contains(r.Output, "remote error: tls: ") && strings.Contains(r.Output, "--registry-client-cert="+p.Addr)
	if !refused && !strings.Contains(r.Output, "http2: client conn could not be established") { // what net/http makes of it at times
		t.Errorf("nothing says why:\n%s", r.Output)
	}
	absent(t, ref, p.reach...)
}
