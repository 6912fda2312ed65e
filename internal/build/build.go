package build

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/cgroup"
	"hako/internal/dockerfile"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/sandbox"
	"hako/internal/solve"
)

// Result is what a build made.
type Result struct {
	// Digest is that of the image or index. It is empty after a dry run.
	Digest digest.Digest
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
	b, err := open(ctx, env, req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	graph, err := b.prepare(ctx)
	if err != nil {
		return nil, err
	}
	if req.DryRun {
		_, err := fmt.Fprint(env.Stdout, graph)
		return &Result{}, err
	}
	solved, err := solve.Solve(ctx, graph, b.parts())
	if err != nil {
		return nil, err
	}
	made, err := b.assemble(graph, solved)
	if err != nil {
		return nil, err
	}
	if err := b.output.Write(ctx, made); err != nil {
		return nil, err
	}
	out := &Result{Digest: made.Digest()}
	if !req.Outputs.NoPush {
		out.Destinations = req.Outputs.Destinations
	}
	return out, nil
}

// prepare plans the build while the destinations are asked whether they would take the result.
// An error of the Dockerfile comes before one of a registry.
func (b *builder) prepare(ctx context.Context) (*plan.Graph, error) {
	var graph *plan.Graph
	var planErr, pushErr error
	var g errgroup.Group
	g.Go(func() error {
		graph, planErr = b.plan(ctx)
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
	return graph, pushErr
}

// plan reads the Dockerfile and makes a graph of it.
func (b *builder) plan(ctx context.Context) (*plan.Graph, error) {
	start := b.env.Now()
	defer func() { b.env.Events.Emit(event.Span{Name: "plan", Start: start, End: b.env.Now()}) }()
	file, err := dockerfile.Parse(b.context.DockerfileName, b.context.Dockerfile)
	if err != nil {
		return nil, err
	}
	if file.Syntax != "" {
		b.env.Events.Emit(event.Debug{Message: "# syntax=" + file.Syntax + " has no effect: the language is built in"})
	}
	platform, err := b.req.platform()
	if err != nil {
		return nil, err
	}
	opts := plan.Options{
		Target: b.req.Target, BuildArgs: b.req.BuildArgs, Platform: platform, BuildPlatform: image.Default(),
		Labels: map[string]string{}, ShmSize: b.req.ShmSizeBytes,
	}
	for _, l := range b.req.Labels {
		opts.Labels[l.Key] = l.Value
	}
	for _, h := range b.req.ExtraHosts {
		opts.ExtraHosts = append(opts.ExtraHosts, plan.HostEntry{Name: h.Key, IP: h.Value})
	}
	graph, err := plan.Build(ctx, file, opts, b.bases)
	if err != nil {
		return nil, err
	}
	for _, w := range graph.Warnings {
		b.env.Events.Emit(event.Warning{Message: w.Message, Span: w.Span})
	}
	return graph, nil
}

// parts is what a solver needs of this build.
func (b *builder) parts() solve.Parts {
	return solve.Parts{
		Bases: sources{b.bases}, Maker: b.maker(), Context: b.context.Tree(), Events: b.env.Events, Now: b.env.Now,
		Jobs:   b.req.jobs(),
		Engine: func(context.Context) (sandbox.Engine, error) { return b.engine, nil },
		Spool:  b.spool,
		Made:   func(l solve.Layer) { b.output.Upload(b.blob(l)) },
	}
}

// stepMemory is what a step is expected to need, where memory is limited: a compiler, or a package manager with its cache.
const stepMemory = 512 << 20 // bytes

// jobs is how many steps may run at the same time: what was asked for, or one for each core, at least 2 since steps
// wait for networks and disks, but no more than the memory limit has room for.
func (r *Request) jobs() int {
	if r.Jobs > 0 {
		return r.Jobs
	}
	jobs := max(2, runtime.GOMAXPROCS(0))
	if limit := cgroup.MemoryLimit(); limit > 0 {
		jobs = min(jobs, max(1, int(limit/stepMemory)))
	}
	return jobs
}

// platform is what to build for; its zero value leaves the choice to the base image.
func (r *Request) platform() (ocispec.Platform, error) {
	if len(r.Platforms) == 0 {
		return ocispec.Platform{}, nil
	}
	return image.ParsePlatform(r.Platforms[0])
}
