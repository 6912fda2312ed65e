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

// testPod has the arguments and mounts of the tutorial's pod: a volume with the context, in which the Dockerfile has another
// name, and the secret regcred, which the kubelet mounts as links to a directory of its own.
func testPod(t *testing.T, f *fixture) {
	for _, w := range wrappings() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			ref := f.registry.Addr + "/pod:" + w.name
			volume := f.write(t, map[string]string{"dockerfile": f.dockerfile(), "hello.txt": "hello\n"})
			secret := f.write(t, map[string]string{"..2026_11_23/config.json": f.dockerConfig()})
			for link, to := range map[string]string{"..data": "..2026_11_23", "config.json": "..data/config.json"} {
				if err := os.Symlink(to, filepath.Join(secret, link)); err != nil {
					t.Fatal(err)
				}
			}
			args := append([]string{"-v", volume + ":/workspace", "-v", secret + ":/kaniko/.docker:ro"}, w.flags...)
			succeed(t, nil, append(args, f.images[w.image], "--dockerfile=/workspace/dockerfile", "--context=dir://workspace", "--destination="+ref)...)
			f.checkTree(t, ref)
		})
	}
}

// testGitLab runs a job's script as GitLab's runner does: it looks for a shell, and gives it a script on standard input that
// sets variables, changes to the project and runs the lines of the job.
func testGitLab(t *testing.T, f *fixture) {
	ref := f.registry.Addr + "/group/project"
	detect := "if [ -x /usr/local/bin/bash ]; then\n\texec /usr/local/bin/bash \nelif [ -x /usr/bin/bash ]; then\n\texec /usr/bin/bash \n" +
		"elif [ -x /bin/bash ]; then\n\texec /bin/bash \nelif [ -x /usr/local/bin/sh ]; then\n\texec /usr/local/bin/sh \n" +
		"elif [ -x /usr/bin/sh ]; then\n\texec /usr/bin/sh \nelif [ -x /bin/sh ]; then\n\texec /bin/sh \n" +
		"elif [ -x /busybox/sh ]; then\n\texec /busybox/sh \nelse\n\techo shell not found\n\texit 1\nfi\n"
	script := fmt.Sprintf(`if set -o | grep pipefail > /dev/null; then set -o pipefail; fi; set -o errexit
set +o noclobber
: | eval $'export CI=$\'true\'\nexport CI_REGISTRY=$\'%[1]s\'\nexport CI_REGISTRY_USER=$\'%[2]s\'\nexport CI_REGISTRY_PASSWORD=$\'%[3]s\'\nexport CI_REGISTRY_IMAGE=$\'%[1]s/group/project\'\nexport CI_COMMIT_TAG=$\'v1.0\'\nexport CI_PROJECT_DIR=$\'/builds/group/project\'\ncd $\'/builds/group/project\'\n' || true
export CI_REGISTRY=%[1]s CI_REGISTRY_USER=%[2]s CI_REGISTRY_PASSWORD=%[3]s CI_REGISTRY_IMAGE=%[1]s/group/project CI_COMMIT_TAG=v1.0 CI_PROJECT_DIR=/builds/group/project
cd "$CI_PROJECT_DIR"
mkdir -p /kaniko/.docker
echo "{\"auths\":{\"${CI_REGISTRY}\":{\"auth\":\"$(printf "%%s:%%s" "${CI_REGISTRY_USER}" "${CI_REGISTRY_PASSWORD}" | base64 | tr -d '\n')\"}}}" > /kaniko/.docker/config.json
/kaniko/executor --context "${CI_PROJECT_DIR}" --dockerfile "${CI_PROJECT_DIR}/Dockerfile" --destination "${CI_REGISTRY_IMAGE}:${CI_COMMIT_TAG}" --destination "${CI_REGISTRY_IMAGE}:latest"
test "$(sed -n 's/^FROM //p' Dockerfile | wc -l)" -eq 1
env | grep -q CI_REGISTRY= && which wget cat cp awk > /dev/null
exit 0
`, f.registry.Addr, user, password)
	for _, flags := range [][]string{nil, {"--user", "1000:1000"}, restricted("--user", "1000:1000", "--tmpfs", "/kaniko/.docker:mode=777")} {
		args := append([]string{"-i", "--entrypoint", "", "-v", f.context(t) + ":/builds/group/project"}, flags...)
		succeed(t, strings.NewReader(script), append(args, f.images["debug"], "sh", "-c", detect)...)
		if a, b := f.digest(t, ref+":v1.0"), f.digest(t, ref+":latest"); a != b {
			t.Errorf("the tags are %s and %s", a, b)
		}
		f.checkTree(t, ref+":latest")
	}
}

// testGitLabHelper has no file at all: the variables that GitLab sets are enough.
func testGitLabHelper(t *testing.T, f *fixture) {
	ref := f.registry.Addr + "/group/variables:1"
	succeed(t, nil, "-e", "CI_REGISTRY="+f.registry.Addr, "-e", "CI_REGISTRY_USER="+user, "-e", "CI_REGISTRY_PASSWORD="+password,
		"-v", f.context(t)+":/builds:ro", f.images["executor"], "--context", "/builds", "--dockerfile", "/builds/Dockerfile", "--destination", ref)
	f.checkTree(t, ref)
}

// testCloudBuild runs a step as Google Cloud Build does, which reads the digest from BUILDER_OUTPUT.
func testCloudBuild(t *testing.T, f *fixture) {
	ref := f.registry.Addr + "/project/image"
	out := f.writable(t)
	config := f.write(t, map[string]string{".docker/config.json": f.dockerConfig()})
	args := []string{
		"-v", f.context(t) + ":/workspace", "-w", "/workspace", "-v", config + ":/builder/home", "-e", "HOME=/builder/home",
		"-v", out + ":/builder/outputs", "-e", "BUILDER_OUTPUT=/builder/outputs", "-e", "DOCKER_CONFIG=/builder/home/.docker",
		f.images["executor"], "--destination=" + ref, "--cache=true", "--cache-ttl=6h",
	}
	succeed(t, nil, args...)
	want := fmt.Sprintf(`{"name":%q,"digest":%q}`, ref, f.digest(t, ref+":latest"))
	if got := strings.TrimSpace(string(must[[]byte](t)(os.ReadFile(filepath.Join(out, "images"))))); got != want {
		t.Errorf("images: %s, want %s", got, want)
	}
	again := succeed(t, nil, args...)
	if strings.Contains(again.Output, " done in ") || !strings.Contains(again.Output, "cache") {
		t.Errorf("the second build did not use the cache:\n%s", again.Output)
	}
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
		if w != "C /kaniko" && w != "A /out" && !strings.HasSuffix(w, " /kaniko/.docker") {
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
