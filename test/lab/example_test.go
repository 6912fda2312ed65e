package lab_test

import (
	"strings"
	"testing"

	"hako/test/lab"
)

// TestReadExampleKeepsOrder reads a file whose jobs are a mapping: their order is the file's, whatever Go's maps do.
func TestReadExampleKeepsOrder(t *testing.T) {
	t.Parallel()
	for range 50 {
		steps, err := lab.ReadExample("ci/gitlab-ci.yml")
		if err != nil {
			t.Fatal(err)
		}
		if len(steps) != 2 || !strings.Contains(strings.Join(steps[0].Script, " "), "CI_COMMIT_TAG") {
			t.Fatalf("%d steps; the first is %v, want the job for tags", len(steps), steps[0].Script)
		}
	}
}
