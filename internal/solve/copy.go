package solve

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sync/errgroup"

	"hako/internal/event"
	"hako/internal/filecopy"
	"hako/internal/plan"
	"hako/internal/tree"
)

// copy makes a layer of what a COPY or ADD brings.
func (s *solver) copy(ctx context.Context, j job, op *plan.Copy) (*state, error) {
	below, err := j.cur.stack.Tree(ctx)
	if err != nil {
		return nil, err
	}
	from, name, err := s.from(ctx, op.From)
	if err != nil {
		return nil, err
	}
	fetched, err := s.fetched(ctx, op)
	if err != nil {
		return nil, err
	}
	changes, err := filecopy.Copy(ctx, &filecopy.Request{
		Below: below, Fetched: fetched, From: from, FromName: name, Sparse: isSent(op.From),
		Paths: op.Paths, Inline: inline(op.Inline), Parents: parents(op.Parents), Exclude: op.Exclude,
		Dest: op.Dest, Chown: op.Chown, Chmod: op.Chmod,
		Add: op.Add, Unpack: op.Add && (op.Unpack == nil || *op.Unpack),
		Now: s.parts.Now(), Spool: s.parts.Spool,
	})
	if err != nil {
		return nil, err
	}
	for _, w := range changes.Warnings() {
		s.parts.Events.Emit(event.Warning{Message: w, Span: j.step.Span})
	}
	next, err := s.commit(ctx, s.watch(changes, j.step), j)
	return next, errors.Join(err, changes.Close())
}

// fetched are the trees of what ADD fetches. They are fetched together.
func (s *solver) fetched(ctx context.Context, op *plan.Copy) ([]*filecopy.Source, error) {
	out := make([]*filecopy.Source, len(op.Fetched))
	group, ctx := errgroup.WithContext(ctx)
	for i, source := range op.Fetched {
		if source == nil {
			continue
		}
		group.Go(func() error {
			t, err := s.parts.Sources.Tree(ctx, source)
			out[i] = &filecopy.Source{Tree: t, Name: source.Name, Unpack: source.HTTP != nil && op.Unpack != nil && *op.Unpack}
			return err
		})
	}
	return out, group.Wait()
}

// isSent says whether f is a directory of the user's, of which BuildKit has only what instructions name.
func isSent(f plan.From) bool {
	return f.Stage == nil && f.Image == nil && (f.Source == nil || f.Source.Context != "" && !strings.Contains(f.Source.Context, "://"))
}

// mkdir makes a layer of the directory of a WORKDIR.
func (s *solver) mkdir(ctx context.Context, j job, op *plan.Mkdir) (*state, error) {
	below, err := j.cur.stack.Tree(ctx)
	if err != nil {
		return nil, err
	}
	changes, err := filecopy.Mkdir(ctx, &filecopy.MkdirRequest{
		Below: below, Path: op.Path, User: op.User, Now: s.parts.Now(), Created: op.Created,
	})
	if err != nil {
		return nil, err
	}
	next, err := s.commit(ctx, changes, j)
	return next, errors.Join(err, changes.Close())
}

// from is the tree that a COPY or a mount reads, and what people call it.
func (s *solver) from(ctx context.Context, f plan.From) (tree.Tree, string, error) {
	name := ""
	switch {
	case f.Stage != nil:
		name = "stage " + f.Stage.ID()
	case f.Image != nil:
		name = "image " + f.Image.Name
	case f.Source != nil:
		t, err := s.parts.Sources.Tree(ctx, f.Source)
		return t, f.Source.Name, err
	default:
		return s.parts.Context, "the build context", nil
	}
	stack, _, err := s.stackOf(ctx, f)
	if err != nil {
		return nil, "", err
	}
	t, err := stack.Tree(ctx)
	return t, name, err
}

func inline(files []plan.InlineFile) []filecopy.Inline {
	var out []filecopy.Inline
	for _, f := range files {
		out = append(out, filecopy.Inline{Name: f.Path, Data: f.Data})
	}
	return out
}

func parents(parts []plan.Part) []filecopy.Part {
	var out []filecopy.Part
	for _, p := range parts {
		out = append(out, filecopy.Part{Pattern: p.Pattern, Required: p.Required})
	}
	return out
}
