package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	engine "hako/internal/sandbox/choice"
	"hako/test/conformance"
)

func TestMain(m *testing.M) {
	if engine.IsChild(os.Args) {
		os.Exit(engine.ChildMain())
	}
	os.Exit(m.Run())
}

func TestAgainstBuildKit(t *testing.T) {
	t.Parallel()
	addr := os.Getenv("BUILDKIT_HOST")
	if addr == "" {
		t.Skip("needs BuildKit at $BUILDKIT_HOST, with its mirror of docker.io at 127.0.0.1:5055")
	}
	var report strings.Builder
	c := &campaign{seed: 1, n: 60, parallel: 2, shrink: true, report: &report}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var err error
	c.bench, err = newBench(ctx, daemon{addr: addr, buildctl: "buildctl", registry: "127.0.0.1:5055"}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer c.bench.Close() //nolint:errcheck // nothing is written to it
	if err := c.run(ctx); err != nil {
		t.Fatal(err)
	}
	if c.found > 0 {
		t.Error(report.String())
	}
}

func TestGenerateIsDeterministic(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for n := range uint64(200) {
		text := generate(7, n).text()
		if diff := cmp.Diff(text, generate(7, n).text()); diff != "" {
			t.Errorf("case %d:\n%s", n, diff)
		}
		seen[text] = true
	}
	if len(seen) < 190 {
		t.Errorf("200 numbers make only %d cases", len(seen))
	}
}

// TestGenerateMakesCases checks that what is generated can be read and written out as a case.
func TestGenerateMakesCases(t *testing.T) {
	t.Parallel()
	bad := 0
	for n := range uint64(300) {
		r := generate(8, n)
		dir := t.TempDir()
		file := filepath.Join(dir, "case.txtar")
		if err := os.WriteFile(file, []byte(r.text()), 0o644); err != nil {
			t.Fatal(err)
		}
		c, err := conformance.LoadCase(file, nil)
		if err != nil {
			t.Fatalf("case %d: %v\n%s", n, err, r.text())
		}
		if err := c.WriteContext(dir); err != nil || !r.sound() {
			bad++
		}
	}
	if bad > 30 {
		t.Errorf("%d of 300 recipes make no case", bad)
	}
}

func testRecipe() recipe {
	var w writer
	w.line("", "mkdir d")
	w.file("f", "x\n")
	w.line(dockerfile, "FROM %s", imageName)
	w.heredoc("RUN <<EOF", []string{"a", "b"})
	w.line(dockerfile, "COPY f /")
	w.line(imageSection, "from base")
	return recipe{w.units}
}

func TestRecipeText(t *testing.T) {
	t.Parallel()
	const name = "random" + "822fcd741b21"
	text := testRecipe().text()
	i := strings.Index(text, "-- image:") + len("-- image:")
	image := text[i : i+len(name)]
	want := "# Found by test/differential.\nmkdir d\n-- f --\nx\n-- Dockerfile --\nFROM " + image +
		"\nRUN <<EOF\na\nb\nEOF\nCOPY f /\n-- image:" + image + " --\nfrom base\n"
	if diff := cmp.Diff(want, text); diff != "" {
		t.Error(diff)
	}
}

func TestWithoutLine(t *testing.T) {
	t.Parallel()
	for line, want := range map[int]string{
		1: "RUN <<EOF\na\nb\nEOF\nCOPY f /\n",
		2: "FROM @IMAGE@\nCOPY f /\n",
		4: "FROM @IMAGE@\nCOPY f /\n",
		6: "FROM @IMAGE@\nRUN <<EOF\na\nb\nEOF\n",
	} {
		r, ok := testRecipe().withoutLine(line)
		_, bodies := r.render()
		if diff := cmp.Diff(want, bodies[dockerfile]); !ok || diff != "" {
			t.Errorf("line %d: %v\n%s", line, ok, diff)
		}
	}
	if _, ok := testRecipe().withoutLine(7); ok {
		t.Error("there is no line 7")
	}
}

func TestSound(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"from base\nlayer\ndir w\nfile w/a":                                   true,
		"layer\ndir w\nfile w/a":                                              false,
		"from base\nlayer\nfile w/a\ndir w":                                   false,
		"from base\nlayer\ndir w\nlayer\nfile w/a":                            false,
		"from base\nlayer\ndir w\ndir w":                                      false,
		"from base\nlayer\ndir w\nfile w/a\nlayer\ndir w\nwhiteout w/a":       true,
		"from base\nlayer\ndir w\nwhiteout w/a":                               false,
		"from base\nlayer\ndir w\ndir w/a\nlayer\ndir w\ndir w/a/b":           false,
		"from base\nlayer\ndir w\nfile w/a\nfile w/a/b":                       false,
		"from base\nlayer\ndir w\ndir w/a\nfile w/a/b\nfile w/a":              false,
		"from base\nlayer\ndir w\nfile w/a\nlayer\ndir w\nopaque w\nfile w/a": true,
	} {
		var w writer
		for l := range strings.SplitSeq(text, "\n") {
			w.line(imageSection, "%s", l)
		}
		if got := (recipe{w.units}).sound(); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestDifference(t *testing.T) {
	t.Parallel()
	want := &conformance.Expectation{Layers: 1, Config: map[string]any{"os": "linux"}, Tree: []string{"/a: dir 0755 0:0 now", "/b: gone"}}
	got := &conformance.Expectation{Layers: 1, Config: map[string]any{"os": "linux"}, Tree: []string{"/a: dir 0700 0:0 now", "/b: gone"}}
	text, err := difference(want, got, true)
	if err != nil {
		t.Fatal(err)
	}
	const diff = "differs in tree (dir, word 1): BuildKit (-), hako (+)\n- /a: dir 0755 0:0 now\n+ /a: dir 0700 0:0 now"
	if d := cmp.Diff(diff, text); d != "" {
		t.Error(d)
	}
	if text, err := difference(want, want, true); err != nil || text != "" {
		t.Errorf("equal results: %q, %v", text, err)
	}
}
