// Package solve runs a plan: stages that do not depend on each other in parallel, the steps of a stage in order,
// each exactly once; and turns what every step changed into a layer.
package solve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"hako/internal/blob"
	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/trail"
	"hako/internal/tree"
)

// Bases gives the layers of base images.
type Bases interface {
	// Layers returns the layers of ref, bottom first. It reads nothing from a registry until a layer is opened.
	// unpacked says that they are likely to be opened, so that listing one without is no gain.
	Layers(ctx context.Context, ref *plan.ImageRef, unpacked bool) ([]Layer, error)
}

// Sources gives the trees of named contexts and of what ADD fetches.
type Sources interface {
	// Tree returns the tree of a source. Equal sources are fetched once; the tree is good as long as the build runs.
	// It is called from many goroutines. What the user can mend is a *diag.Error.
	Tree(ctx context.Context, source *plan.Source) (tree.Tree, error)
}

// Secrets are what the user gives to steps. They are asked from many goroutines.
type Secrets interface {
	// Has says whether there is a secret with this ID.
	Has(id string) bool
	// Read returns its value, which must not be changed. What the user can mend is a *diag.Error.
	Read(id string) ([]byte, error)
}

// Maker turns changes into a stored layer.
type Maker interface {
	// Make reads changes once, to the end.
	Make(ctx context.Context, changes layer.Changes, o MakeOptions) (Layer, error)
	// Hold stores the files of changes, which it reads once, for as long as the build takes. They are in no image:
	// what steps mount, and the layers of stages that others only copy from.
	Hold(ctx context.Context, changes layer.Changes) (rootfs.Source, error)
}

// MakeOptions says what is known of a layer before it is made.
type MakeOptions struct {
	// Keep says that the layer's Source is to be read without inflating the layer again.
	Keep bool
	// New says that nobody can have had this layer before: its files were written just now, and have the time of it.
	New bool
}

// Layer is one layer of an image: what it is called and how its files are read.
type Layer struct {
	layer.Descriptor
	// Content identifies what a layer made by a step says, but for times; empty for a layer of a base image.
	Content digest.Digest
	// Source reads the layer's files.
	Source rootfs.Source
	// Base says that it is one of a base image.
	Base bool
	// Blob reads the compressed layer of a base image or of a cache, which may lie in Repositories; both are nil for a layer
	// made here.
	Blob         func(ctx context.Context) (io.ReadCloser, error)
	Repositories []string
}

// CacheMounts keeps the caches of RUN --mount=type=cache for other builds.
type CacheMounts interface {
	// First returns what a cache holds when it is first used: Below, and on top of that what earlier builds left. It is asked
	// when a step runs that needs it, from many goroutines, and waits until all of it is there. It never fails.
	First(ctx context.Context, r *FirstRequest) *rootfs.Stack
}

// FirstRequest says which cache is meant.
type FirstRequest struct {
	// ID is the engine's name of the cache, which is the same in builds that mean the same cache.
	ID string
	// Shared says that steps may use the cache at the same time.
	Shared bool
	// Below is what the Dockerfile says that is in it at first; nil for nothing.
	Below *rootfs.Stack
}

// Parts is what a solver needs from the rest of the program.
type Parts struct {
	Bases Bases
	Maker Maker
	// Engine opens the sandbox; it is called before the first RUN and may be called more than once.
	Engine  func(ctx context.Context) (sandbox.Engine, error)
	Secrets Secrets
	// Agent returns how to connect to an ssh agent of the user's, or nil if there is none with this id.
	Agent func(id string) func(ctx context.Context) (net.Conn, error)
	// Context is the build context.
	Context tree.Tree
	Sources Sources
	// Spool makes an empty file without a name for what has to be read twice.
	Spool func() (*os.File, error)
	// Made is called for each new layer of a result, from many goroutines, before the steps that stand on it run. It may be nil.
	Made   func(Layer)
	Events event.Sink
	Now    func() time.Time
	// Latest, if not nil, is the time that no file of a new layer may be younger than.
	Latest *time.Time
	// Cache keeps what steps make; nil for none.
	Cache Cache
	// Trailed, if not nil, gets a note of what the steps were made of, unless all of them came from the cache. It is called
	// once, also if a step fails.
	Trailed func(t *trail.Trail)
	// Explain says to tell why steps are not taken from the cache: what has changed since Before, which may be nil.
	Explain bool
	Before  *trail.Trail
	// CacheMounts keeps what steps leave in their caches; nil for none.
	CacheMounts CacheMounts
	// ReadsResult says that the files of the results are going to be read, not only pushed.
	ReadsResult bool
	// Jobs bounds how many steps run at the same time; at least 1.
	Jobs int
}

// Result is the built target of a graph.
type Result struct {
	Stage  *plan.Stage
	Layers []Layer
	// Files are the layers as one file tree.
	Files *rootfs.Stack
	// Created says when steps ended, by the index of their entries in the stage's history.
	Created map[int]time.Time
	// Listed are the files of the other stages whose contents are to be listed.
	Listed map[*plan.Stage]*rootfs.Stack
}

