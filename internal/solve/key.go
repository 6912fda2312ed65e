package solve

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"hako/internal/filecopy"
	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/trail"
)

// keyVersion is part of every key: a change of what keys or layers mean makes all older records unknown.
const keyVersion = "hako step 1"

// A step has three keys. Its definition is made of the operation and the definitions of all that it stands on and reads: it is
// known before anything is built. Its inputs are made of what those turned out to hold, as wholes. Its exact key has, instead
// of a stage or image that is copied from, only what is copied. Equal inputs or exact keys mean an equal result; a definition
// only says where a record of one may be found.

// read is a place that an operation reads besides the stage that it belongs to.
type read struct {
	from plan.From
	// path is what is read of it, with everything below; empty if it is what a COPY takes.
	path string
}

// reads are the places that op reads, in order. They are those of plan.Step.Reads.
func reads(op plan.Op) []read {
	var out []read
	switch op := op.(type) {
	case *plan.Copy:
		if len(op.Paths) > len(op.Fetched) || slices.Contains(op.Fetched, nil) {
			out = append(out, read{from: op.From})
		}
		for _, f := range op.Fetched {
			if f != nil {
				out = append(out, read{plan.From{Source: f}, "/"})
			}
		}
	case *plan.Run:
		for _, m := range op.Mounts {
			switch src := m.Source.(type) {
			case *plan.BindMount:
				out = append(out, read{src.From, src.Path})
			case *plan.CacheMount:
				if src.From != nil {
					out = append(out, read{*src.From, src.Path})
				}
			}
		}
	}
	return out
}

// operation is what step does, apart from what it stands on and reads.
func operation(step *plan.Step) string {
	e := &encoder{name: standing(func(plan.From) string { return "" })}
	op := step.Op
	if run, ok := op.(*plan.Run); ok {
		cp := *run
		cp.Env = withoutProxies(run.Env, step.Env)
		op = &cp
		e.WriteString(image.FormatPlatform(step.Platform) + ";")
	}
	e.WriteString(reflect.TypeOf(op).Elem().Name())
	e.value(reflect.ValueOf(op).Elem())
	return e.String()
}

// withoutProxies leaves out the proxies that only say how to reach the network here; those of the image stay.
func withoutProxies(env, declared []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return plan.IsProxy(name) && !slices.Contains(declared, kv)
	})
}

// digestOf identifies what op reads at r. Files are read unless the tree knows their digests.
func (s *solver) digestOf(ctx context.Context, op plan.Op, r read) (string, error) {
	id, _, err := s.measure(ctx, op, r, nil)
	return id, err
}

// measure is digestOf, and how many bytes the files have. files gets a note of each; it may be nil.
func (s *solver) measure(ctx context.Context, op plan.Op, r read, files *trail.Files) (id string, sizeBytes int64, err error) {
	c, err := s.contentsOf(ctx, r.from)
	if err != nil {
		return "", 0, err
	}
	if cp, ok := op.(*plan.Copy); ok && r.path == "" {
		return copied(ctx, cp, c, files)
	}
	literal, err := filecopy.Find(c.Tree, r.from.String(), r.path)
	if err != nil {
		return "", 0, err
	}
	return below(ctx, c, literal, files)
}
