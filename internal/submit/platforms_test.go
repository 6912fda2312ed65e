package submit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/image"
)

func TestParts(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"":                                    "",
		"linux/arm64":                         "",
		"linux/arm64 linux/aarch64":           "",
		"linux/arm64/v8 linux/amd64 arm64":    "linux/arm64 linux/amd64",
		"linux/arm linux/arm/v6 linux/arm/v7": "linux/arm/v7 linux/arm/v6",
		"linux/amd64 windows/amd64":           "platform windows/amd64: only linux images can be built",
		"linux/amd64 linux/vax":               `platform linux/vax: unknown architecture "vax"`,
	} {
		r := Request{Build: build.Request{Platforms: strings.Fields(given)}}
		parts, err := r.Parts()
		got := strings.Join(parts, " ")
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", given, got, want)
		}
	}
}

// TestPartJobs holds what the Jobs of several platforms look like: one context, a Secret each, no key, no tag, no annotation of the index.
func TestPartJobs(t *testing.T) {
	t.Parallel()
	var annotations image.Annotations
	for _, text := range []string{"index:a=b", "manifest-descriptor:c=d", "e:f=g=h", "manifest[linux/arm64],manifest-descriptor[linux/arm64]:i=j"} {
		a, err := image.ParseAnnotation(text)
		if err != nil {
			t.Fatal(err)
		}
		annotations = append(annotations, a...)
	}
	req := &Request{
		Build: build.Request{Annotations: annotations}, Args: []string{"--destination=r.example/app:1"}, Files: []File{{"secret-0", []byte("s")}},
		Job: Job{Image: "executor", Labels: map[string]string{"team": "a"}, NodeSelector: map[string]string{"disk": "ssd"}},
	}
	w := &whole{submitted: submitted{req: req, name: "hako-app"}, told: &told{}}
	var objects []any
	for _, p := range []string{"linux/amd64", "linux/arm64", "linux/arm/v6", "linux/s390x"} {
		s := w.part(p)
		job, err := newJob(s.req, s.name, &sent{place: "oci://r.example/app@sha256:1", artifacts: []string{"oci://r.example/app@sha256:1"}})
		if err != nil {
			t.Fatal(err)
		}
		secret, err := newSecret(s.req, job)
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, job, secret)
	}
	golden(t, "platforms", objects...)
}

// TestEpochOfContext refuses a time that only the pods know, and says what to give.
func TestEpochOfContext(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{
		"1000": "", "context": "--source-date-epoch=$(git log", "yesterday": "git log -1 --format=%ct",
	} {
		w := &whole{submitted: submitted{req: &Request{Build: build.Request{
			Outputs: build.Outputs{Destinations: []string{"r.example/app"}}, BuildArgs: map[string]string{"SOURCE_DATE_EPOCH": given},
		}}}}
		err := w.validate()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(diag.Format(err), want) {
			t.Errorf("%s: %v, want %q", given, err, want)
		}
	}
}

