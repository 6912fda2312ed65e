package build

import (
	"context"
	"errors"

	"hako/internal/dockerfile"
	"hako/internal/plan"
)

// Checked is what a check of a Dockerfile found.
type Checked struct {
	// Name and Text are the Dockerfile's.
	Name string
	Text []byte
	// Warnings are the broken rules, by line.
	Warnings []plan.Warning
	// Err is why the Dockerfile cannot be built, or nil.
	Err error
}

// Check says which rules the Dockerfile of req breaks, and builds nothing; where the result goes does not matter.
// Base images are looked up. With several platforms, each is checked. What else is worth knowing goes to env.Events.
func Check(ctx context.Context, env Env, req Request) (_ *Checked, err error) {
	if err := errors.Join(req.validatePlatforms(), req.validateSteps()); err != nil {
		return nil, err
	}
	req.Outputs = Outputs{NoPush: true}
	b, err := openForPlan(ctx, env, req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	out := &Checked{Name: b.context.DockerfileName, Text: b.context.Dockerfile}
	file, err := dockerfile.Scan(out.Name, out.Text)
	if err != nil {
		out.Err = err
		return out, nil
	}
	platforms, err := req.platforms()
	if err != nil {
		return nil, err
	}
	warnings, notes := make([][]plan.Warning, len(platforms)), make([][]plan.Warning, len(platforms))
	for i, p := range platforms {
		found := plan.Check(ctx, file, b.planOptions(p, len(platforms) > 1, nil), b.bases)
		warnings[i], notes[i] = found.Warnings, found.Notes
		if out.Err == nil {
			out.Err = found.Err
		}
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	out.Warnings = distinct(warnings)
	b.warn(distinct(notes))
	return out, nil
}

// Targets lists the stages of the Dockerfile of req.
func Targets(ctx context.Context, env Env, req Request) (_ []plan.TargetStage, err error) {
	req.Outputs = Outputs{NoPush: true}
	b, err := openForPlan(ctx, env, req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.close()) }()
	file, err := dockerfile.Parse(b.context.DockerfileName, b.context.Dockerfile)
	if err != nil {
		return nil, err
	}
	return plan.Targets(file)
}
