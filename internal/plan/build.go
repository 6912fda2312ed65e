package plan

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/dockerfile"
	"hako/internal/image"
)

// Build plans file for opts. Images are looked up through resolver, in parallel and only where the target needs them.
// Whatever the user can mend is a *diag.Error with the place in the Dockerfile. file is not changed.
//
// The meaning of every instruction is that of BuildKit v0.34.2 (frontend/dockerfile/dockerfile2llb).
func Build(ctx context.Context, file *dockerfile.File, opts Options, resolver Resolver) (*Graph, error) {
	b, err := newBuilder(file, opts, resolver)
	if err != nil {
		return nil, err
	}
	g, err := b.graph(ctx)
	if opts.Warn != nil {
		for _, w := range b.sortedWarnings() {
			opts.Warn(w)
		}
	}
	return g, err
}

// graph plans everything that the target needs.
func (b *builder) graph(ctx context.Context) (*Graph, error) {
	if err := b.parse(); err != nil {
		return nil, err
	}
	target, err := b.findTarget()
	if err != nil {
		return nil, err
	}
	if err := b.link(); err != nil {
		return nil, err
	}
	needed, err := b.resolveAll(ctx, target)
	if err != nil {
		return nil, err
	}
	g := &Graph{Target: target.out, Created: b.epoch}
	for _, s := range b.inOrder(needed) {
		if err := b.stage(ctx, s); err != nil {
			return nil, err
		}
		if s.isStage(needed, target) {
			g.Stages = append(g.Stages, s.out)
		}
	}
	b.finish(target)
	if err := b.checkErrors(); err != nil {
		return nil, err
	}
	g.Warnings = b.sortedWarnings()
	return g, nil
}

// checkErrors is an error if there were warnings and the user wants them to be errors.
func (b *builder) checkErrors() error {
	if !b.lint.ReturnAsError || len(*b.lint.CalledRules) == 0 {
		return nil
	}
	rules := slices.Compact(slices.Sorted(slices.Values(*b.lint.CalledRules)))
	first := slices.IndexFunc(b.sortedWarnings(), func(w Warning) bool { return w.Rule != "" })
	return &diag.Error{
		What: "check: the Dockerfile breaks the rules " + strings.Join(rules, ", "), Span: b.warnings[first].Span,
		Hint: "It is an error because of check=error=true.",
	}
}

// sortedWarnings are the warnings by line, each once; those without a place come last.
func (b *builder) sortedWarnings() []Warning {
	line := func(w Warning) int {
		if w.Span.Start == 0 {
			return math.MaxInt
		}
		return w.Span.Start
	}
	slices.SortStableFunc(b.warnings, func(x, y Warning) int {
		return cmp.Or(cmp.Compare(line(x), line(y)), cmp.Compare(x.Rule, y.Rule), cmp.Compare(x.Message, y.Message))
	})
	return b.warnings
}

// builder holds what is common to all stages while one graph is made. One goroutine uses it.
type builder struct {
	file     *dockerfile.File
	opts     Options
	resolver Resolver
	lex      *shell.Lex
	lint     *linter.Linter
	warnings []Warning
	budget   *budget
	search   *budget // what suggestions may cost, in comparisons of characters

	target, build ocispec.Platform
	implicit      bool // no platform was asked for
	// all says to plan every stage of the file, whether the target needs it or not.
	all        bool
	ignored    *patternmatcher.PatternMatcher // what .dockerignore leaves out; nil if nothing
	epoch      *time.Time
	globals    *variables
	globalArgs map[string]bool // names declared before the first FROM
	declared   map[string]bool // names declared anywhere
	secret     *secretNames

	stages  []*stage
	numbers []*stage // those of the file, by position
	byName  map[string]*stage
	images  map[imageKey]*ImageRef

	contexts map[string]*namedContext // by ContextName
}

func newBuilder(file *dockerfile.File, opts Options, resolver Resolver) (*builder, error) {
	b := &builder{
		file: file, opts: opts, resolver: resolver, lex: file.Lex(), budget: newBudget(), search: &budget{left: 1 << 28},
		target: image.Normalize(opts.Platform), build: image.Normalize(opts.BuildPlatform), secret: newSecretNames(),
		globalArgs: map[string]bool{}, declared: map[string]bool{}, byName: map[string]*stage{}, images: map[imageKey]*ImageRef{},
		contexts: map[string]*namedContext{},
	}
	if opts.BuildPlatform.OS == "" {
		b.build = image.Default()
	}
	if opts.Platform.OS == "" {
		b.target, b.implicit = b.build, true
	}
	if err := image.Supported(b.target); err != nil {
		return nil, &diag.Error{What: err.Error()}
	}
	if b.opts.Hostname == "" {
		b.opts.Hostname = opts.BuildArgs["BUILDKIT_SANDBOX_HOSTNAME"]
	}
	if err := b.readContexts(); err != nil {
		return nil, err
	}
	return b, b.newLinter()
}

// parse makes the stages out of the file, with FROM and the ARGs before it expanded.
func (b *builder) parse() error {
	stages, args, err := b.file.Instructions(b.lint)
	if err != nil {
		return err
	}
	b.noteComments(stages)
	b.lintStageNames(stages)
	b.lintCasing(stages)
	name := b.opts.Target
	if name == "" {
		name = stages[len(stages)-1].Name
	}
	b.globals = b.platformArgs(name)
	b.lintDefaultBases(stages, args)
	if err := b.readGlobalArgs(args); err != nil {
		return err
	}
	if err := b.readEpoch(args); err != nil {
		return err
	}
	b.noteDeclared(stages, args)
	for i := range stages {
		s, err := b.newStage(i, stages[i])
		if err != nil {
			return err
		}
		if err := b.add(s); err != nil {
			return err
		}
		b.numbers = append(b.numbers, s)
	}
	return nil
}

