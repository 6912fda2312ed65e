package kubernetes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"hako/test/lab"
)

// testMany submits files of builds.
func testMany(t *testing.T, f *fixture) {
	t.Run("All", func(t *testing.T) { testManyAll(t, f) })
	t.Run("Quota", func(t *testing.T) { testManyQuota(t, f) })
	t.Run("Failure", func(t *testing.T) { testManyFailure(t, f) })
	t.Run("Stop", func(t *testing.T) { testManyStop(t, f) })
}

// farm is a file of builds in a namespace of its own, submitted through a proxy.
type farm struct {
	*fixture
	*proxy
	ns, dir string
}

// newFarm writes the file of builds, in which ${REG} is the registry as pods know it, and the context "context".
func newFarm(t *testing.T, f *fixture, builds, dockerfile string) *farm {
	t.Helper()
	m := &farm{fixture: f, proxy: newProxy(t, f), ns: f.namespace(t, "restricted")}
	m.dir = f.writeFiles(t, map[string]string{"builds.yaml": builds, "context/Dockerfile": dockerfile})
	return m
}

// command submits all.
func (m *farm) command(t *testing.T, more ...string) *exec.Cmd {
	args := append([]string{
		"submit", "--builds", "builds.yaml", "--kubeconfig", m.proxy.kubeconfig, "--namespace", m.ns, "--executor-image", m.image("executor"),
		"--storage=1Gi", "--memory=256Mi", "--cpu=100m", "--log-format=text", "--insecure", "--insecure-pull", "--metadata-file=result.json",
	}, more...)
	cmd := exec.CommandContext(t.Context(), m.hako, args...) //nolint:gosec // the program under test
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(), "REG="+m.inPod(m.registry.Addr))
	return cmd
}

// running is a program that runs.
type running struct {
	ended chan struct{}
	err   error
}

// start starts a program.
func start(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := &running{ended: make(chan struct{})}
	go func() {
		defer close(r.ended)
		r.err = cmd.Wait()
	}()
	return r
}

// wait returns how it ended.
func (r *running) wait() error {
	<-r.ended
	return r.err
}

