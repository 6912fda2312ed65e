package solve

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/tree"
)

// slowBases has layers only when something has been made.
type slowBases struct{ made chan struct{} }

var _ Bases = (*slowBases)(nil)

func (b *slowBases) Layers(ctx context.Context, _ *plan.ImageRef, _ bool) ([]Layer, error) {
	select {
	case <-b.made:
		return []Layer{{Descriptor: layer.Descriptor{MediaType: "base"}}}, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// paths makes layers that are named after the paths in them.
type paths struct {
	made chan struct{}

	mu   sync.Mutex // guards list
	list []string
}

var _ Maker = (*paths)(nil)

func (m *paths) Make(ctx context.Context, changes layer.Changes, _ MakeOptions) (Layer, error) {
	var l Layer
	err := changes.Each(ctx, func(e tree.Entry, _ io.Reader) error {
		l.MediaType += e.Path + " "
		return nil
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list = append(m.list, l.MediaType); len(m.list) == 1 {
		close(m.made)
	}
	return l, err
}

// Hold is for mounts, of which there are none here.
func (*paths) Hold(context.Context, layer.Changes) (rootfs.Source, error) {
	return rootfs.Source{}, errors.ErrUnsupported
}

func linkStep(id, dest string) *plan.Step {
	return &plan.Step{ID: id, Op: &plan.Copy{Link: true, Inline: []plan.InlineFile{{Path: "f"}}, Dest: dest}}
}

func TestLinkedCopiesDoNotWaitForTheirBase(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("the copy waits for its base"))
	defer cancel()
	made := make(chan struct{})
	m := &paths{made: made}
	one := &plan.Stage{Base: plan.Base{Image: &plan.ImageRef{Ref: "a"}}, Steps: []*plan.Step{linkStep("one/1", "/x/"), linkStep("one/2", "/y/")}}
	two := &plan.Stage{Base: plan.Base{Stage: one}, Steps: []*plan.Step{linkStep("two/1", "/x/")}}
	results, err := Solve(ctx, []*plan.Graph{{Stages: []*plan.Stage{one, two}, Target: two}}, Parts{
		Bases: &slowBases{made}, Maker: m, Events: event.Discard{}, Now: time.Now, Jobs: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, l := range results[0].Layers {
		got = append(got, l.MediaType)
	}
	if want := "|base|x x/f |y y/f |x x/f "; join(got) != want {
		t.Errorf("layers %q, want %q", join(got), want)
	}
	if len(m.list) != 2 {
		t.Errorf("%d layers were made, want 2: equal ones are made once", len(m.list))
	}
}

func TestLinkedCopiesFail(t *testing.T) {
	t.Parallel()
	bad := linkStep("one/1", "/x/")
	bad.Op.(*plan.Copy).Chmod = "no mode" //nolint:forcetypeassert // it is one
	st := &plan.Stage{Base: plan.Base{Image: &plan.ImageRef{Ref: "a"}}, Steps: []*plan.Step{bad}}
	made := make(chan struct{})
	_, err := Solve(t.Context(), []*plan.Graph{{Stages: []*plan.Stage{st}, Target: st}}, Parts{
		Bases: &slowBases{made}, Maker: &paths{made: made}, Events: event.Discard{}, Now: time.Now,
	})
	if err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the copy", err)
	}
}

func join(list []string) string {
	s := ""
	for _, l := range list {
		s += "|" + l
	}
	return s
}
