package conformance

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplitWords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{" a\tb  c ", []string{"a", "b", "c"}},
		{`"a b" c"\n"d`, []string{"a b", "c\nd"}},
		{"config `{\"A\": [1]}`", []string{"config", `{"A": [1]}`}},
		{`x=""`, []string{"x="}},
	} {
		got, err := splitWords(tc.in)
		if err != nil {
			t.Errorf("%q: %v", tc.in, err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%q:\n%s", tc.in, diff)
		}
	}
	if w, err := splitWords(`"open`); err == nil {
		t.Errorf("an open quote gave %q", w)
	}
}

// stack applies layers, each a list of entries, and returns the tree.
func stack(t *testing.T, layers ...string) (*merged, error) {
	t.Helper()
	m := newMerged()
	for _, text := range layers {
		lines, err := parseLines(text)
		if err != nil {
			t.Fatal(err)
		}
		var buf bytes.Buffer
		if err := writeEntries(&buf, lines); err != nil {
			t.Fatal(err)
		}
		if err := m.applyTar(tar.NewReader(&buf)); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func TestMerged(t *testing.T) {
	t.Parallel()
	base := `
dir d 0750 1:2
file d/a 0644 0:0 a
link d/b d/a
file d/sub/x 0600 0:0 x
`
	for _, tc := range []struct {
		name, top string
		want      []string
	}{
		{"nothing", "", nil},
		{"metadata of a directory", "dir d 0700 1:2", []string{"/d: dir 0700 1:2 2001-02-03T04:05:06Z"}},
		{"whiteout", "whiteout d/sub", []string{"/d/sub: gone", "/d/sub/x: gone"}},
		{"opaque", "opaque d\nfile d/n 0644 0:0 n", []string{
			"/d/a: gone", "/d/b: gone", "/d/n: file 0644 0:0 'n' 2001-02-03T04:05:06Z", "/d/sub: gone", "/d/sub/x: gone",
		}},
		{"one of two names", "file d/a 0644 0:0 new", []string{
			"/d/a: file 0644 0:0 'new' 2001-02-03T04:05:06Z", "/d/b: file 0644 0:0 'a' 2001-02-03T04:05:06Z",
		}},
		{"file over directory", "file d/sub 0644 0:0 f mtime=2030-01-01T00:00:00Z", []string{
			"/d/sub: file 0644 0:0 'f' now", "/d/sub/x: gone",
		}},
		{"attributes", `dir d 0750 1:2 xattr.security.x="\x00" xattr.user.y=lost`, []string{
			`/d: dir 0750 1:2 2001-02-03T04:05:06Z security.x='\x00'`,
		}},
	} {
		below, err := stack(t, base)
		if err != nil {
			t.Fatal(err)
		}
		top, err := stack(t, base, tc.top)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if diff := cmp.Diff(tc.want, difference(below.describe(nil), top.describe(nil))); diff != "" {
			t.Errorf("%s:\n%s", tc.name, diff)
		}
	}
}

func TestMergedRefuses(t *testing.T) {
	t.Parallel()
	for name, top := range map[string]string{
		"a path twice":            "file a 0644 0:0 1\nfile ./a 0644 0:0 2",
		"a link to nothing":       "link a b",
		"a whiteout of nothing":   "whiteout a",
		"a whiteout of own files": "whiteout a/b",
	} {
		if _, err := stack(t, top); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestWriteContext(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "c.txtar")
	text := `# a comment
args --target=t --build-arg=A=b --file=f/D
fails 3 "two words"
file "od d" x
symlink a l
link a h
chmod 4711 a
crlf b
mtime a 2020-01-02T03:04:05Z
-- a --
a
-- b --
1
2
-- image:i --
layer
`
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := LoadCase(path, map[string]ImageSource{"shared": "s"})
	if err != nil {
		t.Fatal(err)
	}
	want := Args{Dockerfile: "f/D", Target: "t", Platform: "linux/amd64", BuildArgs: []string{"A=b"}}
	if diff := cmp.Diff(want, c.Args); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(&Failure{3, "two words"}, c.Failure); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]ImageSource{"shared": "s", "i": "layer\n"}, c.Images); diff != "" {
		t.Error(diff)
	}
	dir := t.TempDir()
	if err := c.WriteContext(dir); err != nil {
		t.Fatal(err)
	}
	var got []string
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		i, err := d.Info()
		got = append(got, d.Name()+" "+i.Mode().String()+" "+i.ModTime().UTC().Format("2006"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	list := []string{
		"a urwx--x--x 2020", "b -rw-r--r-- 2001", "h urwx--x--x 2020", "l Lrwxrwxrwx 2001", "od d -rw-r--r-- 2001",
	}
	if diff := cmp.Diff(list, got); diff != "" {
		t.Error(diff)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "b")); err != nil || string(b) != "1\r\n2\r\n" {
		t.Errorf("b is %q, %v", b, err)
	}
}
