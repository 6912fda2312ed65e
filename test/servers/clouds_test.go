package servers

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hako/test/lab"
)

// The clouds' registries, and what the helpers log in with: the users are fixed, the password is what the cloud gives out.
const (
	amazon    = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	google    = "europe-docker.pkg.dev"
	microsoft = "team.azurecr.io"
	tenant    = "11111111-2222-3333-4444-555555555555"
)

// internet is a proxy behind which the clouds' registries and token servers are, with certificates of an authority of ours.
type internet struct {
	authority *lab.Authority
	// URL is the proxy's.
	URL   string
	hosts map[string]http.HandlerFunc
}

// newInternet starts it. All registries have the content of origin.
func newInternet(t *testing.T, origin *lab.Registry) *internet {
	t.Helper()
	n := &internet{authority: must[*lab.Authority](t)(lab.NewAuthority(t.TempDir())), hosts: map[string]http.HandlerFunc{}}
	for host, user := range map[string]string{amazon: "AWS", google: "_token", microsoft: "00000000-0000-0000-0000-000000000000"} {
		n.hosts[host] = cloudRegistry(origin, user)
	}
	registry := n.hosts[microsoft]
	n.hosts[microsoft] = func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path != "/oauth2/exchange":
			registry(w, r)
		case r.FormValue("grant_type") != "access_token" || r.FormValue("access_token") != "entra" || r.FormValue("service") != microsoft:
			w.WriteHeader(http.StatusUnauthorized)
		default:
			answer(w, map[string]any{"refresh_token": password})
		}
	}
	n.hosts["api.ecr.eu-west-1.amazonaws.com"] = func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "Credential=AKIAEXAMPLE/") || !strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetAuthorizationToken") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		token := base64.StdEncoding.EncodeToString([]byte("AWS:" + password))
		answer(w, map[string]any{"authorizationData": []any{map[string]any{"authorizationToken": token}}})
	}
	n.hosts["oauth2.googleapis.com"] = func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"access_token": password, "expires_in": 3600, "token_type": "Bearer"})
	}
	n.hosts["login.microsoftonline.com"] = entra
	n.URL = serve(t, n)
	return n
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client notices
}

// cloudRegistry is a registry that wants the user with the cloud's password.
func cloudRegistry(origin *lab.Registry, user string) http.HandlerFunc {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "http", Host: origin.Addr})
		r.Out.Host = r.In.Host
		r.Out.Header.Set("X-Forwarded-Proto", "https")
		r.Out.Header.Del("Authorization")
	}}
	return func(w http.ResponseWriter, r *http.Request) {
		if u, p, _ := r.BasicAuth(); u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="cloud"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}
}

// entra gives a token to a service principal.
func entra(w http.ResponseWriter, r *http.Request) {
	base := "https://login.microsoftonline.com/" + tenant
	switch {
	case strings.HasSuffix(r.URL.Path, "/discovery/instance"):
		answer(w, map[string]any{
			"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration",
			"metadata":                  []any{map[string]any{"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.windows.net", "aliases": []string{"login.microsoftonline.com"}}},
		})
	case strings.HasSuffix(r.URL.Path, "/openid-configuration"):
		answer(w, map[string]any{"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0"})
	case r.FormValue("client_id") == "app" && r.FormValue("client_secret") == password:
		answer(w, map[string]any{"access_token": "entra", "expires_in": 3600, "token_type": "Bearer"})
	default:
		w.WriteHeader(http.StatusUnauthorized)
		answer(w, map[string]any{"error": "invalid_client"})
	}
}

// ServeHTTP answers CONNECT by being the host that is asked for.
func (n *internet) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if r.Method != http.MethodConnect || err != nil || n.hosts[host] == nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	if _, err := conn.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")); err != nil {
		_ = conn.Close() // broken
		return
	}
	config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.authority.Pair(host) }}
	server := &http.Server{Handler: n.hosts[host]}
	_ = server.Serve(&oneConn{conn: tls.Server(bufferedConn{conn, buffered.Reader}, config)}) // ends with the connection
}

type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// oneConn is a listener with one connection.
type oneConn struct {
	once sync.Once
	conn net.Conn
}

func (l *oneConn) Accept() (net.Conn, error) {
	var c net.Conn
	l.once.Do(func() { c = l.conn })
	if c == nil {
		return nil, errors.New("there is no more")
	}
	return c, nil
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

// serviceAccount is a key file of Google's.
func serviceAccount(t *testing.T) string {
	t.Helper()
	key := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048))
	der := must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))
	data := must[[]byte](t)(json.Marshal(map[string]string{
		"type": "service_account", "project_id": "p", "private_key_id": "k", "client_email": "builder@p.iam.gserviceaccount.com", "client_id": "1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://oauth2.googleapis.com/token",
	}))
	file := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestClouds pulls from and pushes to the clouds' registries with the identities that jobs have there: without a
// configuration, with their helpers named in config.json as kaniko's users do, and with an identity that is refused.
func TestClouds(t *testing.T) {
	t.Parallel()
	origin := start(t, lab.RegistryOptions{})
	pushBase(t, origin.Addr+"/base:1")
	n := newInternet(t, origin)
	common := []string{"HTTPS_PROXY=" + n.URL, "SSL_CERT_DIR=" + filepath.Dir(n.authority.File), "AWS_EC2_METADATA_DISABLED=true"}
	azure := []string{"AZURE_TENANT_ID=" + tenant, "AZURE_CLIENT_ID=app", "AZURE_CLIENT_SECRET="}
	for host, c := range map[string]struct {
		helper    string
		good, bad []string
		says      string
	}{
		amazon: {"ecr-login", []string{"AWS_ACCESS_KEY_ID=AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY=" + password}, []string{"AWS_ACCESS_KEY_ID=AKIAOTHER", "AWS_SECRET_ACCESS_KEY=" + password}, "get a token for ECR in eu-west-1"},
		google: {"gcr", []string{"GOOGLE_APPLICATION_CREDENTIALS=" + serviceAccount(t)}, []string{"GOOGLE_APPLICATION_CREDENTIALS=/nonexistent/key.json"}, "find Google's application default credentials"},
		microsoft: {
			"acr-env", append(azure[:2:2], azure[2]+password), append(azure[:2:2], azure[2]+"wrong"), "get a token from Azure",
		},
	} {
		named := fmt.Sprintf(`{"credHelpers":{%q:%q}}`, host, c.helper)
		for name, j := range map[string]job{
			"plain":       {env: c.good},
			"named":       {env: c.good, config: named},
			"only-named":  {env: c.good, config: named, args: []string{"--credential-helpers="}},
			"bad-login":   {env: c.good, config: auths(host, user, "expired")},
			"restricted":  {env: c.good, args: []string{"--credential-helpers=env", "--credential-helpers=google", "--credential-helpers=ecr", "--credential-helpers=acr"}},
			"refused":     {env: c.bad},
			"switched":    {env: c.good, args: []string{"--credential-helpers=env"}},
			"refused-one": {env: c.bad, config: named},
		} {
			t.Run(host+"/"+name, func(t *testing.T) {
				t.Parallel()
				ref := "/app-" + c.helper + ":" + name
				j.env = append(j.env, common...)
				j.args = append(j.args, contextOf(t, host+"/base:1"), "--destination="+host+ref)
				switch name {
				case "refused", "refused-one":
					j.fail(t, "401 Unauthorized", c.says)
					absent(t, origin.Addr+ref)
				case "switched":
					j.fail(t, "401 Unauthorized", "No credentials for "+host)
				default:
					j.succeed(t)
					whole(t, origin.Addr+ref, 4)
				}
			})
		}
	}
}
