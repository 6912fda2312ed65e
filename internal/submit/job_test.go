package submit

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"hako/internal/build"
)

var update = flag.Bool("update", false, "rewrite golden files")

func golden(t *testing.T, name string, objects ...any) {
	t.Helper()
	got := ""
	for _, o := range objects {
		text, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		got += "---\n" + string(text)
	}
	path := filepath.Join("testdata", name+".yaml")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestObjects(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		r    Request
		sent *sent
	}{
		"plain": {Request{Args: []string{"--destination=r.example/app:1"}, Job: Job{Image: "executor"}}, &sent{
			place: "oci://r.example/app@sha256:1", args: []string{"--build-context=docs=oci://r.example/app@sha256:2"},
			artifacts: []string{"oci://r.example/app@sha256:1", "oci://r.example/app@sha256:2"},
		}},
		"stream": {Request{StreamContext: true, Job: Job{Image: "executor"}}, &sent{place: "tar://stdin#sha256=1&size=2"}},
		"full": {Request{
			Args:  []string{"--destination=r.example/app:1"},
			Files: []File{{"secret-0", []byte("s")}, {configKey, []byte(`{"auths":{}}`)}}, Env: []build.KeyValue{{Key: "GIT_TOKEN", Value: "t"}}, PassContext: true,
			Job: Job{
				Image: "executor", ServiceAccount: "builder", CPU: "2", Memory: "4Gi", Storage: "30Gi", Timeout: time.Hour, TTL: 10 * time.Minute,
				NodeSelector: map[string]string{"kubernetes.io/arch": "arm64"}, Tolerations: []corev1.Toleration{{Key: "build", Operator: corev1.TolerationOpExists}},
				Template: []byte("spec:\n  securityContext: {runAsUser: null}\n  imagePullSecrets: [{name: pull}]\n  containers:\n  - name: executor\n    env: [{name: HTTPS_PROXY, value: p}]\n    volumeMounts: [{name: cache, mountPath: /cache}]\n  volumes: [{name: cache, persistentVolumeClaim: {claimName: c}}]\n"),
			},
		}, &sent{place: "git://r.example/app"}},
	} {
		r := &test.r
		job, err := newJob(r, "hako-app", test.sent)
		if err != nil {
			t.Fatal(err)
		}
		secret, err := newSecret(r, job)
		if err != nil {
			t.Fatal(err)
		}
		if secret == nil {
			golden(t, name, job)
			continue
		}
		golden(t, name, job, secret)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	for what, j := range map[string]Job{
		"--memory much is not a quantity":                        {Memory: "much"},
		"--cpu -1 is nothing to build with":                      {CPU: "-1"},
		"--storage 0 is nothing to build with":                   {Storage: "0"},
		"--memory 512m is less than 1Mi":                         {Memory: "512m"},
		"--storage 20 is less than 1Mi":                          {Storage: "20"},
		"--pod-template: Job is neither a Pod nor a PodTemplate": {Template: []byte("kind: Job")},
	} {
		if _, err := newJob(&Request{Job: j}, "n", &sent{}); err == nil || err.Error() != what {
			t.Errorf("%v, want %s", err, what)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for text, wait := range map[string]bool{
		"exceeded quota: q, requested: limits.memory=2Gi, used: limits.memory=0, limited: limits.memory=1Gi":   false,
		"exceeded quota: q, requested: limits.memory=1Gi, used: limits.memory=1Gi, limited: limits.memory=1Gi": true,
		"failed quota: q: must specify limits.cpu for: executor":                                               false,
		`violates PodSecurity "restricted:latest": runAsNonRoot != true`:                                       false,
		"maximum memory usage per Container is 1Gi, but limit is 2Gi":                                          false,
		"etcdserver: request timed out":                                                                        true,
		"is forbidden: unable to validate against any security context constraint: []":                         false,
		`is forbidden: error looking up service account n/a: serviceaccount "a" not found`:                     true,
		"is forbidden: no PriorityClass with name none was found":                                              false,
		"pods \"x\" already exists":                                                                            true,
	} {
		if got, hint := refusal(text, strings.Contains(text, "is forbidden: ")); got != wait || hint == "" {
			t.Errorf("%s: waits: %v, want %v (%s)", text, got, wait, hint)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for title, want := range map[string]string{"r.example/Team/My_App:1": "hako-my-app-", "r.example:5000/app@sha256:1": "hako-app-", "": "hako-"} {
		r := &Request{}
		if title != "" {
			r.Build.Outputs.Destinations = []string{title}
		}
		if got := nameOf(r); len(got) != len(want)+8 || got[:len(want)] != want {
			t.Errorf("%s: %s, want %s and 8 more", title, got, want)
		}
	}
}
