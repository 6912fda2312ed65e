package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

const module = "hako"

// source is one parsed Go file.
type source struct {
	// pkg is the directory, relative to the root: "internal/cli". name is the path of the file.
	pkg, name string
	test      bool
	lines     int
	file      *ast.File
	fset      *token.FileSet
}

// root is the top of the repository.
func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// read is a file of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root(t), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// sources parses every Go file of the repository but what lies in testdata, out and hidden directories.
func sources(t *testing.T) []source {
	t.Helper()
	top := root(t)
	fset := token.NewFileSet()
	var all []source
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() && rel != "." && (base == "testdata" || rel == "out" || strings.HasPrefix(base, ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(base, ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, rel, text, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{
			pkg: path.Dir(filepath.ToSlash(rel)), name: filepath.ToSlash(rel), test: strings.HasSuffix(base, "_test.go"),
			lines: strings.Count(string(text), "\n"), file: f, fset: fset,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatal("no Go files found")
	}
	return all
}

// imports are the import paths of s.
func (s source) imports() []string {
	var out []string
	for _, i := range s.file.Imports {
		out = append(out, strings.Trim(i.Path.Value, `"`))
	}
	return out
}

// at is "file:line" of a node.
func (s source) at(n ast.Node) string { return s.fset.Position(n.Pos()).String() }

// length is the number of lines of a node.
func (s source) length(n ast.Node) int {
	return s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
}

// layers are the packages of docs/architecture.md's table, highest first. Of several in one row, the left one is higher.
func layers(t *testing.T) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(read(t, "docs/architecture.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 3 || !strings.Contains(cells[1], "`") {
			continue
		}
		for i, word := range strings.Split(cells[1], "`") {
			if i%2 == 1 {
				out = append(out, word)
			}
		}
	}
	if len(out) < 10 {
		t.Fatalf("docs/architecture.md lists %d packages, that cannot be", len(out))
	}
	return out
}
