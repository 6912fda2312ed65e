package solve

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"hako/internal/image"
	"hako/internal/plan"
)

// keyVersion is part of every key: a change of what keys or layers mean makes all older records unknown.
const keyVersion = "hako step 1"

// A step has three keys. Its definition is made of the operation and the definitions of all that it stands on and reads: it is
// known before anything is built. Its inputs are made of what those turned out to hold, as wholes. Its exact key has, instead
// of a stage or image that is copied from, only what is copied. Equal inputs or exact keys mean an equal result; a definition
// only says where a record of one may be found.

// reads are the places that op reads besides the stage it belongs to, in order.
func reads(op plan.Op) []plan.From {
	var out []plan.From
	switch op := op.(type) {
	case *plan.Copy:
		if len(op.Paths) > len(op.Fetched) || slices.Contains(op.Fetched, nil) {
			out = append(out, op.From)
		}
		for _, f := range op.Fetched {
			if f != nil {
				out = append(out, plan.From{Source: f})
			}
		}
	case *plan.Run:
		for _, m := range op.Mounts {
			if src, ok := m.Source.(*plan.BindMount); ok {
				out = append(out, src.From)
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

// digestFrom identifies what op reads of the n-th of its reads. Files are read unless the tree knows their digests.
func (s *solver) digestFrom(ctx context.Context, op plan.Op, n int) (string, error) {
	from := reads(op)[n]
	c, err := s.contentsOf(ctx, from)
	if err != nil {
		return "", err
	}
	switch op := op.(type) {
	case *plan.Copy:
		if from.Source != nil && len(op.Fetched) > 0 {
			return below(ctx, c, ".")
		}
		return copied(ctx, op, c, from == (plan.From{}))
	case *plan.Run:
		at, seen := "/", 0
		for _, m := range op.Mounts {
			if src, ok := m.Source.(*plan.BindMount); ok {
				if seen == n {
					at = src.Path
				}
				seen++
			}
		}
		literal, err := s.find(c, from, at)
		if err != nil {
			return "", err
		}
		return below(ctx, c, literal)
	}
	return "", fmt.Errorf("%T reads nothing", op)
}
