package cli

import (
	"crypto/ed25519"
	"encoding/pem"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"golang.org/x/crypto/ssh"

	"hako/internal/submit"
)

// TestEveryFlagHasAFate holds that no flag of a build is forgotten when the build runs in a pod.
func TestEveryFlagHasAFate(t *testing.T) {
	t.Parallel()
	known := fates()
	for _, f := range flags() {
		_, ok := known[f.name]
		if needs := f.status == used && f.alias == ""; needs != ok {
			t.Errorf("--%s: its fate in a pod is known: %v, want %v", f.name, ok, needs)
		}
		delete(known, f.name)
	}
	for name := range known {
		t.Errorf("--%s has a fate, but does not exist", name)
	}
}

func parseSubmit(t *testing.T, dir string, environ, args []string) (submit.Request, error) {
	t.Helper()
	vs := newSubmitValues()
	c := &command{env: Env{Version: "v1", Cwd: dir, Stdin: strings.NewReader("FROM scratch\n"), Stdout: io.Discard}, vars: variables(environ), vs: vs}
	set := pflag.NewFlagSet("submit", pflag.ContinueOnError)
	vs.registerSome(set, submitFlags())
	vs.register(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c.submitRequest(t.Context(), vs, set.Args())
}

// Keys go with the Secret, and are called by their agent's name.
func TestSubmitCarriesKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(block)
	if err := os.WriteFile(filepath.Join(dir, "id"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	req, err := parseSubmit(t, dir, []string{"SSH_AUTH_SOCK=/nowhere"}, []string{".", "-d", "r.example/app:1", "--ssh", "git=id"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]submit.File{{Name: "ssh-0-0", Data: text}}, req.Files); diff != "" {
		t.Error(diff)
	}
	if !slices.Contains(req.Args, "--ssh=git=/hako/files/ssh-0-0") {
		t.Error(req.Args)
	}
}

// Nothing secret is in the arguments, and what is a file here is a file there.
func TestSubmitCarries(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"Dockerfile": "FROM r.example/base:1\n", "token": "Unspeakable-2", "key": "Unspeakable-3"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	req, err := parseSubmit(t, dir, []string{"TOKEN=Unspeakable-1", "A=from the environment"}, []string{
		".", "-d", "r.example/app:1", "--secret", "id=a,env=TOKEN", "--secret", "id=b,src=token", "--cache-key-file", "key", "--build-arg", "A",
		"--digest-file", "d", "--label", "x=y", "--cache", "--executor-image", "e",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"--destination=r.example/app:1", "--label=x=y", "--cache=true", "--build-arg=A=from the environment", "--dockerfile=Dockerfile",
		"--secret=id=a,src=/hako/files/secret-0", "--secret=id=b,src=/hako/files/secret-1", "--cache-key-file=/hako/files/cache-key-file",
	}
	if diff := cmp.Diff(want, req.Args); diff != "" {
		t.Error(diff)
	}
	files := []submit.File{{Name: "secret-0", Data: []byte("Unspeakable-1")}, {Name: "secret-1", Data: []byte("Unspeakable-2")}, {Name: "cache-key-file", Data: []byte("Unspeakable-3")}}
	if diff := cmp.Diff(files, req.Files); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"r.example/base:1", "r.example/app:1"}, req.CredentialsFor); diff != "" {
		t.Error(diff)
	}
}

func TestSubmitRefuses(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"--tar-path x.tar":                  "--tar-path needs this machine",
		"--ssh default":                     "--ssh default is an agent of this machine",
		"--ssh a=.":                         "--ssh a: read key",
		"--output type=local,dest=out":      "--output writes to this machine",
		"--cache-repo oci:/cache":           "is a directory, which a pod does not have",
		"--cache-dir /cache":                "names what a pod does not have",
		"--build-context a=oci-layout:///b": "is on this machine",
		"--dryrun":                          "--dryrun needs this machine",
		"--trace t.json":                    "--trace needs this machine",
		"--secret id=a,src=missing":         "read the secret a",
	} {
		_, err := parseSubmit(t, t.TempDir(), nil, append([]string{".", "-d", "r.example/app"}, strings.Fields(line)...))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func TestSubmitHasOneStandardInput(t *testing.T) {
	t.Parallel()
	_, err := parseSubmit(t, t.TempDir(), nil, []string{"-", "-d", "r.example/app", "-f", "-"})
	if want := "the context and the Dockerfile cannot both be standard input"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestSubmitSplits holds what the pods of several platforms get, and what not: the index and the key are this machine's.
func TestSubmitSplits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"Dockerfile", "cosign.key"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("FROM scratch\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{
		".", "-d", "r.example/app:1", "--annotation", "index:a=b", "--sign-key", "cosign.key", "--sign", "--push-by-digest=false",
		"--output", `type=registry,"name=r.example/b:1,r.example/c:2",annotation.x=y,"annotation-index.z=1,2",force-compression=true`, "--compression=zstd",
	}
	for platforms, want := range map[string][]string{
		"linux/amd64,linux/arm64": {
			"--destination=r.example/app:1", "--compression=zstd", "--push-by-digest=false", `--output=type=registry,"name=r.example/b:1,r.example/c:2",force-compression=true`, "--dockerfile=Dockerfile",
		},
		"linux/amd64": {
			"--platform=linux/amd64", "--destination=r.example/app:1", "--compression=zstd", "--annotation=index:a=b", "--sign=true", "--push-by-digest=false",
			"--output=" + args[10], "--dockerfile=Dockerfile", "--sign-key=/hako/files/sign-key",
		},
	} {
		req, err := parseSubmit(t, dir, []string{"COSIGN_PASSWORD=p"}, append([]string{"--platform", platforms}, args...))
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(want)
		slices.Sort(req.Args)
		if diff := cmp.Diff(want, req.Args); diff != "" {
			t.Errorf("%s: %s", platforms, diff)
		}
		if several := strings.Contains(platforms, ","); several == (len(req.Files)+len(req.Env) > 0) {
			t.Errorf("%s: files %v, variables %v", platforms, req.Files, req.Env)
		}
		if len(req.Build.Signing.KeyFile) == 0 || len(req.Build.Annotations) != 3 {
			t.Errorf("%s: what the index needs is lost: %+v", platforms, req.Build)
		}
	}
}
