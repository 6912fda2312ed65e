package submit

import (
	"fmt"
	"sync"
	"testing"

	"hako/internal/build"
)

// TestToldOnce has warnings come from the goroutines that read logs, too.
func TestToldOnce(t *testing.T) {
	t.Parallel()
	var got events
	f := &follower{submitted: &submitted{env: Env{Build: build.Env{Events: &got}}}}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for i := range 100 {
				f.once(fmt.Sprint(i))
			}
		})
	}
	all.Wait()
	if len(got.list) != 100 {
		t.Errorf("%d warnings, want 100", len(got.list))
	}
}
