package build

import (
	"context"
	"fmt"
	"sync"
	"time"

	"hako/internal/diag"
	"hako/internal/workdir"
)

// room watches how much of the disk a build takes, so that it fails with a reason before the container is stopped without one.
type room struct {
	limit int64 // bytes; 0 for none

	mu   sync.Mutex // guards the rest
	dirs []*workdir.Dir
	// shared is the directory of what builds leave for later ones, if any.
	shared string
}

func (r *room) add(d *workdir.Dir) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirs = append(r.dirs, d)
}

// share counts a directory that other builds fill as well.
func (r *room) share(dir string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shared = dir
}

// check is an error if more room is taken than is allowed.
func (r *room) check() error {
	if r.limit <= 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var used int64
	for _, d := range r.dirs {
		used += d.Used()
	}
	if r.shared != "" {
		used += workdir.Size(r.shared)
	}
	if used <= r.limit {
		return nil
	}
	const mebibyte = 1 << 20
	return &diag.Error{
		What: fmt.Sprintf("the work directory holds %d MiB, more than the %d MiB of --work-dir-size", used/mebibyte, r.limit/mebibyte),
		Hint: "Raise the limit (of a pod its ephemeral-storage, with hako submit --storage), or let a step delete what it no longer needs.",
	}
}

// watch returns a context that ends when too much room is taken. stop ends the watch and waits for it.
func (r *room) watch(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	if r.limit <= 0 {
		return ctx, func() { cancel(nil) }
	}
	const often = 250 * time.Millisecond // kubelet looks every 10 s
	done := make(chan struct{})
	go func() {
		defer close(done)
		timer := time.NewTimer(often)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			start := time.Now()
			if err := r.check(); err != nil {
				cancel(err)
				return
			}
			const share = 20 // looking at many files must not take the processor from the build
			timer.Reset(max(often, share*time.Since(start)))
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-done
	}
}
