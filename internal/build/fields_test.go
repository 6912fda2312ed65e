package build

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"hako/internal/buildcontext"
	"hako/internal/contextsource"
	"hako/internal/download"
	"hako/internal/filecopy"
	"hako/internal/gitlfs"
	"hako/internal/gittree"
	"hako/internal/gitwire"
	"hako/internal/imagesource"
	"hako/internal/output"
	"hako/internal/plan"
	"hako/internal/registry"
	"hako/internal/sandbox"
	"hako/internal/workdir"
)

// names are those after a dot, and those before a colon in a composite literal, in the Go files of directories.
func names(t *testing.T, dirs ...string) (read, set map[string]bool) {
	t.Helper()
	read, set = map[string]bool{}, map[string]bool{}
	noTests := func(fi fs.FileInfo) bool { return !strings.HasSuffix(fi.Name(), "_test.go") }
	for _, dir := range dirs {
		//lint:ignore SA1019 no build tags here
		pkgs, err := parser.ParseDir(token.NewFileSet(), dir, noTests, parser.SkipObjectResolution) //nolint:staticcheck // likewise
		if err != nil {
			t.Fatal(err)
		}
		for _, pkg := range pkgs {
			ast.Inspect(pkg, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr:
					read[n.Sel.Name] = true
				case *ast.KeyValueExpr:
					if id, ok := n.Key.(*ast.Ident); ok {
						set[id.Name] = true
					}
				}
				return true
			})
		}
	}
	return read, set
}

// waiting are the fields that nobody uses yet, and why nothing is lost by that.
func waiting() map[string]string {
	return map[string]string{
		"output.Options.RetryDelay": "for tests; the default holds", "imagesource.Options.RetryDelay": "for tests; the default holds",
		"registry.Options.RetryDelay": "for tests; the default holds", "registry.Options.IdleTimeout": "for tests; the default holds",
		"registry.Options.Transfers":   "no flag; the default holds",
		"filecopy.Request.MaxUnpacked": "no flag; the default holds",
		"sandbox.Step.Stdin":           "a step reads /dev/null",
	}
}

func missing(names map[string]bool, types ...reflect.Type) []string {
	var out []string
	for _, typ := range types {
		for f := range typ.Fields() {
			name := typ.String() + "." + f.Name
			if _, ok := waiting()[name]; names[f.Name] == ok { // either nobody uses it, or it waits no longer
				out = append(out, name)
			}
		}
	}
	return out
}

// TestNothingOfARequestIsIgnored fails when a field of a request, or of a step of the plan, is read by nobody.
func TestNothingOfARequestIsIgnored(t *testing.T) {
	t.Parallel()
	read, _ := names(t, ".")
	for _, f := range missing(read,
		reflect.TypeFor[Request](), reflect.TypeFor[Attestations](), reflect.TypeFor[Signing](), reflect.TypeFor[Outputs](), reflect.TypeFor[Registry](), reflect.TypeFor[Env](), reflect.TypeFor[KeyValue](),
		reflect.TypeFor[plan.HTTPSource](), reflect.TypeFor[plan.GitSource](),
	) {
		t.Errorf("%s is read by nobody, or still listed as waiting", f)
	}
	read, _ = names(t, "../contextsource")
	for _, f := range missing(read, reflect.TypeFor[contextsource.Git]()) {
		t.Errorf("%s is read by nobody, or still listed as waiting", f)
	}
	read, _ = names(t, "../solve")
	for _, f := range missing(read,
		reflect.TypeFor[plan.Run](), reflect.TypeFor[plan.Copy](), reflect.TypeFor[plan.Mkdir](), reflect.TypeFor[plan.From](), reflect.TypeFor[plan.Part](),
		reflect.TypeFor[plan.HostEntry](), reflect.TypeFor[plan.InlineFile](), reflect.TypeFor[plan.Base](),
	) {
		t.Errorf("%s is read by nobody, or still listed as waiting", f)
	}
}

// TestEveryOptionIsSet fails when a part has an option that nobody can reach.
func TestEveryOptionIsSet(t *testing.T) {
	t.Parallel()
	_, set := names(t, "../contextsource", "../gitlfs", "../gittree")
	for _, f := range missing(set, reflect.TypeFor[gittree.Spec](), reflect.TypeFor[download.Request](), reflect.TypeFor[gitlfs.Options]()) {
		t.Errorf("%s is set by nobody, or still listed as waiting", f)
	}
	_, set = names(t, ".", "../solve")
	for _, f := range missing(set,
		reflect.TypeFor[output.Options](), reflect.TypeFor[registry.Options](), reflect.TypeFor[imagesource.Options](),
		reflect.TypeFor[workdir.Options](), reflect.TypeFor[filecopy.Request](), reflect.TypeFor[filecopy.Part](), reflect.TypeFor[plan.Options](), reflect.TypeFor[sandbox.Step](),
		reflect.TypeFor[filecopy.Source](), reflect.TypeFor[gitwire.SSH](),
		reflect.TypeFor[contextsource.Options](), reflect.TypeFor[contextsource.Request](), reflect.TypeFor[buildcontext.Options](),
	) {
		t.Errorf("%s is set by nobody, or still listed as waiting", f)
	}
}
