package build_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"hako/internal/diag"
	"hako/internal/event"
)

// started collects the steps that were started.
type started struct {
	mu    sync.Mutex // guards steps
	steps []string
}

func (s *started) Emit(e event.Event) {
	if e, ok := e.(event.StepStarted); ok {
		s.mu.Lock()
		s.steps = append(s.steps, e.Step)
		s.mu.Unlock()
	}
}

// cross compiles natively for whatever is wanted.
const cross = `ARG BASE
FROM --platform=$BUILDPLATFORM $BASE AS build
COPY Dockerfile /src
RUN ["/prog", "write", "/common", "x"]
ARG TARGETARCH
COPY Dockerfile /again
RUN ["/prog", "write", "/out", "y"]
FROM scratch
COPY --from=build /out /common /
COPY Dockerfile /
`

func TestWhatPlatformsHaveInCommonIsBuiltOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY prog /prog\n")
	req := w.request()
	req.Outputs.Destinations = []string{w.host + "/base:1"}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	w.write(t, "Dockerfile", cross)
	req = w.request()
	req.BuildArgs = map[string]string{"BASE": w.host + "/base:1"}
	own, other := "amd64", "arm64"
	if runtime.GOARCH == other {
		own, other = other, own
	}
	req.Platforms = []string{"linux/" + own, "linux/" + other, "linux/s390x"}
	seen := &started{}
	if err := w.build(t.Context(), req, seen); err != nil {
		t.Fatal(diag.Format(err))
	}
	slices.Sort(seen.steps)
	want := []string{
		"linux/" + own + "->" + other + " build/5", "linux/" + own + "->s390x build/5", // they see another TARGETARCH
		"linux/" + other + " stage-1/1", "linux/" + other + " stage-1/2", "linux/s390x stage-1/1", "linux/s390x stage-1/2",
	}
	for _, step := range []string{"build/1", "build/2", "build/4", "build/5", "stage-1/1", "stage-1/2"} {
		want = append(want, "linux/"+own+" "+step)
	}
	slices.Sort(want)
	if d := cmp.Diff(want, seen.steps); d != "" {
		t.Errorf("steps (-want +got):\n%s", d)
	}
	ref, err := name.ParseReference(w.host + "/out:1")
	if err != nil {
		t.Fatal(err)
	}
	idx, err := remote.Index(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(idx); err != nil {
		t.Error(err)
	}
	w.empty(t)
}
