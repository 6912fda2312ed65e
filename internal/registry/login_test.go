package registry_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

func TestLogin(t *testing.T) {
	t.Parallel()
	for _, bearer := range []bool{false, true} {
		reg := registrytest.New()
		reg.Auth = registrytest.Auth{Bearer: bearer, Users: map[string]string{"me": "pass:word"}}
		host := reg.Start(t)
		c, err := registry.New(registry.Options{Insecure: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		for _, name := range []string{host, "http://" + host, host + "/v2/", "https://" + host + "/some/path"} {
			if err := c.Login(t.Context(), name, "me", "pass:word"); err != nil {
				t.Errorf("bearer %t: %s: %v", bearer, name, err)
			}
		}
		for _, who := range [][2]string{{"me", "wrong-secret"}, {"you", "pass:word"}} {
			err := c.Login(t.Context(), host, who[0], who[1])
			var d *diag.Error
			if !errors.As(err, &d) || !strings.Contains(d.Hint, "Check the user and the password") {
				t.Errorf("bearer %t: %v", bearer, err)
			}
			if err != nil && strings.Contains(err.Error(), "wrong-secret") {
				t.Errorf("the password is in the error: %v", err)
			}
		}
	}
}

func TestStoreCredentials(t *testing.T) {
	t.Parallel()
	const other = `{"auths":{"other.example":{"auth":"eDp5"}},"HttpHeaders":{"X":"y"}}`
	for name, c := range map[string]struct{ before, host, after, removed string }{
		"no file": {
			"", "r.example:5000", `{"auths":{"r.example:5000":{"auth":"bWU6c2VjcmV0"}}}`, `{"auths":{}}`,
		},
		"what is not known stays": {
			other, "https://r.example/v2/", `{"HttpHeaders":{"X":"y"},"auths":{"other.example":{"auth":"eDp5"},"r.example":{"auth":"bWU6c2VjcmV0"}}}`,
			`{"HttpHeaders":{"X":"y"},"auths":{"other.example":{"auth":"eDp5"}}}`,
		},
		"Docker Hub": {"{}", "", `{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"}}}`, `{"auths":{}}`},
		"null":       {`{"auths":null}`, "docker.io", `{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"}}}`, `{"auths":{}}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "new", ".docker")
			path := filepath.Join(dir, "config.json")
			if c.before != "" {
				if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(path, []byte(c.before), 0o644)); err != nil {
					t.Fatal(err)
				}
			}
			where, err := registry.StoreCredentials(t.Context(), dir, c.host, "me", "secret")
			if err != nil || where != path {
				t.Fatalf("%q, %v", where, err)
			}
			if diff := cmp.Diff(c.after, compact(t, path)); diff != "" {
				t.Error(diff)
			}
			if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", st.Mode(), err)
			}
			if where, err := registry.RemoveCredentials(t.Context(), dir, c.host); err != nil || where != path {
				t.Errorf("%q, %v", where, err)
			}
			if diff := cmp.Diff(c.removed, compact(t, path)); diff != "" {
				t.Error(diff)
			}
			if where, err := registry.RemoveCredentials(t.Context(), dir, c.host); err != nil || where != "" {
				t.Errorf("%q, %v", where, err)
			}
		})
	}
}

func compact(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("\n", "", "\t", "", `": `, `":`).Replace(string(data))
}

func TestStoreCredentialsWhereItCannot(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"no JSON": `{"auths": secret`, "another type": `{"auths": 1}`} {
		dir := t.TempDir()
		path := filepath.Join(dir, "config.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := registry.StoreCredentials(t.Context(), dir, "r.example", "me", "secret")
		var d *diag.Error
		if !errors.As(err, &d) || d.Hint == "" || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != text {
			t.Errorf("%s: the file was changed: %q, %v", name, data, err)
		}
	}
}
