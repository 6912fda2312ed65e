package web_test

import (
	"testing"

	"hako/internal/web"
)

func TestFindLogin(t *testing.T) {
	t.Parallel()
	const file = `# machine comment login no
machine a.example login u password p
machine b.example
	login "two words" account x
	password "q\"\\"
machine c.example:8080 login c
macdef init
machine m login never password never

machine a.example login second password second
default login anonymous password user@site`
	for host, want := range map[string]web.Login{
		"a.example":      {User: "u", Password: "p"},
		"A.Example":      {User: "u", Password: "p"},
		"b.example":      {User: "two words", Password: `q"\`},
		"c.example:8080": {User: "c"},
		"m":              {User: "anonymous", Password: "user@site"},
		"comment":        {User: "anonymous", Password: "user@site"},
	} {
		if got := web.FindLogin(file, host); got != want {
			t.Errorf("%s: %+v, want %+v", host, got, want)
		}
	}
	if got := web.FindLogin("machine a login x", "b"); got != (web.Login{}) || got.Authorization() != "" {
		t.Errorf("a login for nobody: %+v", got)
	}
	if got := (web.Login{User: "u", Password: "p"}).Authorization(); got != "Basic dTpw" {
		t.Error(got)
	}
}

func FuzzFindLogin(f *testing.F) {
	for _, s := range []string{"machine a login u password p", "machine", "default", "machine a login", "\"", "machine \"a\\", "macdef\nmachine a login x\n\n"} {
		f.Add(s, "a")
	}
	f.Fuzz(func(t *testing.T, text, host string) { web.FindLogin(text, host) })
}