// platformArgs are the ARGs that are set without being declared.
func (b *builder) platformArgs(target string) *variables {
	if target == "" {
		target = "default"
	}
	v := newVariables()
	for _, kv := range [...][2]string{
		{"BUILDPLATFORM", image.FormatPlatform(b.build)},
		{"BUILDOS", b.build.OS},
		{"BUILDOSVERSION", b.build.OSVersion},
		{"BUILDARCH", b.build.Architecture},
		{"BUILDVARIANT", b.build.Variant},
		{"TARGETPLATFORM", image.FormatPlatform(b.target)},
		{"TARGETOS", b.target.OS},
		{"TARGETOSVERSION", b.target.OSVersion},
		{"TARGETARCH", b.target.Architecture},
		{"TARGETVARIANT", b.target.Variant},
		{"TARGETSTAGE", target},
	} {
		value := kv[1]
		if given, ok := b.opts.BuildArgs[kv[0]]; ok {
			value = given
		}
		v.set(kv[0], value)
	}
	return v
}

// readGlobalArgs sets the ARGs before the first FROM.
func (b *builder) readGlobalArgs(args []instructions.ArgCommand) error {
	for i := range args {
		cmd := &args[i]
		for _, kv := range cmd.Args {
			b.globalArgs[kv.Key] = true
			value, err := b.globalArg(kv, b.opts.BuildArgs, b.globals)
			if err != nil {
				return b.located(err, cmd.Location())
			}
			if value != nil {
				b.globals.set(kv.Key, *value)
			}
		}
	}
	return nil
}

// globalArg is the value of an ARG before the first FROM, or nil if it has none.
func (b *builder) globalArg(kv instructions.KeyValuePairOptional, given map[string]string, env *variables) (*string, error) {
	if v, ok := given[kv.Key]; ok {
		return &v, nil
	}
	if kv.Value == nil {
		return nil, nil
	}
	res, err := b.expand(*kv.Value, env)
	if err != nil {
		return nil, err
	}
	return &res.Result, nil
}

// expand replaces the variables in text.
func (b *builder) expand(text string, env *variables) (shell.ProcessWordResult, error) {
	return b.expandWith(b.lex, text, env)
}

// expandWith is expand with a lexer of the caller's.
func (b *builder) expandWith(lex *shell.Lex, text string, env *variables) (shell.ProcessWordResult, error) {
	w := newWord(env)
	res, err := lex.ProcessWordWithMatches(text, w)
	if err == nil {
		err = w.err()
	}
	if err == nil {
		err = b.budget.spend(len(res.Result))
	}
	return res, err
}

// located turns err into a *diag.Error at a place in the file. An error that has a place keeps it.
func (b *builder) located(err error, at []parser.Range) error {
	return located(err, b.file.Span(at))
}

// fail is an error at a place in the file.
func (b *builder) fail(at []parser.Range, hint, format string, args ...any) error {
	return &diag.Error{What: fmt.Sprintf(format, args...), Span: b.file.Span(at), Hint: hint}
}

// finish completes the configuration of the target.
func (b *builder) finish(target *stage) {
	c := &target.out.Config
	if len(b.opts.Labels) > 0 && c.Config.Labels == nil {
		c.Config.Labels = map[string]string{}
	}
	maps.Copy(c.Config.Labels, b.opts.Labels)
	if !b.implicit {
		b.setPlatform(c)
	}
	c.Platform = image.Normalize(c.Platform)
	b.warnUnusedArgs()
	b.warnUnusedContexts()
}

// inOrder are the needed stages: images that are only copied from, then those of the file, in its order.
func (b *builder) inOrder(needed map[*stage]bool) []*stage {
	var out []*stage
	for _, s := range slices.Concat(b.stages[len(b.numbers):], b.numbers) {
		if needed[s] {
			out = append(out, s)
		}
	}
	return out
}

// setPlatform makes c say that it is for the platform that was asked for.
func (b *builder) setPlatform(c *image.Config) {
	same := b.target.OS == c.OS && b.target.Architecture == c.Architecture
	c.OS, c.Architecture = b.target.OS, b.target.Architecture
	if b.target.Variant != "" || !same {
		c.Variant = b.target.Variant
	}
	if b.target.OSVersion != "" || !same {
		c.OSVersion = b.target.OSVersion
	}
	if b.target.OSFeatures != nil {
		c.OSFeatures = slices.Clone(b.target.OSFeatures)
	}
}

// noteDeclared collects the names of all ARGs.
func (b *builder) noteDeclared(stages []instructions.Stage, args []instructions.ArgCommand) {
	note := func(c *instructions.ArgCommand) {
		for _, kv := range c.Args {
			b.declared[kv.Key] = true
		}
	}
	for i := range args {
		note(&args[i])
	}
	for _, s := range stages {
		for _, cmd := range s.Commands {
			if c, ok := cmd.(*instructions.ArgCommand); ok {
				note(c)
			}
		}
	}
}

// warnUnusedArgs warns of build arguments that no ARG declares and that have no meaning of their own.
func (b *builder) warnUnusedArgs() {
	var unused []string
	for k := range b.opts.BuildArgs {
		_, predefined := b.platformArgs("").Get(k)
		if !b.declared[k] && !predefined && proxyName(k) == "" && !strings.HasPrefix(k, "BUILDKIT_") && k != "SOURCE_DATE_EPOCH" {
			unused = append(unused, k)
		}
	}
	if len(unused) == 0 {
		return
	}
	slices.Sort(unused)
	b.warnings = append(b.warnings, Warning{
		Message: fmt.Sprintf("One or more build-args %v were not consumed", unused),
		Span:    diag.Span{File: b.file.Name},
	})
}
