package filecopy_test

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/filecopy"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// closed is a tree in which some directories cannot be listed.
type closed struct {
	tree.Tree
	dirs string
}

func (c closed) ReadDir(p string) ([]string, error) {
	for d := range strings.FieldsSeq(c.dirs) {
		if d == p {
			return nil, &fs.PathError{Op: "readdir", Path: p, Err: fs.ErrPermission}
		}
	}
	return c.Tree.ReadDir(p)
}

const source = `
	. @3
	a/ 0700 1:2 @4
	a/b/ 02750 1:2 @5
	a/b/x 0600 1:2 @6 = x
	a/b/y @6 = y
	a/c/z @6 = z
	other/f @6 = f
	link -> a
`

func TestParentsAndExclude(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		below       string
		closed      string
		path        string
		part        *filecopy.Part
		exclude     string
		dest, chown string
		sparse      bool
		want        string
	}{{
		name: "only what is needed is read", closed: "other a/c", path: "/", part: &filecopy.Part{Pattern: "a/b/x", Required: true}, dest: "/d/",
		want: `d/ 0755 0:0 @3
			d/a/ 0700 1:2 @1000
			d/a/b/ 02750 1:2 @1000
			d/a/b/x 0600 1:2 @6 = x`,
	}, {
		name: "what is left out is not read", closed: "other a/b", path: "/", exclude: "other a/b link", dest: "/d/",
		want: `d/ 0755 0:0 @3
			d/a/ 0700 1:2 @4
			d/a/c/ 0755 0:0 @0
			d/a/c/z 0644 0:0 @6 = z`,
	}, {
		name: "a wildcard in what cannot be read", closed: "a/b", path: "/a/b/*", dest: "/d/",
		want: "error: COPY: read /a/b of the test: readdir a/b: permission denied\n" +
			"hint: Make it readable for the user that runs the build, or leave it out with .dockerignore.",
	}, {
		name: "what may come back is read", closed: "a/b", path: "/", exclude: "* !a/b/x", dest: "/d/",
		want: "error: COPY: read /a/b of the test: readdir a/b: permission denied\n" +
			"hint: Make it readable for the user that runs the build, or leave it out with .dockerignore.",
	}, {
		name: "directories that are there get the mode", below: "d/a/ 0777 8:9 @9 \n d/a/old @9 = o", path: "/",
		part: &filecopy.Part{Pattern: "a/c/z"}, dest: "/d/",
		want: `d/ 0755 0:0 @3
			d/a/ 0700 8:9 @1000
			d/a/c/ 0755 0:0 @1000
			d/a/c/z 0644 0:0 @6 = z`,
	}, {
		name: "directories that are there stay as they are if nothing comes", below: "d/a/ 0777 8:9 @9", path: "/",
		part: &filecopy.Part{Pattern: "a/*/none"}, dest: "/d",
		want: "",
	}, {
		name: "a link on the way", path: "/", part: &filecopy.Part{Pattern: "link/b/x", Required: true}, dest: "/",
		want: "error: COPY: \"link/b/x\" not found in the test\nhint: --parents follows no symbolic links: copy \"a/b/x\" instead.",
	}, {
		name: "left out and required", path: "/a", part: &filecopy.Part{Pattern: "b/x", Required: true}, exclude: "b", dest: "/",
		want: "error: COPY: \"a/b/x\" not found in the test\nhint: --exclude leaves out all of it.",
	}, {
		name: "missing and required", path: "/a", part: &filecopy.Part{Pattern: "b/xx", Required: true}, dest: "/",
		want: "error: COPY: \"a/b/xx\" not found in the test\nhint: Did you mean \"a/b/x\"?",
	}, {
		name: "pivots of a sparse tree hold something", path: "/*", part: &filecopy.Part{Pattern: "c/*"}, dest: "/d/", sparse: true,
		want: `d/ 0755 0:0 @4
			d/c/ 0755 0:0 @1000
			d/c/z 0644 0:0 @6 = z`,
	}, {
		name: "a bad pattern", path: "/a", part: &filecopy.Part{Pattern: "[a"}, dest: "/",
		want: `error: COPY --parents: bad pattern in ["[a"]: syntax error in pattern`,
	}, {
		name: "a bad pattern to leave out", path: "/a", exclude: "!", dest: "/",
		want: `error: COPY --exclude: bad pattern in ["!"]: illegal exclusion pattern: "!"`,
	}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := &filecopy.Request{
				From: closed{treetest.New(t, source), tt.closed}, FromName: "the test", Paths: []string{tt.path},
				Exclude: strings.Fields(tt.exclude), Dest: tt.dest, Chown: tt.chown, Sparse: tt.sparse,
			}
			if tt.part != nil {
				req.Parents = []filecopy.Part{*tt.part}
			}
			if tt.below != "" {
				req.Below = treetest.New(t, tt.below)
			}
			if diff := cmp.Diff(trim(tt.want), copied(t, req)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPatternsThatMatchNothingAreNamed(t *testing.T) {
	t.Parallel()
	c, err := filecopy.Copy(t.Context(), &filecopy.Request{
		From: treetest.New(t, source), FromName: "the test", Now: now(), Dest: "/d/",
		Paths:   []string{"/", "/a", "/a/b", "/no*"},
		Parents: []filecopy.Part{{Pattern: "*/none"}, {Pattern: "b/*"}, {Pattern: "?"}, {Pattern: "x"}},
		Exclude: []string{"y"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`COPY: no file matches "/*/none" in the test`, `COPY: no file matches "/no*/x" in the test`}
	if d := cmp.Diff(want, c.Warnings()); d != "" {
		t.Errorf("warnings (-want +got):\n%s", d)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
