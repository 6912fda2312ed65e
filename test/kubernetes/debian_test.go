package kubernetes

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"hako/test/lab"
)

// debianDockerfile has packages with maintainer scripts, users, owners, capabilities, links, a fifo, and a file that is removed.
const debianDockerfile = `FROM %s
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y git sudo postgresql libcap2-bin attr
RUN useradd -m -s /bin/bash app && useradd -r -u 4242 -d /srv/data svc && echo 'app ALL=(ALL) NOPASSWD:ALL' > /etc/sudoers.d/app && chmod 0440 /etc/sudoers.d/app
RUN install -d -o svc -g svc -m 2750 /srv/data && echo data > /srv/data/file && ln /srv/data/file /srv/third && chown -R 123:456 /opt
RUN cp /usr/bin/env /usr/local/bin/bind && setcap cap_net_bind_service+ep /usr/local/bin/bind && mkfifo /srv/fifo && chown app /srv/fifo && rm /etc/issue.net
USER app
RUN sudo -n id -u > /home/app/root-id && test "$(stat -c %%U:%%G /var/lib/postgresql)" = postgres:postgres && git --version && psql --version
`

// kanikoUsers is the container's securityContext that kaniko's users have in their manifests, and the only one there.
func kanikoUsers() map[string]any {
	return map[string]any{"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": map[string]any{"drop": []string{"ALL"}}}
}

// testDebian builds with apt-get in pods: under "restricted", and in a namespace with the standard "baseline" with nothing but
// the securityContext of kaniko's users.
func testDebian(t *testing.T, f *fixture) {
	if testing.Short() {
		t.Skip("takes minutes; leave out -short")
	}
	dockerfile := fmt.Sprintf(debianDockerfile, must[string](t)(f.debian()))
	proxy := "http://" + f.expose(t, packageProxy(t))
	for _, c := range []struct {
		standard, image string
		change          func(map[string]any)
	}{
		{standard: "restricted"},
		{standard: "baseline", image: "nonroot", change: func(spec map[string]any) {
			delete(spec, "securityContext")
			spec["containers"].([]any)[0].(map[string]any)["securityContext"] = kanikoUsers()
		}},
	} {
		t.Run(c.standard, func(t *testing.T) {
			ns := f.namespace(t, c.standard)
			f.configMap(t, ns, "context", map[string]string{"Dockerfile": dockerfile})
			ref := f.inPod(f.registry.Addr) + "/debian-app:" + c.standard
			succeed(t, f.runPod(t, ns, pod{
				Name: "build", Image: c.image, Change: c.change,
				Args:    []string{"--context=dir:///workspace", "--destination=" + ref, "--insecure", "--insecure-pull", "--build-arg=http_proxy=" + proxy},
				Volumes: map[string]map[string]any{"/workspace": {"configMap": map[string]any{"name": "context"}}},
			}))
			checkDebian(t, must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref)))
		})
	}
}

// checkDebian looks for what only root can have made.
func checkDebian(t *testing.T, tree lab.Tree) {
	t.Helper()
	type node struct {
		Kind     string
		Mode     int64
		UID, GID int
	}
	for path, want := range map[string]node{
		"/srv/data":           {"dir", 0o2750, 4242, tree["/srv/data"].GID},
		"/srv/fifo":           {"fifo", 0o644, 1000, 0},
		"/opt":                {"dir", 0o755, 123, 456},
		"/usr/bin/sudo":       {"file", 0o4755, 0, 0},
		"/home/app":           {"dir", 0o755, 1000, 1000},
		"/var/lib/postgresql": {"dir", 0o755, tree["/var/lib/postgresql"].UID, tree["/var/lib/postgresql"].GID},
	} {
		n := tree[path]
		if got := (node{n.Kind, n.Mode, n.UID, n.GID}); got != want {
			t.Errorf("%s: %+v, want %+v", path, got, want)
		}
	}
	if tree["/var/lib/postgresql"].UID == 0 || tree["/srv/data"].GID == 0 {
		t.Error("/var/lib/postgresql or /srv/data belongs to root")
	}
	if tree["/usr/local/bin/bind"].Xattrs["security.capability"] == "" {
		t.Error("/usr/local/bin/bind has no capability")
	}
	if _, ok := tree["/etc/issue.net"]; ok || len(tree) < 5000 {
		t.Errorf("/etc/issue.net is there: %v; %d files", ok, len(tree))
	}
}

