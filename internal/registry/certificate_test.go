package registry_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

// identity is a self-signed certificate for 127.0.0.1 that serves and is shown, and its files.
type identity struct {
	tls  tls.Certificate
	pool *x509.CertPool
	pair registry.KeyPair
}

func newIdentity(t *testing.T) identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	id := identity{pool: x509.NewCertPool(), pair: registry.KeyPair{Certificate: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	for file, text := range map[string][]byte{id.pair.Certificate: certPEM, id.pair.Key: keyPEM} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if id.tls, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	id.pool.AppendCertsFromPEM(certPEM)
	return id
}

// serve starts a registry as id; it wants clients that show a certificate of clients, if that is not nil.
func (id *identity) serve(t *testing.T, clients *x509.CertPool) string {
	t.Helper()
	s := httptest.NewUnstartedServer(registrytest.New())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{id.tls}}
	if clients != nil {
		s.TLS.ClientCAs, s.TLS.ClientAuth = clients, tls.RequireAndVerifyClientCert
	}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "https://")
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	server, client, other := newIdentity(t), newIdentity(t), newIdentity(t)
	open1, closed := server.serve(t, nil), server.serve(t, client.pool)
	for name, c := range map[string]struct {
		host string
		set  func(o *registry.Options)
		ok   bool
	}{
		"unknown authority":     {open1, func(*registry.Options) {}, false},
		"given authority":       {open1, func(o *registry.Options) { o.Certificates = []string{server.pair.Certificate} }, true},
		"another authority":     {open1, func(o *registry.Options) { o.Certificates = []string{other.pair.Certificate} }, false},
		"no client certificate": {closed, func(o *registry.Options) { o.Certificates = []string{server.pair.Certificate} }, false},
		"client certificate": {closed, func(o *registry.Options) {
			o.Certificates, o.ClientCertificates = []string{server.pair.Certificate}, map[string]registry.KeyPair{closed: client.pair}
		}, true},
		"client certificate, server not verified": {closed, func(o *registry.Options) {
			o.SkipTLSVerify, o.ClientCertificates = true, map[string]registry.KeyPair{closed: client.pair}
		}, true},
		"client certificate of another host": {closed, func(o *registry.Options) {
			o.Certificates, o.ClientCertificates = []string{server.pair.Certificate}, map[string]registry.KeyPair{open1: client.pair}
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := quick()
			o.Transport = &http.Transport{}
			c.set(&o)
			_, err := open(t, o, c.host+"/a", registry.Pull).Has(t.Context(), digest.FromString("x"))
			if (err == nil) != c.ok {
				t.Error(err)
			}
		})
	}
}

func TestBadCertificateFiles(t *testing.T) {
	t.Parallel()
	id := newIdentity(t)
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]registry.Options{
		"missing":         {Certificates: []string{empty + "x"}},
		"no certificate":  {Certificates: []string{empty}},
		"no key":          {ClientCertificates: map[string]registry.KeyPair{"a": {Certificate: id.pair.Certificate, Key: empty}}},
		"key is the cert": {ClientCertificates: map[string]registry.KeyPair{"a": {Certificate: id.pair.Key, Key: id.pair.Certificate}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c, err := registry.New(o); err == nil {
				c.Close()
				t.Error("no error")
			}
		})
	}
}
