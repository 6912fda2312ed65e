package remote

import (
	"context"
	"errors"
	"testing"

	"hako/internal/sandbox"
	"hako/internal/sandbox/child"
)

// TestNoSecondTryWithoutMemory: a step whose sandbox the OOM killer ended was run again, to be killed again, and the error did not
// speak of memory.
func TestNoSecondTryWithoutMemory(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		kills int64 // for each try
		tries int
	}{"no memory": {1, 1}, "crash": {0, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var kills int64
			tries := 0
			e, err := New(t.Context(), Options{
				OOMKills: func() int64 { return kills },
				Start: func(context.Context) (*Process, error) {
					tries++
					kills += tt.kills
					return nil, &child.CrashError{Name: "the sentry", How: "signal: killed"}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer e.Close() //nolint:errcheck // nothing was started
			_, err = e.Run(t.Context(), &sandbox.Step{Args: []string{"true"}})
			var memory *sandbox.MemoryError
			if tries != tt.tries || errors.As(err, &memory) != (tt.kills > 0) {
				t.Errorf("%d tries, %v", tries, err)
			}
		})
	}
}

// TestWantOfMemoryAfterTheStep: a sandbox that was killed while what a step changed was read "ended: signal: killed".
func TestWantOfMemoryAfterTheStep(t *testing.T) {
	t.Parallel()
	crash := &child.CrashError{Name: "the sentry", How: "signal: killed"}
	for name, tt := range map[string]struct {
		kills int64
		err   error
		want  bool
	}{
		"no memory": {3, crash, true}, "crash": {2, crash, false}, "another error, and another's kill": {3, context.Canceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &handle{killed: 2, oomKills: func() int64 { return tt.kills }}
			var memory *sandbox.MemoryError
			got := h.reason(tt.err)
			if errors.As(got, &memory) != tt.want || !tt.want && !errors.Is(got, tt.err) {
				t.Errorf("got %v", got)
			}
		})
	}
}
