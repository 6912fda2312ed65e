package build

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"

	"hako/internal/diag"
	"hako/internal/plan"
)

// What a step sees of the machine is a copy that this process makes, as of the build context: nothing of the machine itself is
// ever in a sandbox, and a link in what is shown leads to where it leads in the step. The copy is part of what the step
// reads, so that the cache knows a step by it.

// runBinds are the request's binds as the planner wants them.
func (b *builder) runBinds() ([]plan.Mount, error) {
	var out []plan.Mount
	sources := map[string]*plan.Source{} // one for each directory: equal pointers are read once
	for _, r := range b.req.RunBinds {
		name := "--run-bind " + r.Source
		real, err := filepath.EvalSymlinks(b.file(r.Source))
		if err != nil {
			var p *fs.PathError
			if errors.As(err, &p) {
				err = p.Err
			}
			return nil, &diag.Error{What: name, Cause: err, Hint: "Give a path that this user may read; the builder sees it as " + b.file(r.Source) + "."}
		}
		dir, base := filepath.Split(real)
		if base == "" {
			return nil, &diag.Error{What: name + " would show the whole machine", Hint: "Give a path below the root."}
		}
		if r.Target = path.Clean(r.Target); r.Target == "/" || !path.IsAbs(r.Target) {
			return nil, &diag.Error{What: fmt.Sprintf("%s cannot be shown at %q", name, r.Target), Hint: "Give an absolute path below the root: SRC:/DST."}
		}
		if sources[dir] == nil {
			sources[dir] = &plan.Source{Name: name, Machine: dir}
		}
		out = append(out, plan.Mount{
			Target: r.Target, ReadOnly: r.ReadOnly, Source: &plan.BindMount{From: plan.From{Source: sources[dir]}, Path: path.Join("/", base)},
		})
	}
	return out, nil
}
