package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/build"
	"hako/internal/diag"
)

func TestCacheKey(t *testing.T) {
	t.Parallel()
	for args, tt := range map[string]struct {
		env  map[string]string
		want build.Signing
		err  string
	}{
		"":                               {nil, build.Signing{}, ""},
		"--cache-key-file=k":             {nil, build.Signing{KeyFile: "k"}, ""},
		"--cache-key-file=cosign.key":    {map[string]string{"COSIGN_PASSWORD": "pw"}, build.Signing{KeyFile: "cosign.key", Password: "pw"}, ""},
		"--cache-key-file=env://KEY":     {map[string]string{"KEY": "text"}, build.Signing{KeyText: "text"}, ""},
		"--cache-key-file=env://NONE":    {nil, build.Signing{}, "--cache-key-file: the environment variable NONE is not set"},
		"--cache-key-file=hashivault://": {nil, build.Signing{}, "--cache-key-file: keys of hashivault:// are not supported"},
	} {
		vs := newValues()
		for arg := range strings.FieldsSeq(args) {
			name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if err := vs.byName[name].Set(value); err != nil {
				t.Fatal(err)
			}
		}
		got, err := (&command{vs: vs, vars: tt.env}).cacheKey(vs)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", args, err)
			}
			continue
		}
		if d := cmp.Diff(tt.want, got); d != "" || err != nil {
			t.Errorf("%s: %v\n%s", args, err, d)
		}
	}
}

func TestSigning(t *testing.T) {
	t.Parallel()
	for args, c := range map[string]struct {
		vars map[string]string
		want build.Signing
		err  string
	}{
		"":                          {nil, build.Signing{}, ""},
		"--sign=false --sign-key=k": {nil, build.Signing{}, ""},
		"--sign-key=dir/k":          {map[string]string{"COSIGN_PASSWORD": "pw"}, build.Signing{KeyFile: "dir/k", Password: "pw"}, ""},
		"--sign=true --sign-key=k":  {map[string]string{"COSIGN_PASSWORD": ""}, build.Signing{KeyFile: "k"}, ""},
		"--sign-key=env://KEY":      {map[string]string{"COSIGN_PASSWORD": "pw", "KEY": "PEM"}, build.Signing{KeyText: "PEM", Password: "pw"}, ""},
		"--sign-key=env://NONE":     {map[string]string{"COSIGN_PASSWORD": "pw"}, build.Signing{}, "NONE is not set"},
		"--sign-key=awskms://x":     {map[string]string{"COSIGN_PASSWORD": "pw"}, build.Signing{}, "keys of awskms:// are not supported"},
		"--sign=true":               {nil, build.Signing{}, "--sign needs a key"},
		"--sign-key=unset":          {nil, build.Signing{}, "COSIGN_PASSWORD is not set"},
	} {
		vs := newValues()
		for arg := range strings.FieldsSeq(args) {
			name, value, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if err := vs.byName[name].Set(value); err != nil {
				t.Fatal(err)
			}
		}
		got, err := (&command{vs: vs, vars: c.vars}).signing(vs)
		if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%s: got %v, want %q", args, err, c.err)
		}
		if err != nil && strings.Contains(diag.Format(err), "pw") {
			t.Errorf("%s: the password is in %v", args, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", args, diff)
		}
	}
}
