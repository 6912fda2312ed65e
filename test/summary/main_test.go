package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, in, want string
		fails          bool
	}{
		{
			name: "all pass",
			in: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"A","Output":"noise\n"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`,
			want: "ok  \tp\t0.1s\n\n1 passed, 0 failed, 0 skipped\n",
		},
		{
			name: "failure and skip",
			in: `{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:1: broken\n"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"B","Output":"=== RUN   B\n"}
{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:12: needs root: to mount\n"}
{"Action":"output","Package":"p","Test":"B","Output":"--- SKIP: B (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"B"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`,
			want:  "    a_test.go:1: broken\nFAIL\tp\t0.1s\n\nSkipped:\n  p B: needs root: to mount\n\nFailed:\n  p A\n\n0 passed, 1 failed, 1 skipped\n",
			fails: true,
		},
		{
			name: "does not build",
			in: `{"Action":"build-output","ImportPath":"p","Output":"p.go:1: undefined: x\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}
{"Action":"fail","Package":"p","FailedBuild":"p"}
`,
			want:  "p.go:1: undefined: x\nFAIL\tp [build failed]\n\nFailed:\n  p\n\n0 passed, 1 failed, 0 skipped\n",
			fails: true,
		},
		{name: "nothing", in: "make: no rule\n", want: "make: no rule\n\n0 passed, 0 failed, 0 skipped\n", fails: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			err := run(strings.NewReader(tt.in), &out, nil)
			if (err != nil) != tt.fails {
				t.Errorf("error %v, want one: %v", err, tt.fails)
			}
			if d := cmp.Diff(tt.want, out.String()); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestSkipsMustBeAllowed(t *testing.T) {
	t.Parallel()
	const in = `{"Action":"pass","Package":"p","Test":"A"}
{"Action":"output","Package":"p","Test":"B","Output":"    b_test.go:12: needs a kernel with x\n"}
{"Action":"skip","Package":"p","Test":"B"}
`
	file := filepath.Join(t.TempDir(), "skips")
	for _, tt := range []struct {
		skips string
		fails bool
	}{{"# nothing\n", true}, {"\np B: needs a kernel\n", false}, {"q B", true}} {
		if err := os.WriteFile(file, []byte(tt.skips), 0o600); err != nil {
			t.Fatal(err)
		}
		allowed, err := readSkips(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := run(strings.NewReader(in), io.Discard, allowed); (err != nil) != tt.fails {
			t.Errorf("with %q: %v, want an error: %v", tt.skips, err, tt.fails)
		}
	}
}
