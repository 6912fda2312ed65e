package servers

import (
	"crypto/rand"
	"fmt"
	"testing"

	"hako/test/lab"
)

// noise are n bytes that do not compress.
func noise(n int) ([]byte, error) {
	data := make([]byte, n)
	_, err := rand.Read(data)
	return data, err
}

// TestPasswords pushes to and pulls from a registry with htpasswd, with credentials from each place, good and bad.
func TestPasswords(t *testing.T) {
	t.Parallel()
	r := start(t, lab.RegistryOptions{User: user, Password: password})
	base := r.Addr + "/base:1"
	pushBase(t, base, remotely(r)...)
	good, bad := auths(r.Addr, user, password), auths(r.Addr, user, "wrong")
	for name, j := range map[string]job{
		"file":         {config: good},
		"https":        {config: auths("https://"+r.Addr+"/v1/", user, password)},
		"variable":     {env: []string{"DOCKER_AUTH_CONFIG=" + good}},
		"bad-variable": {env: []string{"DOCKER_AUTH_CONFIG=" + bad}, config: good},
		"bad-file":     {env: []string{"CI_REGISTRY=" + r.Addr, "CI_REGISTRY_USER=" + user, "CI_REGISTRY_PASSWORD=" + password}, config: bad},
		"bad-path":     {config: auths(r.Addr+"/team", user, "wrong", r.Addr, user, password)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := r.Addr + "/team/" + name + ":1"
			j.args = []string{contextOf(t, base), "--destination=" + ref}
			j.succeed(t)
			whole(t, ref, 4, remotely(r)...)
		})
	}
	for name, tc := range map[string]struct {
		job  job
		want string
	}{
		"nobody": {job{}, fmt.Sprintf("No credentials for %s were found", r.Addr)},
		"wrong":  {job{config: bad}, "Check that the credentials from "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := r.Addr + "/team/" + name + ":1"
			tc.job.args = []string{contextOf(t, base), "--destination=" + ref}
			tc.job.fail(t, "401 Unauthorized", tc.want)
			absent(t, ref, remotely(r)...)
		})
	}
}

// TestTokens has a token server between: by password, by identity token, and with a login for each path.
func TestTokens(t *testing.T) {
	t.Parallel()
	tokens := must[*lab.TokenServer](t)(lab.NewTokenServer())
	tokens.Passwords = map[string]string{user: password, "other": password + "2"}
	tokens.IdentityTokens = map[string]string{"identity-4d5e6f": user}
	tokens.May = map[string][]string{user: {"team"}, "other": {"private"}, "": {"public"}}
	tokens.URL = serve(t, tokens) + "/token"
	r := start(t, lab.RegistryOptions{Token: tokens})
	open := start(t, lab.RegistryOptions{Data: r.Data})
	pushBase(t, open.Addr+"/private/base:1")
	pushBase(t, open.Addr+"/public/base:1")
	both := auths(r.Addr+"/private", "other", password+"2", r.Addr+"/team", user, password)
	for name, tc := range map[string]struct {
		config, base string
		fails        string
	}{
		"password":         {auths(r.Addr, user, password), "/public/base:1", ""},
		"identity":         {fmt.Sprintf(`{"auths":{%q:{"identitytoken":"identity-4d5e6f"}}}`, r.Addr), "/public/base:1", ""},
		"helper-identity":  {fmt.Sprintf(`{"auths":{%q:{"auth":"PHRva2VuPjo=","identitytoken":"identity-4d5e6f"}}}`, r.Addr), "/public/base:1", ""},
		"paths":            {both, "/private/base:1", ""},
		"foreign":          {auths(r.Addr, user, password), "/private/base:1", "/private/base"},
		"wrong":            {auths(r.Addr, user, "wrong"), "/public/base:1", "Check that the credentials from "},
		"nobody":           {"", "/public/base:1", "No credentials for " + r.Addr},
		"unknown-identity": {fmt.Sprintf(`{"auths":{%q:{"identitytoken":"forged"}}}`, r.Addr), "/public/base:1", "Check that the credentials from "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := "/team/" + name + ":1"
			j := job{config: tc.config, args: []string{contextOf(t, r.Addr+tc.base), "--destination=" + r.Addr + ref, "--destination=" + r.Addr + ref + "-too"}}
			if tc.fails != "" {
				j.fail(t, tc.fails, "401 Unauthorized")
				absent(t, open.Addr+ref)
				return
			}
			j.succeed(t)
			whole(t, open.Addr+ref, 4)
			whole(t, open.Addr+ref+"-too", 4)
		})
	}
}