// packageProxy is a proxy for apt, on loopback, which keeps packages for the next build: pods have no network of their own. It
// returns its address.
func packageProxy(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		file := filepath.Join(dir, strings.ReplaceAll(r.URL.Path, "/", "_"))
		if !strings.HasSuffix(r.URL.Path, ".deb") {
			file = ""
		} else if _, err := os.Stat(file); err == nil {
			http.ServeFile(w, r, file)
			return
		}
		if err := fetch(w, r, file); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// fetch passes a request on and its answer back; what is complete is kept as file, unless that is empty.
func fetch(w http.ResponseWriter, r *http.Request, file string) error {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), nil)
	if err != nil {
		return err
	}
	out.Header = r.Header.Clone()
	answer, err := http.DefaultTransport.RoundTrip(out)
	if err != nil {
		return err
	}
	defer answer.Body.Close() //nolint:errcheck // it was read
	for k, v := range answer.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.StatusCode)
	if file == "" || answer.StatusCode != http.StatusOK {
		_, _ = io.Copy(w, answer.Body) // the client notices
		return nil
	}
	part, err := os.CreateTemp(filepath.Dir(file), "part")
	if err != nil {
		return nil //nolint:nilerr // the answer has begun
	}
	defer part.Close() //nolint:errcheck // renamed only when whole
	if _, err := io.Copy(io.MultiWriter(w, part), answer.Body); err == nil {
		_ = os.Rename(part.Name(), file) // otherwise it is fetched again
	}
	return nil
}

// testKaniko applies the manifests that kaniko's users copy around, in which only the names that each user replaces and the image
// are replaced: a Pod, a hostPath volume, its claim, and the Secret regcred.
func testKaniko(t *testing.T, f *fixture) {
	ns := f.namespace(t, "baseline")
	private := f.startRegistry(t, lab.RegistryOptions{User: registryUser, Password: registryPassword})
	addr := f.expose(t, private.Addr)
	f.secret(t, ns, addr)
	dir := f.writeFiles(t, map[string]string{"dockerfile": fmt.Sprintf("FROM %s\nENTRYPOINT [\"/bin/sh\", \"-c\", \"echo hello\"]\nRUN id -u > /uid\n", must[string](t)(f.busybox()))})
	replace := strings.NewReplacer("NAMESPACE", ns, "DIRECTORY", dir, "IMAGE", f.image("executor"), "DESTINATION", addr+"/user/repo", `- "--insecure"`, fmt.Sprintf("- --insecure-registry=%s\n        - --insecure-registry=%s", addr, f.inPod(f.registry.Addr)))
	manifest := replace.Replace(must[string](t)(read("testdata/kaniko.yaml")))
	t.Cleanup(func() { f.mustKubectl(t, "", "delete", "persistentvolume", ns, "--wait=false") })
	f.apply(t, ns, manifest)
	succeed(t, f.awaitPod(t, ns, "kaniko"))
	config := must[*v1.ConfigFile](t)(must[v1.Image](t)(private.Image(t.Context(), addr+"/user/repo")).ConfigFile())
	if got := strings.Join(config.Config.Entrypoint, " "); got != "/bin/sh -c echo hello" {
		t.Errorf("entrypoint %q", got)
	}
}

func read(name string) (string, error) {
	data, err := os.ReadFile(name)
	return string(data), err
}
