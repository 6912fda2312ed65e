package kubernetes

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"hako/test/lab"
)

// inside is a network that pods reach through a proxy only: its names mean nothing to anybody else, and all but plain is
// by TLS, with certificates of an authority of its own.
type inside struct {
	// proxy is its address for pods.
	proxy     string
	authority *lab.Authority
	// hosts are what stands behind each HOST:PORT.
	hosts map[string]string

	mu     sync.Mutex
	passed map[string]int // how often each host was asked for
}

const (
	insideRegistry = "registry.corp.test"
	insideFiles    = "files.corp.test"
	insidePlain    = "plain.corp.test"
)

// newInside starts a registry, a server of files (with TLS, and without) and the proxy before them.
func newInside(t *testing.T, f *fixture, files map[string]string) *inside {
	t.Helper()
	in := &inside{hosts: map[string]string{}, passed: map[string]int{}}
	in.authority = must[*lab.Authority](t)(lab.NewAuthority(f.newDir(t)))
	certificate, key, err := in.authority.Issue(insideRegistry)
	if err != nil {
		t.Fatal(err)
	}
	in.hosts[insideRegistry+":443"] = f.startRegistry(t, lab.RegistryOptions{Certificate: certificate, Key: key}).Addr
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, text) // the client notices
	})
	plain := httptest.NewServer(serve)
	t.Cleanup(plain.Close)
	in.hosts[insidePlain+":80"] = plain.Listener.Addr().String()
	secure := httptest.NewUnstartedServer(serve)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{*must[*tls.Certificate](t)(in.authority.Pair(insideFiles))}, MinVersion: tls.VersionTLS12}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	in.hosts[insideFiles+":443"] = secure.Listener.Addr().String()
	proxy := httptest.NewServer(in)
	t.Cleanup(proxy.Close)
	in.proxy = "http://" + f.expose(t, proxy.Listener.Addr().String())
	return in
}

// ServeHTTP is the proxy: CONNECT, and requests with a whole URL.
func (in *inside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := r.Host
	if !strings.Contains(host, ":") {
		host += ":80"
	}
	in.mu.Lock()
	in.passed[host]++
	in.mu.Unlock()
	to := in.hosts[host]
	switch {
	case to == "":
		http.Error(w, "not for the proxy: "+host, http.StatusForbidden)
	case r.Method == http.MethodConnect:
		w.WriteHeader(http.StatusOK)
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			forward(c, to)
		}
	default:
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = "http", to, ""
		answer, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close() //nolint:errcheck // it was read
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body) // the client notices
	}
}

// count is how often the proxy was asked for a host, and begins anew.
func (in *inside) count(host string) int {
	in.mu.Lock()
	defer in.mu.Unlock()
	n := in.passed[host]
	delete(in.passed, host)
	return n
}

// insideDockerfile is built in two namespaces of names: the base comes from the bridge, the file from inside. Steps have neither the
// builder's proxy nor its authorities, but what --build-arg gives them, which is not kept in the image.
const insideDockerfile = `FROM %s
ADD http://` + insidePlain + `/plain /
ADD https://` + insideFiles + `/secure /
RUN test "$HTTP_PROXY$http_proxy" = from-build-argfrom-build-arg && test -z "$HTTPS_PROXY$https_proxy$NO_PROXY$no_proxy$SSL_CERT_DIR$SSL_CERT_FILE" && ! ls /ca && env > /env
`

