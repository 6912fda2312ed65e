package registry_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry"
	"hako/internal/registry/registrytest"
)

func basic(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
}

// TestCredentials asks for a blob that is not there: whoever may ask is told so.
func TestCredentials(t *testing.T) {
	t.Parallel()
	auth := registrytest.Auth{Users: map[string]string{"u": "p:with:colons", "path": "p"}, IdentityTokens: map[string]string{"refresh": "id"}}
	for name, c := range map[string]struct {
		config string // HOST is replaced
		bearer bool
		public bool
		user   string // who asked in the end
		fail   bool
	}{
		"auth":                   {config: `{"auths":{"HOST":{"auth":"` + basic("u", "p:with:colons") + `"}}}`, user: "u"},
		"auth, bearer":           {config: `{"auths":{"HOST":{"auth":"` + basic("u", "p:with:colons") + `"}}}`, user: "u", bearer: true},
		"user and password":      {config: `{"auths":{"HOST":{"username":"u","password":"p:with:colons"}}}`, user: "u"},
		"key with scheme":        {config: `{"auths":{"https://HOST":{"username":"u","password":"p:with:colons"}}}`, user: "u"},
		"key with v1":            {config: `{"auths":{"https://HOST/v1/":{"username":"u","password":"p:with:colons"}}}`, user: "u"},
		"key with v2":            {config: `{"auths":{"HOST/v2/":{"username":"u","password":"p:with:colons"}}}`, user: "u"},
		"path":                   {config: `{"auths":{"HOST":{"username":"u","password":"p:with:colons"},"HOST/a/b":{"username":"path","password":"p"}}}`, user: "path"},
		"prefix":                 {config: `{"auths":{"HOST":{"username":"u","password":"p:with:colons"},"HOST/a":{"username":"path","password":"p"}}}`, user: "path"},
		"other path":             {config: `{"auths":{"HOST":{"username":"u","password":"p:with:colons"},"HOST/a/bc":{"username":"path","password":"p"}}}`, user: "u"},
		"identity token":         {config: `{"auths":{"HOST":{"identitytoken":"refresh"}}}`, user: "id", bearer: true},
		"identity token, auth":   {config: `{"auths":{"HOST":{"auth":"` + basic("00000000-0000-0000-0000-000000000000", "") + `","identitytoken":"refresh"}}}`, user: "id", bearer: true},
		"wrong path, then host":  {config: `{"auths":{"HOST":{"username":"u","password":"p:with:colons"},"HOST/a":{"username":"path","password":"wrong"}}}`, user: "u"},
		"wrong path, bearer":     {config: `{"auths":{"HOST":{"username":"u","password":"p:with:colons"},"HOST/a":{"username":"path","password":"wrong"}}}`, user: "u", bearer: true},
		"wrong, but public":      {config: `{"auths":{"HOST":{"username":"u","password":"wrong"}}}`, public: true, bearer: true},
		"empty entry":            {config: `{"auths":{"HOST":{}}}`, public: true},
		"empty file":             {config: ``, public: true},
		"other host":             {config: `{"auths":{"example.com":{"username":"u","password":"p:with:colons"}}}`, fail: true},
		"wrong":                  {config: `{"auths":{"HOST":{"username":"u","password":"wrong"}}}`, fail: true},
		"wrong, bearer":          {config: `{"auths":{"HOST":{"username":"u","password":"wrong"}}}`, fail: true, bearer: true},
		"damaged entry":          {config: `{"auths":{"HOST":{"auth":"!"}}}`, fail: true},
		"damaged entry, another": {config: `{"auths":{"HOST/a":{"auth":"!"},"HOST":{"username":"u","password":"p:with:colons"}}}`, user: "u"},
		"damaged other entry":    {config: `{"auths":{"example.com":{"auth":"!"},"HOST":{"username":"u","password":"p:with:colons"}}}`, user: "u"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			reg.Auth = auth
			reg.Auth.Bearer, reg.Auth.PublicPull = c.bearer, c.public
			host := reg.Start(t)
			o := quick()
			o.DockerConfigDirs = []string{t.TempDir(), configDir(t, strings.ReplaceAll(c.config, "HOST", host))}
			_, err := open(t, o, host+"/a/b", registry.Pull).Has(t.Context(), digest.FromString("x"))
			if (err != nil) != c.fail {
				t.Fatal(err)
			}
			asked := reg.Requests()
			if got := asked[len(asked)-1].User; got != c.user {
				t.Errorf("asked as %q", got)
			}
		})
	}
}

