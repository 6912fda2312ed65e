package submit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"hako/internal/cluster"
	"hako/internal/diag"
	"hako/internal/web"
)

// A Job is looked at whenever the API server tells of a change, and at any rate every few seconds: what is done depends on how
// things are, and not on which changes were seen. So it does not matter how often the connection is lost.

// interval is the time between two looks when nothing is told, and between two tries when nothing answers. While a watch tells
// of changes, it grows to longest: of hundreds of builds most only wait.
const (
	interval = time.Second
	longest  = 5 * time.Second
)

// The patience with what may mend itself.
const (
	imagePatience = 30 * time.Second // an image that cannot be pulled, or a container that cannot be made
	logPatience   = 20 * time.Second // the last lines of a pod that has ended
)

// ending is how a Job ended.
type ending struct {
	// pod is the name of the last pod, and message what it left in its termination log.
	pod, message string
	err          error
	// jobEnded says that the Job controller knows: nothing will be made again.
	jobEnded bool
}

type follower struct {
	*submitted
	labels string
	// told is what is not said again, by any of the goroutines.
	told sync.Map
	// logs are those that are read, by pod.
	logs map[string]*podLog
	// feeds are the streams of the context, by pod.
	feeds map[string]*feed
	// since is when a pod was first seen in trouble.
	since map[string]time.Time
	lost  bool
	// watched says that changes are told of.
	watched atomic.Bool
	// seen says that the Job was seen, final that it makes no further pod.
	seen, final bool
	// over are the pods that were told of as ended, by name: of a Job that is deleted as soon as it has ended nothing else is left.
	over sync.Map
	// nodeless is why there is no node for the last pod, and hint what to do; empty if there is one.
	nodeless, hint string
}

// follow shows what happens until the Job has ended.
func follow(ctx context.Context, s *submitted) (*ending, error) {
	inner, stop := context.WithCancel(ctx)
	f := &follower{submitted: s, labels: batchv1.ControllerUidLabel + "=" + string(s.uid), logs: map[string]*podLog{}, feeds: map[string]*feed{}, since: map[string]time.Time{}}
	wake := make(chan struct{}, 1)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		f.watch(inner, wake)
	}()
	defer func() {
		stop()
		<-watching
		for _, l := range f.logs {
			<-l.done
		}
		for _, s := range f.feeds {
			<-s.done
		}
	}()
	for pause := interval; ; {
		end, err := f.look(inner)
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil && cluster.IsTemporary(err):
			f.tellLost(err)
		case err != nil:
			return nil, err
		case end != nil:
			f.tellBack()
			f.drain(ctx)
			return f.judge(end), nil
		default:
			f.tellBack()
		}
		select {
		case <-wake:
			pause = interval
		case <-time.After(pause):
			pause = f.longer(pause)
		case <-ctx.Done():
		}
	}
}

// longer is the pause after one in which nothing was told.
func (f *follower) longer(pause time.Duration) time.Duration {
	if f.lost || !f.watched.Load() {
		return interval
	}
	return min(2*pause, longest)
}

func (f *follower) tellLost(err error) {
	if !f.lost {
		f.warn("the connection to the cluster is lost; the build goes on, and is looked for again: " + err.Error())
	}
	f.lost = true
}

func (f *follower) tellBack() {
	if f.lost {
		f.say("the connection to the cluster is back")
	}
	f.lost = false
}

// watch wakes whenever a pod changes. Where watching is not allowed or does not work, looking now and then does.
func (f *follower) watch(ctx context.Context, wake chan<- struct{}) {
	changed := func(p *corev1.Pod) {
		f.note(p)
		select {
		case wake <- struct{}{}:
		default:
		}
	}
	for ctx.Err() == nil {
		f.watched.Store(true)
		err := f.env.Cluster.WatchPods(ctx, f.labels, changed)
		f.watched.Store(false)
		if err != nil && !cluster.IsTemporary(err) {
			return
		}
		_ = web.Sleep(ctx, interval) // the loop looks at ctx
	}
}

// look sees how things are, and returns an ending when there is one.
func (f *follower) look(ctx context.Context) (*ending, error) {
	job, err := f.env.Cluster.Job(ctx, f.name)
	replaced := err == nil && job.UID != f.uid
	if cluster.IsNotFound(err) || replaced {
		f.othersSecret = replaced // ours goes with our Job
		if end := f.remembered(); end != nil {
			return end, nil
		}
		return &ending{jobEnded: true, err: &diag.Error{
			What: "the Job " + f.name + " was deleted while it ran",
			Hint: "Find out who deletes it, or give it a longer --ttl-after-finished, and submit the build again.",
		}}, nil
	}
	if err != nil {
		return nil, f.shutOut(err)
	}
	pods, err := f.env.Cluster.Pods(ctx, f.labels)
	if err != nil {
		return nil, f.shutOut(err)
	}
	f.seen = true
	f.final = job.DeletionTimestamp != nil || slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Status == corev1.ConditionTrue && c.Type != batchv1.JobSuspended
	})
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for i := range pods {
		f.read(ctx, &pods[i])
		if err := f.feed(ctx, &pods[i]); err != nil {
			return nil, err
		}
		if end := f.pod(&pods[i]); end != nil {
			end.jobEnded = end.jobEnded || ended(job)
			return end, nil
		}
	}
	if len(pods) == 0 && ended(job) {
		if end := f.remembered(); end != nil {
			return end, nil
		}
	}
	for _, c := range job.Status.Conditions {
		if c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobFailed || c.Type == batchv1.JobFailureTarget) {
			return &ending{jobEnded: true, err: f.jobFailed(c, pods)}, nil
		}
		if c.Status == corev1.ConditionTrue && c.Type == batchv1.JobComplete {
			return &ending{jobEnded: true, err: &diag.Error{What: "the Job has succeeded, but its pod is gone and with it the image's digest", Hint: "Look into the registry."}}, nil
		}
	}
	if len(pods) == 0 {
		return f.refused(ctx, job)
	}
	return nil, f.troubles(ctx, &pods[len(pods)-1])
}

