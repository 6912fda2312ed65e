package registry

import (
	"net/url"
	"testing"
)

func TestAliasRealm(t *testing.T) {
	t.Parallel()
	for challenge, want := range map[string]string{
		`Bearer realm="https://10.0.0.5/jwt/auth",service="x"`:         `Bearer realm="https://0a000005.token-server.invalid/jwt/auth",service="x"`,
		`Bearer service="x",realm="http://127.0.0.1:5001/t?a=b"`:       `Bearer service="x",realm="http://7f000001.token-server.invalid:5001/t?a=b"`,
		`Bearer realm="https://[fd00::1]/t"`:                           `Bearer realm="https://fd000000000000000000000000000001.token-server.invalid/t"`,
		`Bearer realm="https://8.8.8.8/t"`:                             `Bearer realm="https://8.8.8.8/t"`,
		`Bearer realm="https://auth.example.com/t",service="10.0.0.5"`: `Bearer realm="https://auth.example.com/t",service="10.0.0.5"`,
		`Basic realm="Registry"`:                                       `Basic realm="Registry"`,
		`Bearer realm="https://10.0.0.5`:                               `Bearer realm="https://10.0.0.5`,
		`Bearer realm="%zz"`:                                           `Bearer realm="%zz"`,
		``:                                                             ``,
	} {
		if got := aliasRealm(challenge); got != want {
			t.Errorf("%s: %s, want %s", challenge, got, want)
		}
	}
}

func FuzzAliasRealm(f *testing.F) {
	f.Add(`Bearer realm="https://10.0.0.5/jwt/auth",service="x"`)
	f.Add(`realm="http://[::1]:80"`)
	f.Add(`realm="`)
	f.Fuzz(func(t *testing.T, challenge string) { aliasRealm(challenge) })
}

func TestUnalias(t *testing.T) {
	t.Parallel()
	for from, want := range map[string]string{
		"https://0a000005.token-server.invalid/jwt/auth?scope=x":               "https://10.0.0.5/jwt/auth?scope=x",
		"http://7f000001.token-server.invalid:5001/t":                          "http://127.0.0.1:5001/t",
		"https://fd000000000000000000000000000001.token-server.invalid/t":      "https://[fd00::1]/t",
		"https://fd000000000000000000000000000001.token-server.invalid:8443/t": "https://[fd00::1]:8443/t",
		"https://zz.token-server.invalid/t":                                    "https://zz.token-server.invalid/t",
		"https://0a.token-server.invalid/t":                                    "https://0a.token-server.invalid/t",
		"https://registry.example.com/v2/":                                     "https://registry.example.com/v2/",
	} {
		u, err := url.Parse(from)
		if err != nil {
			t.Fatal(err)
		}
		if got := unalias(u).String(); got != want {
			t.Errorf("%s: %s, want %s", from, got, want)
		}
	}
}
