package plan

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/image"
)

// kind is where a stage comes from.
type kind uint8

const (
	ofFile         kind = iota // a FROM in the file
	aliasOfImage               // an image that a COPY --from or a mount names
	aliasOfScratch             // likewise "scratch"
)

// stage is a stage while it is planned.
type stage struct {
	out  *Stage
	kind kind
	src  instructions.Stage
	base *stage
	// baseName is the name after FROM, expanded; at is where it stands.
	baseName string
	flag     string // for an alias: the words before its name
	at       []parser.Range
	commands []command
	deps     []dependency
	named    *namedContext     // what s starts from, if that is a named context
	replaced bool              // s.named takes the place of the whole stage
	platform *ocispec.Platform // of FROM --platform, then of the image
	ref      *ImageRef         // of the base image or, for an alias, the image itself

	onbuildDone bool // the triggers of the base have been added
	planned     bool

	vars         *variables // ENV and ARG as the steps see them
	args         []instructions.KeyValuePairOptional
	argNames     map[string]bool // those of args
	envList      []string        // Config.Env for steps; nil if out of date
	argList      []string        // likewise "K=V" of args
	workdirSet   bool
	cmd          seen
	entry, check seen
}

// command is one instruction, with the stages that it reads: the one it copies from, or for each of its mounts the one
// that is mounted. A nil is none.
type command struct {
	instructions.Command
	from    []*stage
	trigger bool // it is an ONBUILD trigger of the base
}

// dependency is a stage that has to be there first, and the instruction that needs it.
type dependency struct {
	on *stage
	at []parser.Range
}

// seen remembers where an instruction of which only the last counts stood before.
type seen struct {
	at  []parser.Range
	set bool
}

