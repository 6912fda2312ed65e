package kubernetes

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"hako/test/lab"
)

// submitter is an account that has the Role of deploy/kubernetes/setup/submit in a namespace, and nothing else.
type submitter struct {
	*fixture
	ns, kubeconfig, dir string
}

func newSubmitter(t *testing.T, f *fixture) *submitter {
	t.Helper()
	s := &submitter{fixture: f, ns: f.namespace(t, "restricted")}
	root := must[string](t)(lab.ModuleRoot())
	f.mustKubectl(t, "", "-n", s.ns, "apply", "-k", filepath.Join(root, "deploy/kubernetes/setup/submit"))
	var config map[string]any
	text := f.mustKubectl(t, "", "config", "view", "--raw", "--flatten", "--minify", "-o", "json")
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(f.mustKubectl(t, "", "-n", s.ns, "create", "token", "hako-submit"))
	config["users"].([]any)[0].(map[string]any)["user"] = map[string]any{"token": token}
	config["contexts"].([]any)[0].(map[string]any)["context"].(map[string]any)["namespace"] = s.ns
	s.dir = f.writeFiles(t, map[string]string{
		"Dockerfile": fmt.Sprintf("FROM %s\nRUN --mount=type=secret,id=s wc -c /run/secrets/s && id -u > /uid\n", must[string](t)(f.busybox())),
		"slow":       fmt.Sprintf("FROM %s\nRUN sleep 600\n", must[string](t)(f.busybox())), "secret": "unspeakable",
	})
	s.kubeconfig = filepath.Join(s.dir, "kubeconfig")
	if err := os.WriteFile(s.kubeconfig, must[[]byte](t)(json.Marshal(config)), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// args is a command line that submits the build, with more flags.
func (s *submitter) args(more ...string) []string {
	return append([]string{
		s.hako, "submit", s.dir, "--kubeconfig", s.kubeconfig, "--executor-image", s.image("executor"), "--storage=1Gi", "--log-format=text",
		"--insecure", "--insecure-pull", "-d", s.inPod(s.registry.Addr) + "/" + s.ns + ":1", "--secret", "id=s,src=" + filepath.Join(s.dir, "secret"),
	}, more...)
}

func (s *submitter) submit(t *testing.T, more ...string) lab.Result {
	t.Helper()
	return must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: s.args(more...)}))
}

// interrupt submits a build that does not end, and stops it with SIGINT while its step runs. It returns what was written.
func (s *submitter) interrupt(t *testing.T) string {
	t.Helper()
	return interrupt(t, "RUN sleep", s.args("-f", filepath.Join(s.dir, "slow")))
}

// interrupt runs a command, and stops it with SIGINT when a line of its standard error has the text at. It returns what was written.
func interrupt(t *testing.T, at string, args []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for in, stopped := bufio.NewScanner(stderr), false; in.Scan(); {
		out.WriteString(in.Text() + "\n")
		if !stopped && strings.Contains(in.Text(), at) {
			stopped = true
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // its exit code counts
	if code := cmd.ProcessState.ExitCode(); code != 128+int(syscall.SIGINT) {
		t.Errorf("exit code %d after SIGINT\n%s", code, out.String())
	}
	return out.String()
}

// testRights submits builds with the documented Role only, from here and from a pod, and then without each of its verbs.
func testRights(t *testing.T, f *fixture) {
	s := newSubmitter(t, f)
	jobs := func() string { return s.mustKubectl(t, "", "-n", s.ns, "get", "jobs,secrets", "-o", "name") }
	if r := s.submit(t); r.ExitCode != 0 {
		t.Fatalf("exit code %d\n%s", r.ExitCode, r.Output)
	}
	s.mustKubectl(t, "", "-n", s.ns, "delete", "jobs", "--all")
	r := s.submit(t, "--detach")
	name := strings.TrimSpace(r.Stdout)
	r = must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: []string{s.hako, "submit", "--attach", name, "--kubeconfig", s.kubeconfig, "--insecure"}}))
	if r.ExitCode != 0 || !strings.Contains(r.Output, "Pushed ") {
		t.Errorf("--attach %s: exit code %d\n%s", name, r.ExitCode, r.Output)
	}
	s.mustKubectl(t, "", "-n", s.ns, "delete", "jobs", "--all")
	if out := s.interrupt(t); jobs() != "" {
		t.Errorf("left behind after SIGINT: %s\n%s", jobs(), out)
	}
	s.fromPod(t)
	s.withoutEach(t)
	if r := s.submit(t, "--context-stdin"); r.ExitCode != 1 || !strings.Contains(r.Output, "pods/attach of docs/submit.md") || jobs() != "" {
		t.Errorf("a stream without the right to it: exit code %d, left behind: %s\n%s", r.ExitCode, jobs(), r.Output)
	}
	root := must[string](t)(lab.ModuleRoot())
	f.mustKubectl(t, "", "-n", s.ns, "apply", "-k", filepath.Join(root, "test/manifests/testdata/stdin"))
	if r := s.submit(t, "--context-stdin"); r.ExitCode != 0 {
		t.Errorf("a stream with the right to it: exit code %d\n%s", r.ExitCode, r.Output)
	}
}

