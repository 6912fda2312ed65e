package kubernetes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hako/test/lab"
)

// testFaults breaks what lies between "hako submit" and its pod, and the pod, in the middle of a build; and submits builds that the
// cluster cannot run, or ends. All at the same time: most of it is waiting.
func testFaults(t *testing.T, f *fixture) {
	for name, run := range map[string]func(*testing.T, *submitter){
		"connection": connectionIsCut, "silence": connectionIsSilent, "answers": answersAreLost, "unreachable": clusterIsUnreachable, "kubelet": kubeletIsCut,
		"pod": podIsDeleted, "process": processIsKilled, "interrupt": stopsAtOnce, "signals": stopsBySignal,
		"attach": attaches, "job": jobIsDeleted, "namespace": namespaceIsDeleted,
		"quota": quotaIsInUse, "limits": limitsAreExceeded, "policy": policyRefuses, "nodes": noNodeFits, "storage": podIsEvicted, "node": nodeIsLost,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t, newSubmitter(t, f))
		})
	}
}

func connectionIsCut(t *testing.T, s *submitter) {
	w := newWire(t, s)
	p := s.begin(t, count(80), "--kubeconfig", w.kubeconfig)
	for _, at := range []string{"count-10-", "count-40-"} {
		p.await(t, at)
		w.cut()
		p.await(t, "the connection to the cluster is lost")
		w.mend()
	}
	wantCount(t, p.end(t, 0, "the connection to the cluster is back", "Pushed "), 80)
	s.job(t)
	s.noContext(t)
}

// connectionIsSilent lets packets vanish: nothing says that the connection is broken.
func connectionIsSilent(t *testing.T, s *submitter) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	w := newWire(t, s)
	p := s.begin(t, count(80), "--kubeconfig", w.kubeconfig)
	p.await(t, "count-10-")
	thaw := w.silence()
	defer thaw()
	p.await(t, "the connection to the cluster is lost")
	w.cut()
	w.mend()
	thaw()
	wantCount(t, p.end(t, 0, "the connection to the cluster is back", "Pushed "), 80)
}

// answersAreLost breaks the connection in the middle of what the API server says of the Job and of the Secret it has made.
func answersAreLost(t *testing.T, s *submitter) {
	w := newWire(t, s)
	w.lose["/jobs"], w.lose["/secrets"] = true, true
	s.begin(t, "RUN id -u", "--kubeconfig", w.kubeconfig).end(t, 0, "the cluster does not answer, and is asked again", "Pushed ")
	s.job(t)
	if w.mu.Lock(); w.lost != 2 {
		t.Errorf("%d answers were lost, want 2", w.lost)
	}
	w.mu.Unlock()
	s.noContext(t)
}

// clusterIsUnreachable has no API server from the start, and then for a moment.
func clusterIsUnreachable(t *testing.T, s *submitter) {
	w := newWire(t, s)
	w.cut()
	p := s.begin(t, "RUN id -u", "--kubeconfig", w.kubeconfig)
	p.await(t, "the cluster does not answer, and is asked again")
	w.mend()
	p.end(t, 0, "Pushed ")
	s.job(t)
	w.cut()
	s.begin(t, "RUN id -u", "--kubeconfig", w.kubeconfig, "--job-name", "named").end(t, 1, "look up the Job named", "can be reached: kubectl version")
	s.noContext(t)
}

// kubeletIsCut breaks the connections between API server and kubelet, over which logs come.
func kubeletIsCut(t *testing.T, s *submitter) {
	if _, err := exec.LookPath("ss"); err != nil {
		t.Skip("needs ss (apt-get install iproute2)")
	}
	p := s.begin(t, count(60))
	p.await(t, "count-10-")
	node := s.mustKubectl(t, "", "-n", s.ns, "get", "pods", "-o", "jsonpath={.items[0].spec.nodeName}")
	port := s.mustKubectl(t, "", "get", "node", node, "-o", "jsonpath={.status.daemonEndpoints.kubeletEndpoint.Port}")
	closed := must[string](t)(lab.Must(t.Context(), "ss", "-K", "-H", "-t", "dport", "=", ":"+port))
	if strings.TrimSpace(closed) == "" {
		t.Fatal("no connection to the kubelet was there")
	}
	wantCount(t, p.end(t, 0, "Pushed "), 60)
}

