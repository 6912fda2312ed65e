package cli

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hako/internal/registry/registrytest"
)

// TestPasswordsAreInNoOutput runs the program in ways that succeed and in ways that fail, with every kind of password, at the
// highest verbosity, and looks for them in all that it writes: logs in each format, traces, files, errors.
func TestPasswordsAreInNoOutput(t *testing.T) {
	t.Parallel()
	const password, wrong, secret, token, arg = "pa55-of-registry", "wr0ng-password", "s3cret-file-value", "t0ken-of-url", "bu1ld-arg-value"
	words := []string{password, wrong, secret, token, arg}
	for _, w := range words[:2] {
		words = append(words, base64.StdEncoding.EncodeToString([]byte("me:"+w)))
	}
	reg := registrytest.New()
	reg.Auth = registrytest.Auth{Bearer: true, Users: map[string]string{"me": password}}
	host := reg.Start(t)
	auths := func(p string) string {
		return fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, host, base64.StdEncoding.EncodeToString([]byte("me:"+p)))
	}
	for name, c := range map[string]struct {
		environ []string
		args    []string
		stdin   string
		code    int
	}{
		"a push":              {[]string{"DOCKER_AUTH_CONFIG=" + auths(password)}, []string{"executor", "-d", host + "/a:1"}, "", 0},
		"a refused push":      {[]string{"DOCKER_AUTH_CONFIG=" + auths(wrong)}, []string{"executor", "-d", host + "/a:1"}, "", 1},
		"by variables":        {[]string{"CI_REGISTRY=" + host, "CI_REGISTRY_USER=me", "CI_REGISTRY_PASSWORD=" + wrong}, []string{"executor", "-d", host + "/a:1"}, "", 1},
		"a damaged file":      {[]string{"DOCKER_AUTH_CONFIG={\"auths\": " + password}, []string{"executor", "-d", host + "/a:1"}, "", 1},
		"a secret":            {[]string{"S=" + secret}, []string{"executor", "--no-push", "--secret", "id=s,env=S"}, "", 0},
		"a bad secret":        {[]string{"S=" + secret}, []string{"executor", "--no-push", "--secret", "id=s,env=S,wrong=" + secret}, "", 1},
		"a build argument":    {nil, []string{"executor", "--no-push", "--dryrun", "--build-arg", "TOKEN=" + arg}, "", 0},
		"a context with user": {nil, []string{"executor", "--no-push", "-c", "git://me:" + token + "@127.0.0.1:1/x.git"}, "", 1},
		"a url with user":     {nil, []string{"executor", "--no-push", "-c", "https://me:" + token + "@127.0.0.1:1/x.tar.gz?sig=" + token}, "", 1},
		"a digest for a url":  {nil, []string{"executor", "--no-push", "--digest-file", "https://127.0.0.1:1/x?sig=" + token}, "", 1},
		"a login":             {nil, []string{"executor", "login", "-u", "me", "--password-stdin", host}, password, 0},
		"a refused login":     {nil, []string{"executor", "login", "-u", "me", "--password-stdin", host}, wrong, 1},
		"git's token":         {[]string{"GIT_TOKEN=" + token}, []string{"executor", "--no-push", "-c", "git://127.0.0.1:1/x.git"}, "", 1},
	} {
		for _, format := range []string{"text", "color", "json"} {
			t.Run(name+"/"+format, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				err := errors.Join(
					os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte("FROM scratch\nARG TOKEN\nCOPY Dockerfile /\n"), 0o644),
					os.Mkdir(filepath.Join(dir, "out"), 0o755),
				)
				if err != nil {
					t.Fatal(err)
				}
				trace := filepath.Join(dir, "out", "trace")
				args := append(append([]string{}, c.args...), "-v", "trace", "--log-format", format, "--trace", trace, "--insecure", "--kaniko-dir", filepath.Join(dir, "state"))
				var out bytes.Buffer
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				code := Main(ctx, Env{
					Environ: append([]string{"DOCKER_CONFIG=" + filepath.Join(dir, "docker")}, c.environ...), Cwd: dir,
					Stdin: strings.NewReader(c.stdin), Stdout: &out, Stderr: &out, Now: time.Now, Version: "v0",
				}, append(args, contextFlag(args, dir)...))
				if code != c.code {
					t.Errorf("exit code %d: %s", code, out.String())
				}
				if data, err := os.ReadFile(trace); err == nil {
					out.Write(data)
				}
				for _, w := range words {
					if strings.Contains(out.String(), w) {
						t.Errorf("%q is in the output:\n%s", w, out.String())
					}
				}
			})
		}
	}
}

// contextFlag is the flag for the context dir, unless args have one.
func contextFlag(args []string, dir string) []string {
	for _, a := range args {
		if a == "-c" || a == "login" {
			return nil
		}
	}
	return []string{"-c", dir}
}
