package submit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"hako/internal/cluster"
	"hako/internal/diag"
)

// neverFits says of a quota's refusal ("exceeded quota: q, requested: a=1,b=2, used: …, limited: a=1,b=1") whether the pod would
// be refused even if it were alone.
func neverFits(text string) bool {
	requested, limited := quantities(text, "requested: "), quantities(text, "limited: ")
	for name, wanted := range requested {
		if limit, ok := limited[name]; ok && wanted.Cmp(limit) > 0 {
			return true
		}
	}
	return false
}

func quantities(text, after string) map[string]resource.Quantity {
	out := map[string]resource.Quantity{}
	_, list, _ := strings.Cut(text, after)
	list, _, _ = strings.Cut(list, ", ")
	for _, pair := range strings.Split(list, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		if q, err := resource.ParseQuantity(value); err == nil {
			out[name] = q
		}
	}
	return out
}

// status is that of our container; nil before it is known.
func status(p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.ContainerStatuses {
		if s := &p.Status.ContainerStatuses[i]; s.Name == Container {
			return s
		}
	}
	return nil
}

func disturbed(p *corev1.Pod) (string, bool) {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue {
			return c.Message, true
		}
	}
	return "", false
}

// pod returns the ending if this pod is the last one.
func (f *follower) pod(p *corev1.Pod) *ending {
	var over *corev1.ContainerStateTerminated
	if s := status(p); s != nil {
		over = s.State.Terminated
	}
	switch why, is := disturbed(p); {
	case over != nil && over.ExitCode == 0:
		return &ending{pod: p.Name, message: over.Message}
	case is:
		f.another(fmt.Sprintf("the pod %s was disturbed: %s", p.Name, why))
		if over == nil && p.DeletionTimestamp != nil && f.env.Build.Now().After(p.DeletionTimestamp.Time) {
			f.once(fmt.Sprintf("the node %s has not let the pod go; another is made when it does, or when the node is deleted: kubectl delete node %[1]s", p.Spec.NodeName))
		}
		return nil
	case p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Evicted":
		return &ending{err: &FailedError{1, &diag.Error{What: "the pod was evicted: " + p.Status.Message, Hint: "Give the build more room with --storage."}}}
	case over == nil:
		return nil
	case over.Reason == "StartError", over.Reason == "ContainerCannotRun":
		return &ending{jobEnded: true, err: &FailedError{1, &diag.Error{
			What: "the container cannot start: " + over.Message, Hint: "Correct --executor-image or --pod-template.",
		}}}
	case over.Reason == "OOMKilled":
		return &ending{err: &FailedError{int(over.ExitCode), &diag.Error{
			What: "the pod was killed because it needs more memory than its limit of " + f.memory(p), Hint: "Give it more with --memory, or run fewer steps at a time with --jobs.",
		}}}
	case mayComeAgain(p, over.ExitCode):
		if l := f.logs[p.Name]; l != nil && l.failed() != nil && code(l.failed()) == int(over.ExitCode) {
			break // it is the exit code of a step
		}
		what := fmt.Sprintf("was ended with exit code %d", over.ExitCode)
		if over.ExitCode == exitAgain {
			what = "did not get the whole context"
		}
		f.another("the pod " + p.Name + " " + what)
		return nil
	}
	// The Job's failure policy ends it, unless it takes the exit code for that of a pod which was killed.
	known := !mayComeAgain(p, over.ExitCode)
	return &ending{err: &FailedError{Code: int(over.ExitCode)}, pod: p.Name, message: over.Message, jobEnded: known}
}

// mayComeAgain says whether the Job's failure policy makes a pod again that ended with an exit code.
func mayComeAgain(p *corev1.Pod, code int32) bool {
	return code == exitKilled || code == exitTerminated || code == exitAgain && streamed(p)
}

// code is the exit code in err, or 0.
func code(err error) int {
	if e := (interface{ ExitCode() int })(nil); errors.As(err, &e) {
		return e.ExitCode()
	}
	return 0
}

func (f *follower) memory(p *corev1.Pod) string {
	for _, c := range p.Spec.Containers {
		if c.Name == Container {
			return c.Resources.Limits.Memory().String()
		}
	}
	return "the node"
}

// another says that a pod has ended, and what becomes of the build.
func (f *follower) another(what string) {
	if !f.final {
		f.once(what + "; the cluster makes another, which " + f.goesOn())
	}
}

func (f *follower) goesOn() string {
	if f.req.Cached {
		return "goes on with what is in the cache"
	}
	return "begins again, since there is no --cache"
}