// await polls until something is so, or the program has ended.
func (r *running) await(t *testing.T, done func() bool) {
	t.Helper()
	err := lab.Poll(t.Context(), 100*time.Millisecond, func() bool {
		select {
		case <-r.ended:
			return true
		default:
			return done()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

// counted is what the cluster tells of Jobs or pods.
type counted struct {
	Items []struct {
		Metadata struct{ Name string }
		Status   struct {
			Succeeded, Failed int
			ContainerStatuses []struct{ RestartCount int }
		}
	}
}

func (m *farm) count(t *testing.T, kind string) (out counted) {
	t.Helper()
	if err := json.Unmarshal([]byte(m.mustKubectl(t, "", "-n", m.ns, "get", kind, "-o", "json")), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// results are the digests by the names of builds.
func (m *farm) results(t *testing.T) map[string]string {
	t.Helper()
	var lines map[string]struct {
		Result string
		Digest string `json:"containerimage.digest"`
	}
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(filepath.Join(m.dir, "result.json"))), &lines); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, l := range lines {
		out[name] = l.Result + " " + l.Digest
	}
	return out
}

// context is the place of the context of all Jobs that are there, as "repository@digest".
func (m *farm) context(t *testing.T) string {
	t.Helper()
	const prefix = "--context=oci://"
	place := ""
	for _, arg := range strings.Fields(m.mustKubectl(t, "", "-n", m.ns, "get", "jobs", "-o", `jsonpath={range .items[*]}{range .spec.template.spec.containers[0].args[*]}{@}{"\n"}{end}{end}`)) {
		if !strings.HasPrefix(arg, prefix) {
			continue
		}
		if place != "" && place != arg {
			t.Errorf("the context was sent twice: %s and %s", place, arg)
		}
		place = arg
	}
	if place == "" {
		t.Error("no Job names its context")
	}
	return strings.TrimPrefix(place, prefix)
}

// nothingLeft holds that no Secrets and no context are there.
func (m *farm) nothingLeft(t *testing.T, context string) {
	t.Helper()
	_, path, _ := strings.Cut(context, "/")
	if got := m.digest(t, strings.Replace(path, "@", "/manifests/", 1)); got != "" {
		t.Errorf("the context %s is still there", context)
	}
	if left := m.mustKubectl(t, "", "-n", m.ns, "get", "secrets", "-o", "name"); strings.TrimSpace(left) != "" {
		t.Errorf("left behind: %s", left)
	}
}

// testManyAll runs 200 builds, 20 if tests are to be short, over a network that loses answers: each makes its image, in one Job with
// one pod that ran once.
func testManyAll(t *testing.T, f *fixture) {
	n := 200
	if testing.Short() {
		n = 20
	}
	var numbers []string
	for i := range n - 2 {
		numbers = append(numbers, fmt.Sprint(i))
	}
	m := newFarm(t, f, fmt.Sprintf(`
variables: {REG: x}
defaults: {context: context}
builds:
  base: {target: base, tags: "${REG}/many/base:1"}
  app:
    matrix: {n: [%s]}
    contexts: {base: "target:base"}
    target: app
    args: {N: "${n}"}
    tags: "${REG}/many/app:${n}"
  last: {target: app, args: {N: last}, contexts: {base: "target:base"}, depends-on: app, tags: "${REG}/many/app:last"}
`, strings.Join(numbers, ", ")), fmt.Sprintf("FROM %s AS base\nRUN id -u > /uid\n\nFROM base AS app\nARG N\nCOPY Dockerfile /$N\n", must[string](t)(f.busybox())))
	cmd := m.command(t)
	log := must[*os.File](t)(os.Create(filepath.Join(m.dir, "log")))
	defer log.Close() //nolint:errcheck // it is read by its name
	cmd.Stdout, cmd.Stderr = log, log
	began := time.Now()
	r := start(t, cmd)
	r.await(t, func() bool { return m.jobs() >= n/2 })
	m.cut(3 * time.Second)
	err := r.wait()
	output := string(must[[]byte](t)(os.ReadFile(filepath.Join(m.dir, "log"))))
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(output))
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage) // Linux has nothing else
	t.Logf("%d builds in %s; the client: %s of CPU, %d MiB; %d requests: %v; at most %d streams; %d answers lost, %d refused",
		n, time.Since(began).Round(time.Second), cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), usage.Maxrss>>10, m.total(), m.requests, m.most, m.lost, m.refused)
	if m.lost == 0 || m.refused == 0 || m.most > 2*16 {
		t.Errorf("%d answers lost, %d refused, %d streams at a time", m.lost, m.refused, m.most)
	}
	// The Job controller notes the end of a pod a moment after it.
	if err := lab.Poll(t.Context(), time.Second, func() bool { return m.succeeded(t) >= n }); err != nil {
		t.Fatal(err)
	}
	m.checkAll(t, n)
	m.nothingLeft(t, m.context(t))
}

// succeeded is the number of Jobs that have.
func (m *farm) succeeded(t *testing.T) int {
	t.Helper()
	n := 0
	for _, o := range m.count(t, "jobs").Items {
		n += o.Status.Succeeded
	}
	return n
}

// checkAll holds that there are n Jobs that ran once each, and n images, each of the digest that was told.
func (m *farm) checkAll(t *testing.T, n int) {
	t.Helper()
	for _, kind := range []string{"jobs", "pods"} {
		all := m.count(t, kind)
		if len(all.Items) != n {
			t.Errorf("there are %d %s, want %d", len(all.Items), kind, n)
		}
		for _, o := range all.Items {
			if o.Status.Failed > 0 || kind == "jobs" && o.Status.Succeeded != 1 {
				t.Errorf("%s: %+v", o.Metadata.Name, o.Status)
			}
			for _, c := range o.Status.ContainerStatuses {
				if c.RestartCount > 0 {
					t.Errorf("%s started %d times", o.Metadata.Name, 1+c.RestartCount)
				}
			}
		}
	}
	results, seen := m.results(t), map[string]bool{}
	if len(results) != n {
		t.Errorf("there are %d results, want %d", len(results), n)
	}
	for name, result := range results {
		ref := "many/base/manifests/1"
		if name != "base" {
			ref = "many/app/manifests/" + strings.TrimPrefix(name, "app-")
		}
		if got := "done " + m.digest(t, ref); got != result || seen[result] {
			t.Errorf("build %s: %s, and the registry has %s", name, result, got)
		}
		seen[result] = true
	}
}

// digest is that of a manifest, "repository/manifests/tag", in the registry.
func (m *farm) digest(t *testing.T, ref string) string {
	t.Helper()
	req := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+m.registry.Addr+"/v2/"+ref, nil))
	req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json")
	resp := must[*http.Response](t)(http.DefaultClient.Do(req))
	if err := resp.Body.Close(); err != nil {
		t.Fatal(err)
	}
	return resp.Header.Get("Docker-Content-Digest")
}

