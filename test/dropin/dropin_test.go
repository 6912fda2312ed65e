package dropin

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/test/lab"
)

// TestDropIn runs the images. Its parts share them, and one registry.
func TestDropIn(t *testing.T) {
	f := newFixture(t)
	for _, part := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"Configuration", testConfiguration},
		{"Paths", testPaths},
		{"Reproducible", testReproducible},
		{"Executor", testExecutor},
		{"Readme", testReadme},
		{"Pod", testPod},
		{"GitLab", testGitLab},
		{"GitLabHelper", testGitLabHelper},
		{"CloudBuild", testCloudBuild},
		{"GitHub", testGitHub},
		{"Tekton", testTekton},
		{"Scripts", testScripts},
		{"Warmer", testWarmer},
		{"Beside", testBeside},
		{"Copied", testCopied},
		{"CredHelpers", testCredHelpers},
	} {
		t.Run(part.name, func(t *testing.T) { part.run(t, f) })
	}
}

// restricted is what Kubernetes' "restricted" Pod Security Standard leaves, and a read-only root file system.
func restricted(more ...string) []string {
	return append([]string{"--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"}, more...)
}

// wrapping is a way to run an image: which one, and with which flags of docker run.
type wrapping struct {
	name, image string
	flags       []string
}

// wrappings are the containers that clusters and people put an executor into.
func wrappings() []wrapping {
	return []wrapping{
		{"default", "executor", nil},
		{"restricted", "executor", restricted("--user", "1000:1000")},
		{"nonroot", "nonroot", restricted()},
	}
}

// docker runs a container with its own standard input to its end.
func docker(t *testing.T, stdin io.Reader, args ...string) lab.Result {
	t.Helper()
	c := lab.Command{Args: append([]string{"docker", "run", "--rm", "--network", "host"}, args...), Stdin: stdin}
	r := must[lab.Result](t)(lab.Run(t.Context(), c))
	checkQuiet(t, r.Output)
	return r
}

// checkQuiet makes sure that no password is in what a container printed, in any spelling.
func checkQuiet(t *testing.T, output string) {
	t.Helper()
	for _, secret := range []string{password, "cm9ib3Q6c2VzYW1l"} {
		if strings.Contains(output, secret) {
			t.Errorf("the output has %q:\n%s", secret, output)
		}
	}
}

// succeed is docker for containers that have to end with 0.
func succeed(t *testing.T, stdin io.Reader, args ...string) lab.Result {
	t.Helper()
	r := docker(t, stdin, args...)
	if r.ExitCode != 0 {
		t.Fatalf("docker run %s: exit code %d\n%s", strings.Join(args, " "), r.ExitCode, r.Output)
	}
	return r
}

// imageConfig is what jobs rely on in the configuration of an image.
type imageConfig struct {
	User, WorkingDir string
	Entrypoint, Cmd  []string
	Env              []string
}

func testConfiguration(t *testing.T, f *fixture) {
	env := []string{
		"PATH=/usr/local/bin:/kaniko", "HOME=/root", "USER=root", "SSL_CERT_DIR=/kaniko/ssl/certs", "DOCKER_CONFIG=/kaniko/.docker/",
		"DOCKER_CREDENTIAL_GCR_CONFIG=/kaniko/.config/gcloud/docker_credential_gcr_config.json",
	}
	executor := imageConfig{WorkingDir: "/workspace", Entrypoint: []string{"/kaniko/executor"}, Env: env}
	nonroot, warmer, debug := executor, executor, executor
	nonroot.User = "65532:65532"
	warmer.Entrypoint = []string{"/kaniko/warmer"}
	debug.Env = append([]string{}, env...)
	debug.Env[0] = "PATH=/usr/local/bin:/kaniko:/busybox"
	for image, want := range map[string]imageConfig{"executor": executor, "slim": executor, "nonroot": nonroot, "warmer": warmer, "debug": debug} {
		out := must[string](t)(lab.Must(t.Context(), "docker", "inspect", "--format", "{{json .Config}}", f.images[image]))
		var got imageConfig
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s:\n%s", image, diff)
		}
	}
}

// testPaths looks at the files of the images with the shell of debug, and at what is missing in slim.
func testPaths(t *testing.T, f *fixture) {
	script := `stat -c '%a %u %F' /kaniko /kaniko/.docker /kaniko/executor /kaniko/ssl/certs/ca-certificates.crt /etc/nsswitch.conf /workspace
for n in hako warmer docker-credential-ecr-login docker-credential-gcr docker-credential-acr-env; do readlink /kaniko/$n; done
readlink /bin/sh; readlink /busybox/sh; nohup sh -c 'kill -HUP $$; echo still here'; cat /busybox/LICENSE.txt`
	got := succeed(t, nil, "--entrypoint", "/bin/sh", f.images["debug"], "-c", script).Stdout
	want := `777 0 directory
777 0 directory
755 0 regular file
644 0 regular file
644 0 regular file
755 0 directory
executor
executor
executor
executor
executor
/busybox/sh
busybox
still here
`
	if !strings.HasPrefix(got, want) || !strings.Contains(got, "GNU General Public License") || !strings.Contains(got, "\nBusyBox v") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, image := range []string{"executor", "slim", "nonroot", "warmer"} {
		if r := docker(t, nil, "--entrypoint", "/busybox/sh", f.images[image], "-c", "true"); r.ExitCode == 0 {
			t.Errorf("%s has a shell", image)
		}
	}
	if r := docker(t, nil, "--entrypoint", "/kaniko/docker-credential-gcr", f.images["slim"], "version"); r.ExitCode == 0 {
		t.Error("slim has credential helpers")
	}
}

// testReproducible makes an image again, elsewhere, and wants the same one, to the byte.
func testReproducible(t *testing.T, f *fixture) {
	again := must[map[string]string](t)(lab.LoadImages(t.Context(), f.newDir(t), "debug"))
	if again["debug"] != f.images["debug"] {
		t.Errorf("debug is %s, then %s", f.images["debug"], again["debug"])
	}
}

// testExecutor builds with config.json mounted, as in kaniko's README, in each kind of container.
func testExecutor(t *testing.T, f *fixture) {
	for _, w := range wrappings() {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			ref := f.registry.Addr + "/executor:" + w.name
			files := f.write(t, map[string]string{"config.json": f.dockerConfig()})
			out := f.newDir(t)
			if err := os.Chmod(out, 0o777); err != nil {
				t.Fatal(err)
			}
			args := append([]string{
				"-v", f.context(t) + ":/workspace", "-v", filepath.Join(files, "config.json") + ":/kaniko/.docker/config.json:ro", "-v", out + ":/out",
			}, w.flags...)
			args = append(args, f.images[w.image], "--dockerfile=Dockerfile", "--context=dir:///workspace/", "--destination="+ref, "--digest-file=/out/digest")
			succeed(t, nil, args...)
			if got := string(must[[]byte](t)(os.ReadFile(filepath.Join(out, "digest")))); got != f.digest(t, ref) {
				t.Errorf("digest file %q, registry %q", got, f.digest(t, ref))
			}
			f.checkTree(t, ref)
		})
	}
}

// checkTree wants the two files that the context's Dockerfile makes.
func (f *fixture) checkTree(t *testing.T, ref string) {
	t.Helper()
	tree := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref))
	for _, p := range []string{"/srv/hello.txt", "/srv/copy"} {
		if _, ok := tree[p]; !ok {
			t.Errorf("%s has no %s", ref, p)
		}
	}
}
