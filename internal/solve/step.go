package solve

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"hako/internal/blob"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/plan"
)

// job is one step on what is below it.
type job struct {
	step *plan.Step
	cur  *state
	// keep says that later steps read the layer's files outside a sandbox.
	keep bool
	// blob says that the layer is in an image or a cache: it is stored as a blob.
	blob bool
	// caches are the IDs of those that the step has claimed.
	caches map[*plan.CacheMount]string
}

// step runs j and returns the state after it.
func (s *solver) step(ctx context.Context, j job) (*state, error) {
	if err := s.ready(ctx, j.step); err != nil {
		return nil, err
	}
	release, err := s.claim(ctx, &j)
	if err != nil {
		return nil, located(j.step, err)
	}
	defer release()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	start := s.parts.Now()
	s.parts.Events.Emit(event.StepStarted{Step: j.step.ID, Name: j.step.Text, Time: start})
	next, err := s.run(ctx, j)
	err = located(j.step, err)
	s.parts.Events.Emit(event.StepDone{Step: j.step.ID, Err: err, Duration: s.parts.Now().Sub(start)})
	return next, err
}

// ready waits for the stages that step reads, before step takes a slot: a waiting step must not keep others from running.
func (s *solver) ready(ctx context.Context, step *plan.Step) error {
	for _, st := range sources(step.Op) {
		if _, err := s.wait(ctx, st); err != nil {
			return err
		}
	}
	return nil
}

// run does what the step says.
func (s *solver) run(ctx context.Context, j job) (*state, error) {
	switch op := j.step.Op.(type) {
	case *plan.Run:
		return s.exec(ctx, j, op)
	case *plan.Copy:
		return s.copy(ctx, j, op)
	case *plan.Mkdir:
		return s.mkdir(ctx, j, op)
	}
	return nil, fmt.Errorf("step %s: unknown operation %T", j.step.ID, j.step.Op)
}

// commit makes a layer of changes on top of cur.
func (s *solver) commit(ctx context.Context, changes layer.Changes, j job) (*state, error) {
	defer s.span("layer", j.step, s.parts.Now())
	if !j.blob {
		if s.parts.Latest != nil {
			changes = layer.Until(changes, *s.parts.Latest, nil)
		}
		src, err := s.parts.Maker.Hold(ctx, changes)
		if err != nil {
			return nil, err
		}
		return j.cur.with(Layer{Descriptor: layer.Descriptor{DiffID: src.DiffID}, Source: src}), nil
	}
	_, run := j.step.Op.(*plan.Run)
	l, err := s.parts.Maker.Make(ctx, changes, MakeOptions{Keep: j.keep, New: run && s.parts.Latest == nil})
	if err != nil {
		return nil, err
	}
	if s.parts.Made != nil {
		s.parts.Made(l)
	}
	return j.cur.with(l), nil
}

// span tells of a part of step that began at start and ends now.
func (s *solver) span(name string, step *plan.Step, start time.Time) {
	s.parts.Events.Emit(event.Span{Name: name, Step: step.ID, Start: start, End: s.parts.Now()})
}

// located gives err the position of step, unless it has one or only says that the build was stopped or has to begin again.
func located(step *plan.Step, err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, blob.ErrLost) {
		return err
	}
	var at diag.Error
	var d *diag.Error
	switch {
	case !errors.As(err, &d):
		at = diag.Error{What: step.Text, Span: step.Span, Cause: err}
	case d.Span.Start != 0:
		return err
	default:
		at = *d
		at.Span = step.Span
	}
	if at.Hint == "" && errors.Is(err, syscall.ENOSPC) {
		at.Hint = "Free space in the work directory, or choose another place with --kaniko-dir."
	}
	return &at
}