const sixBuilds = `
variables: {REG: x}
defaults: {context: context}
builds:
  one: {matrix: {n: [1, 2, 3, 4, 5, 6]}, name: "b-${n}", args: {N: "${n}"}, tags: "${REG}/six/app:${n}"}
`

// testManyQuota lets two pods run at a time, and deletes one of them: all builds are done.
func testManyQuota(t *testing.T, f *fixture) {
	m := newFarm(t, f, sixBuilds, fmt.Sprintf("FROM %s\nARG N\nRUN sleep 4; echo $N > /n\n", must[string](t)(f.busybox())))
	m.mustKubectl(t, "", "-n", m.ns, "create", "quota", "two", "--hard=pods=2")
	cmd := m.command(t)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	r := start(t, cmd)
	pods := func() string {
		return strings.TrimSpace(m.mustKubectl(t, "", "-n", m.ns, "get", "pods", "--field-selector=status.phase=Running", "-o", "name"))
	}
	r.await(t, func() bool { return pods() != "" })
	if name, _, _ := strings.Cut(pods(), "\n"); name != "" {
		m.mustKubectl(t, "", "-n", m.ns, "delete", name, "--wait=false")
	}
	if err := r.wait(); err != nil {
		t.Fatalf("%v\n%s", err, tail(output.String()))
	}
	for _, want := range []string{"the pod waits: exceeded quota", "the cluster makes another"} {
		if !strings.Contains(output.String(), want) {
			t.Errorf("it does not say %q: %s", want, tail(output.String()))
		}
	}
	results := m.results(t)
	if len(results) != 6 {
		t.Errorf("there are %d results, want 6", len(results))
	}
	for name, result := range results {
		if got := "done " + m.digest(t, "six/app/manifests/"+strings.TrimPrefix(name, "b-")); got != result {
			t.Errorf("build %s: %s, and the registry has %s", name, result, got)
		}
	}
	m.nothingLeft(t, m.context(t))
}

// testManyFailure has one of six fail: the exit code is that of its step, and the Jobs of the others are gone, or done with --keep-going.
func testManyFailure(t *testing.T, f *fixture) {
	m := newFarm(t, f, sixBuilds, fmt.Sprintf("FROM %s\nARG N T\nRUN echo I am $N; [ $N != 3 ] || exit 33; [ $N = 1 ] || sleep $T\n", must[string](t)(f.busybox())))
	for _, test := range []struct {
		args        []string
		least, most int // builds that are done; a Job is left of each, and of the one that failed
	}{
		{[]string{"--build-arg=T=600", "--keep-going=false"}, 0, 1},
		{[]string{"--build-arg=T=0", "--keep-going"}, 5, 5},
	} {
		m.mustKubectl(t, "", "-n", m.ns, "delete", "jobs", "--all")
		r := must[lab.Result](t)(lab.Run(t.Context(), lab.Command{Args: m.command(t, test.args...).Args, Dir: m.dir, Env: m.command(t).Env}))
		if r.ExitCode != 33 || !strings.Contains(r.Output, "[b-3 stage-0/2] I am 3") {
			t.Errorf("%q: exit code %d: %s", test.args, r.ExitCode, tail(r.Output))
		}
		done := strings.Count(fmt.Sprint(m.results(t)), "done")
		if done < test.least || done > test.most {
			t.Errorf("%q: %d builds are done: %s", test.args, done, tail(r.Output))
		}
		if got := len(m.count(t, "jobs").Items); got < test.least+1 || got > test.most+1 {
			t.Errorf("%q: %d Jobs are left: %s", test.args, got, tail(r.Output))
		}
		m.nothingLeft(t, m.context(t))
	}
}

// testManyStop stops a run: nothing is left of it.
func testManyStop(t *testing.T, f *fixture) {
	m := newFarm(t, f, sixBuilds, fmt.Sprintf("FROM %s\nARG N\nRUN echo $N; sleep 600\n", must[string](t)(f.busybox())))
	cmd := m.command(t)
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	r := start(t, cmd)
	r.await(t, func() bool { return m.jobs() >= 6 })
	place := m.context(t)
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	if err := r.wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("%v: %s", err, tail(output.String()))
	}
	for _, kind := range []string{"jobs", "pods"} {
		if left := m.count(t, kind); len(left.Items) > 0 {
			t.Errorf("left behind: %+v: %s", left, tail(output.String()))
		}
	}
	m.nothingLeft(t, place)
}