// newStage expands a FROM. Only ARGs before the first FROM count.
func (b *builder) newStage(i int, src instructions.Stage) (*stage, error) {
	lint := b.lint.WithMergedConfigFromComments(src.Comments)
	res, err := b.expand(src.BaseName, b.globals)
	b.lintUndeclared(res.Unmatched, src.Location, lint)
	if err != nil {
		return nil, b.located(err, src.Location)
	}
	if res.Result == "" {
		return nil, b.fail(src.Location, b.blankHint(res), "base name (%s) is blank", src.BaseName)
	}
	s := &stage{src: src, baseName: res.Result, at: src.Location}
	s.out = &Stage{Index: i, Name: src.Name, Span: b.file.Span(src.Location)}
	if src.Platform != "" {
		if s.platform, err = b.fromPlatform(&src); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// blankHint says which variable made a name blank.
func (b *builder) blankHint(res shell.ProcessWordResult) string {
	if names := sortedKeys(res.Unmatched); len(names) > 0 {
		name := names[0]
		if near, ok := diag.Nearest(name, b.globals.Keys()); ok {
			return fmt.Sprintf("%s is not declared; did you mean %s?", name, near)
		}
		return fmt.Sprintf("Declare ARG %s before the first FROM, or pass --build-arg %s=….", name, name)
	}
	if names := sortedKeys(res.Matched); len(names) > 0 {
		return fmt.Sprintf("ARG %s is empty.", names[0])
	}
	return ""
}

// fromPlatform expands FROM --platform.
func (b *builder) fromPlatform(src *instructions.Stage) (*ocispec.Platform, error) {
	lint := b.lint.WithMergedConfigFromComments(src.Comments)
	res, err := b.expand(src.Platform, b.globals)
	b.lintUndeclared(res.Unmatched, src.Location, lint)
	b.lintRedundantPlatform(src, res, lint)
	b.lintConstantPlatform(src, res, lint)
	if err != nil {
		return nil, b.located(err, src.Location)
	}
	if res.Result == "" {
		return nil, b.fail(src.Location, b.blankHint(res), "FROM --platform=%s is empty", src.Platform)
	}
	p, err := image.ParsePlatform(res.Result)
	if err != nil {
		return nil, b.fail(src.Location, b.blankIfDeclared(res), "FROM: %v", err)
	}
	return &p, nil
}

// blankIfDeclared is blankHint for a value that is wrong rather than empty.
func (b *builder) blankIfDeclared(res shell.ProcessWordResult) string {
	if len(res.Unmatched) == 0 {
		return ""
	}
	return b.blankHint(res)
}

// add puts s after the stages so far. A base is one of those before s, an image, or a named context.
func (b *builder) add(s *stage) error {
	b.stages = append(b.stages, s)
	if s.kind == ofFile {
		if err := b.setBase(s); err != nil {
			return err
		}
	}
	if s.src.Name != "" {
		b.byName[s.src.Name] = s
	}
	return nil
}

// setBase finds what the stage s of the file starts from, as far as that is no image: a named context in the place of s,
// a stage before it, or a named context in the place of its base.
func (b *builder) setBase(s *stage) error {
	if s.src.Name != "" {
		if c := b.contextFor(s.src.Name, s.platform); c != nil {
			s.replaced, s.src.Commands = true, nil
			return b.setContext(s, c)
		}
	}
	// BuildKit compares a base's name as written. An image's name is lower case, so folding case only turns errors into stages.
	if s.base = b.byName[strings.ToLower(s.baseName)]; s.base != nil {
		return nil
	}
	if c := b.contextFor(s.baseName, s.platform); c != nil {
		return b.setContext(s, c)
	}
	return nil
}

// names are those of all stages, for suggestions.
func (b *builder) names() []string {
	var names []string
	for _, s := range b.numbers {
		names = append(names, s.out.ID())
	}
	return names
}

// findTarget is the stage that the user wants.
func (b *builder) findTarget() (*stage, error) {
	name := b.opts.Target
	if name == "" {
		return b.numbers[len(b.numbers)-1], nil
	}
	if s, ok := b.byName[strings.ToLower(name)]; ok {
		return s, nil
	}
	e := &diag.Error{What: fmt.Sprintf("target stage %q does not exist", name), Span: diag.Span{File: b.file.Name}}
	if near, ok := diag.Nearest(name, b.names()); ok {
		e.Hint = fmt.Sprintf("Did you mean %s?", near)
	} else if len(b.byName) > 0 {
		e.Hint = fmt.Sprintf("The stages are %s.", strings.Join(sortedKeys(b.byName), ", "))
	} else {
		e.Hint = "Name a stage with FROM … AS " + name + "."
	}
	return nil, e
}

// link finds the stages that instructions read, and refuses circles.
func (b *builder) link() error {
	for _, s := range b.numbers {
		for _, cmd := range s.src.Commands {
			c, err := b.bind(s, cmd)
			if err != nil {
				return err
			}
			s.commands = append(s.commands, c)
		}
	}
	return b.checkCircles()
}

// bind finds what cmd depends on, and adds it to what s depends on.
func (b *builder) bind(s *stage, cmd instructions.Command) (command, error) {
	out := command{Command: cmd}
	var names []string
	r := reading{at: cmd.Location(), flag: "COPY --from="}
	switch c := cmd.(type) {
	case *instructions.CopyCommand:
		names = append(names, c.From)
	case *instructions.RunCommand:
		r.flag = "RUN --mount=from="
		for _, m := range instructions.GetMounts(c) {
			names = append(names, m.From)
		}
	}
	for _, r.name = range names {
		var from *stage
		if r.name != "" {
			var err error
			if from, err = b.findSource(r); err != nil {
				return command{}, err
			}
			s.deps = append(s.deps, dependency{on: from, at: r.at})
		}
		out.from = append(out.from, from)
	}
	return out, nil
}

// reading is the name of what an instruction reads: where it stands, and the words before it.
type reading struct {
	name, flag string
	at         []parser.Range
}

// findSource is the stage that r names: by position, by name, or else a named context or an image.
func (b *builder) findSource(r reading) (*stage, error) {
	res, err := b.expand(r.name, newVariables())
	if err != nil {
		return nil, b.located(err, r.at)
	}
	if res.Result != r.name {
		return nil, b.fail(r.at, "Give the stage a fixed name: FROM … AS name can use ARGs from before the first FROM.",
			"%s%s: variables cannot be used here", r.flag, r.name)
	}
	if n, err := strconv.Atoi(r.name); err == nil {
		if n < 0 || n >= len(b.numbers) {
			return nil, b.fail(r.at, fmt.Sprintf("The stages are numbered from 0 to %d.", len(b.numbers)-1), "%s%s: there is no such stage", r.flag, r.name)
		}
		return b.numbers[n], nil
	}
	return b.findNamed(r)
}

// findNamed is the stage of that name or else a named context or an image, as a stage of its own kind.
func (b *builder) findNamed(r reading) (*stage, error) {
	if s, ok := b.byName[strings.ToLower(r.name)]; ok {
		return s, nil
	}
	for _, s := range b.stages[len(b.numbers):] {
		if s.src.BaseName == r.name {
			return s, nil
		}
	}
	s := &stage{
		kind: aliasOfImage, src: instructions.Stage{BaseName: r.name}, baseName: r.name, at: r.at, flag: r.flag,
		out: &Stage{Index: len(b.stages), Span: b.file.Span(r.at)},
	}
	c := b.contextFor(r.name, nil)
	if c != nil && c.stage != "" {
		return b.contextStage(c)
	}
	if c != nil {
		if err := b.setContext(s, c); err != nil {
			return nil, err
		}
	}
	if s.baseName == scratch {
		s.kind, s.out.Name = aliasOfScratch, scratch
	}
	return s, b.add(s)
}

// checkCircles refuses stages that need themselves.
func (b *builder) checkCircles() error {
	done := map[*stage]bool{}
	onPath := map[*stage]bool{}
	var visit func(s *stage) error
	visit = func(s *stage) error {
		done[s], onPath[s] = true, true
		defer delete(onPath, s)
		for _, d := range s.deps {
			if onPath[d.on] {
				return b.fail(d.at, "A stage can copy only from stages before it.", "stage %s depends on itself", d.on.out.ID())
			}
			if done[d.on] {
				continue
			}
			if err := visit(d.on); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range b.stages {
		if done[s] {
			continue
		}
		if err := visit(s); err != nil {
			return err
		}
	}
	return nil
}

// reachable are the stages that target needs, with itself.
func reachable(target *stage) map[*stage]bool {
	found := map[*stage]bool{}
	todo := []*stage{target}
	for len(todo) > 0 {
		s := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if s == nil || found[s] {
			continue
		}
		found[s] = true
		todo = append(todo, s.base)
		for _, d := range s.deps {
			todo = append(todo, d.on)
		}
	}
	return found
}
