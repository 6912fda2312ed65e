package submit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"hako/internal/build"
	"hako/internal/event"
)

// TestContextsAreSentOnce has many builds of one directory send it at the same time.
func TestContextsAreSentOnce(t *testing.T) {
	t.Parallel()
	c := NewContexts(build.Env{Events: event.Discard{}})
	var sends atomic.Int32
	var group sync.WaitGroup
	for i := range 50 {
		group.Go(func() {
			to := fmt.Sprintf("r.example/app-%d", i)
			r := &Request{Build: build.Request{Context: []string{"app", "./app", "dir://app/"}[i%3]}}
			first := c.repository(r, to)
			place, err := c.place(t.Context(), r, to, func() (string, error) {
				sends.Add(1)
				return "oci://" + first, nil
			})
			if err != nil || place != "oci://"+first {
				t.Errorf("%s, %v", place, err)
			}
		})
	}
	group.Wait()
	if sends.Load() != 1 {
		t.Errorf("it was sent %d times", sends.Load())
	}
}

// TestContextsThatDiffer are sent by themselves.
func TestContextsThatDiffer(t *testing.T) {
	t.Parallel()
	c := NewContexts(build.Env{Events: event.Discard{}})
	sends := 0
	for _, b := range []struct {
		to, repository string
		build          build.Request
	}{
		{to: "r.example/a", build: build.Request{Context: "."}},
		{to: "s.example/a", build: build.Request{Context: "."}}, // its pods may not reach the other registry
		{to: "r.example/a", build: build.Request{Context: "b"}},
		{to: "r.example/a", build: build.Request{Context: ".", ContextSubPath: "b"}},
		{to: "r.example/a", build: build.Request{Context: ".", Dockerfile: "other"}}, // it may have an ignore file
		{to: "r.example/a", build: build.Request{Context: ".", Outputs: build.Outputs{DigestFile: "digest"}}},
		{to: "r.example/contexts", repository: "r.example/contexts", build: build.Request{Context: "."}},
	} {
		r := &Request{Build: b.build, ContextRepository: b.repository}
		if got := c.repository(r, b.to); got != b.to {
			t.Errorf("%+v goes to %s", b, got)
		}
		if _, err := c.place(t.Context(), r, b.to, func() (string, error) { sends++; return "oci://x", nil }); err != nil {
			t.Error(err)
		}
	}
	if sends != 7 {
		t.Errorf("%d of 7 were sent", sends)
	}
}

// TestContextIsSentAgainAfterAFailure has the build that sends be stopped: another sends.
func TestContextIsSentAgainAfterAFailure(t *testing.T) {
	t.Parallel()
	c := NewContexts(build.Env{Events: event.Discard{}})
	r := &Request{Build: build.Request{Context: "."}}
	stop := errors.New("stop")
	if _, err := c.place(t.Context(), r, "r.example/a", func() (string, error) { return "", stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	place, err := c.place(t.Context(), r, "r.example/a", func() (string, error) { return "oci://x", nil })
	if err != nil || place != "oci://x" {
		t.Errorf("%s, %v", place, err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stop)
	c.find(r, "r.example/a").turn = make(chan struct{}) // somebody else sends, for ever
	if _, err := c.place(ctx, r, "r.example/a", nil); !errors.Is(err, stop) {
		t.Error(err)
	}
}
