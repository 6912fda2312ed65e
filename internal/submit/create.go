package submit

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"hako/internal/cluster"
	"hako/internal/diag"
	"hako/internal/web"
)

// A request to create something may be carried out, and its answer be lost. So a Job has a mark that no other call makes: what has
// the name is ours if it has the mark, and the request can be sent again without a second Job.

// markAnnotation tells which call made a Job.
const markAnnotation = "hako.dev/submission"

// createPatience is how long something is created again while nothing answers, if Env has no other.
const createPatience = 30 * time.Second

// created is what is known of the Job in the cluster.
type created uint8

const (
	notCreated   created = iota
	maybeCreated         // the request was sent, and no answer came
	isCreated
)

// createJob makes the Job, once.
func (s *submitted) createJob(ctx context.Context, job *batchv1.Job) (*batchv1.Job, error) {
	s.mark = rand.Text()
	if job.Annotations == nil {
		job.Annotations = map[string]string{}
	}
	job.Annotations[markAnnotation] = s.mark
	var made *batchv1.Job
	err := s.insist(ctx, func() (err error) {
		made, err = s.env.Cluster.CreateJob(ctx, job)
		switch {
		case !cluster.IsExists(err):
		case s.created == notCreated:
			err = errTaken
		default:
			made, err = s.ours(ctx)
		}
		if ctx.Err() != nil || cluster.IsTemporary(err) && !cluster.IsUnsent(err) {
			s.created = maybeCreated
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	s.created, s.uid = isCreated, made.UID
	return made, nil
}

// ours looks up the Job that has the name. That it is another's is an error.
func (s *submitted) ours(ctx context.Context) (*batchv1.Job, error) {
	job, err := s.env.Cluster.Job(ctx, s.name)
	if err != nil {
		return nil, err
	}
	if job.Annotations[markAnnotation] != s.mark {
		return nil, errTaken
	}
	s.uid = job.UID
	return job, nil
}

// createSecret makes the Secret of our Job, once.
func (s *submitted) createSecret(ctx context.Context, secret *corev1.Secret) error {
	lost := false
	return s.insist(ctx, func() error {
		err := s.env.Cluster.CreateSecret(ctx, secret)
		if cluster.IsExists(err) {
			if lost {
				return nil // the request before was carried out
			}
			s.othersSecret = true
			return &diag.Error{What: "there is a Secret " + s.name + " in namespace " + s.env.Cluster.Namespace + " already", Hint: "Give another --job-name."}
		}
		lost = lost || cluster.IsTemporary(err) && !cluster.IsUnsent(err)
		return err
	})
}

// insist does something until there is an answer, or patience has ended.
func (s *submitted) insist(ctx context.Context, do func() error) error {
	patience, stop := context.WithTimeout(ctx, cmp.Or(s.env.Patience, createPatience))
	defer stop()
	for first := true; ; first = false {
		err := do()
		if !cluster.IsTemporary(err) || ctx.Err() != nil {
			return err
		}
		if first {
			s.warn("the cluster does not answer, and is asked again: " + err.Error())
		}
		if web.Sleep(patience, interval) != nil {
			return err
		}
	}
}

// undo deletes what was created of a Job whose creation has failed: nothing, if that is sure.
func (s *submitted) undo(ctx context.Context, err error) error {
	if errors.Is(err, errTaken) {
		return nil // what has this name, the context too, belongs to the other
	}
	var left error
	if s.created == isCreated || s.created == maybeCreated && s.isThere(ctx) {
		left = s.giveUp(ctx)
	}
	return errors.Join(left, s.forget(ctx))
}

// isThere says whether the Job may exist.
func (s *submitted) isThere(ctx context.Context) bool {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer stop()
	err := s.insist(ctx, func() error {
		_, err := s.ours(ctx)
		return err
	})
	return !cluster.IsNotFound(err) && !errors.Is(err, errTaken)
}
