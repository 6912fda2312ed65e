package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hako/test/lab"
)

// testChart installs the chart in a namespace that enforces "restricted", as a team does; each upgrade builds.
func testChart(t *testing.T, f *fixture) {
	if _, err := exec.LookPath("helm"); err != nil {
		t.Skip("needs helm: test/kubernetes/run builds it")
	}
	ns := f.namespace(t, "restricted")
	for _, claim := range []string{"hako-cache", "hako-bases"} {
		f.localVolume(t, ns, claim)
	}
	f.hostPath(t, ns, "source", f.writeFiles(t, map[string]string{"Dockerfile": fmt.Sprintf("FROM %s\nRUN id -u > /uid\nCOPY . /srv/\n", must[string](t)(f.busybox()))}))
	values := filepath.Join(f.newDir(t), "values.yaml")
	ref := f.inPod(f.registry.Addr) + "/chart:1"
	text := fmt.Sprintf(`
image: {executor: %q, warmer: %q}
registrySecret: ""
cache: {enabled: true}
bases: {enabled: true, images: [%q], args: [--insecure-pull]}
build: {contextClaim: source, destinations: [%q], args: [--insecure, --insecure-pull, --cache-offline]}
`, f.image("executor"), f.image("warmer"), must[string](t)(f.busybox()), ref)
	if err := os.WriteFile(values, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	chart := filepath.Join(must[string](t)(lab.ModuleRoot()), "deploy/helm/hako")
	helm := func(args ...string) lab.Result {
		t.Helper()
		args = append([]string{"helm", "--kubeconfig", f.kubeconfig, "--namespace", ns}, args...)
		r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: args}))
		if r.ExitCode != 0 || strings.Contains(r.Output, "WARNING") || strings.Contains(strings.ToLower(r.Output), "warning:") {
			t.Fatalf("%q: exit code %d\n%s", args, r.ExitCode, r.Output)
		}
		return r
	}
	helm("lint", "--strict", "--kube-version", "1.34", "-f", values, chart)
	for _, file := range must[[]string](t)(filepath.Glob(filepath.Join(chart, "../../../test/manifests/testdata/*.values.yaml"))) {
		f.mustKubectl(t, helm("template", "hako", chart, "-f", file, "--kube-version", "1.34").Stdout, "-n", ns, "apply", "--validate=strict", "--dry-run=server", "-f", "-")
	}
	helm("install", "hako", chart, "-f", values)
	f.mustKubectl(t, "", "-n", ns, "create", "job", "--from=cronjob/hako-warmer", "warm")
	succeed(t, f.awaitJob(t, ns, "warm"))
	for i, wantRun := range []bool{true, false} {
		helm("upgrade", "hako", chart, "-f", values, "--set", "build.enabled=true", "--wait", "--wait-for-jobs", "--timeout=5m")
		e := succeed(t, f.awaitJob(t, ns, fmt.Sprintf("hako-build-%d", i+2)))
		if got := digest(t, f.registry, ref); e.Message != got {
			t.Errorf("termination message %q, want %s", e.Message, got)
		}
		if ran := strings.Contains(e.Log, "RUN steps run in"); ran != wantRun {
			t.Errorf("build %d: steps ran: %v\n%s", i, ran, e.Log)
		}
	}
	helm("upgrade", "hako", chart, "-f", values, "--set", "build.enabled=true,build.suspend=true,build.schedule=0 4 * * *,openshift=true", "--wait")
	if out := f.mustKubectl(t, "", "-n", ns, "get", "cronjobs,jobs", "-o", "name"); !strings.Contains(out, "cronjob.batch/hako-build\n") || strings.Contains(out, "job.batch/hako-build-") {
		t.Errorf("with a schedule there are\n%s", out)
	}
	helm("uninstall", "hako", "--wait")
	if left := f.mustKubectl(t, "", "-n", ns, "get", "roles,rolebindings,cronjobs", "-o", "name"); left != "" {
		t.Errorf("left behind: %s", left)
	}
}
