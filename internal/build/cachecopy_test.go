package build_test

import (
	"slices"
	"strings"
	"testing"

	"hako/internal/build"
	"hako/internal/event"
)

// infos keeps what is told.
type infos struct {
	steps
	told []string
}

func (i *infos) Emit(e event.Event) {
	i.steps.Emit(e)
	if e, ok := e.(event.Info); ok {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.told = append(i.told, e.Message)
	}
}

// Without being told which, the cache has the COPY steps that are dearer to do again, and says what is with the others.
func TestWhichCopiesAreCached(t *testing.T) {
	t.Parallel()
	b := newFaultBench(t, "FROM scratch AS s\nCOPY last /s/\nFROM scratch\nCOPY last /\nCOPY last /b\nCOPY big /\nCOPY --from=s /s /\n")
	b.write(t, "big", strings.Repeat("0123456789abcdef", 1<<16))
	for _, c := range []struct {
		copies, skip bool
		cached       []string
		told         bool
	}{
		{false, false, []string{"stage-1/3", "stage-1/4"}, true},
		{true, false, []string{"s/1", "stage-1/1", "stage-1/2", "stage-1/3", "stage-1/4"}, false},
		{false, true, nil, false},
	} {
		b.req.Cache = build.Cache{Enabled: true, Repository: "oci:" + t.TempDir(), Copies: c.copies, SkipCopies: c.skip}
		b.once(t)
		log := &infos{}
		if err := b.build(t.Context(), b.req, log); err != nil {
			t.Fatal(err)
		}
		slices.Sort(log.cached)
		const why = "small COPY and ADD steps are done again, which is cheaper than to cache them (see --cache-copy-layers): 3"
		if !slices.Equal(log.cached, c.cached) || slices.Contains(log.told, why) != c.told {
			t.Errorf("%+v: cached %v, told %q", c, log.cached, log.told)
		}
	}
}
