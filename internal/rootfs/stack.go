package rootfs

import (
	"context"
	"fmt"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"hako/internal/layer"
)

// Source is one layer of a stack, opened when its files are needed.
type Source struct {
	DiffID digest.Digest
	// Open makes the layer readable. It is called once per stack, and again only if it failed.
	Open func(ctx context.Context) (*layer.Image, error)
	// List, if not nil, makes an image that serves for look-ups, in which reading a file may open the layer.
	// It is called like Open, and instead of it until the layer is mounted. If it fails, the layer is opened.
	List func(ctx context.Context) (*layer.Image, error)
}

// Stack is a list of layers, bottom first. It is immutable and may be used from many goroutines.
// What was opened once is shared by all stacks made from it by Push.
// The nil Stack has no layers.
type Stack struct {
	below  *Stack
	source Source
	chain  digest.Digest
	image  lazy[*layer.Image]
	names  lazy[*layer.Image]
	tree   lazy[*Tree]
}

// NewStack makes a stack of layers, bottom first.
func NewStack(sources ...Source) *Stack {
	var s *Stack
	for _, src := range sources {
		s = s.Push(src)
	}
	return s
}

// Push returns the stack with one more layer on top.
func (s *Stack) Push(src Source) *Stack {
	out := &Stack{below: s, source: src, chain: src.DiffID}
	if s != nil {
		// As the OCI image specification defines chain IDs, config.md.
		out.chain = digest.FromString(s.chain.String() + " " + src.DiffID.String())
	}
	out.image.init()
	out.names.init()
	out.tree.init()
	return out
}

// Lowest returns the stack of the n lowest layers.
func (s *Stack) Lowest(n int) *Stack {
	if n <= 0 {
		return nil
	}
	return s.levels()[n-1]
}

// ChainID identifies all layers of the stack together; it is empty if there are none.
func (s *Stack) ChainID() digest.Digest {
	if s == nil {
		return ""
	}
	return s.chain
}

// Tree lists all layers, in parallel, and returns them as one tree.
// It returns ctx's cause if ctx ends first; a failure is not remembered.
func (s *Stack) Tree(ctx context.Context) (*Tree, error) {
	if s == nil {
		return NewTree(), nil
	}
	levels := s.levels()
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range levels {
		g.Go(func() error {
			_, err := l.list(gctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	t := NewTree()
	for _, l := range levels {
		var err error
		below := t
		t, err = l.tree.get(ctx, func(ctx context.Context) (*Tree, error) {
			im, err := l.list(ctx)
			if err != nil {
				return nil, err
			}
			return below.Add(im)
		})
		if err != nil {
			return nil, fmt.Errorf("read layer %s: %w", l.source.DiffID, err)
		}
	}
	return t, nil
}

// Lowers returns the layers as a sandbox mounts them, bottom first. Nothing is opened yet.
func (s *Stack) Lowers() []Lower {
	levels := s.levels()
	out := make([]Lower, len(levels))
	for i, l := range levels {
		out[i] = Lower{ID: l.chain, Open: l.mountable}
	}
	return out
}

// mountable opens the top layer, and the layers below only if it cannot be understood without them.
func (s *Stack) mountable(ctx context.Context) (*Mountable, error) {
	im, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	below, merged := NewTree(), (*Tree)(nil)
	switch needs(im.Index) {
	case patchNone:
		return &Mountable{Image: im}, nil
	case patchAlone:
		merged, err = below.Add(im)
	default:
		if merged, err = s.Tree(ctx); err == nil {
			below, err = s.below.Tree(ctx)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("prepare layer %s: %w", s.source.DiffID, err)
	}
	return &Mountable{Image: im, Patch: newPatch(below, merged, im)}, nil
}

func (s *Stack) open(ctx context.Context) (*layer.Image, error) {
	im, err := s.image.get(ctx, s.source.Open)
	if err != nil {
		return nil, fmt.Errorf("open layer %s: %w", s.source.DiffID, err)
	}
	return im, nil
}

// list is what is needed to look up names in the top layer.
func (s *Stack) list(ctx context.Context) (*layer.Image, error) {
	if s.source.List == nil {
		return s.open(ctx)
	}
	im, err := s.names.get(ctx, s.source.List)
	if err != nil && ctx.Err() == nil {
		return s.open(ctx)
	}
	return im, err
}

// levels returns s and the stacks below it, bottom first.
func (s *Stack) levels() []*Stack {
	n := 0
	for l := s; l != nil; l = l.below {
		n++
	}
	out := make([]*Stack, n)
	for l := s; l != nil; l = l.below {
		n--
		out[n] = l
	}
	return out
}

// lazy is a value that is made at most once. A failure is not remembered, so that one caller's cancellation
// does not become everybody's error.
type lazy[T any] struct {
	turn  chan struct{} // holds one token while nobody is making the value
	done  bool          // guarded by turn
	value T             // guarded by turn until done
}

func (l *lazy[T]) init() {
	l.turn = make(chan struct{}, 1)
	l.turn <- struct{}{}
}

func (l *lazy[T]) get(ctx context.Context, make func(context.Context) (T, error)) (T, error) {
	var zero T
	select {
	case <-l.turn:
	case <-ctx.Done():
		return zero, context.Cause(ctx)
	}
	defer func() { l.turn <- struct{}{} }()
	if l.done {
		return l.value, nil
	}
	v, err := make(ctx)
	if err != nil {
		return zero, err
	}
	l.value, l.done = v, true
	return v, nil
}
