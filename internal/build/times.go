package build

import (
	"reflect"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/solve"
)

// The times of an image, as BuildKit v0.34.2 sets them (exporter/containerimage/writer.go): with an epoch, nothing of
// what is made is younger. What the base image brought keeps its times.

// latestTime is the time that no file of a new layer may be younger than, nil if they keep their times.
// All graphs are of one Dockerfile and have one epoch.
func (b *builder) latestTime(graphs []*plan.Graph) *time.Time {
	epoch := graphs[0].Created
	if epoch != nil && epoch.After(b.env.Now()) {
		b.env.Events.Emit(event.Warning{Message: "SOURCE_DATE_EPOCH is in the future: times before it stay as they are"})
	}
	switch {
	case b.req.Reproducible && epoch == nil:
		zero := time.Unix(0, 0)
		return &zero
	case b.req.Reproducible, b.req.RewriteTimestamp && epoch != nil:
		return epoch
	case b.req.RewriteTimestamp:
		b.env.Events.Emit(event.Warning{Message: "--rewrite-timestamp has no effect without SOURCE_DATE_EPOCH"})
	}
	return nil
}

// timeless says that the image has no times at all.
func (b *builder) timeless(g *plan.Graph) bool { return b.req.Reproducible && g.Created == nil }

// now is the time of what is made now: with an epoch, that.
func (b *builder) now(g *plan.Graph) time.Time {
	if g.Created != nil {
		return *g.Created
	}
	return b.env.Now()
}

// created is the time of the image: now, or with an epoch that of the last thing that happened to it.
func (b *builder) created(g *plan.Graph, config *image.Config) time.Time {
	if n := len(config.History); n > 0 && g.Created != nil {
		return *config.History[n-1].Created // stampHistory leaves none out
	}
	return b.now(g)
}

// stampHistory gives each new entry of the history its time. With an epoch no entry is younger, except for those that
// come first and are as the base image has them.
func stampHistory(config *image.Config, g *plan.Graph, r *solve.Result) {
	for i, t := range r.Created {
		if h := &config.History[i]; h.Created == nil {
			h.Created = utc(t)
		}
	}
	if g.Created == nil {
		return
	}
	base := baseHistory(r.Stage)
	kept := true
	for i := range config.History {
		h := &config.History[i]
		kept = kept && i < len(base) && h.Created != nil && reflect.DeepEqual(*h, base[i])
		if !kept && (h.Created == nil || h.Created.After(*g.Created)) {
			h.Created = g.Created
		}
	}
}

// baseHistory is the history of the image that st stands on in the end.
func baseHistory(st *plan.Stage) []ocispec.History {
	for st.Base.Stage != nil {
		st = st.Base.Stage
	}
	if st.Base.Image == nil {
		return nil
	}
	return st.Base.Image.Config.History
}
