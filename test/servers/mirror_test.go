package servers

import (
	"testing"

	"hako/test/lab"
)

// TestMirror pulls through a registry that is a mirror of another one.
func TestMirror(t *testing.T) {
	t.Parallel()
	origin := start(t, lab.RegistryOptions{})
	mirror := start(t, lab.RegistryOptions{Remote: "http://" + origin.Addr})
	target := start(t, lab.RegistryOptions{})
	pushBase(t, origin.Addr+"/library/base:1", remotely(origin)...)
	const nobody = "127.0.0.1:1"
	for name, tc := range map[string]struct {
		base  string
		args  []string
		fails string
	}{
		"hub":          {base: "base:1", args: []string{"--registry-mirror=" + mirror.Addr}},
		"hub-by-map":   {base: "base:1", args: []string{"--registry-map=docker.io=" + mirror.Addr}},
		"hub-by-index": {base: "docker.io/library/base:1", args: []string{"--registry-map=index.docker.io=" + mirror.Addr}},
		"prefix":       {base: "base:1", args: []string{"--registry-map=docker.io=" + mirror.Addr + "/library", "--skip-default-registry-fallback"}, fails: "library/library/base"},
		"map":          {base: origin.Addr + "/library/base:1", args: []string{"--registry-map=" + origin.Addr + "=" + mirror.Addr, "--skip-default-registry-fallback"}},
		"second":       {base: "base:1", args: []string{"--registry-mirror=" + nobody, "--registry-mirror=" + mirror.Addr}},
		"original":     {base: origin.Addr + "/library/base:1", args: []string{"--registry-map=" + origin.Addr + "=" + nobody}},
		"no-original": {
			base: origin.Addr + "/library/base:1",
			args: []string{"--registry-map=" + origin.Addr + "=" + nobody, "--skip-default-registry-fallback"}, fails: nobody,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ref := target.Addr + "/" + name + ":1"
			j := job{args: append([]string{contextOf(t, tc.base), "--destination=" + ref}, tc.args...)}
			if tc.fails != "" {
				j.fail(t, tc.fails)
				absent(t, ref)
				return
			}
			j.succeed(t)
			whole(t, ref, 4)
		})
	}
}
