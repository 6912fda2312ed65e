package solve

import (
	"slices"

	"hako/internal/rootfs"
)

// state is a stage as far as it has been built. It is immutable; stages that stand on each other share it.
type state struct {
	layers []Layer
	stack  *rootfs.Stack
}

func newState(layers []Layer) *state {
	sources := make([]rootfs.Source, len(layers))
	for i, l := range layers {
		sources[i] = l.Source
	}
	return &state{layers: layers, stack: rootfs.NewStack(sources...)}
}

// with is the state with one more layer on top.
func (s *state) with(l Layer) *state {
	return &state{layers: append(slices.Clip(s.layers), l), stack: s.stack.Push(l.Source)}
}
