package dropin

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/test/lab"
)

// writable is a directory in which every user may write.
func (f *fixture) writable(t *testing.T) string {
	t.Helper()
	dir := f.newDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// testReadme has the command line of "Running in Docker": the context and a Dockerfile by its full path, mounted credentials.
func testReadme(t *testing.T, f *fixture) {
	ref := f.registry.Addr + "/readme:v1"
	config := f.write(t, map[string]string{"config.json": f.dockerConfig()})
	succeed(t, nil, "-v", config+":/kaniko/.docker:ro", "-v", f.context(t)+":/workspace", f.images["executor"],
		"--dockerfile", "/workspace/Dockerfile", "--destination", ref, "--context", "dir:///workspace/")
	f.checkTree(t, ref)
}

// testGitLabHelper has no file at all: the variables that GitLab sets are enough.
func testGitLabHelper(t *testing.T, f *fixture) {
	ref := f.registry.Addr + "/group/variables:1"
	succeed(t, nil, "-e", "CI_REGISTRY="+f.registry.Addr, "-e", "CI_REGISTRY_USER="+user, "-e", "CI_REGISTRY_PASSWORD="+password,
		"-v", f.context(t)+":/builds:ro", f.images["executor"], "--context", "/builds", "--dockerfile", "/builds/Dockerfile", "--destination", ref)
	f.checkTree(t, ref)
}

// testBeside starts two builds at once in a container with other programs, and wants its file system as it was.
func testBeside(t *testing.T, f *fixture) {
	config := f.write(t, map[string]string{"config.json": f.dockerConfig()})
	script := fmt.Sprintf(`sleep 1000 & other=$!
/kaniko/executor --context /workspace --destination %[1]s/beside:a --digest-file /out/a & a=$!
/kaniko/executor --context /workspace --destination %[1]s/beside:b --digest-file /out/b & b=$!
wait $a && wait $b && kill -0 $other && ls /proc/$other/exe > /dev/null`, f.registry.Addr)
	c := must[*lab.Container](t)(lab.StartContainer(t.Context(), "--network", "host", "-v", f.context(t)+":/workspace:ro", "-v", config+":/kaniko/.docker:ro",
		"-v", f.writable(t)+":/out", "--entrypoint", "/busybox/sh", f.images["debug"], "-c", script))
	t.Cleanup(func() {
		if _, err := lab.Must(context.WithoutCancel(t.Context()), "docker", "rm", "-f", "-v", c.Name); err != nil {
			t.Error(err)
		}
	})
	r := must[lab.Result](t)(c.Wait(t.Context()))
	if r.ExitCode != 0 {
		t.Fatalf("exit code %d\n%s", r.ExitCode, r.Output)
	}
	for _, w := range must[[]string](t)(c.Writes(t.Context())) {
		layers := strings.HasPrefix(w, "A /kaniko/hako-layers") // which builds in one container share
		if w != "C /kaniko" && w != "A /out" && !strings.HasSuffix(w, " /kaniko/.docker") && !layers {
			t.Errorf("the builds left %q", w)
		}
	}
	f.checkTree(t, f.registry.Addr+"/beside:a")
	f.checkTree(t, f.registry.Addr+"/beside:b")
}

// testCopied has the program alone in somebody else's image, where users and root build, among that image's own files.
func testCopied(t *testing.T, f *fixture) {
	config := f.write(t, map[string]string{"config.json": f.dockerConfig()})
	program := f.newDir(t)
	out := must[string](t)(lab.Must(t.Context(), "docker", "create", f.images["executor"]))
	id := strings.TrimSpace(out)
	must[string](t)(lab.Must(t.Context(), "docker", "cp", id+":/kaniko/executor", filepath.Join(program, "executor")))
	must[string](t)(lab.Must(t.Context(), "docker", "rm", id))
	for _, as := range []string{"0:0", "1000:1000", "123456:0"} {
		ref := f.registry.Addr + "/copied:" + strings.ReplaceAll(as, ":", "-")
		succeed(t, nil, "--user", as, "-v", f.context(t)+":/src:ro", "-v", program+":/usr/local/bin:ro", "-e", "DOCKER_CONFIG=/cfg", "-v", config+":/cfg:ro",
			"--entrypoint", "/bin/sh", f.foreign, "-c", "executor --context dir:///src --destination "+ref)
		f.checkTree(t, ref)
	}
}

// testCredHelpers names helpers in config.json as users do. Amazon's endpoint is a fake one, which gives the registry's
// password; the executor reaches the registry by the name that Amazon would give it, through a proxy that knows where it is.
func testCredHelpers(t *testing.T, f *fixture) {
	const host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	cloud := startServer(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.Header.Get("Authorization"), "/eu-west-1/ecr/") {
			t.Errorf("the request to ECR is signed %q", r.Header.Get("Authorization"))
		}
		token := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{"authorizationToken": token}}})
	})
	aws := []string{"-e", "AWS_ENDPOINT_URL_ECR=http://" + cloud, "-e", "AWS_ACCESS_KEY_ID=AKIAEXAMPLE", "-e", "AWS_SECRET_ACCESS_KEY=example", "-e", "AWS_EC2_METADATA_DISABLED=true"}
	get := func(image, program string) lab.Result {
		args := append([]string{"-i", "--entrypoint", program}, aws...)
		return must[lab.Result](t)(lab.Run(t.Context(), lab.Command{
			Args: append(append([]string{"docker", "run", "--rm", "--network", "host"}, args...), f.images[image], "get"), Stdin: strings.NewReader(host),
		}))
	}
	want := fmt.Sprintf(`{"ServerURL":%q,"Username":%q,"Secret":%q}`+"\n", host, user, password)
	for _, image := range []string{"executor", "nonroot", "debug", "warmer"} {
		if diff := cmp.Diff(want, get(image, "docker-credential-ecr-login").Stdout); diff != "" {
			t.Errorf("%s:\n%s", image, diff)
		}
	}
	if r := get("executor", "/kaniko/docker-credential-gcr"); r.ExitCode != 1 || r.Stdout != "credentials not found in native keychain\n" {
		t.Errorf("gcr: %+v", r)
	}
	proxy := startServer(t, f.serveProxy)
	for image, helper := range map[string]string{"executor": "ecr-login", "slim": "ecr-login", "nonroot": ""} {
		config := `{}`
		if helper != "" {
			config = fmt.Sprintf(`{"credHelpers":{%q:%q}}`, host, helper)
		}
		ref := "team/" + image + ":1"
		files := f.write(t, map[string]string{"config.json": config, "Dockerfile": "FROM scratch\nCOPY Dockerfile /\n"})
		args := append([]string{"-v", files + ":/kaniko/.docker:ro", "-v", files + ":/workspace:ro", "-e", "HTTP_PROXY=http://" + proxy}, aws...)
		succeed(t, nil, append(args, f.images[image], "--insecure-registry="+host, "--destination="+host+"/"+ref)...)
		f.digest(t, f.registry.Addr+"/"+ref)
	}
}

// serveProxy sends what is asked of any host to the registry.
func (f *fixture) serveProxy(w http.ResponseWriter, r *http.Request) {
	r.URL.Scheme, r.URL.Host, r.RequestURI = "http", f.registry.Addr, ""
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body) // the client notices what is missing
}

// startServer serves on a loopback port until the test ends and returns host and port.
func startServer(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	server := &http.Server{Handler: handler}
	go server.Serve(l) //nolint:errcheck // it ends with Close
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}
