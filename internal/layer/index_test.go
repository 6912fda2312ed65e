package layer_test

import (
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/tree"
)

func indexOf(t testing.TB, l list) *layer.Index {
	t.Helper()
	w, err := layer.Write(t.Context(), l, io.Discard, layer.WriteOptions{Level: 1})
	if err != nil {
		t.Fatal(err)
	}
	return w.Image.Index
}

func TestIndexIsSearchedInTreeOrder(t *testing.T) {
	t.Parallel()
	ix := indexOf(t, list{dir("a"), dir("a/b"), reg("a/b/c", "1"), reg("a/b.c", "2"), hard("a/z", "a/b.c"), reg("a-", ""), dir("b")})
	for i := range ix.Entries {
		if got := ix.Find(ix.Entries[i].Path); got != &ix.Entries[i] {
			t.Errorf("%s is found as %v", ix.Entries[i].Path, got)
		}
	}
	for _, p := range []string{"", "a/", "a/b/", "c", "a/b/c/d", "a/a"} {
		if got := ix.Find(p); got != nil {
			t.Errorf("%q is found as %v", p, got)
		}
	}
	for path, want := range map[string][]string{
		".": {".", "a", "a/b", "a/b/c", "a/b.c", "a/z", "a-", "b"}, "a": {"a", "a/b", "a/b/c", "a/b.c", "a/z"},
		"a/b": {"a/b", "a/b/c"}, "a/b/c": {"a/b/c"}, "b": {"b"}, "c": nil, "A": nil,
	} {
		var got []string
		for _, e := range ix.Below(path) {
			got = append(got, e.Path)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("below %s:\n%s", path, d)
		}
	}
	if got := ix.Target(ix.Find("a/z")); got != ix.Find("a/b.c") {
		t.Errorf("target is %v", got)
	}
}

// The digest is part of cache keys: if this test has to change, every cache is lost.
func TestIndexDigestGolden(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]digest.Digest{
		".":       "sha256:b2eea0c106795fa4eea1712ade3aabb8d8647ec3f134b4103962febc771e63ed",
		"etc":     "sha256:b9912303d95775d3e1eb17bf3448dd2ad44cfa6888fc1375679c11dfd69abc27",
		"nothing": "sha256:00d748619a3abb17ce56de4169e9432d3c596758b68c58432a35a79e054f5140",
	} {
		if got := digestOf(t, sample(), path); got != want {
			t.Errorf("%s: %s", path, got)
		}
	}
}

func TestIndexDigestSeesAllButTimes(t *testing.T) {
	t.Parallel()
	base := list{dir("d"), reg("d/f", "data"), hard("d/g", "d/f"), sym("d/l", "f"), gone("d/w")}
	want := digestOf(t, base, ".")
	edit := func(i int, fn func(*tree.Entry)) list {
		l := append(list(nil), base...)
		l[i] = l[i].with(fn)
		return l
	}
	for name, l := range map[string]list{
		"time":          edit(1, later),
		"time of a dir": edit(0, later),
	} {
		if digestOf(t, l, ".") != want {
			t.Errorf("%s matters", name)
		}
	}
	content := append(list(nil), base...)
	content[1] = reg("d/f", "Data")
	seen := map[digest.Digest]string{want: "base"}
	for name, l := range map[string]list{
		"mode": edit(0, mode(0o700)), "owner": edit(1, func(e *tree.Entry) { e.UID = 1 }), "group": edit(1, func(e *tree.Entry) { e.GID = 1 }),
		"attribute": edit(1, xattr("user.a", "b")), "attribute name": edit(1, xattr("user.ab", "")), "target": edit(3, func(e *tree.Entry) { e.Linkname = "g" }),
		"content": content, "fewer": base[:4], "a copy instead of a link": {dir("d"), reg("d/f", "data"), reg("d/g", "data"), sym("d/l", "f"), gone("d/w")},
		"empty": nil, "only a directory": base[:1],
	} {
		got := digestOf(t, l, ".")
		if other, ok := seen[got]; ok {
			t.Errorf("%s and %s are the same", name, other)
		}
		seen[got] = name
	}
	// A part is known by its own digest, whatever is beside it.
	more := append(list{reg("a", "x")}, base...)
	if digestOf(t, more, "d") != digestOf(t, base, "d") {
		t.Error("what lies beside matters")
	}
}

func digestOf(t *testing.T, l list, path string) digest.Digest {
	t.Helper()
	w, err := layer.Write(t.Context(), l, io.Discard, layer.WriteOptions{Image: tempFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.Image.Digest(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