// judge completes an ending with what the pod's log says of it, or, where that cannot be read, with the pod's last words.
func (f *follower) judge(end *ending) *ending {
	var failed *FailedError
	if !errors.As(end.err, &failed) || failed.err != nil {
		return end
	}
	if l := f.logs[end.pod]; l != nil {
		failed.err = l.failed()
	}
	words := strings.TrimSpace(end.message)
	switch {
	case failed.err != nil:
	case words == "" || strings.HasPrefix(words, "{"): // lines of the log
		failed.err = &diag.Error{What: fmt.Sprintf("the pod %s ended with exit code %d", end.pod, failed.Code), Hint: "See what it wrote above; --executor-image has to be of this program's version."}
	default:
		what, hint, _ := strings.Cut(strings.TrimPrefix(words, "error building image: "), "\n")
		failed.err = &diag.Error{What: what, Hint: hint}
	}
	return end
}

// troubles tells why a pod does not run yet. An error ends the build.
func (f *follower) troubles(ctx context.Context, p *corev1.Pod) error {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse && c.Reason == corev1.PodReasonUnschedulable {
			f.nodeless, f.hint = nodeless(&p.Spec, c.Message)
			f.once("the pod waits: " + f.nodeless + ". " + f.hint)
		}
	}
	s := status(p)
	if s != nil && s.State.Running != nil && silent(p) {
		f.once("the node " + p.Spec.NodeName + " does not answer; if it does not come back, the cluster makes another pod, which " + f.goesOn())
	}
	if s == nil || s.State.Waiting == nil {
		return nil
	}
	w := s.State.Waiting
	switch w.Reason {
	case "InvalidImageName", "ErrImageNeverPull":
		return f.waited(p, w, 0)
	case "CreateContainerConfigError":
		patience := time.Duration(0)
		if strings.Contains(w.Message, fmt.Sprintf("secret %q not found", f.name)) { // it was made after the Job
			patience = imagePatience
		}
		return f.waited(p, w, patience)
	case "ErrImagePull", "ImagePullBackOff":
		patience := imagePatience
		if slices.ContainsFunc([]string{"not found", "unauthorized", "denied", "forbidden"}, func(word string) bool { return strings.Contains(strings.ToLower(w.Message), word) }) {
			patience = 0
		}
		return f.waited(p, w, patience)
	case "CreateContainerError", "RunContainerError":
		return f.waited(p, w, imagePatience)
	}
	return f.sandbox(ctx, p)
}

// silent says whether the cluster has noted that a pod's node does not answer: the pod then is not ready any more, although the last
// that its kubelet said of its containers is that they are.
func silent(p *corev1.Pod) bool {
	is := map[corev1.PodConditionType]corev1.ConditionStatus{}
	for _, c := range p.Status.Conditions {
		is[c.Type] = c.Status
	}
	return len(p.Spec.ReadinessGates) == 0 && is[corev1.ContainersReady] == corev1.ConditionTrue && is[corev1.PodReady] == corev1.ConditionFalse
}

// waited is an error when a pod has been in trouble for as long as patience.
func (f *follower) waited(p *corev1.Pod, w *corev1.ContainerStateWaiting, patience time.Duration) error {
	now := f.env.Build.Now()
	first, ok := f.since[p.Name]
	if !ok {
		f.since[p.Name], first = now, now
	}
	if patience > 0 && now.Sub(first) < patience {
		f.once("the pod does not start yet: " + w.Message)
		return nil
	}
	if strings.Contains(w.Reason, "Image") {
		image := ""
		for _, c := range p.Spec.Containers {
			if c.Name == Container {
				image = c.Image
			}
		}
		return &diag.Error{
			What: "the node cannot pull the executor image " + image + ": " + w.Message,
			Hint: imageHint(w.Message),
		}
	}
	return &diag.Error{What: "the container cannot start: " + w.Reason + ": " + w.Message, Hint: "Correct --pod-template, or see kubectl describe pod --namespace " + f.env.Cluster.Namespace + " " + p.Name}
}

// imageHint tells what to do about an executor image that cannot be pulled, by containerd's words.
func imageHint(message string) string {
	if strings.Contains(message, "no match for platform") {
		return "Push the executor image for the architecture of this node, too, and join both with hako index."
	}
	return "Correct --executor-image, or give the pod imagePullSecrets with --pod-template or --service-account."
}

// sandbox tells what keeps a pod from starting that only events say: volumes that are missing, networks that fail.
func (f *follower) sandbox(ctx context.Context, p *corev1.Pod) error {
	const unusual = 10 * time.Second
	if f.env.Build.Now().Sub(p.CreationTimestamp.Time) < unusual {
		return nil
	}
	events, err := f.env.Cluster.Events(ctx, string(p.UID))
	if cluster.IsForbidden(err) {
		return nil
	}
	for _, e := range events {
		if e.Type == corev1.EventTypeWarning {
			f.once("the pod does not start yet: " + e.Message)
		}
	}
	return err
}