func TestPushNeedsMoreThanPull(t *testing.T) {
	t.Parallel()
	for _, bearer := range []bool{false, true} {
		t.Run(fmt.Sprint(bearer), func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			reg.Auth = registrytest.Auth{
				Bearer: bearer, PublicPull: true, ReadOnly: []string{"reader"},
				Users: map[string]string{"reader": "p", "writer": "p"},
			}
			host := reg.Start(t)
			o := quick()
			o.DockerConfigDirs = []string{
				configDir(t, fmt.Sprintf(`{"auths":{%q:{"username":"reader","password":"p"}}}`, host)),
				configDir(t, fmt.Sprintf(`{"auths":{%q:{"username":"writer","password":"p"}}}`, host)),
			}
			if err := open(t, o, host+"/a", registry.Push).Upload(t.Context(), blobOf(noise(100))); err != nil {
				t.Error(err)
			}
			o.DockerConfigDirs = o.DockerConfigDirs[:1]
			err := open(t, o, host+"/a", registry.Push).CheckPush(t.Context())
			wantError(t, err, host,
				"check that HOST/a can be pushed to: POST http://HOST/v2/a/blobs/uploads/: 401 Unauthorized: UNAUTHORIZED: authentication required",
				fmt.Sprintf(`Check that the credentials from %s (auths "HOST") are valid and may push to HOST/a.`, filepath.Join(o.DockerConfigDirs[0], "config.json")))
			o.DockerConfigDirs = nil
			err = open(t, o, host+"/a", registry.Push).CheckPush(t.Context())
			wantError(t, err, host,
				"check that HOST/a can be pushed to: POST http://HOST/v2/a/blobs/uploads/: 401 Unauthorized: UNAUTHORIZED: authentication required",
				`No credentials for HOST were found: add them as auths["HOST"] to a docker config.json, or correct the name.`)
		})
	}
}

func TestExpiredTokenIsRenewedDuringUpload(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	reg.Auth = registrytest.Auth{Bearer: true, Users: map[string]string{"u": "p"}}
	host := reg.Start(t)
	o := quick()
	o.DockerConfigDirs = []string{configDir(t, fmt.Sprintf(`{"auths":{%q:{"username":"u","password":"p"}}}`, host))}
	r := open(t, o, host+"/a", registry.Push)
	for range 3 {
		reg.Expire()
		data := noise(500_000)
		if err := r.Upload(t.Context(), blobOf(data)); err != nil {
			t.Fatal(err)
		}
		if has, err := r.Has(t.Context(), digest.FromBytes(data)); err != nil || !has {
			t.Fatal(has, err)
		}
	}
}

