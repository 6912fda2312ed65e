package credential_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"

	"hako/internal/credential"
	"hako/internal/diag"
)

func vars(kv ...string) func(string) string {
	m := map[string]string{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = kv[i+1]
	}
	return func(name string) string { return m[name] }
}

// ask asks one helper for a host.
func ask(t *testing.T, name, host string, getenv func(string) string) (*authn.AuthConfig, error) {
	t.Helper()
	helpers, err := credential.Helpers([]string{name}, getenv)
	if err != nil || len(helpers) != 1 || helpers[0].Name != name {
		t.Fatal(helpers, err)
	}
	return helpers[0].Get(context.Background(), host)
}

func TestVariables(t *testing.T) {
	t.Parallel()
	env := vars(
		"KANIKO_REG_EXAMPLE_COM_USER", "u", "KANIKO_REG_EXAMPLE_COM_PASSWORD", "p",
		"KANIKO_EXAMPLE_COM_USER", "above", "KANIKO_EXAMPLE_COM_PASSWORD", "q",
		"KANIKO_MY_REG_5000_USER", "port", "KANIKO_MY_REG_5000_PASSWORD", "r", "KANIKO_HALF_USER", "x",
		"CI_REGISTRY", "registry.gitlab.test:5050", "CI_REGISTRY_USER", "job", "CI_REGISTRY_PASSWORD", "token",
		"CI_DEPENDENCY_PROXY_SERVER", "https://gitlab.test:443", "CI_DEPENDENCY_PROXY_USER", "proxy", "CI_DEPENDENCY_PROXY_PASSWORD", "t2",
	)
	for _, c := range []struct{ helper, host, user string }{
		{"env", "reg.example.com", "u"}, {"env", "other.example.com", "above"}, {"env", "my-reg:5000", "port"},
		{"env", "half", ""}, {"env", "example.org", ""}, {"env", "com", ""},
		{"gitlab", "registry.gitlab.test:5050", "job"}, {"gitlab", "registry.gitlab.test", ""}, {"gitlab", "gitlab.test:443", "proxy"},
		{"gitlab", "evil.test", ""},
	} {
		got, err := ask(t, c.helper, c.host, env)
		if err != nil {
			t.Fatal(err)
		}
		user := ""
		if got != nil {
			user = got.Username
		}
		if user != c.user {
			t.Errorf("%s for %s: %q, want %q", c.helper, c.host, user, c.user)
		}
	}
}

func TestHelpersByName(t *testing.T) {
	t.Parallel()
	all, err := credential.Helpers(nil, vars())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, h := range all {
		names = append(names, h.Name)
	}
	if d := cmp.Diff(credential.Names(), names); d != "" {
		t.Error(d)
	}
	if none, err := credential.Helpers([]string{""}, vars()); err != nil || len(none) > 0 {
		t.Error(none, err)
	}
	_, err = credential.Helpers([]string{"env", "gcloud"}, vars())
	var d *diag.Error
	if !errors.As(err, &d) || !strings.Contains(d.What, `"gcloud"`) || !strings.Contains(d.Hint, "env, google, ecr, acr, gitlab") {
		t.Error(err)
	}
}
