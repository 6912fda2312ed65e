package submit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	"k8s.io/apimachinery/pkg/types"

	"hako/internal/build"
	"hako/internal/cluster"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/output"
	"hako/internal/web"
)

// Build runs one build as a Job, and returns when it has ended, or, if it is detached, when there is a Job. That the build failed
// is a *FailedError. When ctx ends, the Job is deleted and Build returns ctx's cause. Several may run at the same time.
//
// A build for several platforms is one Job for each, and an index that is made here when all have succeeded.
func Build(ctx context.Context, env Env, req Request) (*Result, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	parts, err := req.Parts()
	if err != nil {
		return nil, err
	}
	if len(parts) > 0 {
		return buildParts(ctx, env, &req, parts)
	}
	s := &submitted{env: env, req: &req, name: req.Job.Name}
	if s.name == "" {
		s.name = nameOf(&req)
	} else if err := s.free(ctx); err != nil {
		return nil, err
	}
	defer func() { s.sent.close() }()
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	if req.Detach {
		return &Result{Job: s.name}, nil
	}
	made, err := follow(ctx, s)
	return s.end(ctx, made, err)
}

// free is an error if there is a Job of the name, or can be none.
func (s *submitted) free(ctx context.Context) error {
	if err := checkName("--job-name", s.name); err != nil {
		return err
	}
	_, err := s.env.Cluster.Job(ctx, s.name)
	switch {
	case err == nil:
		return s.taken()
	case cluster.IsNotFound(err):
		return nil
	}
	return err
}

// start makes the Job and what goes with it, or nothing.
func (s *submitted) start(ctx context.Context) error {
	if err := s.create(ctx); err != nil {
		left := s.undo(ctx, err)
		if errors.Is(err, errTaken) {
			err = s.taken()
		}
		return errors.Join(err, left)
	}
	s.say("created the Job " + s.name + " in namespace " + s.env.Cluster.Namespace)
	return nil
}

// Attach follows a Job that another call has made and left: Build does with Detach. Of req count the registries and the files to
// write. When ctx ends, the Job goes on.
func Attach(ctx context.Context, env Env, name string, req Request) (*Result, error) {
	s := &submitted{env: env, req: &req, name: name, attached: true}
	if err := checkName("--attach", name); err != nil {
		return nil, err
	}
	if parts, err := req.Parts(); err != nil || len(parts) > 0 {
		return nil, errors.Join(err, notAttached(name))
	}
	job, err := env.Cluster.Job(ctx, name)
	if cluster.IsNotFound(err) {
		return nil, &diag.Error{
			What: "there is no Job " + name + " in namespace " + env.Cluster.Namespace, Cause: err,
			Hint: "It is deleted when its --ttl-after-finished is over; those that are there: kubectl get jobs --namespace " + env.Cluster.Namespace,
		}
	}
	if err != nil {
		return nil, err
	}
	if job.Annotations[platformAnnotation] != "" {
		return nil, notAttached(name)
	}
	s.adopt(job)
	made, err := follow(ctx, s)
	if ctx.Err() != nil || cluster.IsForbidden(err) || cluster.IsUnauthorized(err) { // who may not look does not end it
		s.say("the Job " + name + " goes on; attach again, or end it with: kubectl delete job --namespace " + env.Cluster.Namespace + " " + name)
		return nil, cmp.Or(context.Cause(ctx), err)
	}
	return s.end(ctx, made, err)
}

// adopt takes from a Job that another call made what that knew.
func (s *submitted) adopt(job *batchv1.Job) {
	s.uid = job.UID
	if places := job.Annotations[contextAnnotation]; places != "" {
		s.sent.artifacts = strings.Split(places, separator)
	}
	s.names, s.req.Cached = valuesIn(job, "--destination", "--tag"), slices.Contains(valuesIn(job, "--cache"), "true")
	if seconds := job.Spec.ActiveDeadlineSeconds; seconds != nil {
		s.req.Job.Timeout = time.Duration(*seconds) * time.Second
	}
}

// submitted is a Job and what belongs to it.
type submitted struct {
	env  Env
	req  *Request
	name string
	sent sent
	// attached says that another call made the Job; names are those that it gives the image.
	attached bool
	names    []string
	// shared says that the context is that of other Jobs, too.
	shared bool
	// created is what is known of the Job while it is created, mark what tells it from another's.
	created created
	mark    string
	// uid is the Job's, once it is known: another may get its name.
	uid types.UID
	// othersSecret says that the Secret of the Job's name is not ours.
	othersSecret bool
}

// errTaken says that the Job's name is another's.
var errTaken = errors.New("there is a Job of this name already")

// taken says that there is a Job of the name already.
func (s *submitted) taken() error {
	hint := "Follow it with --attach " + s.name + ", or give another --job-name."
	if s.shared {
		hint = "Give another --job-name."
	}
	return &diag.Error{What: "there is a Job " + s.name + " in namespace " + s.env.Cluster.Namespace + " already", Hint: hint}
}

func (s *submitted) say(text string) { s.env.Build.Events.Emit(event.Info{Message: text}) }

func (s *submitted) warn(text string) { s.env.Build.Events.Emit(event.Warning{Message: text}) }

// prepare gathers credentials and sends the context.
func (s *submitted) prepare(ctx context.Context) error {
	r := s.req
	to, err := s.contextRepository()
	if err != nil {
		return err
	}
	if to != "" {
		r.CredentialsFor = append(slices.Clip(r.CredentialsFor), to)
	}
	if err := s.credentials(ctx); err != nil {
		return err
	}
	// What cannot be made is found before anything is sent.
	job, err := newJob(r, s.name, &sent{})
	if err == nil {
		_, err = newSecret(r, job)
	}
	if err != nil {
		return err
	}
	if err = s.sendContexts(ctx, to); err == nil {
		err = s.trustBases(ctx)
	}
	if err != nil {
		return errors.Join(err, s.forgetContext(ctx))
	}
	return nil
}

