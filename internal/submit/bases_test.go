package submit

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBases(t *testing.T) {
	t.Parallel()
	text := "ARG V=1\nFROM --platform=$BUILDPLATFORM r.example/go:1 AS build\n  from r.example/base@sha256:1\nFROM scratch\nFROM r.example/app:$V\nRUN FROM x\nCOPY --from=r.example/other / /\n"
	if diff := cmp.Diff([]string{"r.example/go:1", "r.example/base@sha256:1"}, Bases([]byte(text))); diff != "" {
		t.Error(diff)
	}
}
