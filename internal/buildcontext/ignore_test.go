package buildcontext_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/buildcontext"
	"hako/internal/diag"
)

func TestDockerignore(t *testing.T) {
	t.Parallel()
	files := "Dockerfile\n .dockerignore\n a.go\n b.txt\n d/a.go\n d/b.txt\n d/e/f/g.go\n d/e/h.txt\n x/y"
	tests := []struct{ name, ignore, want string }{
		{"name", "b.txt", "Dockerfile .dockerignore a.go d/ d/a.go d/b.txt d/e/ d/e/f/ d/e/f/g.go d/e/h.txt x/ x/y"},
		{"any depth", "**/*.go", "Dockerfile .dockerignore b.txt d/ d/b.txt d/e/ d/e/f/ d/e/h.txt x/ x/y"},
		{"directory", "d", "Dockerfile .dockerignore a.go b.txt x/ x/y"},
		{"leading slash, dot and trailing slash", "/d/\n./x/.", "Dockerfile .dockerignore a.go b.txt"},
		{"comment, blanks and byte order mark", "\ufeff# no\n\n  d  \r\n#x", "Dockerfile .dockerignore a.go b.txt x/ x/y"},
		{"everything but", "*\n!a.go", "a.go"},
		{"a child of what is left out", "*\n!d/e/f", "d/ d/e/ d/e/f/ d/e/f/g.go"},
		{"last match wins", "*.go\n!a.go\na.go", "Dockerfile .dockerignore b.txt d/ d/a.go d/b.txt d/e/ d/e/f/ d/e/f/g.go d/e/h.txt x/ x/y"},
		{"wildcard exceptions", "d\n!d/**/*.go", "Dockerfile .dockerignore a.go b.txt d/ d/a.go d/e/ d/e/f/ d/e/f/g.go x/ x/y"},
		{"files of the build themselves", "Dockerfile\n.dockerignore\nd\nx", "a.go b.txt"},
		{"exception for everything in a directory", "d\n!d/e/*", "Dockerfile .dockerignore a.go b.txt d/ d/e/ d/e/f/ d/e/f/g.go d/e/h.txt x/ x/y"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, files)
			must(t, os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(tt.ignore), 0o600))
			var got []string
			s := dump(t, open(t, buildcontext.Options{Source: dir}).Tree())
			for line := range strings.SplitSeq(strings.TrimSpace(s), "\n") {
				name, _, _ := strings.Cut(line, " ")
				got = append(got, name)
			}
			want := strings.Fields(tt.want)
			if diff := cmp.Diff(slices.Sorted(slices.Values(want)), slices.Sorted(slices.Values(got))); diff != "" {
				t.Errorf("paths (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDockerfileOwnIgnoreFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, own, want string }{
		{"takes precedence", "a", "b"},
		{"even if it is empty", "", "a b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, dir, "f/Dockerfile\n d/a\n d/b\n .dockerignore = d/b")
			own := ""
			if tt.own != "" {
				own = "d/" + tt.own
			}
			must(t, os.WriteFile(filepath.Join(dir, "f/Dockerfile.dockerignore"), []byte(own), 0o600))
			c := open(t, buildcontext.Options{Source: dir, Dockerfile: "f/Dockerfile"})
			names, err := c.Tree().ReadDir("d")
			must(t, err)
			if got := strings.Join(names, " "); got != tt.want || c.IgnoreName != "f/Dockerfile.dockerignore" {
				t.Errorf("got %q by %s, want %q", got, c.IgnoreName, tt.want)
			}
		})
	}
}

func TestBadPattern(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"[", "!", "a\n!b[", "[b-a]"} {
		dir := t.TempDir()
		write(t, dir, "Dockerfile")
		must(t, os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(bad), 0o600))
		_, err := buildcontext.Open(t.Context(), buildcontext.Options{Source: dir, Cwd: "/"})
		if err == nil || !strings.Contains(diag.Format(err), "read .dockerignore: pattern ") {
			t.Errorf("pattern %q: %v", bad, err)
		}
	}
}

func TestExcludedTellsWhy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile\n d/a\n d/b\n .dockerignore = *\\n!d/b\\nd/a")
	tr, ok := open(t, buildcontext.Options{Source: dir}).Tree().(interface {
		Excluded(path string) (pattern, file string, ok bool)
	})
	if !ok {
		t.Fatal("the tree does not tell")
	}
	type answer struct {
		pattern, file string
		ok            bool
	}
	for p, want := range map[string]answer{
		"d/a":  {"d/a", ".dockerignore", true},
		"d/b":  {"", ".dockerignore", false},
		"d":    {"*", ".dockerignore", true},
		"none": {},
	} {
		var got answer
		if got.pattern, got.file, got.ok = tr.Excluded(p); got != want {
			t.Errorf("Excluded(%s) = %v, want %v", p, got, want)
		}
	}
}
