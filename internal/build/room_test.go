package build_test

import (
	"errors"
	"strings"
	"testing"

	"hako/internal/diag"
	"hako/internal/event"
)

// TestWorkDirectoryIsBounded fails a build that takes too much of the disk at the step that does, and no other.
func TestWorkDirectoryIsBounded(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		limit int64
		fails bool
	}{"too little": {1 << 20, true}, "enough": {64 << 20, false}, "no limit": {0, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "FROM scratch\nCOPY small /\nCOPY large /\n")
			w.write(t, "small", "x")
			w.write(t, "large", strings.Repeat("x", 3<<20))
			req := w.request()
			req.Compression = "uncompressed"
			req.WorkDirBytes = tt.limit
			err := w.build(t.Context(), req, event.Discard{})
			var at *diag.Error
			if !tt.fails && err == nil {
				return
			}
			if !tt.fails || !errors.As(err, &at) || at.Span.Start != 3 || !strings.Contains(at.What, "--work-dir-size") {
				t.Errorf("got %v", err)
			}
			w.empty(t)
		})
	}
}