// Solve builds the targets of graphs, which are one Dockerfile's for several platforms, and returns them in their order.
// Steps that are equal run once, also those of one graph.
// It returns the first error, after every step that was running has ended. An error that Is [blob.ErrLost] says that something
// that the cache had is gone from there: it is worth another try, in which the cache does not give that any more.
func Solve(ctx context.Context, graphs []*plan.Graph, parts Parts) ([]*Result, error) {
	s := &solver{
		parts: parts, slots: make(chan struct{}, max(parts.Jobs, 1)), stages: map[*plan.Stage]*node{}, share: newShare(graphs, parts.ReadsResult),
		held: newParts(parts.Maker), caches: newCaches(), contents: map[plan.From]*contents{},
	}
	for _, g := range graphs {
		if err := s.checkGiven(g); err != nil {
			return nil, err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, g := range graphs {
		for _, st := range g.Stages {
			s.stages[st] = &node{done: make(chan struct{}), created: map[int]time.Time{}}
		}
	}
	if err := s.consult(ctx); err != nil {
		return nil, err
	}
	for _, g := range graphs {
		for _, st := range g.Stages {
			group.Go(func() error { return s.unlessLost(s.stage(ctx, st)) })
		}
	}
	for _, l := range s.share.links {
		group.Go(func() error { return s.unlessLost(s.link(ctx, l)) })
	}
	err := errors.Join(group.Wait(), s.lost)
	s.leaveTrail(graphs)
	if err != nil {
		return nil, err
	}
	results := make([]*Result, len(graphs))
	for i, g := range graphs {
		n := s.stages[g.Target]
		results[i] = &Result{
			Stage: g.Target, Layers: n.state.layers, Files: n.state.stack, Created: n.created, Listed: map[*plan.Stage]*rootfs.Stack{},
		}
		for _, st := range g.Stages {
			if st.ListStage && st != g.Target {
				results[i].Listed[st] = s.stages[st].state.stack
			}
		}
	}
	return results, nil
}

// solver is one run of Solve. Its maps are complete before the first goroutine starts.
type solver struct {
	parts  Parts
	slots  chan struct{} // one token per running step
	stages map[*plan.Stage]*node
	share  *share
	// held are the parts of contexts that steps mount.
	held   *heldParts
	caches *caches

	// missed says that a step was not in the cache.
	missed atomic.Bool

	mu       sync.Mutex // guards what follows
	contents map[plan.From]*contents
	lost     error
}

// unlessLost notes that a layer of the cache was lost. That fails Solve, but ends only what needs the layer: what else is under
// way is not made in vain, because the cache has it the next time.
func (s *solver) unlessLost(err error) error {
	if !errors.Is(err, blob.ErrLost) {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lost = err
	return nil
}

// node is a stage and, once done is closed, what became of it. The stage's own goroutine owns it until then.
type node struct {
	done    chan struct{}
	state   *state
	err     error             // why there is no state: a layer of the cache was lost
	created map[int]time.Time // by index in the history
}

// wait blocks until st is built and returns its state.
func (s *solver) wait(ctx context.Context, st *plan.Stage) (*state, error) {
	n, ok := s.stages[st]
	if !ok {
		return nil, fmt.Errorf("stage %s is not in the graph", st.ID())
	}
	select {
	case <-n.done:
		return n.state, n.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// stage builds st. Its node is released only on success, or if a layer was lost: on other failures the context ends for whoever waits.
func (s *solver) stage(ctx context.Context, st *plan.Stage) (err error) {
	n := s.stages[st]
	defer func() {
		if n.err = err; err == nil || errors.Is(err, blob.ErrLost) {
			close(n.done)
		}
	}()
	cur, err := s.base(ctx, st)
	if err != nil {
		return err
	}
	if st.Base.Stage != nil {
		maps.Copy(n.created, s.stages[st.Base.Stage].created)
	}
	for _, step := range st.Steps {
		if step.Op == nil {
			n.created[step.History] = s.parts.Now()
			continue
		}
		shared := s.share.steps[step]
		if cur, err = s.once(ctx, shared, cur); err != nil {
			return err
		}
		n.created[step.History] = shared.created
	}
	n.state = cur
	return nil
}

// once runs sh on cur, unless another stage does or did, and returns the state after it.
func (s *solver) once(ctx context.Context, sh *shared, cur *state) (_ *state, err error) {
	sh.once.Do(func() {
		if sh.link != nil {
			sh.state, err = s.linked(ctx, sh.link, cur)
		} else {
			sh.state, err = s.cachedStep(ctx, sh, cur)
		}
		if sh.err = err; err == nil || errors.Is(err, blob.ErrLost) {
			sh.created = s.parts.Now()
			close(sh.done)
		}
	})
	if err != nil {
		return nil, err
	}
	select {
	case <-sh.done:
		return sh.state, sh.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// cachedStep is the state after sh on cur, from the cache if that has it.
func (s *solver) cachedStep(ctx context.Context, sh *shared, cur *state) (*state, error) {
	st, k, err := s.cached(ctx, sh, cur)
	if st != nil || err != nil {
		return st, err
	}
	st, err = s.step(ctx, job{step: sh.step, cur: cur, keep: sh.keep, blob: sh.result || s.parts.Cache != nil})
	if err == nil {
		s.keep(sh, k, st)
	}
	return st, err
}

// base is the state that st starts from.
func (s *solver) base(ctx context.Context, st *plan.Stage) (*state, error) {
	switch {
	case st.Base.Stage != nil:
		return s.wait(ctx, st.Base.Stage)
	case st.Base.Image != nil:
		return s.image(ctx, st.Base.Image)
	}
	return &state{}, nil
}

// image is the state of a base image.
func (s *solver) image(ctx context.Context, ref *plan.ImageRef) (*state, error) {
	layers, err := s.parts.Bases.Layers(ctx, ref, s.share.unpacked[imageName(ref)])
	if err != nil {
		return nil, fmt.Errorf("base image %s: %w", ref.Name, err)
	}
	return newState(layers), nil
}