// note keeps a pod that has ended, unless it was deleted and did not succeed: then it is not the build that failed.
func (f *follower) note(p *corev1.Pod) {
	s := status(p)
	if s == nil || s.State.Terminated == nil || p.DeletionTimestamp != nil && s.State.Terminated.ExitCode != 0 {
		return
	}
	f.over.Store(p.Name, p)
}

// remembered is the ending of a Job that is gone, with its pods, as the last that was told of them has it; nil if they had none.
func (f *follower) remembered() (end *ending) {
	f.final = true
	f.over.Range(func(_, p any) bool {
		end = f.pod(p.(*corev1.Pod))
		return end == nil
	})
	if end != nil {
		end.jobEnded = true
	}
	return end
}

// shutOut says of a right that was there before and is gone what may be the reason.
func (f *follower) shutOut(err error) error {
	if !f.seen || !cluster.IsForbidden(err) && !cluster.IsUnauthorized(err) {
		return err
	}
	ns := f.env.Cluster.Namespace
	return &diag.Error{
		What: "the Job " + f.name + " cannot be followed any more: the right to it was taken away, or the namespace " + ns + " was deleted", Cause: err,
		Hint: "Have the Role of docs/submit.md bound in it, and submit the build again: with --cache it goes on where it was.",
	}
}

func ended(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return c.Status == corev1.ConditionTrue && (c.Type == batchv1.JobFailed || c.Type == batchv1.JobComplete)
	})
}

// once says something once, with nothing in it that a terminal would obey: much of it are words of others.
func (f *follower) once(text string) {
	if _, told := f.told.LoadOrStore(text, true); !told {
		f.warn(oneLine(errors.New(text)))
	}
}

// jobFailed says why the Job controller gave up.
func (f *follower) jobFailed(c batchv1.JobCondition, pods []corev1.Pod) error {
	if c.Reason == batchv1.JobReasonDeadlineExceeded && f.nodeless != "" && len(f.logs) == 0 {
		return &diag.Error{What: fmt.Sprintf("the pod waited for a node for the whole --timeout of %s: %s", f.req.Job.Timeout, f.nodeless), Hint: f.hint}
	}
	if c.Reason == batchv1.JobReasonDeadlineExceeded {
		return &diag.Error{What: fmt.Sprintf("the build took longer than its --timeout of %s", f.req.Job.Timeout), Hint: "Give it more time with --timeout; with --cache it goes on where it was."}
	}
	what := "the Job failed: " + c.Message
	if n := len(pods); n > 0 && pods[n-1].Status.Message != "" {
		what += ": " + pods[n-1].Status.Message
	}
	if n := len(pods); n > 0 {
		if s := status(&pods[n-1]); s != nil && s.State.Terminated != nil {
			words, _, _ := strings.Cut(s.State.Terminated.Message, "\n")
			what += ": " + strings.TrimPrefix(words, "error building image: ")
		}
	}
	return &diag.Error{What: what, Hint: "The pod was ended again and again: see kubectl describe job --namespace " + f.env.Cluster.Namespace + " " + f.name}
}

// refused says why there is no pod: the Job controller notes it in events.
func (f *follower) refused(ctx context.Context, job *batchv1.Job) (*ending, error) {
	events, err := f.env.Cluster.Events(ctx, string(job.UID))
	if cluster.IsForbidden(err) {
		f.once("why there is no pod yet cannot be told: this user may not list events")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if e.Reason != "FailedCreate" {
			continue
		}
		text := strings.TrimPrefix(e.Message, "Error creating: ")
		_, after, forbidden := strings.Cut(text, " is forbidden: ")
		if forbidden {
			text = after
		}
		wait, hint := refusal(text, forbidden)
		if !wait {
			return &ending{err: &diag.Error{What: "the cluster refuses the pod: " + text, Hint: hint}}, nil
		}
		f.once("the pod waits: " + text + "; " + hint)
	}
	return nil, nil
}

// refusal says whether a pod that was refused, or forbidden by a policy, may be taken later, and what to do.
func refusal(text string, forbidden bool) (wait bool, hint string) {
	switch {
	case strings.Contains(text, "exceeded quota") && !neverFits(text):
		return true, "it is made when other pods of the namespace have ended"
	case strings.Contains(text, "exceeded quota"):
		return false, "Ask for less with --cpu, --memory or --storage, or have the namespace's ResourceQuota raised."
	case strings.Contains(text, "failed quota"):
		return false, "Give what the quota wants to be said: --cpu, --memory and --storage."
	case strings.Contains(text, "violates PodSecurity"):
		return false, "Leave out of --pod-template what the namespace's Pod Security Standard does not allow."
	case strings.Contains(text, "usage per Container"), strings.Contains(text, "usage per Pod"):
		return false, "Stay within the namespace's LimitRange with --cpu, --memory and --storage."
	case strings.Contains(text, "service account"):
		return true, "the service account has to be created: name one that exists with --service-account"
	case strings.Contains(text, "PriorityClass"):
		return false, "Name a priority class that the cluster has in --pod-template."
	case forbidden, strings.Contains(text, "denied the request"), strings.Contains(text, "forbidden"), strings.Contains(text, "not allowed"), strings.Contains(text, "Invalid value"):
		return false, "Change what the cluster's policy refuses with --pod-template, or use another namespace."
	}
	return true, "the cluster tries again"
}
