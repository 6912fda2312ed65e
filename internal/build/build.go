package build

import (
	"context"
	"errors"
	"runtime"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/blob"
	"hako/internal/cgroup"
	"hako/internal/output"
	"hako/internal/plan"
	"hako/internal/sandbox"
	"hako/internal/solve"
)

// Result is what a build made.
type Result struct {
	// Digest is that of the image or index. It is empty after a dry run.
	Digest digest.Digest
	// Descriptor is what a tag points to.
	Descriptor ocispec.Descriptor
	// Destinations are the references it was pushed to.
	Destinations []string
}

// Build makes the image that req asks for. What a user can mend is a *diag.Error; a RUN step that failed has
// a *sandbox.ExitError in its chain. When ctx ends, Build stops what runs, cleans up and returns ctx's cause.
// Builds do not disturb each other: several may run in one process and in one container.
func Build(ctx context.Context, env Env, req Request) (_ *Result, err error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	warmFirst(ctx, env, &req)
	b, err := open(ctx, env, req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	ctx, unwatch := b.room.watch(ctx)
	defer unwatch()
	graphs, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if req.DryRun || req.PrintPlan {
		if err := printPlans(env.Stdout, graphs); err != nil || req.DryRun {
			return &Result{}, err
		}
	}
	b.trees.prefetch(graphs)
	b.latest = b.latestTime(graphs)
	if err := b.noteBases(ctx, graphs[:wanted(graphs)]); err != nil {
		return nil, err
	}
	b.startMounts(graphs)
	made, err := b.make(ctx, graphs)
	if err == nil {
		err = b.output.Write(ctx, made)
	}
	b.keepMounts(ctx) // what a step that failed has fetched is worth as much
	if err != nil {
		return nil, err
	}
	if b.cache != nil {
		b.cache.Wait()
		b.limitCache(ctx)
	}
	out := &Result{Digest: made.Digest(), Descriptor: made.Descriptor()}
	if !req.Outputs.NoPush {
		out.Destinations = slices.DeleteFunc(slices.Concat(req.Outputs.Destinations, req.Outputs.Repositories), b.output.Kept)
	}
	return out, nil
}

// wanted is how many graphs make the result; the others come after them.
func wanted(graphs []*plan.Graph) int {
	n := slices.IndexFunc(graphs, func(g *plan.Graph) bool { return g.Aside })
	if n < 0 {
		return len(graphs)
	}
	return n
}

// maxTries is how often a build begins again because the cache has lost something, before it makes do without.
const maxTries = 4

// make builds the images. A layer that the cache has lost since it was found is no failure: everything is solved again, with
// what has been made so far, and without that layer.
func (b *builder) make(ctx context.Context, graphs []*plan.Graph) (*output.Result, error) {
	parts := b.parts()
	b.followTrails(ctx, &parts)
	for try := 1; ; try++ {
		made, err := b.try(ctx, graphs, parts)
		if !errors.Is(err, blob.ErrLost) || ctx.Err() != nil || try > maxTries {
			return made, err
		}
		if try == maxTries {
			b.cache.Abandon()
		}
	}
}

// try builds the images with what the cache has now.
func (b *builder) try(ctx context.Context, graphs []*plan.Graph, parts solve.Parts) (*output.Result, error) {
	solved, err := solve.Solve(ctx, graphs, parts)
	if err != nil {
		return nil, err
	}
	results := wanted(graphs)
	if b.cache != nil {
		if err := b.secure(ctx, solved[:results]); err != nil {
			return nil, err
		}
	}
	return b.assemble(ctx, graphs[:results], solved[:results])
}

// prepare plans the build while the destinations are asked whether they would take the result.
// An error of the Dockerfile comes before one of a registry.
func (b *builder) prepare(ctx context.Context) ([]*plan.Graph, error) {
	var graphs []*plan.Graph
	var planErr, pushErr error
	var g errgroup.Group
	g.Go(func() error {
		graphs, planErr = b.plan(ctx)
		return nil
	})
	if !b.req.DryRun {
		g.Go(func() error {
			pushErr = b.output.Check(ctx)
			return nil
		})
	}
	// Wait returns nothing: both errors are looked at in their order.
	_ = g.Wait()
	if planErr != nil {
		return nil, planErr
	}
	return graphs, pushErr
}

// parts is what a solver needs of this build.
func (b *builder) parts() solve.Parts {
	m := b.maker()
	steps := b.stepCache(m)
	p := solve.Parts{
		Bases: &bases{Source: b.bases, fetched: b.ahead, cache: steps}, ReadsResult: b.req.readsResult(), Maker: m, Context: b.context.Tree(), Sources: b.trees, Events: b.env.Events, Now: b.env.Now,
		Jobs: b.req.jobs(), Latest: b.latest,
		Engine:  func(context.Context) (sandbox.Engine, error) { return b.engine, nil },
		Spool:   b.spool,
		Secrets: b.secrets, Agent: b.agents.Dial,
		Made: b.made,
	}
	if b.mounts != nil {
		p.CacheMounts = b.mounts
	}
	if steps != nil { // an interface that holds nil is not nil
		p.Cache = steps
	}
	return p
}

// made sends a new layer ahead.
func (b *builder) made(l solve.Layer) {
	if b.sendsAhead() {
		b.output.Upload(b.blob(l))
	}
}

// sendsAhead says whether new layers are those of the image, and not going to be merged with others or made anew.
func (b *builder) sendsAhead() bool { return b.req.Squash == SquashNone && len(b.ignored) == 0 }

// stepMemory is what a step is expected to need, where memory is limited: a compiler, or a package manager with its cache.
const stepMemory = 512 << 20 // bytes

// jobs is how many steps may run at the same time: what was asked for, or two for each core and at least 4, since steps
// wait for networks, locks and disks much of their time, but no more than the memory limit has room for.
func (r *Request) jobs() int {
	if r.Jobs > 0 {
		return r.Jobs
	}
	jobs := max(4, 2*runtime.GOMAXPROCS(0))
	if limit := cgroup.MemoryLimit(); limit > 0 {
		jobs = min(jobs, max(1, int(limit/stepMemory)))
	}
	return jobs
}