// credentials puts this user's credentials for the repositories that the pod may use among its files.
func (s *submitted) credentials(ctx context.Context) error {
	r := s.req
	if r.Job.RegistrySecret != "" || len(r.CredentialsFor) == 0 {
		return nil
	}
	config, err := build.DockerConfig(ctx, s.env.Build, r.Build.Registry, r.CredentialsFor)
	if err != nil || config == nil {
		return err
	}
	others := slices.DeleteFunc(slices.Clone(r.Files), func(f File) bool { return f.Name == configKey })
	r.Files = append(others, File{configKey, config})
	return nil
}

// create makes the Job, and then the Secret that goes with it: the kubelet waits for that.
func (s *submitted) create(ctx context.Context) error {
	job, err := newJob(s.req, s.name, &s.sent)
	if err != nil {
		return err
	}
	made, err := s.createJob(ctx, job)
	if err != nil {
		return err
	}
	secret, err := newSecret(s.req, made)
	if err != nil || secret == nil {
		return err
	}
	return s.createSecret(ctx, secret)
}

// cleanupTime is how long cleaning up may take: longer than the pod's grace period.
const cleanupTime = 45 * time.Second

// giveUp deletes the Job of a build that has failed. Of one that was stopped nothing but the signal is said at the end: so that
// its Job goes on is said before, and is no error.
func (s *submitted) giveUp(ctx context.Context) error {
	if ctx.Err() == nil {
		return s.cancel(ctx)
	}
	s.say("cancelling the Job " + s.name)
	if left := s.cancel(ctx); left != nil {
		s.warn(oneLine(left))
	}
	return nil
}

// oneLine is an error with its hint.
func oneLine(err error) string { return strings.Join(strings.Fields(diag.Format(err)), " ") }

// cancel deletes the Job, and waits until its pods are gone, if it may look.
func (s *submitted) cancel(ctx context.Context) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer stop()
	for asked := false; ; {
		var err error
		var job *batchv1.Job
		if asked {
			job, err = s.env.Cluster.Job(ctx, s.name)
		} else {
			err = s.env.Cluster.DeleteJob(ctx, s.name, s.uid)
		}
		switch {
		case asked && (err == nil && job.UID != s.uid || cluster.IsNotFound(err) || cluster.IsForbidden(err)):
			return nil // it is gone, or on its way
		case err != nil && !cluster.IsTemporary(err):
			return s.mayGoOn(err)
		case err == nil && !asked:
			asked = true
			continue
		}
		if ended := web.Sleep(ctx, interval); ended != nil {
			return s.mayGoOn(cmp.Or(err, ended))
		}
	}
}

func (s *submitted) mayGoOn(cause error) error {
	return &diag.Error{
		What: "the Job " + s.name + " may go on", Cause: cause,
		Hint: "See to it by hand: kubectl delete job --namespace " + s.env.Cluster.Namespace + " " + s.name,
	}
}

// forget deletes what was made for this Job only: the Secret, and the context. That it cannot be is no failure of the build.
func (s *submitted) forget(ctx context.Context) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer stop()
	if s.othersSecret {
		s.env.Build.Events.Emit(event.Debug{Message: "the Secret " + s.name + " is another's, and is left alone"})
	} else if err := s.env.Cluster.DeleteSecret(ctx, s.name); err != nil {
		s.env.Build.Events.Emit(event.Debug{Message: err.Error() + "; it is deleted with the Job"})
	}
	if s.shared {
		return nil
	}
	return s.forgetContext(ctx)
}

// end cleans up and writes the files that tell of the result.
func (s *submitted) end(ctx context.Context, made *ending, err error) (*Result, error) {
	failed, left := s.clean(ctx, made, err)
	if failed != nil || left != nil {
		return nil, errors.Join(failed, left)
	}
	return s.result(ctx, made)
}

// clean leaves nothing behind of a Job but itself, and not even that if it has not ended. It returns why the build failed, and
// apart from that what could not be cleaned up.
func (s *submitted) clean(ctx context.Context, made *ending, err error) (failed, left error) {
	if failed = err; failed == nil {
		failed = made.err
	}
	if failed != nil && (made == nil || !made.jobEnded) {
		left = s.giveUp(ctx)
	}
	return failed, errors.Join(left, s.forget(ctx))
}

// described reads what the pod tells of the image.
func (e *ending) described() (output.Described, error) {
	d, err := output.ReadMetadata([]byte(e.message))
	if err != nil {
		return d, &diag.Error{
			What: "the build succeeded, but its pod does not tell the image's digest", Cause: err,
			Hint: "Let --executor-image be of the same version as this program.",
		}
	}
	return d, nil
}

// result reads what the pod tells of the image.
func (s *submitted) result(ctx context.Context, made *ending) (*Result, error) {
	out := &Result{Job: s.name}
	d, err := made.described()
	if err != nil {
		return nil, err
	}
	out.Made = d
	req := s.req.Build
	if o := &req.Outputs; s.attached && len(o.Destinations)+len(o.Names)+len(o.Repositories) == 0 {
		if o.Destinations = d.Names; len(d.Names) == 0 { // many names do not fit into what a pod leaves
			o.Destinations = s.names
		}
	}
	if err := build.WriteFiles(ctx, s.env.Build, req, d); err != nil {
		return nil, fmt.Errorf("the image was made: %w", err)
	}
	return out, nil
}
