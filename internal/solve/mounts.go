package solve

import (
	"context"
	"fmt"

	"hako/internal/filecopy"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
)

// extras is what a RUN has besides its stage.
type extras struct {
	mounts []sandbox.Mount
}

// extras makes ready what op mounts.
func (s *solver) extras(ctx context.Context, op *plan.Run) (*extras, error) {
	x := &extras{}
	for i := range op.Mounts {
		m := &op.Mounts[i]
		out := sandbox.Mount{Target: m.Target, ReadOnly: m.ReadOnly}
		var err error
		switch src := m.Source.(type) {
		case *plan.BindMount:
			out.Source, err = s.bind(ctx, src)
		case *plan.TmpfsMount:
			out.Source = &sandbox.Tmpfs{Size: src.Size}
		default:
			err = fmt.Errorf("%s: this kind is not supported yet", m)
		}
		if err != nil {
			return nil, fmt.Errorf("RUN --mount: %w", err)
		}
		x.mounts = append(x.mounts, out)
	}
	return x, nil
}

// bind finds the files that a mount shows.
func (s *solver) bind(ctx context.Context, m *plan.BindMount) (*sandbox.Bind, error) {
	lowers, path, err := s.files(ctx, m.From, m.Path)
	if err != nil {
		return nil, err
	}
	return &sandbox.Bind{Lowers: lowers, Path: path}, nil
}

// files is the stack of layers that path of f is in, and its literal path there.
func (s *solver) files(ctx context.Context, f plan.From, path string) ([]rootfs.Lower, string, error) {
	from, name, err := s.from(ctx, f)
	if err != nil {
		return nil, "", err
	}
	at, err := filecopy.Find(from, name, path)
	if err != nil {
		return nil, "", err
	}
	stack, ok, err := s.stackOf(ctx, f)
	if err == nil && !ok {
		stack, err = s.held.stack(ctx, from, name, partKey{f, at})
	}
	if err != nil {
		return nil, "", err
	}
	return stack.Lowers(), at, nil
}

// sources are the stages that op reads.
func sources(op plan.Op) []*plan.Stage {
	var out []*plan.Stage
	add := func(f *plan.From) {
		if f != nil && f.Stage != nil {
			out = append(out, f.Stage)
		}
	}
	switch op := op.(type) {
	case *plan.Copy:
		add(&op.From)
	case *plan.Run:
		for _, m := range op.Mounts {
			switch src := m.Source.(type) {
			case *plan.BindMount:
				add(&src.From)
			case *plan.CacheMount:
				add(src.From)
			}
		}
	}
	return out
}

// stackOf is the stack of layers that f is; ok says whether it is one.
func (s *solver) stackOf(ctx context.Context, f plan.From) (_ *rootfs.Stack, ok bool, _ error) {
	var st *state
	var err error
	switch {
	case f.Stage != nil:
		st, err = s.wait(ctx, f.Stage)
	case f.Image != nil:
		st, err = s.image(ctx, f.Image)
	default:
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return st.stack, true, nil
}