func podIsDeleted(t *testing.T, s *submitter) {
	g := newDoor(t, s.fixture)
	p := s.begin(t, "RUN echo first-step-$((40+2)) && head -c 32 /dev/urandom > /first\nRUN wget -q -O- "+g.URL, "--cache", "--cache-repo", s.inPod(s.registry.Addr)+"/"+s.ns+"/cache")
	g.await(t, p)
	s.mustKubectl(t, "", "-n", s.ns, "delete", "pod", s.pods(t)[0], "--wait=false")
	g.await(t, p)
	g.pass()
	out := p.end(t, 0, "the cluster makes another, which goes on with what is in the cache", "Pushed ")
	if n := strings.Count(out, "first-step-42"); n != 1 {
		t.Errorf("the first step ran %d times\n%s", n, tail(out))
	}
	s.job(t)
	s.noContext(t)
}

func processIsKilled(t *testing.T, s *submitter) {
	g := newDoor(t, s.fixture)
	p := s.begin(t, count(5)+"\nRUN wget -q -O- "+g.URL)
	g.await(t, p)
	s.kill(t, s.pods(t)[0])
	g.await(t, p)
	g.pass()
	out := p.end(t, 0, "was ended with exit code 137; the cluster makes another, which begins again, since there is no --cache", "Pushed ")
	first, second, _ := strings.Cut(out, "the cluster makes another")
	wantCount(t, first, 5)
	wantCount(t, second, 5)
	if n := len(s.pods(t)); n != 2 {
		t.Errorf("%d pods, want 2", n)
	}
}

// stopsAtOnce sends two signals.
func stopsAtOnce(t *testing.T, s *submitter) {
	g := newDoor(t, s.fixture)
	w := newWire(t, s)
	p := s.begin(t, "RUN wget -q -O- "+g.URL, "--kubeconfig", w.kubeconfig)
	g.await(t, p)
	w.cut() // so that cleaning up is not faster
	p.signal(t, syscall.SIGINT)
	p.await(t, "cancelling the Job")
	begun := time.Now()
	p.signal(t, syscall.SIGINT)
	p.end(t, 128+int(syscall.SIGINT))
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("ended after %s", took)
	}
}

func stopsBySignal(t *testing.T, s *submitter) {
	g := newDoor(t, s.fixture)
	for _, number := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		p := s.begin(t, "RUN wget -q -O- "+g.URL)
		g.await(t, p)
		p.signal(t, number)
		p.end(t, 128+int(number), "cancelling the Job")
		s.nothingLeft(t)
	}
	// While the connection is broken.
	w := newWire(t, s)
	p := s.begin(t, "RUN wget -q -O- "+g.URL, "--kubeconfig", w.kubeconfig)
	g.await(t, p)
	w.cut()
	p.await(t, "the connection to the cluster is lost")
	p.signal(t, syscall.SIGTERM)
	p.await(t, "cancelling the Job")
	w.mend()
	p.end(t, 128+int(syscall.SIGTERM))
	s.nothingLeft(t)
}

// attaches follows a Job twice at the same time, after its end, and when it is gone.
func attaches(t *testing.T, s *submitter) {
	g := newDoor(t, s.fixture)
	attach := func(name string, more ...string) *process {
		return begin(t, append([]string{s.hako, "submit", "--attach", name, "--kubeconfig", s.kubeconfig, "--insecure", "--log-format=text"}, more...)...)
	}
	r := s.submit(t, "-f", s.dockerfile(t, count(10)+"\nRUN wget -q -O- "+g.URL+"\n"+count(0)), "--detach")
	name := strings.TrimSpace(r.Stdout)
	file := filepath.Join(s.newDir(t), "digest")
	one, two := attach(name), attach(name, "--digest-file", file)
	one.await(t, "count-10-")
	two.await(t, "count-10-")
	g.pass()
	wantCount(t, one.end(t, 0, "Pushed "), 10)
	wantCount(t, two.end(t, 0, "Pushed "), 10)
	if text, err := os.ReadFile(file); err != nil || !strings.HasPrefix(string(text), "sha256:") {
		t.Errorf("digest %q, %v", text, err)
	}
	wantCount(t, attach(name).end(t, 0, "Pushed "), 10)
	s.noContext(t)

	failing := strings.TrimSpace(s.submit(t, "-f", s.dockerfile(t, "RUN exit 9"), "--detach").Stdout)
	attach(failing).end(t, 9, "command exited with code 9")
	attach(failing).end(t, 9, "command exited with code 9")

	late := newDoor(t, s.fixture)
	slow := strings.TrimSpace(s.submit(t, "-f", s.dockerfile(t, "RUN wget -q -O- "+late.URL), "--detach", "--timeout=8s").Stdout)
	attach(slow).end(t, 1, "longer than its --timeout of 8s")

	gone := strings.TrimSpace(s.submit(t, "-f", s.dockerfile(t, "RUN id"), "--detach", "--ttl-after-finished=0s").Stdout)
	s.mustKubectl(t, "", "-n", s.ns, "wait", "--for=delete", "job/"+gone, "--timeout=2m")
	attach(gone).end(t, 1, "there is no Job "+gone, "--ttl-after-finished")
}

