//go:build !slim

package credential

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// answer is what a helper program said and how it ended.
type answer struct {
	Code           int
	Stdout, Stderr string
}

func serve(t *testing.T, name, stdin string, args ...string) answer {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Serve(t.Context(), Process{
		Name: name, Args: args, Getenv: func(string) string { return "" }, Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr, Version: "v1",
	})
	return answer{code, stdout.String(), stderr.String()}
}

func TestProtocol(t *testing.T) {
	t.Parallel()
	const ecr = "docker-credential-ecr-login"
	usage := "Usage: " + ecr + " <store|get|erase|list|version>\n"
	stores := ecr + " stores nothing: it asks the cloud each time, with the identity of this machine, pod or job\n"
	for _, tc := range []struct {
		name, stdin string
		args        []string
		want        answer
	}{
		{ecr, "registry.example.com", []string{"get"}, answer{1, "credentials not found in native keychain\n", ""}},
		{ecr, "https://index.docker.io/v1/", []string{"get"}, answer{1, "credentials not found in native keychain\n", ""}},
		{ecr, "https://%zz", []string{"get"}, answer{1, "credentials not found in native keychain\n", ""}},
		{ecr, "123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.test", []string{"get"}, answer{1, "credentials not found in native keychain\n", ""}},
		{ecr, " \n", []string{"get"}, answer{1, "no credentials server URL\n", ""}},
		{ecr, "", []string{"list"}, answer{0, "{}\n", ""}},
		{ecr, `{"ServerURL":"a","Username":"u","Secret":"sesame"}`, []string{"store"}, answer{1, stores, ""}},
		{ecr, "a", []string{"erase"}, answer{1, stores, ""}},
		{ecr, "", []string{"version"}, answer{0, ecr + " (hako) v1\n", ""}},
		{ecr, "", nil, answer{1, usage, ""}},
		{ecr, "", []string{"get", "get"}, answer{1, usage, ""}},
		{ecr, "", []string{"configure-docker"}, answer{1, usage, ""}},
		{"docker-credential-gcr", "", []string{"configure-docker", "--registries=gcr.io"}, answer{0, "",
			"docker-credential-gcr configure-docker: nothing is changed: hako asks Google for all of its registries, with application default credentials\n"}},
		{"docker-credential-gcr", "index.docker.io", []string{"get"}, answer{1, "credentials not found in native keychain\n", ""}},
		{"docker-credential-acr-env", "ghcr.io", []string{"get"}, answer{1, "credentials not found in native keychain\n", ""}},
	} {
		if diff := cmp.Diff(tc.want, serve(t, tc.name, tc.stdin, tc.args...)); diff != "" {
			t.Errorf("%s %q < %q:\n%s", tc.name, tc.args, tc.stdin, diff)
		}
	}
}

func TestProtocolIgnoresStorage(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]int{"true": 0, "1": 0, "false": 1, "x": 1} {
		for _, name := range []string{"docker-credential-ecr-login", "docker-credential-gcr"} {
			code := Serve(t.Context(), Process{
				Name: name, Args: []string{"store"}, Getenv: func(string) string { return value }, Stdin: strings.NewReader("{}"), Stdout: io.Discard, Stderr: io.Discard,
			})
			if name == "docker-credential-gcr" {
				want = 1
			}
			if code != want {
				t.Errorf("%s with %q: %d, want %d", name, value, code, want)
			}
		}
	}
}

// TestProtocolPublic has no identity for Amazon's public registry, which may be pulled from all the same.
func TestProtocolPublic(t *testing.T) {
	cloudEnv(t, map[string]string{"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"})
	got := serve(t, "docker-credential-ecr-login", "public.ecr.aws", "get")
	if got.Code != 1 || got.Stdout != notFound+"\n" || !strings.Contains(got.Stderr, "public.ecr.aws") {
		t.Errorf("%+v", got)
	}
}

func FuzzHostOf(f *testing.F) {
	for _, s := range []string{"gcr.io", "https://gcr.io/v1/", "https://%zz", "://", "a:443", "https://[::1]:443/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, server string) {
		if host := hostOf(server); strings.ContainsAny(host, "/?#") {
			t.Errorf("%q: host %q", server, host)
		}
	})
}

func TestIsProgram(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"docker-credential-ecr-login": true, "docker-credential-gcr": true, "docker-credential-gcloud": true, "docker-credential-acr-env": true,
		"docker-credential-pass": false, "docker-credential-": false, "ecr-login": false, "executor": false,
	} {
		if IsProgram(name) != want {
			t.Errorf("%q: %t", name, !want)
		}
	}
}

// TestProtocolGet asks a fake ECR for a server in each spelling that docker has for one.
func TestProtocolGet(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		token := base64.StdEncoding.EncodeToString([]byte("AWS:pa<ss"))
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{"authorizationToken": token}}})
	}))
	t.Cleanup(server.Close)
	cloudEnv(t, map[string]string{
		"AWS_ENDPOINT_URL_ECR": server.URL, "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
	})
	const host = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
	for _, spelled := range []string{host, host + "\n", "https://" + host, "https://" + host + "/", "https://" + host + "/v2/team/app", host + ":443"} {
		got := serve(t, "docker-credential-ecr-login", spelled, "get")
		var said struct{ ServerURL, Username, Secret string }
		if err := json.Unmarshal([]byte(got.Stdout), &said); err != nil || got.Code != 0 {
			t.Errorf("%q: %+v, %v", spelled, got, err)
			continue
		}
		if said.ServerURL != strings.TrimSpace(spelled) || said.Username != "AWS" || said.Secret != "pa<ss" {
			t.Errorf("%q: %+v", spelled, said)
		}
	}
}
