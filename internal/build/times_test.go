package build

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/solve"
)

func sec(n int64) *time.Time {
	t := time.Unix(n, 0).UTC()
	return &t
}

// TestStampHistory has the rules of BuildKit's exporter: what the base brought stays as it is, up to the first entry that
// is not as the base has it.
func TestStampHistory(t *testing.T) {
	t.Parallel()
	entry := func(created *time.Time) ocispec.History { return ocispec.History{Created: created} }
	for _, tt := range []struct {
		name    string
		epoch   *time.Time
		base    []*time.Time
		planned []*time.Time // of the whole history, as the plan has it
		done    map[int]time.Time
		want    []*time.Time
	}{
		{name: "no epoch", base: []*time.Time{sec(5)}, planned: []*time.Time{sec(5), nil}, done: map[int]time.Time{1: *sec(9)}, want: []*time.Time{sec(5), sec(9)}},
		{name: "base later than the epoch", epoch: sec(3), base: []*time.Time{sec(5)}, planned: []*time.Time{sec(5), sec(3)}, want: []*time.Time{sec(5), sec(3)}},
		{name: "base without a time", epoch: sec(3), base: []*time.Time{sec(1), nil, sec(5)}, planned: []*time.Time{sec(1), nil, sec(5), sec(3)}, want: []*time.Time{sec(1), sec(3), sec(3), sec(3)}},
		{name: "base without history", epoch: sec(3), planned: []*time.Time{nil, sec(3)}, want: []*time.Time{sec(3), sec(3)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			ref := &plan.ImageRef{Config: &image.Config{}}
			for _, c := range tt.base {
				ref.Config.History = append(ref.Config.History, entry(c))
			}
			config := image.Config{}
			for _, c := range tt.planned {
				config.History = append(config.History, entry(c))
			}
			stage := &plan.Stage{Base: plan.Base{Stage: &plan.Stage{Base: plan.Base{Image: ref}}}}
			g := &plan.Graph{Created: tt.epoch}
			stampHistory(&config, g, &solve.Result{Stage: stage, Created: tt.done})
			var got []*time.Time
			for _, h := range config.History {
				got = append(got, h.Created)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
