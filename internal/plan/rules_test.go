package plan_test

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/plan"
)

// TestRulesAreBuildKits fails when BuildKit has a rule that Rules does not list.
func TestRulesAreBuildKits(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	pkg, err := build.Import("github.com/moby/buildkit/frontend/dockerfile/linter", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkg.Dir, "ruleset.go"), nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			want = append(want, v.Names[0].Name)
		}
		return true
	})
	for _, r := range plan.Rules() {
		got = append(got, "Rule"+r.Name)
		if r.Description == "" || (r.URL == "") != (r.Name == "InvalidBaseImagePlatform") {
			t.Errorf("%+v", r)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-BuildKit +Rules:\n%s", diff)
	}
}