// TestNodeSelector says when a build for one platform asks for nodes of its architecture.
func TestNodeSelector(t *testing.T) {
	t.Parallel()
	both := map[string]string{"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"}
	mine := map[string]string{"kubernetes.io/arch": "amd64"}
	const affinity = "spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: %s, operator: Exists}]}]}}}}"
	for name, test := range map[string]struct {
		platforms string
		job       Job
		want      map[string]string
	}{
		"none":          {"", Job{}, nil},
		"one":           {"linux/arm64", Job{}, both},
		"spelled twice": {"linux/arm64 linux/arm64/v8", Job{}, both},
		"32 bits":       {"linux/arm/v7", Job{}, both},
		"no hako there": {"linux/riscv64", Job{}, nil},
		"flag":          {"linux/arm64", Job{NodeSelector: mine}, mine},
		"other flag":    {"linux/arm64", Job{NodeSelector: map[string]string{"a": "b"}}, map[string]string{"a": "b", "kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"}},
		"template":      {"linux/arm64", Job{Template: []byte("spec: {nodeSelector: {kubernetes.io/arch: amd64}}")}, mine},
		"taken away":    {"linux/arm64", Job{Template: []byte("spec: {nodeSelector: {kubernetes.io/arch: null}}")}, map[string]string{"kubernetes.io/os": "linux"}},
		"affinity":      {"linux/arm64", Job{Template: fmt.Appendf(nil, affinity, "kubernetes.io/arch")}, nil},
		"for more":      {"linux/arm64", Job{Template: fmt.Appendf(nil, affinity, "disk")}, both},
		"node":          {"linux/arm64", Job{Template: []byte("spec: {nodeName: n}")}, nil},
	} {
		job, err := newJob(&Request{Build: build.Request{Platforms: strings.Fields(test.platforms)}, Job: test.job}, "n", &sent{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, job.Spec.Template.Spec.NodeSelector); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestNodeless(t *testing.T) {
	t.Parallel()
	arm := map[string]string{"kubernetes.io/arch": "arm64", "kubernetes.io/os": "linux"}
	for name, test := range map[string]struct {
		labels              map[string]string
		message, what, hint string
	}{
		"no such node": {
			arm, "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
			"no node has the label kubernetes.io/arch=arm64 (0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector)", "Add a node with kubernetes.io/arch=arm64",
		},
		"two labels": {
			map[string]string{"disk": "ssd", "kubernetes.io/arch": "arm64"}, "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
			"no node has the labels disk=ssd and kubernetes.io/arch=arm64 (0/1", "Add a node",
		},
		"tainted": {
			arm, "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/3",
			"no node without a taint has the label kubernetes.io/arch=arm64 (0/3 nodes are available: 1 node(s) had", "Add a node with kubernetes.io/arch=arm64, tolerate the taint",
		},
		"only tainted": {
			arm, "0/1 nodes are available: 1 node(s) had untolerated taint(s).", "no node with the label kubernetes.io/arch=arm64 takes it: 0/1", "Ask for less",
		},
		"full": {
			arm, "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector.",
			"no node with the label kubernetes.io/arch=arm64 takes it: 0/3 nodes are available: 1 Insufficient cpu, 2", "Ask for less",
		},
		"any": {nil, "0/1 nodes are available: 1 Insufficient memory.", "no node has room for it: 0/1 nodes", "Ask for less"},
	} {
		what, hint := nodeless(&corev1.PodSpec{NodeSelector: test.labels}, test.message)
		if !strings.HasPrefix(what, test.what) || !strings.HasPrefix(hint, test.hint) {
			t.Errorf("%s: %s; %s", name, what, hint)
		}
	}
}

func TestInPlatform(t *testing.T) {
	t.Parallel()
	located := &diag.Error{What: "RUN: exit", Hint: "Mend it.", Span: diag.Span{File: "Dockerfile", Start: 2}}
	err := inPlatform("linux/arm64", &FailedError{7, located})
	var failed *FailedError
	if !errors.As(err, &failed) || failed.Code != 7 {
		t.Errorf("the exit code is lost: %v", err)
	}
	if got, want := diag.Format(err), "linux/arm64: RUN: exit\n  Dockerfile:2\n  Mend it."; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := inPlatform("linux/arm64", context.Canceled); !errors.Is(got, context.Canceled) || !strings.HasPrefix(got.Error(), "linux/arm64: ") {
		t.Errorf("got %v", got)
	}
}

type events struct {
	mu   sync.Mutex
	list []event.Event
}

func (e *events) Emit(one event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.list = append(e.list, one)
}

func TestEventsNameThePlatform(t *testing.T) {
	t.Parallel()
	var got events
	seen := &told{seen: map[string]bool{}}
	span := diag.Span{File: "Dockerfile", Start: 1}
	for _, p := range []string{"linux/amd64", "linux/arm64"} {
		o := ofPlatform{p, &got, seen}
		for _, e := range []event.Event{
			event.StepStarted{Step: "a/1"}, event.StepOutput{Step: "a/1"}, event.StepOutput{}, event.StepDone{Step: "a/1"}, event.CacheMiss{Step: "a/1"},
			event.Progress{ID: "x", What: "layer"}, event.Info{Message: "m"}, event.Debug{Message: "m"}, event.Warning{Message: "m"}, event.Warning{Message: "rule", Span: span},
		} {
			o.Emit(e)
		}
	}
	want := func(p string) []event.Event {
		return []event.Event{
			event.StepStarted{Step: p + " a/1"}, event.StepOutput{Step: p + " a/1", Named: true}, event.StepOutput{Step: p, Named: true}, event.StepDone{Step: p + " a/1"}, event.CacheMiss{Step: p + " a/1"},
			event.Progress{ID: p + " x", What: p + " layer"}, event.Info{Message: p + " m"}, event.Debug{Message: p + " m"}, event.Warning{Message: p + " m"},
		}
	}
	all := append(want("linux/amd64"), event.Warning{Message: "rule", Span: span})
	if diff := cmp.Diff(append(all, want("linux/arm64")...), got.list); diff != "" {
		t.Error(diff)
	}
}
