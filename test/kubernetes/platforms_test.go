package kubernetes

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"hako/test/lab"
)

// platforms submits builds for amd64 and arm64 to a cluster that has an amd64 node only.
type platforms struct {
	*fixture
	ns, dir, repository string
}

// testPlatforms builds for two platforms on one node, which needs nothing but COPY, and compares with a build here; and then as nodes
// of each platform are asked for: it waits, it is stopped, it fails.
func testPlatforms(t *testing.T, f *fixture) {
	base := must[string](t)(f.busybox())
	p := &platforms{fixture: f, ns: f.namespace(t, "restricted"), repository: f.inPod(f.registry.Addr) + "/platforms"}
	p.dir = f.writeFiles(t, map[string]string{
		"Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /a\nCOPY secret /\n", "amd64": "x", "arm64": "y", "secret": "unspeakable",
		"slow":  fmt.Sprintf("FROM %s AS for-amd64\nRUN echo begun; sleep 600\nFROM scratch AS for-arm64\nFROM for-$TARGETARCH\n", base),
		"fails": fmt.Sprintf("FROM %s\nRUN exit 7\n", base),
	})
	p.same(t)
	for _, test := range []struct {
		args []string
		code int
		says []string
	}{
		{[]string{"--timeout=15s"}, 1, []string{"linux/arm64: the pod waited for a node for the whole --timeout of 15s: no node ", "has the label kubernetes.io/arch=arm64 (0/", "linux/amd64 Pushed "}},
		{[]string{"-f", "fails"}, 7, []string{"linux/amd64: RUN: command exited with code 7", "cancelling the Job hako-platforms-"}},
		{[]string{"--executor-image=" + f.registry.Addr + "/none:1"}, 1, []string{"linux/amd64: the node cannot pull the executor image"}},
		{[]string{"--detach"}, 1, []string{"ends with an index, which is made here"}},
	} {
		r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: p.args("submit", append([]string{"-d", p.repository + ":2"}, test.args...)...), Dir: p.dir}))
		for _, want := range test.says {
			if r.ExitCode != test.code || !strings.Contains(r.Output, want) {
				t.Errorf("%q: exit code %d, want %d and %q\n%s", test.args, r.ExitCode, test.code, want, r.Output)
			}
		}
		p.nothingLeft(t)
	}
	p.mustKubectl(t, "", "-n", p.ns, "delete", "jobs", "--all")
	for _, selector := range []string{"", "--node-selector=kubernetes.io/arch=amd64"} { // one waits for a node, or has ended
		args := p.args("submit", "-f", filepath.Join(p.dir, "slow"), "-d", p.repository+":2")
		if selector != "" {
			args = append(args, selector)
		}
		out := interrupt(t, "begun", args)
		p.nothingLeft(t)
		if jobs := p.mustKubectl(t, "", "-n", p.ns, "get", "jobs", "-o", "name"); jobs != "" {
			t.Errorf("%s: left behind after SIGINT: %s\n%s", selector, jobs, out)
		}
	}
	if r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: []string{p.hako, "index", p.repository + ":2", "--insecure", "--insecure-pull", "-d", p.repository + ":3"}})); r.ExitCode == 0 {
		t.Error("a build that failed has set the tag")
	}
}

// args is a command line of hako.
func (p *platforms) args(command string, more ...string) []string {
	out := []string{
		p.hako, command, p.dir, "--platform=linux/amd64,linux/arm64/v8,linux/arm64", "--insecure", "--insecure-pull", "--source-date-epoch=1000000000",
		"--rewrite-timestamp", "--log-format=text",
	}
	if command == "submit" {
		out = append(out, "--kubeconfig", p.kubeconfig, "--namespace", p.ns, "--executor-image", p.image("executor"), "--storage=1Gi",
			"--secret", "id=s,src="+filepath.Join(p.dir, "secret"))
	}
	return append(out, more...)
}

// same builds in the cluster and here: the indexes and the files that tell of them are the same.
func (p *platforms) same(t *testing.T) {
	t.Helper()
	files := []string{"digest", "iid", "names", "metadata"}
	for place, command := range map[string]string{"there": "submit", "here": "build"} {
		at := func(name string) string { return filepath.Join(p.dir, place+"."+name) }
		args := p.args(command, "--sbom=true", "--annotation=index:a=b", "--annotation=manifest[linux/arm64]:c=d", "-d", p.repository+":1", "-d", p.repository+"/other:1",
			"--digest-file", at("digest"), "--iidfile", at("iid"), "--image-name-tag-with-digest-file", at("names"), "--metadata-file", at("metadata"))
		if command == "submit" {
			args = append(args, "--node-selector", "kubernetes.io/arch=amd64")
		}
		must[string](t)(lab.Must(t.Context(), args...))
	}
	for _, name := range files {
		there, here := must[string](t)(read(filepath.Join(p.dir, "there."+name))), must[string](t)(read(filepath.Join(p.dir, "here."+name)))
		if there != here || here == "" {
			t.Errorf("%s: from pods %s, from here %s", name, there, here)
		}
		if err := os.Remove(filepath.Join(p.dir, "there."+name)); err != nil {
			t.Error(err)
		}
	}
	p.nothingLeft(t)
}

// nothingLeft checks that no pod runs, and that neither Secrets nor contexts are there.
func (p *platforms) nothingLeft(t *testing.T) {
	t.Helper()
	if left := p.mustKubectl(t, "", "-n", p.ns, "get", "secrets", "-o", "name"); left != "" {
		t.Errorf("left behind: %s", left)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	left := ""
	err := lab.Poll(ctx, 250*time.Millisecond, func() bool { // a pod's phase comes later than its container's end
		left = p.mustKubectl(t, "", "-n", p.ns, "get", "pods", "--field-selector=status.phase!=Succeeded,status.phase!=Failed", "-o", "name")
		return left == ""
	})
	if err != nil {
		t.Errorf("still there: %s", left)
	}
	places := p.mustKubectl(t, "", "-n", p.ns, "get", "jobs", "-o", `jsonpath={range .items[*]}{.metadata.annotations.hako\.dev/context}{"\n"}{end}`)
	for _, place := range strings.Fields(places) {
		repository, digest, _ := strings.Cut(strings.TrimPrefix(place, "oci://"), "@")
		_, path, _ := strings.Cut(repository, "/")
		if status := p.status(t, "/v2/"+path+"/manifests/"+digest); status != http.StatusNotFound {
			t.Errorf("the context %s is still there: status %d", place, status)
		}
	}
}

// status is what the registry answers.
func (p *platforms) status(t *testing.T, path string) int {
	t.Helper()
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.registry.Addr+path, nil))
	resp := must[*http.Response](t)(http.DefaultClient.Do(req))
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}
