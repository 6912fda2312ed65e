//go:build !slim

package credential

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
)

// No cloud is asked about registries that are not its own.
func TestCloudsKnowTheirRegistries(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // whoever asks a cloud fails
	own := map[string][]string{
		"google": {"gcr.io", "eu.gcr.io", "europe-docker.pkg.dev"},
		"ecr":    {"123456789012.dkr.ecr.eu-west-1.amazonaws.com", "public.ecr.aws", "123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "123456789012.dkr-ecr.eu-west-1.on.aws"},
		"acr":    {"me.azurecr.io", "me.azurecr.cn"},
	}
	foreign := []string{
		"docker.io", "gcr.io.evil.test", "evilgcr.io", "pkg.dev", "azurecr.io", "me.azurecr.io.evil.test", "me.azurecr.io:5000",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.test", "evil.test/123456789012.dkr.ecr.eu-west-1.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com",
		"xpublic.ecr.aws",
	}
	for name, get := range clouds() {
		for _, host := range own[name] {
			if c, err := get(ctx, host); err == nil {
				t.Errorf("%s does not know %s: %v", name, host, c)
			}
		}
		for _, host := range foreign {
			if c, err := get(ctx, host); c != nil || err != nil {
				t.Errorf("%s answers for %s: %v, %v", name, host, c, err)
			}
		}
	}
}

// cloudEnv sets variables of clouds and takes away what the machine may have.
func cloudEnv(t *testing.T, kv map[string]string) {
	t.Helper()
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "AWS_") || strings.HasPrefix(name, "GOOGLE_") || strings.HasPrefix(name, "GCE_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("NO_PROXY", "127.0.0.1")
	for k, v := range kv {
		t.Setenv(k, v)
	}
}

func TestECR(t *testing.T) {
	var regions []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		regions = append(regions, r.Header.Get("Authorization"))
		token := base64.StdEncoding.EncodeToString([]byte("AWS:pass:word"))
		_ = json.NewEncoder(w).Encode(map[string]any{"authorizationData": []any{map[string]any{"authorizationToken": token}}})
	}))
	t.Cleanup(server.Close)
	cloudEnv(t, map[string]string{
		"AWS_ENDPOINT_URL_ECR": server.URL, "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-2", "AWS_EC2_METADATA_DISABLED": "true",
	})
	got, err := fromECR(t.Context(), "123456789012.dkr.ecr.eu-west-1.amazonaws.com")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&authn.AuthConfig{Username: "AWS", Password: "pass:word"}, got); d != "" {
		t.Error(d)
	}
	if len(regions) != 1 || !strings.Contains(regions[0], "/eu-west-1/ecr/") {
		t.Errorf("the request was signed for %q, not for the registry's region", regions)
	}
}

func TestECRRefuses(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"UnrecognizedClientException","message":"The security token included in the request is invalid."}`)
	}))
	t.Cleanup(server.Close)
	cloudEnv(t, map[string]string{
		"AWS_ENDPOINT_URL_ECR": server.URL, "AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "sesame", "AWS_EC2_METADATA_DISABLED": "true",
	})
	_, err := fromECR(t.Context(), "123456789012.dkr.ecr.eu-west-1.amazonaws.com")
	if err == nil || !strings.Contains(err.Error(), "get a token for ECR in eu-west-1") || strings.Contains(err.Error(), "sesame") {
		t.Error(err)
	}
}

func TestGoogle(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Metadata-Flavor", "Google")
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/token") {
			_, _ = io.WriteString(w, `{"access_token":"ya29","expires_in":3600,"token_type":"Bearer"}`)
		}
	}))
	t.Cleanup(server.Close)
	cloudEnv(t, map[string]string{"GCE_METADATA_HOST": strings.TrimPrefix(server.URL, "http://")})
	got, err := fromGoogle(t.Context(), "europe-docker.pkg.dev")
	if err != nil {
		t.Fatal(err)
	}
	if got.Username != "_token" || got.Password != "ya29" {
		t.Errorf("%+v", got)
	}
}

func TestGoogleKeyFileIsDamaged(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key.json")
	if err := os.WriteFile(key, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	cloudEnv(t, map[string]string{"GOOGLE_APPLICATION_CREDENTIALS": key})
	if got, err := fromGoogle(t.Context(), "gcr.io"); err == nil {
		t.Errorf("%+v", got)
	}
}

func TestExchange(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/oauth2/exchange" || r.FormValue("grant_type") != "access_token" || r.FormValue("service") != r.Host {
			t.Errorf("%s %v", r.URL, r.Form)
		}
		switch r.FormValue("access_token") {
		case "aad":
			_, _ = io.WriteString(w, `{"refresh_token":"acr"}`)
		case "empty":
			_, _ = io.WriteString(w, `{}`)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(server.Close)
	got, err := exchange(t.Context(), server.Client(), server.URL, "aad")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(&authn.AuthConfig{Username: acrUser, Password: "acr"}, got); d != "" {
		t.Error(d)
	}
	for _, token := range []string{"empty", "denied"} {
		if got, err := exchange(t.Context(), server.Client(), server.URL, token); err == nil || strings.Contains(err.Error(), token+" ") {
			t.Errorf("%s: %+v, %v", token, got, err)
		}
	}
}
