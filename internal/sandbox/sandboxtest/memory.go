package sandboxtest

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"hako/internal/sandbox/remote"
)

// process is an engine whose steps run in a child process.
type process interface {
	Child() *remote.Process
}

func memoryCases() cases {
	return cases{
		// The kernel could choose the builder, and a pod was dead without a word about which step wanted how much.
		"the sandbox dies of want of memory, not the builder": func(t *testing.T, b *bed) {
			e, ok := b.engine.(process)
			if !ok {
				t.Fatalf("%T has no child", b.engine)
			}
			b.ok(t, "exit", "0")
			got, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", e.Child().Pid()))
			if err != nil {
				t.Fatal(err)
			}
			if s := strings.TrimSpace(string(got)); s != "1000" {
				t.Errorf("oom_score_adj of the child is %s", s)
			}
		},
	}
}
