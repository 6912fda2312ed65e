package registry

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"

	"hako/internal/diag"
)

// KeyPair names the PEM files of a client certificate and its key.
type KeyPair struct{ Certificate, Key string }

// trust adds the certificates in the files to those that the system trusts. They hold for every registry, as in kaniko:
// a registry's token server is often another host with a certificate of the same authority.
func trust(config *tls.Config, files []string) error {
	if len(files) == 0 {
		return nil
	}
	pool := config.RootCAs
	if pool == nil {
		var err error
		if pool, err = x509.SystemCertPool(); err != nil {
			pool = x509.NewCertPool() // no certificates on this system: only those given count
		}
	} else {
		pool = pool.Clone()
	}
	for _, f := range files {
		pem, err := os.ReadFile(f)
		if err != nil {
			return &diag.Error{What: "read the registry's certificate", Cause: err, Hint: "Check --registry-certificate."}
		}
		if !pool.AppendCertsFromPEM(pem) {
			return &diag.Error{What: "read the registry's certificate " + f + ": there is no certificate in it", Hint: "Give --registry-certificate a PEM file."}
		}
	}
	config.RootCAs = pool
	return nil
}

// byHost sends requests to hosts that want a client certificate through transports of their own.
type byHost struct {
	hosts     map[string]*http.Transport // by canonical name
	otherwise http.RoundTripper
}

func (b *byHost) RoundTrip(req *http.Request) (*http.Response, error) {
	if t, ok := b.hosts[canonicalHost(req.URL.Host)]; ok {
		return t.RoundTrip(req)
	}
	return b.otherwise.RoundTrip(req)
}

// withClientCertificates makes a transport like base that shows pairs' certificates to their hosts, and to no other.
// It also returns the transports that it made.
func withClientCertificates(base *http.Transport, pairs map[string]KeyPair) (http.RoundTripper, []*http.Transport, error) {
	if len(pairs) == 0 {
		return base, nil, nil
	}
	out := &byHost{hosts: map[string]*http.Transport{}, otherwise: base}
	var made []*http.Transport
	for host, p := range pairs {
		c, err := tls.LoadX509KeyPair(p.Certificate, p.Key)
		if err != nil {
			return nil, nil, &diag.Error{
				What: fmt.Sprintf("read the client certificate for %s", host), Cause: err,
				Hint: "Give --registry-client-cert as HOST=CERTIFICATE,KEY, both PEM files.",
			}
		}
		t := base.Clone()
		t.TLSClientConfig.Certificates = []tls.Certificate{c}
		out.hosts[canonicalHost(host)] = t
		made = append(made, t)
	}
	return out, made, nil
}
