package matrix

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Options says how builds are run. Run and Now must be set.
type Options struct {
	// Concurrency is how many run at the same time; below 1 it is one for each.
	Concurrency int
	// KeepGoing says to go on with what does not need a build that failed; otherwise the first failure ends all others.
	KeepGoing bool
	// Run runs a build and returns the digest of what it made. digest gives that of a build that is needed and done.
	// It is called from many goroutines, once for each build.
	Run func(ctx context.Context, b Build, digest func(name string) string) (string, error)
	Now func() time.Time
	// Done, if not nil, is told of each result, one at a time.
	Done func(Result)
}

// State is what has become of a build.
type State string

// The states.
const (
	Done    State = "done"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Result is what has become of a build.
type Result struct {
	Name  string
	State State
	Took  time.Duration
	// Digest is that of the image, empty unless it is done.
	Digest string
	// Err is why it failed or was skipped.
	Err error
}

// errStopped is why builds end after another has failed.
var errStopped = errors.New("another build failed")

// Run runs builds, as Select returns them, each when what it needs is done. It returns when nothing runs any more, with one
// result for each build, in their order. When ctx ends, what runs is stopped and nothing more begins.
func Run(ctx context.Context, builds []Build, o Options) []Result {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if o.Concurrency < 1 {
		o.Concurrency = max(1, len(builds))
	}
	r := &run{options: o, slots: make(chan struct{}, o.Concurrency), ended: map[string]chan struct{}{}, results: map[string]Result{}, stop: cancel}
	for _, b := range builds {
		r.ended[b.Name] = make(chan struct{})
	}
	var all sync.WaitGroup
	for _, b := range builds {
		all.Go(func() { r.one(ctx, b) })
	}
	all.Wait()
	out := make([]Result, len(builds))
	for i, b := range builds {
		out[i] = r.results[b.Name]
	}
	return out
}

// run is one Run.
type run struct {
	options Options
	slots   chan struct{}
	ended   map[string]chan struct{} // closed when the result is there
	stop    context.CancelCauseFunc

	mu      sync.Mutex // guards results, and is held while Done is called
	results map[string]Result
}

// one waits for what b needs, runs it and notes the result.
func (r *run) one(ctx context.Context, b Build) {
	res := Result{Name: b.Name, State: Skipped}
	if res.Err = r.ready(ctx, b); res.Err == nil {
		start := r.options.Now()
		res.Digest, res.Err = r.options.Run(ctx, b, func(name string) string { return r.result(name).Digest })
		res.Took = r.options.Now().Sub(start)
		<-r.slots
		switch {
		case res.Err == nil:
			res.State = Done
		case ctx.Err() == nil:
			res.State = Failed
		}
	}
	if res.State == Failed && !r.options.KeepGoing {
		r.stop(errStopped)
	}
	r.mu.Lock()
	r.results[b.Name] = res
	if r.options.Done != nil {
		r.options.Done(res)
	}
	r.mu.Unlock()
	close(r.ended[b.Name])
}

// ready waits until everything is done that b needs, and for a slot. The caller gives it back if there is no error.
func (r *run) ready(ctx context.Context, b Build) error {
	for _, n := range b.Needs {
		<-r.ended[n] // it ends with ctx, too
		if r.result(n).State != Done && ctx.Err() == nil {
			return fmt.Errorf("it needs %s", n)
		}
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if ctx.Err() != nil {
		<-r.slots
		return context.Cause(ctx)
	}
	return nil
}

func (r *run) result(name string) Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.results[name]
}
