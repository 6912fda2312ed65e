package servers

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"hako/internal/cli"
	"hako/test/lab"
)

const (
	// asProgram makes the test binary be hako under that name.
	asProgram = "HAKO_TEST_PROGRAM"
	user      = "robot"
	password  = "sesame-1a2b3c" // must appear nowhere
	layerSize = 1 << 20
)

// TestMain makes the test binary play executor, so that builds have environments of their own.
func TestMain(m *testing.M) {
	name := os.Getenv(asProgram)
	if name == "" {
		os.Exit(m.Run())
	}
	cwd, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	os.Exit(cli.Main(context.Background(), cli.Env{
		Environ: os.Environ(), Cwd: cwd, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Now: time.Now, Version: "v0",
	}, append([]string{name}, os.Args[1:]...)))
}

// need skips a test, or fails it in CI, if there is no registry to start.
func need(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		if os.Getenv("HAKO_CI") != "" {
			t.Fatal(err)
		}
		t.Skip("needs docker-registry (CNCF distribution)")
	}
}

// start runs a registry until the test ends.
func start(t *testing.T, o lab.RegistryOptions) *lab.Registry {
	t.Helper()
	need(t)
	r := must[*lab.Registry](t)(lab.StartRegistryWith(t.Context(), t.TempDir(), o))
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// serve runs an HTTP server until the test ends and returns its URL.
func serve(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// job is one run of executor.
type job struct {
	// env is the environment beside HOME, TMPDIR and PATH.
	env []string
	// config is the text of config.json; empty means that there is none.
	config string
	args   []string
}

// run runs executor in an empty directory.
func (j job) run(t *testing.T) lab.Result {
	t.Helper()
	home := t.TempDir()
	if j.config != "" {
		if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(j.config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := append([]string{asProgram + "=executor", "HOME=" + home, "DOCKER_CONFIG=" + home, "TMPDIR=" + home, "KANIKO_DIR=" + home, "PATH=" + os.Getenv("PATH")}, j.env...)
	args := append([]string{must[string](t)(os.Executable()), "--log-format=text", "--verbosity=trace"}, j.args...)
	r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: args, Dir: home, Env: env}))
	quiet(t, r.Output)
	return r
}

// quiet makes sure that no secret of the tests is in the text, in any spelling.
func quiet(t *testing.T, text string) {
	t.Helper()
	for _, secret := range []string{password, "cm9ib3Q6c2VzYW1l", "identity-4d5e6f", "eyJ"} {
		if strings.Contains(text, secret) {
			t.Errorf("the output has %q:\n%s", secret, text)
		}
	}
}

// succeed is run for builds that have to.
func (j job) succeed(t *testing.T) lab.Result {
	t.Helper()
	r := j.run(t)
	if r.ExitCode != 0 {
		t.Fatalf("%q: exit code %d\n%s", j.args, r.ExitCode, r.Output)
	}
	return r
}

// fail is run for builds that have to fail with 1 and say all of words.
func (j job) fail(t *testing.T, words ...string) lab.Result {
	t.Helper()
	r := j.run(t)
	if r.ExitCode != 1 {
		t.Fatalf("%q: exit code %d\n%s", j.args, r.ExitCode, r.Output)
	}
	for _, w := range words {
		if !strings.Contains(r.Output, w) {
			t.Errorf("nothing says %q:\n%s", w, r.Output)
		}
	}
	return r
}

// context is a context with a Dockerfile that adds a layer of one file, of random bytes, to a base image.
func contextOf(t *testing.T, base string) string {
	t.Helper()
	dir := t.TempDir()
	data := must[[]byte](t)(noise(3 * layerSize))
	for file, content := range map[string][]byte{"Dockerfile": []byte("FROM " + base + "\nCOPY data /\n"), "data": data} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return "--context=" + dir
}

// auths is a config.json with one login for each host or path.
func auths(logins ...string) string {
	var entries []string
	for i := 0; i+2 < len(logins); i += 3 {
		auth := base64.StdEncoding.EncodeToString([]byte(logins[i+1] + ":" + logins[i+2]))
		entries = append(entries, fmt.Sprintf("%q:{\"auth\":%q}", logins[i], auth))
	}
	return `{"auths":{` + strings.Join(entries, ",") + `}}`
}

// remotely are options to reach a registry from here, without hako.
func remotely(r *lab.Registry, more ...remote.Option) []remote.Option {
	if r.User != "" {
		more = append(more, remote.WithAuth(&authn.Basic{Username: r.User, Password: r.Password}))
	}
	return more
}

// pushBase pushes an image of three random layers.
func pushBase(t *testing.T, ref string, o ...remote.Option) v1.Image {
	t.Helper()
	img := must[v1.Image](t)(random.Image(layerSize, 3))
	if err := remote.Write(must[name.Reference](t)(name.ParseReference(ref)), img, o...); err != nil {
		t.Fatal(err)
	}
	return img
}

// whole reads an image back, every byte of it, and wants layers layers.
func whole(t *testing.T, ref string, layers int, o ...remote.Option) {
	t.Helper()
	img := must[v1.Image](t)(remote.Image(must[name.Reference](t)(name.ParseReference(ref)), o...))
	if err := validate.Image(img); err != nil {
		t.Errorf("%s: %v", ref, err)
	}
	if got := must[[]v1.Layer](t)(img.Layers()); len(got) != layers {
		t.Errorf("%s has %d layers, want %d", ref, len(got), layers)
	}
}

// absent wants no tag, and no manifest that could be pulled by it.
func absent(t *testing.T, ref string, o ...remote.Option) {
	t.Helper()
	if d, err := remote.Head(must[name.Reference](t)(name.ParseReference(ref)), o...); err == nil {
		t.Errorf("%s is there: %s", ref, d.Digest)
	}
}

// must is for set-up that every check after it needs.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
