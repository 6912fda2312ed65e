package plan

import (
	"context"

	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"hako/internal/diag"
	"hako/internal/dockerfile"
)

// Findings are what the rules say of a Dockerfile.
type Findings struct {
	// Warnings are the broken rules, by line.
	Warnings []Warning
	// Notes are other things the user should know.
	Notes []Warning
	// Err is why the Dockerfile cannot be built, or nil. Warnings of what comes before it are there nevertheless.
	Err error
}

// Check plans file to see which rules it breaks: the stages that opts.Target needs, or all if it names none.
// file may come from dockerfile.Scan.
func Check(ctx context.Context, file *dockerfile.File, opts Options, resolver Resolver) *Findings {
	b, err := newBuilder(file, opts, resolver)
	if err != nil {
		return &Findings{Err: err}
	}
	b.all = opts.Target == ""
	f := &Findings{}
	_, f.Err = b.graph(ctx)
	for _, w := range b.sortedWarnings() {
		switch {
		case w.Rule != "":
			f.Warnings = append(f.Warnings, w)
		default:
			f.Notes = append(f.Notes, w)
		}
	}
	return f
}

// TargetStage is a stage of a Dockerfile, as a user chooses it.
type TargetStage struct {
	// Name is empty for a stage without one; Default marks the stage that is built if none is named.
	Name    string
	Default bool
	// Description is the comment above the stage that begins with its name.
	Description string
	// Base and Platform are as written.
	Base, Platform string
	Span           diag.Span
}

// Targets are the stages of file, in its order.
func Targets(file *dockerfile.File) ([]TargetStage, error) {
	stages, _, err := file.Instructions(linter.New(&linter.Config{}))
	if err != nil {
		return nil, err
	}
	out := make([]TargetStage, len(stages))
	for i, s := range stages {
		out[i] = TargetStage{
			Name: s.Name, Default: i == len(stages)-1, Description: s.DocComment, Base: s.BaseName, Platform: s.Platform,
			Span: file.Span(s.Location),
		}
	}
	return out, nil
}
