package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hako/test/lab"
)

// testSubmit submits builds with a context of this machine: one that succeeds, with a secret and with the same files as a build here;
// one whose step fails; and ones that the cluster refuses, or kills.
func testSubmit(t *testing.T, f *fixture) {
	ns := f.namespace(t, "restricted")
	base := must[string](t)(f.busybox())
	const secret = "Unspeakable-4d1"
	dir := f.writeFiles(t, map[string]string{
		"Dockerfile": fmt.Sprintf("FROM %s\nRUN --mount=type=secret,id=s wc -c /run/secrets/s && id -u > /uid\nCOPY token /\n", base),
		"fails":      fmt.Sprintf("FROM %s\nRUN echo before; exit 7\n", base), "token": secret,
	})
	ref := f.inPod(f.registry.Addr) + "/submitted:1"
	same := []string{"--insecure", "--insecure-pull", "--source-date-epoch=1000000000", "--rewrite-timestamp", "-d", ref, "--secret", "id=s,src=" + filepath.Join(dir, "token")}
	files := func(name string) []string {
		return []string{"--metadata-file", filepath.Join(dir, name+".json"), "--image-name-tag-with-digest-file", filepath.Join(dir, name+".names")}
	}
	submit := func(args ...string) lab.Result {
		t.Helper()
		line := append([]string{f.hako, "submit", dir, "--kubeconfig", f.kubeconfig, "--namespace", ns, "--executor-image", f.image("executor"), "--storage=1Gi", "--log-format=text"}, same...)
		return must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: append(line, args...)}))
	}
	if r := submit(files("pod")...); r.ExitCode != 0 {
		t.Fatalf("exit code %d: %s", r.ExitCode, r.Output)
	}
	must[string](t)(lab.Must(t.Context(), append(append([]string{f.hako, "build", dir}, same...), files("here")...)...))
	for _, kind := range []string{".json", ".names"} {
		pod, here := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "pod"+kind))), must[[]byte](t)(os.ReadFile(filepath.Join(dir, "here"+kind)))
		if string(pod) != string(here) {
			t.Errorf("%s: from a pod %s, from here %s", kind, pod, here)
		}
	}
	if all := f.mustKubectl(t, "", "-n", ns, "get", "jobs,pods", "-o", "yaml"); strings.Contains(all, secret) {
		t.Error("the secret is in the Job or its pod")
	}
	if left := f.mustKubectl(t, "", "-n", ns, "get", "secrets", "-o", "name"); strings.TrimSpace(left) != "" {
		t.Errorf("left behind: %s", left)
	}
	template := filepath.Join(dir, "pod.yaml")
	if err := os.WriteFile(template, []byte("spec: {hostNetwork: true}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"-f", filepath.Join(dir, "fails")}, 7, "command exited with code 7"},
		{[]string{"--executor-image", f.registry.Addr + "/none:1"}, 1, "the node cannot pull the executor image"},
		{[]string{"--pod-template", template}, 1, "the cluster refuses the pod: violates PodSecurity"},
		{[]string{"--namespace", ns + "-none"}, 1, "Create it with: kubectl create namespace"},
		{[]string{"--service-account", "none", "--timeout", "3s"}, 1, "longer than its --timeout of 3s"},
	} {
		if r := submit(test.args...); r.ExitCode != test.code || !strings.Contains(r.Output, test.says) {
			t.Errorf("%q: exit code %d, want %d and %q: %s", test.args, r.ExitCode, test.code, test.says, r.Output)
		}
	}
}