// fromPod submits a build from a pod, which finds the cluster by its account.
func (s *submitter) fromPod(t *testing.T) {
	t.Helper()
	s.configMap(t, s.ns, "context", map[string]string{"Dockerfile": must[string](t)(read(filepath.Join(s.dir, "Dockerfile"))), "secret": "unspeakable"})
	args := slices.DeleteFunc(s.args()[1:], func(a string) bool { return a == "--kubeconfig" || a == s.kubeconfig })
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], s.dir, "/workspace")
	}
	e := succeed(t, s.runPod(t, s.ns, pod{
		Name: "submits", Args: args,
		Volumes: map[string]map[string]any{"/workspace": {"configMap": map[string]any{"name": "context"}}},
		Change: func(spec map[string]any) {
			spec["containers"].([]any)[0].(map[string]any)["command"] = []string{"hako"}
			spec["serviceAccountName"], spec["automountServiceAccountToken"] = "hako-submit", true
			s.reachCluster(t, spec)
		},
	}))
	if !strings.Contains(e.Log, "created the Job hako-"+s.ns) || !strings.Contains(e.Log, "Pushed ") {
		t.Errorf("log of the pod:\n%s", e.Log)
	}
}

// reachCluster lets a pod find the API server, which has no address of a service here, as pods do.
func (f *fixture) reachCluster(t *testing.T, spec map[string]any) {
	t.Helper()
	server := f.mustKubectl(t, "", "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	_, port, _ := strings.Cut(f.expose(t, strings.TrimPrefix(server, "https://")), ":")
	c := spec["containers"].([]any)[0].(map[string]any)
	env, _ := c["env"].([]any)
	for name, value := range map[string]string{"KUBERNETES_SERVICE_HOST": "kubernetes.default.svc", "KUBERNETES_SERVICE_PORT": port} {
		env = append(env, map[string]any{"name": name, "value": value})
	}
	c["env"] = env
	spec["hostAliases"] = []any{map[string]any{"ip": f.bridge, "hostnames": []string{"kubernetes.default.svc"}}}
}

// withoutEach takes verbs away from the Role, one after the other: what is then missing is said, or done without.
func (s *submitter) withoutEach(t *testing.T) {
	t.Helper()
	const role = "docs/submit.md bound to this user in namespace "
	for _, c := range []struct {
		path string // of the verb in the Role
		code int
		says []string
	}{
		{"/rules/0/verbs/0", 1, []string{"create the Job", `cannot create resource "jobs"`, role + s.ns}},
		{"/rules/0/verbs/1", 1, []string{"look up the Job", `cannot get resource "jobs"`, role + s.ns}},
		{"/rules/1/verbs/0", 1, []string{"list the pods", `cannot list resource "pods"`, role + s.ns}},
		{"/rules/1/verbs/1", 0, []string{"Pushed "}},
		{"/rules/2/verbs/0", 0, []string{"the log cannot be shown", `cannot get resource "pods/log"`, role + s.ns}},
		{"/rules/3/verbs/0", 1, []string{"create the Secret", `cannot create resource "secrets"`, role + s.ns}},
		{"/rules/3/verbs/1", 0, []string{"Pushed "}},
		{"/rules/4/verbs/0", 0, []string{"Pushed "}},
	} {
		s.without(t, c.path, func() {
			r := s.submit(t)
			for _, want := range c.says {
				if r.ExitCode != c.code || !strings.Contains(r.Output, want) {
					t.Errorf("without %s: exit code %d, want %d and %q\n%s", c.path, r.ExitCode, c.code, want, r.Output)
				}
			}
		})
	}
	s.without(t, "/rules/0/verbs/2", func() {
		if out := s.interrupt(t); !strings.Contains(out, `cannot delete resource "jobs"`) || !strings.Contains(out, "kubectl delete job --namespace "+s.ns) {
			t.Errorf("without the right to delete Jobs, stopped:\n%s", out)
		}
	})
}

// without calls do while the Role lacks the verb at a path, and deletes what do has made.
func (s *submitter) without(t *testing.T, path string, do func()) {
	t.Helper()
	saved := s.mustKubectl(t, "", "-n", s.ns, "get", "role", "hako-submit", "-o", "json")
	s.mustKubectl(t, "", "-n", s.ns, "patch", "role", "hako-submit", "--type=json", "-p", fmt.Sprintf(`[{"op": "replace", "path": %q, "value": "none"}]`, path))
	do()
	var role map[string]any
	if err := json.Unmarshal([]byte(saved), &role); err != nil {
		t.Fatal(err)
	}
	s.mustKubectl(t, "", "-n", s.ns, "patch", "role", "hako-submit", "--type=merge", "-p", string(must[[]byte](t)(json.Marshal(map[string]any{"rules": role["rules"]}))))
	s.mustKubectl(t, "", "-n", s.ns, "delete", "jobs", "--all")
}