// TestCredentialHelpers runs small shell scripts as helpers. It sets PATH, and so is not parallel.
func TestCredentialHelpers(t *testing.T) {
	bin := t.TempDir()
	for name, script := range map[string]string{
		"good":    `read server; echo "$server" >> "` + bin + `/asked"; echo '{"ServerURL":"x","Username":"u","Secret":"p"}'`,
		"token":   `echo '{"Username":"<token>","Secret":"refresh"}'`,
		"nothing": `echo "credentials not found in native keychain"; exit 1`,
		"broken":  `echo "keychain is locked"; exit 3`,
		"garbage": `echo "topsecret"`,
		"wrong":   `echo '{"Username":"u","Secret":"topsecret"}'`,
	} {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for name, c := range map[string]struct {
		config string
		bearer bool
		user   string
		fails  string // a part of the error
	}{
		"for host":            {config: `{"credHelpers":{"HOST":"good"}}`, user: "u"},
		"for all":             {config: `{"credsStore":"good","auths":{"HOST":{}}}`, user: "u"},
		"identity token":      {config: `{"credHelpers":{"HOST":"token"}}`, bearer: true, user: "id"},
		"nothing, then store": {config: `{"credHelpers":{"HOST":"nothing"},"credsStore":"good"}`, user: "u"},
		"wrong, then auths":   {config: `{"credHelpers":{"HOST":"wrong"},"auths":{"HOST":{"username":"u","password":"p"}}}`, user: "u"},
		"broken, then auths":  {config: `{"credHelpers":{"HOST":"broken"},"auths":{"HOST":{"username":"u","password":"p"}}}`, user: "u"},
		"missing":             {config: `{"credsStore":"missing"}`, fails: `exec: "docker-credential-missing": executable file not found in $PATH`},
		"broken":              {config: `{"credsStore":"broken"}`, fails: "exit status 3: keychain is locked"},
		"garbage":             {config: `{"credsStore":"garbage"}`, fails: "read the helper's answer: not valid JSON at byte 2"},
		"stand-in":            {config: `{"credHelpers":{"HOST":"own"}}`, user: "u"},
		"bad name":            {config: `{"credsStore":"../x"}`, fails: "the helper's name is not valid"},
	} {
		t.Run(name, func(t *testing.T) {
			reg := registrytest.New()
			reg.Auth = registrytest.Auth{Bearer: c.bearer, Users: map[string]string{"u": "p"}, IdentityTokens: map[string]string{"refresh": "id"}}
			host := reg.Start(t)
			o := quick()
			o.DockerConfigDirs = []string{configDir(t, strings.ReplaceAll(c.config, "HOST", host))}
			o.Programs = map[string]registry.Helper{
				"own": {Name: "own", Get: func(_ context.Context, asked string) (*authn.AuthConfig, error) {
					if asked != host {
						t.Errorf("asked for %q", asked)
					}
					return &authn.AuthConfig{Username: "u", Password: "p"}, nil
				}},
				"nothing": {Name: "nothing", Get: func(context.Context, string) (*authn.AuthConfig, error) {
					t.Error("asked although there is a program")
					return nil, nil
				}},
			}
			_, err := open(t, o, host+"/a", registry.Pull).Has(t.Context(), digest.FromString("x"))
			if c.fails == "" {
				if err != nil {
					t.Fatal(err)
				}
				asked := reg.Requests()
				if got := asked[len(asked)-1].User; got != c.user {
					t.Errorf("asked as %q", got)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.fails) || strings.Contains(err.Error(), "topsecret") {
				t.Errorf("error %v", err)
			}
		})
	}
	asked, err := os.ReadFile(filepath.Join(bin, "asked"))
	if err != nil || strings.Count(string(asked), "\n") != 3 {
		t.Errorf("the helper was asked for %q, %v", asked, err)
	}
}

func TestBadConfigFile(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{"auths":{"x":{"auth":"c2VjcmV0"}}`: "not valid JSON at byte 34",
		`{"auths":"c2VjcmV0"}`:               "auths has the wrong type at byte 19",
	} {
		dir := configDir(t, text)
		_, err := registry.New(registry.Options{DockerConfigDirs: []string{dir}})
		var d *diag.Error
		if !errors.As(err, &d) {
			t.Fatal(err)
		}
		if diff := cmp.Diff("read registry credentials from "+dir+"/config.json: "+want, d.Error()); diff != "" {
			t.Error(diff)
		}
	}
}

// journal keeps all events as text.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Emit(e event.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	fmt.Fprintf(&j.text, "%+v\n", e)
}

// TestNoSecretsLeak lets everything go wrong that quotes addresses and answers.
func TestNoSecretsLeak(t *testing.T) {
	t.Parallel()
	const secret = "TOPSECRET"
	for name, f := range map[string]registrytest.Fault{
		"redirect to nowhere": {Path: "/blobs/", Status: 307, Header: map[string][]string{"Location": {"http://127.0.0.1:1/x?X-Amz-Signature=" + secret}}},
		"redirect with user":  {Path: "/blobs/", Status: 307, Header: map[string][]string{"Location": {"http://u:" + secret + "@127.0.0.1:1/x"}}},
		"location":            {Method: "POST", Status: 202, Header: map[string][]string{"Location": {"http://127.0.0.1:1/x?_state=" + secret}}},
		"bad location":        {Method: "POST", Status: 202, Header: map[string][]string{"Location": {"ftp://127.0.0.1:1/x?_state=" + secret}}},
		"answer with URL":     {Path: "/blobs/", Status: 400, Body: `{"errors":[{"code":"X","message":"see https://u:` + secret + `@h/p?t=` + secret + `"}]}`},
		"unauthorized":        {Path: "/v2/", Status: 401, Header: map[string][]string{"Www-Authenticate": {"Basic"}}},
		"token server":        {Path: "/v2/", Status: 401, Header: map[string][]string{"Www-Authenticate": {`Bearer realm="http://127.0.0.1:1/t?x=` + secret + `"`}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := registrytest.New()
			host := reg.Start(t)
			reg.Inject(f)
			j := &journal{}
			o := quick()
			o.Events = j
			o.DockerConfigDirs = []string{configDir(t, fmt.Sprintf(`{"auths":{%q:{"username":"u","password":%q}}}`, host, secret))}
			_, err := read(t, open(t, o, host+"/a", registry.Pull), descriptorOf(noise(10)))
			if f.Method != "POST" && err == nil {
				t.Error("no error")
			}
			up := open(t, o, host+"/a", registry.Push).Upload(t.Context(), blobOf(noise(10)))
			all := fmt.Sprintf("%v %+v %v %+v", err, err, up, up) + j.text.String()
			for _, e := range []error{err, up} {
				if e != nil {
					all += diag.Format(e)
				}
			}
			if strings.Contains(all, secret) {
				t.Error(all)
			}
		})
	}
}

// Sources are tried in order: the variable, docker's files, other files, helpers.
func TestOrderOfSources(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	reg.Auth = registrytest.Auth{Users: map[string]string{"right": "p"}}
	host := reg.Start(t)
	entry := func(user string) string {
		return fmt.Sprintf(`{"auths":{%q:{"username":%q,"password":"p"}}}`, host, user)
	}
	var asked []string
	helper := func(name, user string) registry.Helper {
		return registry.Helper{Name: name, Get: func(_ context.Context, h string) (*authn.AuthConfig, error) {
			asked = append(asked, name+" "+h)
			if user == "" {
				return nil, errors.New("no identity")
			}
			return &authn.AuthConfig{Username: user, Password: "p"}, nil
		}}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "auth.json")
	for name, text := range map[string]string{"config.json": entry("docker"), "auth.json": entry("podman")} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	o := quick()
	o.AuthConfig, o.DockerConfigDirs, o.AuthFiles = entry("variable"), []string{dir}, []string{file, file + ".missing"}
	o.Helpers = []registry.Helper{helper("broken", ""), helper("good", "right"), helper("never", "x")}
	for _, repo := range []string{"/a", "/b"} {
		if _, err := open(t, o, host+repo, registry.Push).Has(t.Context(), digest.FromString("x")); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{"broken " + host, "good " + host, "broken " + host, "good " + host}, asked); d != "" {
		t.Errorf("helpers are asked in order, once by each client (-want +got)\n%s", d)
	}
}

func TestDamagedAuthConfig(t *testing.T) {
	t.Parallel()
	o := quick()
	o.AuthConfig = `{"auths": sesame`
	_, err := registry.New(o)
	wantError(t, err, "HOST", "read registry credentials from DOCKER_AUTH_CONFIG: not valid JSON at byte 11", "Correct or unset the variable.")
}

// Who is refused without credentials is refused again when he asks again.
func TestRefusedTwice(t *testing.T) {
	t.Parallel()
	reg := registrytest.New()
	reg.Auth = registrytest.Auth{Bearer: true, Users: map[string]string{"u": "p"}}
	r := open(t, quick(), reg.Start(t)+"/a", registry.Push)
	for range 3 {
		err := r.Upload(t.Context(), registry.Blob{Digest: digest.FromString("x"), Size: 1, Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("x")), nil
		}})
		if err == nil || !strings.Contains(err.Error(), "401") {
			t.Error(err)
		}
	}
}
