package kubernetes

import (
	"fmt"
	"testing"
)

// testUsers builds as users that no image knows: OpenShift's random ones, with the group 0, with and without fsGroup; without a home,
// without any volume but the context, and from each image.
func testUsers(t *testing.T, f *fixture) {
	const random = 1000650000
	ns := f.namespace(t, "restricted")
	base := must[string](t)(f.busybox())
	f.configMap(t, ns, "context", map[string]string{"Dockerfile": fmt.Sprintf("FROM %s\nRUN test $(id -u) = 0 && touch /own && chown 12:34 /own\nCOPY Dockerfile /srv/\n", base)})
	user := func(fsGroup bool) func(map[string]any) {
		return func(spec map[string]any) {
			sc := spec["securityContext"].(map[string]any)
			sc["runAsUser"], sc["runAsGroup"] = random, 0
			delete(sc, "fsGroup")
			if fsGroup {
				sc["fsGroup"] = random
			}
		}
	}
	noVolume := func(spec map[string]any) {
		user(false)(spec)
		c := spec["containers"].([]any)[0].(map[string]any)
		spec["volumes"], c["volumeMounts"] = spec["volumes"].([]any)[1:], c["volumeMounts"].([]any)[1:]
	}
	pods := []pod{
		{Name: "group", Change: user(true)},
		{Name: "no-group", Change: user(false), Env: map[string]string{"HOME": ""}},
		{Name: "nonroot", Image: "nonroot", Change: user(false)},
		{Name: "debug", Image: "debug", Change: user(true), Env: map[string]string{"HOME": "/nonexistent"}},
		{Name: "no-volume", Change: noVolume},
	}
	for _, p := range pods { // all at once
		ref := f.inPod(f.registry.Addr) + "/users:" + p.Name
		p.Args = []string{"--context=dir:///workspace", "--destination=" + ref, "--insecure", "--insecure-pull", "--cache", "--source-date-epoch=1000000000", "--rewrite-timestamp", "--cache-repo=" + f.inPod(f.registry.Addr) + "/users/" + p.Name}
		p.Volumes = map[string]map[string]any{"/workspace": {"configMap": map[string]any{"name": "context"}}}
		f.apply(t, ns, p.manifest(t, f))
	}
	want := ""
	for _, p := range pods {
		succeed(t, f.awaitPod(t, ns, p.Name))
		got := digest(t, f.registry, f.inPod(f.registry.Addr)+"/users:"+p.Name)
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("%s made another image: %s, want %s", p.Name, got, want)
		}
	}
	succeed(t, f.runPod(t, ns, pod{
		Name: "warmer", Image: "warmer", Args: []string{"--image=" + base, "--cache-dir=/cache", "--insecure-pull"}, Change: user(true), Env: map[string]string{"HOME": ""},
		Volumes: map[string]map[string]any{"/cache": {"emptyDir": map[string]any{}}},
	}))
}