// jobIsDeleted deletes the Job in each way that kubectl knows.
func jobIsDeleted(t *testing.T, s *submitter) {
	g := newDoor(t, s.fixture)
	for _, how := range []string{"background", "foreground", "orphan"} {
		p := s.begin(t, "RUN wget -q -O- "+g.URL)
		g.await(t, p)
		name, pod := s.job(t), s.pods(t)[0]
		s.mustKubectl(t, "", "-n", s.ns, "delete", "job", name, "--cascade="+how, "--wait=false")
		out := p.end(t, 1, "the Job "+name+" was deleted while it ran", "submit the build again")
		if strings.Contains(out, "makes another") {
			t.Errorf("--cascade=%s: another pod is promised\n%s", how, out)
		}
		s.mustKubectl(t, "", "-n", s.ns, "delete", "pod", pod, "--ignore-not-found", "--grace-period=1")
	}
	s.nothingLeft(t)
}

func namespaceIsDeleted(t *testing.T, s *submitter) {
	g := newDoor(t, s.fixture)
	other := newSubmitter(t, s.fixture)
	p := other.begin(t, "RUN wget -q -O- "+g.URL)
	g.await(t, p)
	s.mustKubectl(t, "", "delete", "namespace", other.ns, "--wait=false")
	p.end(t, 1, "was deleted")
	other.noContext(t)
}

// quotaIsInUse waits for another build's end.
func quotaIsInUse(t *testing.T, s *submitter) {
	g := newDoor(t, s.fixture)
	s.mustKubectl(t, "", "-n", s.ns, "create", "quota", "few", "--hard=requests.cpu=300m")
	first := s.begin(t, "RUN wget -q -O- "+g.URL)
	g.await(t, first)
	second := s.begin(t, "RUN id -u")
	second.await(t, "the pod waits: exceeded quota: few")
	g.pass()
	first.end(t, 0, "Pushed ")
	second.end(t, 0, "it is made when other pods of the namespace have ended", "Pushed ")
	s.begin(t, "RUN id -u", "--cpu=2").end(t, 1, "the cluster refuses the pod: exceeded quota: few", "Ask for less with --cpu")
	s.mustKubectl(t, "", "-n", s.ns, "create", "quota", "jobs", "--hard=count/jobs.batch=0")
	s.begin(t, "RUN id -u").end(t, 1, "create the Job", "exceeded quota: jobs", "Delete finished Jobs in namespace "+s.ns)
	s.noContext(t)
}

// limitsAreExceeded wants more memory than a container, or a namespace, gives.
func limitsAreExceeded(t *testing.T, s *submitter) {
	s.begin(t, "RUN tail /dev/zero", "--memory=96Mi").end(t, anyFailure, "memory", "--memory") // whom the kernel chooses is its secret
	s.apply(t, s.ns, `{"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]}}`)
	s.begin(t, "RUN id -u").end(t, 1, "the cluster refuses the pod: maximum memory usage per Container is 1Gi", "Stay within the namespace's LimitRange")
	s.noContext(t)
}

// policyRefuses has what the Pod Security Standard, the node, and the cluster do not take.
func policyRefuses(t *testing.T, s *submitter) {
	for _, c := range []struct{ template, says, hint string }{
		{"spec: {hostPID: true}", "the cluster refuses the pod: violates PodSecurity", "Leave out of --pod-template"},
		{"spec: {priorityClassName: none}", "the cluster refuses the pod: no PriorityClass with name none was found", "--pod-template"},
		{"spec: {containers: [{name: executor, env: [{name: A, valueFrom: {configMapKeyRef: {name: none, key: a}}}]}]}", `configmap "none" not found`, "Correct --pod-template"},
		{"spec: {containers: [{name: executor, command: [/none]}]}", "the container cannot start: ", "Correct --executor-image or --pod-template."},
		{"spec: {containers: [{name: executor, image: 'a b'}]}", "", "--executor-image"},
		{"spec: {securityContext: {runAsUser: 0}}", "", "--pod-template"},
	} {
		file := filepath.Join(s.newDir(t), "pod.yaml")
		if err := os.WriteFile(file, []byte(c.template), 0o600); err != nil {
			t.Fatal(err)
		}
		s.begin(t, "RUN id -u", "--pod-template", file).end(t, 1, c.says, c.hint)
	}
	s.noContext(t)
}

