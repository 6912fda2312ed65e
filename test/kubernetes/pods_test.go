package kubernetes

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"hako/test/lab"
)

// buildTimeout is how long a pod may take: to be placed, to fetch its image, to build.
const buildTimeout = 15 * time.Minute

// namespace makes one that enforces a Pod Security Standard, "restricted" or "baseline", with a service account, and deletes
// it when the test ends. Its name begins with what HAKO_TEST_NAMESPACE says, or "hako-test".
func (f *fixture) namespace(t *testing.T, standard string) string {
	t.Helper()
	prefix := os.Getenv("HAKO_TEST_NAMESPACE")
	if prefix == "" {
		prefix = "hako-test"
	}
	ns := prefix + "-" + strings.ToLower(rand.Text()[:8])
	f.mustKubectl(t, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": %q, "labels": {
  "pod-security.kubernetes.io/enforce": %q, "pod-security.kubernetes.io/enforce-version": "latest", "pod-security.kubernetes.io/warn": %[2]q}}}`, ns, standard), "create", "-f", "-")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("events of %s:\n%s", ns, tail(f.kubectl(t, "", "-n", ns, "get", "events", "--sort-by=.lastTimestamp").Output))
		}
		f.mustKubectl(t, "", "delete", "namespace", ns, "--wait=false", "--ignore-not-found")
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := lab.Poll(ctx, 100*time.Millisecond, func() bool {
		return f.kubectl(t, "", "-n", ns, "get", "serviceaccount", "default").ExitCode == 0
	})
	if err != nil {
		t.Fatalf("wait for the service account of %s: %v", ns, err)
	}
	return ns
}

// apply creates or changes what a manifest says. A warning, such as one of the Pod Security Standard's, fails the test.
func (f *fixture) apply(t *testing.T, ns, manifest string) {
	t.Helper()
	r := f.kubectl(t, manifest, "-n", ns, "apply", "--validate=strict", "-f", "-")
	if r.ExitCode != 0 || strings.Contains(r.Output, "Warning:") {
		t.Fatalf("kubectl apply: exit code %d\n%s\n%s", r.ExitCode, r.Output, manifest)
	}
}

// pod is a pod that may do nothing: it satisfies the standard "restricted", and has an empty work volume at /tmp.
type pod struct {
	Name string
	// Image is one of hako's: executor (if empty), nonroot, warmer, debug.
	Image string
	Args  []string
	// Env are variables, Volumes further volumes by their mount paths, each in the form of a PodSpec, as
	// {"configMap": {"name": "context"}}.
	Env     map[string]string
	Volumes map[string]map[string]any
	// Change is called with the PodSpec, to change it at will.
	Change func(spec map[string]any)
}

// manifest is the Pod, as JSON.
func (p pod) manifest(t *testing.T, f *fixture) string {
	t.Helper()
	if p.Image == "" {
		p.Image = "executor"
	}
	volumes := []any{map[string]any{"name": "work", "emptyDir": map[string]any{}}}
	mounts := []any{map[string]any{"name": "work", "mountPath": "/tmp"}}
	for i, path := range slices.Sorted(maps.Keys(p.Volumes)) {
		v := maps.Clone(p.Volumes[path])
		v["name"] = fmt.Sprintf("volume-%d", i)
		volumes, mounts = append(volumes, v), append(mounts, map[string]any{"name": v["name"], "mountPath": path})
	}
	env := []any{}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		env = append(env, map[string]any{"name": name, "value": p.Env[name]})
	}
	spec := map[string]any{
		"restartPolicy": "Never", "automountServiceAccountToken": false, "volumes": volumes,
		"securityContext": map[string]any{"runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000, "seccompProfile": map[string]any{"type": "RuntimeDefault"}},
		"containers": []any{map[string]any{
			"name": "build", "image": f.image(p.Image), "args": p.Args, "env": env, "volumeMounts": mounts,
			"resources":       map[string]any{"limits": map[string]any{"memory": "2Gi"}},
			"securityContext": map[string]any{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": map[string]any{"drop": []string{"ALL"}}},
		}},
	}
	if p.Change != nil {
		p.Change(spec)
	}
	text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": p.Name}, "spec": spec})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// runPod creates the pod and waits for its end.
func (f *fixture) runPod(t *testing.T, ns string, p pod) ended {
	t.Helper()
	f.apply(t, ns, p.manifest(t, f))
	return f.awaitPod(t, ns, p.Name)
}

// configMap makes one of files.
func (f *fixture) configMap(t *testing.T, ns, name string, files map[string]string) {
	t.Helper()
	args := []string{"-n", ns, "create", "configmap", name}
	for file, text := range files {
		args = append(args, "--from-literal="+file+"="+text)
	}
	f.mustKubectl(t, "", args...)
}

// ended is how a pod ended.
type ended struct {
	// ExitCode and Reason are those of its first container, Message its termination message.
	ExitCode        int
	Reason, Message string
	// Log is what the container wrote.
	Log string
}

// podStatus is the part of a Pod's status that tests read.
type podStatus struct {
	Status struct {
		Phase, Reason, Message string
		ContainerStatuses      []struct {
			State struct {
				Terminated *struct {
					ExitCode        int
					Reason, Message string
				}
				Waiting *struct{ Reason, Message string }
			}
		}
	}
}

// awaitPod waits for a pod to end.
func (f *fixture) awaitPod(t *testing.T, ns, name string) ended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	var s podStatus
	var text string
	err := lab.Poll(ctx, 250*time.Millisecond, func() bool {
		text = f.mustKubectl(t, "", "-n", ns, "get", "pod", name, "-o", "json")
		s = podStatus{}
		return json.Unmarshal([]byte(text), &s) == nil && (s.Status.Phase == "Succeeded" || s.Status.Phase == "Failed")
	})
	if err != nil {
		t.Fatalf("wait for pod %s: %v\n%s\n%s", name, err, tail(text), tail(f.kubectl(t, "", "-n", ns, "get", "events").Output))
	}
	e := ended{Reason: s.Status.Reason, Message: s.Status.Message, Log: f.kubectl(t, "", "-n", ns, "logs", name).Output}
	if len(s.Status.ContainerStatuses) > 0 && s.Status.ContainerStatuses[0].State.Terminated != nil {
		c := s.Status.ContainerStatuses[0].State.Terminated
		e.ExitCode, e.Reason, e.Message = c.ExitCode, c.Reason, c.Message
	}
	return e
}

// awaitJob waits for a Job's pod to end.
func (f *fixture) awaitJob(t *testing.T, ns, name string) ended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), buildTimeout)
	defer cancel()
	var pod string
	err := lab.Poll(ctx, 250*time.Millisecond, func() bool {
		pod = strings.TrimSpace(f.mustKubectl(t, "", "-n", ns, "get", "pods", "-l", "batch.kubernetes.io/job-name="+name, "-o", "jsonpath={.items[0].metadata.name}", "--ignore-not-found"))
		return pod != ""
	})
	if err != nil {
		t.Fatalf("wait for a pod of job %s: %v", name, err)
	}
	return f.awaitPod(t, ns, pod)
}

// succeed wants success of what awaitPod or awaitJob saw.
func succeed(t *testing.T, e ended) ended {
	t.Helper()
	if e.ExitCode != 0 {
		t.Fatalf("exit code %d, %s %s\n%s", e.ExitCode, e.Reason, e.Message, tail(e.Log))
	}
	return e
}
