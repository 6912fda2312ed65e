package archtest

import (
	"go/ast"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	maxFileLines     = 600
	maxFunctionLines = 60
	maxParameters    = 4
	maxReadmeLines   = 200
)

// TestImportsGoDown holds packages to the order of docs/architecture.md. What is not in the table (programs, test
// helpers) may import anything, and is imported by nothing in the table but its tests.
func TestImportsGoDown(t *testing.T) {
	t.Parallel()
	table := layers(t)
	for _, s := range sources(t) {
		from := slices.Index(table, s.pkg)
		if from < 0 || s.test {
			continue
		}
		for _, imported := range s.imports() {
			pkg, ours := strings.CutPrefix(imported, module+"/")
			if !ours {
				continue
			}
			switch to := slices.Index(table, pkg); {
			case to < 0:
				t.Errorf("%s imports %s, which docs/architecture.md does not list", s.name, pkg)
			case to <= from:
				t.Errorf("%s imports %s, which is not below %s", s.name, pkg, s.pkg)
			}
		}
	}
}

// TestTableIsComplete finds packages of the product that the table forgot, and rows without a package.
func TestTableIsComplete(t *testing.T) {
	t.Parallel()
	table := layers(t)
	for _, pkg := range table {
		if _, err := os.Stat(filepath.Join(root(t), pkg)); err != nil {
			t.Errorf("docs/architecture.md lists %s: %v", pkg, err)
		}
	}
	imported := map[string]string{}
	for _, s := range sources(t) {
		if s.test || !slices.Contains(table, s.pkg) {
			continue
		}
		for _, i := range s.imports() {
			imported[i] = s.name
		}
	}
	for i, by := range imported {
		if pkg, ours := strings.CutPrefix(i, module+"/"); ours && !slices.Contains(table, pkg) {
			t.Errorf("%s, imported by %s, is missing in docs/architecture.md", pkg, by)
		}
	}
}

func TestNoPackageState(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		for _, d := range s.file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.Name == "init" {
					t.Errorf("%s: init is not allowed", s.at(d))
				}
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if v, ok := spec.(*ast.ValueSpec); ok && d.Tok.String() == "var" && !allowedVar(d, v) {
						t.Errorf("%s: package variable %s", s.at(v), v.Names[0].Name)
					}
				}
			}
		}
	}
}

// allowedVar says whether a package variable is a guard, an error sentinel or embedded.
func allowedVar(d *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{d.Doc, v.Doc} {
		if doc != nil && strings.Contains(doc.List[len(doc.List)-1].Text, "//go:embed") {
			return true
		}
	}
	for i, n := range v.Names {
		if n.Name == "_" {
			continue
		}
		if !strings.HasPrefix(n.Name, "err") && !strings.HasPrefix(n.Name, "Err") || i >= len(v.Values) {
			return false
		}
		if _, call := v.Values[i].(*ast.CallExpr); !call {
			return false
		}
	}
	return true
}

// TestSizes leaves out tests and the suites of cases that several packages share ("sandboxtest").
func TestSizes(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t) {
		if s.test || strings.HasSuffix(s.pkg, "test") {
			continue
		}
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, more than %d", s.name, s.lines, maxFileLines)
		}
		for _, d := range s.file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok {
				checkFunction(t, s, f)
			}
		}
	}
}

func checkFunction(t *testing.T, s source, f *ast.FuncDecl) {
	t.Helper()
	if n := s.length(f); n > maxFunctionLines && !excused(s, f, "funlen") {
		t.Errorf("%s: %s has %d lines, more than %d", s.at(f), f.Name.Name, n, maxFunctionLines)
	}
	params, bools := 0, 0
	for _, p := range f.Type.Params.List {
		n := max(1, len(p.Names))
		params += n
		if id, ok := p.Type.(*ast.Ident); ok && id.Name == "bool" {
			bools += n
		}
		if sel, ok := p.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Context" {
			params-- // ctx comes for free
		}
	}
	if params > maxParameters && !excused(s, f, "params") {
		t.Errorf("%s: %s has %d parameters, more than %d", s.at(f), f.Name.Name, params, maxParameters)
	}
	if bools > 1 && !excused(s, f, "params") {
		t.Errorf("%s: %s has %d bools; use an options struct or a type", s.at(f), f.Name.Name, bools)
	}
}

// excused says whether a "//nolint:name // reason" stands at the function's head.
func excused(s source, f *ast.FuncDecl, name string) bool {
	line := s.fset.Position(f.Pos()).Line
	return slices.ContainsFunc(s.file.Comments, func(g *ast.CommentGroup) bool {
		return slices.ContainsFunc(g.List, func(c *ast.Comment) bool {
			at := s.fset.Position(c.Pos()).Line
			rules, reason, _ := strings.Cut(strings.TrimPrefix(c.Text, "//nolint:"), " // ")
			return (at == line || at == line-1) && strings.HasPrefix(c.Text, "//nolint:") && strings.Contains(rules, name) && reason != ""
		})
	})
}

func TestEveryPackageHasADoc(t *testing.T) {
	t.Parallel()
	docs := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		docs[s.pkg] = docs[s.pkg] || s.file.Doc != nil && (strings.HasPrefix(s.file.Doc.Text(), "Package "+s.file.Name.Name+" ") ||
			s.file.Name.Name == "main" && strings.HasPrefix(s.file.Doc.Text(), "Command "))
	}
	for pkg, ok := range docs {
		if !ok {
			t.Errorf("%s has no package comment", pkg)
		}
	}
}

func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	if n := strings.Count(read(t, "README.md"), "\n"); n > maxReadmeLines {
		t.Errorf("README.md has %d lines, more than %d", n, maxReadmeLines)
	}
}