func noNodeFits(t *testing.T, s *submitter) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--node-selector=hako-nobody=1"}, "the label hako-nobody=1 "},
		{[]string{"--cpu=1000"}, " has room for it: 0/"},
	} {
		s.begin(t, "RUN id -u", append(c.args, "--timeout=4s")...).end(t, 1, "the pod waits: no node ", "for a node for the whole --timeout of 4s: no node ", c.says)
	}
	s.noContext(t)
}

// podIsEvicted writes more than the pod's limit to a place that hako does not see: its log.
func podIsEvicted(t *testing.T, s *submitter) {
	if testing.Short() {
		t.Skip("the kubelet looks every 10 s")
	}
	g := newDoor(t, s.fixture)
	p := s.begin(t, "RUN for i in $(seq 3000); do head -c 9000 /dev/zero | tr '\\0' x; echo; done; wget -q -O- "+g.URL, "--storage=16Mi")
	p.end(t, 1, "the pod was evicted: ", "Give the build more room with --storage.")
	s.noContext(t)
}

// nodeIsLost places a pod on a node that does not exist, says for its kubelet that the pod runs, and then nothing more.
func nodeIsLost(t *testing.T, s *submitter) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	label, name := "hako.test/"+s.ns, s.ns
	real := strings.Fields(s.mustKubectl(t, "", "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"))[0]
	s.mustKubectl(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Node", "metadata": {"name": %q, "labels": {%q: "1"}}, "spec": {"taints": [{"key": %[2]q, "effect": "NoSchedule"}]}}`, name, label), "create", "-f", "-")
	t.Cleanup(func() {
		s.mustKubectl(t, "", "delete", "node", name, "--ignore-not-found")
		s.mustKubectl(t, "", "label", "node", real, label+"-")
	})
	now := strconv.Quote(time.Now().UTC().Format(time.RFC3339))
	s.mustKubectl(t, "", "patch", "node", name, "--subresource=status", "-p", `{"status": {
  "capacity": {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "10"}, "allocatable": {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "10"},
  "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "lastHeartbeatTime": `+now+`, "lastTransitionTime": `+now+`}]}}`)
	file := filepath.Join(s.newDir(t), "pod.yaml")
	template := "spec: {tolerations: [{key: " + label + ", operator: Exists}, {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 5}, {key: node.kubernetes.io/not-ready, operator: Exists}]}"
	if err := os.WriteFile(file, []byte(template), 0o600); err != nil {
		t.Fatal(err)
	}
	p := s.begin(t, count(3), "--node-selector", label+"=1", "--pod-template", file)
	p.await(t, "created the Job")
	var pod string
	if err := lab.Poll(t.Context(), 200*time.Millisecond, func() bool {
		pod = s.mustKubectl(t, "", "-n", s.ns, "get", "pods", "--field-selector=spec.nodeName="+name, "-o", "jsonpath={.items[*].metadata.name}")
		return pod != ""
	}); err != nil {
		t.Fatal(err)
	}
	s.mustKubectl(t, "", "-n", s.ns, "patch", "pod", pod, "--subresource=status", "-p", `{"status": {"phase": "Running",
  "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
  "containerStatuses": [{"name": "executor", "image": "x", "imageID": "x", "ready": true, "restartCount": 0, "state": {"running": {"startedAt": `+now+`}}}]}}`)
	p.await(t, "the pod "+pod+" runs on node "+name)
	p.await(t, "the node "+name+" does not answer")
	p.await(t, "the node "+name+" has not let the pod go")
	s.mustKubectl(t, "", "label", "node", real, label+"=1")
	s.mustKubectl(t, "", "delete", "node", name)
	wantCount(t, p.end(t, 0, "the pod "+pod+" was disturbed", "Pushed "), 3)
}