// testNetwork builds with everything behind a proxy and a private authority, mounted from a ConfigMap in each way that users do.
func testNetwork(t *testing.T, f *fixture) {
	ns := f.namespace(t, "restricted")
	base := must[string](t)(f.busybox())
	dockerfile := fmt.Sprintf(insideDockerfile, base)
	next := map[string]string{"Dockerfile": "FROM " + insideRegistry + "/app:1\nRUN ls /plain /secure /env\n"}
	archive := must[string](t)(lab.Must(t.Context(), "tar", "-C", f.writeFiles(t, next), "-cz", "."))
	in := newInside(t, f, map[string]string{"/plain": "plain", "/secure": "secure", "/context.tar.gz": archive})
	authority := must[string](t)(read(in.authority.File))
	f.configMap(t, ns, "authority", map[string]string{"corp.crt": authority})
	f.configMap(t, ns, "context", map[string]string{"Dockerfile": dockerfile})
	f.configMap(t, ns, "next", next)
	bridge, _, _ := net.SplitHostPort(f.inPod(f.registry.Addr))
	network := bridge[:strings.LastIndex(bridge, ".")] + ".0/24"
	farm := map[string]any{"configMap": map[string]any{"name": "authority"}}
	ref := insideRegistry + "/app"
	args := func(tag string) []string {
		return []string{
			"--context=dir:///workspace", "--destination=" + ref + ":" + tag, "--insecure-registry=" + f.inPod(f.registry.Addr), "--build-arg=HTTP_PROXY=from-build-arg",
			"--cache", "--cache-repo=" + insideRegistry + "/cache", "--log-format=text",
		}
	}
	run := func(t *testing.T, p pod, context string, env map[string]string) ended {
		t.Helper()
		p.Volumes["/workspace"] = map[string]any{"configMap": map[string]any{"name": context}}
		p.Env = map[string]string{"HTTP_PROXY": in.proxy, "HTTPS_PROXY": in.proxy, "NO_PROXY": network + ",10.96.0.0/12,.svc,.cluster.local"}
		for k, v := range env {
			p.Env[k] = v
		}
		return f.runPod(t, ns, p)
	}
	ca := map[string]string{"SSL_CERT_DIR": "/ca"}

	e := run(t, pod{Name: "unknown", Args: args("0"), Volumes: map[string]map[string]any{}}, "context", nil)
	if e.ExitCode == 0 || !strings.Contains(e.Log, "--registry-certificate="+insideRegistry) {
		t.Errorf("without the authority: exit code %d\n%s", e.ExitCode, e.Log)
	}
	succeed(t, run(t, pod{Name: "directory", Args: args("1"), Volumes: map[string]map[string]any{"/ca": farm}}, "context", ca))
	for _, host := range []string{insideRegistry + ":443", insideFiles + ":443", insidePlain + ":80"} {
		if in.count(host) == 0 {
			t.Errorf("%s was not reached through the proxy", host)
		}
	}
	e = succeed(t, run(t, pod{Name: "file", Args: args("2"), Volumes: map[string]map[string]any{"/ca": farm}}, "context", map[string]string{"SSL_CERT_FILE": "/ca/corp.crt"}))
	if strings.Contains(e.Log, "RUN steps run in") {
		t.Errorf("the cache behind the proxy was not used:\n%s", e.Log)
	}
	succeed(t, run(t, pod{Name: "kaniko", Args: append(args("3"), "--context=https://"+insideFiles+"/context.tar.gz"), Image: "nonroot", Volumes: map[string]map[string]any{}, Change: oneFile("/kaniko/ssl/certs/corp.crt")}, "next", nil))
	succeed(t, run(t, pod{Name: "system", Args: args("4"), Image: "debug", Volumes: map[string]map[string]any{}, Change: oneFile("/etc/ssl/certs/ca-certificates.crt")}, "next", nil))
	succeed(t, run(t, pod{
		Name: "warmer", Image: "warmer", Args: []string{"--image=" + ref + ":1", "--cache-dir=/cache"},
		Volumes: map[string]map[string]any{"/ca": farm, "/cache": {"emptyDir": map[string]any{}}},
	}, "context", ca))
	if n := in.count(f.inPod(f.registry.Addr)); n > 0 {
		t.Errorf("the proxy was asked %d times for what NO_PROXY names", n)
	}
}

// oneFile mounts the authority's file alone, as one file: in kaniko's directory, or in place of the system's bundle.
func oneFile(path string) func(map[string]any) {
	return func(spec map[string]any) {
		spec["volumes"] = append(spec["volumes"].([]any), map[string]any{"name": "authority", "configMap": map[string]any{"name": "authority"}})
		c := spec["containers"].([]any)[0].(map[string]any)
		c["volumeMounts"] = append(c["volumeMounts"].([]any), map[string]any{"name": "authority", "mountPath": path, "subPath": "corp.crt"})
	}
}
