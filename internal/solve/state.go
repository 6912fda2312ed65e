package solve

import (
	"slices"

	"hako/internal/rootfs"
)

// state is a stage as far as it has been built. It is immutable; stages that stand on each other share it.
type state struct {
	layers []Layer
	stack  *rootfs.Stack
	// content identifies what the layers hold, see contentID.
	content string
}

func newState(layers []Layer) *state {
	s := &state{}
	for _, l := range layers {
		s = s.with(l)
	}
	return s
}

// with is the state with one more layer on top.
func (s *state) with(l Layer) *state {
	return &state{layers: append(slices.Clip(s.layers), l), stack: s.stack.Push(l.Source), content: contentID(s.content, &l)}
}
