package solve

import (
	"context"
	"errors"

	"hako/internal/blob"
	"hako/internal/plan"
)

// link is a COPY --link. Its layer does not depend on what is below it, so it is made at once, whatever the stages are
// doing that it belongs to; they put it on top when they get there. Its own goroutine owns layer until done is closed.
type link struct {
	alone        *shared       // the operation on top of nothing
	keep, result bool          // of any of the steps, see shared
	done         chan struct{} // closed on success, and with err
	layer        Layer
	err          error // instead of layer: one of the cache was lost
}

func isLink(step *plan.Step) bool {
	op, ok := step.Op.(*plan.Copy)
	return ok && op.Link
}

// link makes l's layer on top of nothing.
func (s *solver) link(ctx context.Context, l *link) error {
	l.alone.keep, l.alone.result = l.keep, l.result
	next, err := s.cachedStep(ctx, l.alone, &state{})
	switch {
	case err == nil:
		l.layer = next.layers[0]
	case !errors.Is(err, blob.ErrLost):
		return err
	}
	l.err = err
	close(l.done)
	return err
}

// linked waits for l and returns the state with its layer on top of cur.
func (s *solver) linked(ctx context.Context, l *link, cur *state) (*state, error) {
	select {
	case <-l.done:
		if l.err != nil {
			return nil, l.err
		}
		return cur.with(l.layer), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
