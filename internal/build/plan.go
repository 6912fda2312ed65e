package build

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/diag"
	"hako/internal/dockerfile"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/sandbox/foreign"
)

// plan reads the Dockerfile and makes a graph of it for each platform, and then one for each further target on each of them.
func (b *builder) plan(ctx context.Context) ([]*plan.Graph, error) {
	start := b.env.Now()
	defer func() { b.env.Events.Emit(event.Span{Name: "plan", Start: start, End: b.env.Now()}) }()
	platforms, err := b.req.platforms()
	if err != nil {
		return nil, err
	}
	b.tellSyntax()
	targets := append([]string{b.req.Target}, b.req.AlsoTargets...)
	n := len(platforms) * len(targets)
	graphs, warnings, errs := make([]*plan.Graph, n), make([][]plan.Warning, n), make([]error, n)
	var g errgroup.Group
	for i := range n {
		opts := b.planOptions(platforms[i%len(platforms)], len(platforms) > 1, func(w plan.Warning) { warnings[i] = append(warnings[i], w) })
		opts.Target = targets[i/len(platforms)]
		g.Go(func() error {
			graphs[i], errs[i] = b.planFor(ctx, opts)
			if errs[i] == nil {
				graphs[i].Aside = i >= len(platforms)
			}
			return nil
		})
	}
	_ = g.Wait() // it returns nothing: of several errors, that of the first platform counts
	b.warn(distinct(warnings))
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return graphs, nil
}

// planFor makes the graph for one platform.
func (b *builder) planFor(ctx context.Context, opts plan.Options) (*plan.Graph, error) {
	file, err := dockerfile.Parse(b.context.DockerfileName, b.context.Dockerfile)
	if err != nil {
		return nil, err
	}
	return plan.Build(ctx, file, opts, b.bases)
}

// tellSyntax says that the language is built in, and warns whoever asks for another one.
func (b *builder) tellSyntax() {
	text, line := dockerfile.Syntax(b.context.Dockerfile)
	if arg := b.req.BuildArgs["BUILDKIT_SYNTAX"]; arg != "" {
		text, line = arg, 0
	}
	if text == "" {
		return
	}
	name := strings.TrimPrefix(text, "docker.io/")
	if name == "dockerfile.v0" || strings.HasPrefix(name, "docker/dockerfile") { // also docker/dockerfile-upstream
		b.env.Events.Emit(event.Debug{Message: "syntax " + text + " has no effect: the language is built in"})
		return
	}
	b.env.Events.Emit(event.Warning{
		Message: "syntax " + text + " has no effect: the file is read as a Dockerfile",
		Span:    diag.Span{File: b.context.DockerfileName, Start: line, End: line},
	})
}

// planOptions are the options of the plan for p, which may be one of several. warn may be nil.
func (b *builder) planOptions(p ocispec.Platform, several bool, warn func(plan.Warning)) plan.Options {
	opts := plan.Options{
		Target: b.req.Target, BuildArgs: b.req.BuildArgs, Platform: p, BuildPlatform: image.Default(), Several: several,
		Contexts: b.contexts, Labels: map[string]string{}, ShmSize: b.req.ShmSizeBytes, Network: b.req.network(), IgnorePatterns: b.context.IgnorePatterns, Warn: warn,
		Binds:  b.binds,
		CanRun: b.canRun, ContextTime: b.source.Time,
	}
	for _, l := range b.req.Labels {
		opts.Labels[l.Key] = l.Value
	}
	for _, h := range b.req.ExtraHosts {
		opts.ExtraHosts = append(opts.ExtraHosts, plan.HostEntry{Name: h.Key, IP: h.Value})
	}
	return opts
}

// canRun says why steps for a platform of another processor cannot run, after one attempt. Where nothing is built, it
// does not matter.
func (b *builder) canRun(p ocispec.Platform) error {
	if b.engine == nil || b.req.DryRun {
		return nil
	}
	b.probing.Lock()
	defer b.probing.Unlock()
	err, ok := b.probed[p.Architecture]
	if !ok {
		err = foreign.Probe(b.life, b.engine, p.Architecture)
		b.probed[p.Architecture] = err
	}
	return err
}

// warn tells of warnings of the planner, each once.
func (b *builder) warn(warnings []plan.Warning) {
	same := func(x, y plan.Warning) bool { return x.String() == y.String() && x.Span.Start == y.Span.Start }
	for _, w := range slices.CompactFunc(slices.Clone(warnings), same) {
		b.env.Events.Emit(event.Warning{Rule: w.Rule, Description: w.Description, URL: w.URL, Message: w.Message, Span: w.Span})
	}
}

// distinct merges the warnings of several platforms: those of the first, and what others add.
func distinct(lists [][]plan.Warning) []plan.Warning {
	type key struct {
		text string
		line int
	}
	var out []plan.Warning
	seen := map[key]bool{}
	for i, list := range lists {
		for _, w := range list {
			k := key{w.String(), w.Span.Start}
			if i > 0 && seen[k] {
				continue
			}
			seen[k] = true
			out = append(out, w)
		}
	}
	return out
}

// platforms are what to build for, each once. One zero value leaves the choice to the base image.
func (r *Request) platforms() ([]ocispec.Platform, error) {
	out, err := image.ParsePlatforms(r.Platforms)
	if err == nil && len(out) == 0 {
		out = append(out, ocispec.Platform{})
	}
	return out, err
}

// hasIndex says whether the result is an index: for several platforms, with attestations, or where BUILDKIT_MULTI_PLATFORM
// asks for it.
func (r *Request) hasIndex() (bool, error) {
	platforms, err := r.platforms()
	if err != nil {
		return false, err
	}
	several := len(platforms) > 1
	text := r.BuildArgs["BUILDKIT_MULTI_PLATFORM"]
	if text == "" {
		return several || r.Attestations.any(), nil
	}
	asked, err := strconv.ParseBool(text)
	switch {
	case err != nil:
		return false, &diag.Error{What: fmt.Sprintf("BUILDKIT_MULTI_PLATFORM=%s is not a bool", text), Hint: "Use true or false."}
	case several && !asked:
		return false, &diag.Error{
			What: "BUILDKIT_MULTI_PLATFORM=" + text + ": the images of several platforms need an index",
			Hint: "Leave out the build argument, or build for one platform.",
		}
	}
	return asked || r.Attestations.any(), nil
}

// printPlans writes the plans for people.
func printPlans(w io.Writer, graphs []*plan.Graph) error {
	for _, g := range graphs {
		if len(graphs) > 1 {
			title := image.FormatPlatform(g.Target.Config.Platform)
			if g.Aside {
				title += " " + g.Target.ID()
			}
			if _, err := fmt.Fprintf(w, "# %s\n", title); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprint(w, g); err != nil {
			return err
		}
	}
	return nil
}

// network is what a RUN reaches that does not say.
func (r *Request) network() plan.Network {
	if r.Network == "none" {
		return plan.NetworkNone
	}
	return plan.NetworkDefault
}
