package layer_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/layer"
	"hako/internal/tree"
)

func opaque(e *tree.Entry) { e.Opaque = true }

func later(e *tree.Entry) { e.ModTime = at(2000) }

func mode(m uint32) func(*tree.Entry) { return func(e *tree.Entry) { e.Mode = m } }

func xattr(name, value string) func(*tree.Entry) {
	return func(e *tree.Entry) { e.Xattrs = map[string]string{name: value} }
}

func socket(path string) file {
	return file{Entry: tree.Entry{Path: path, Kind: tree.Socket, Mode: 0o755, ModTime: at(1000)}}
}

func TestDiffIsInNormalForm(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		upper, lower memTree
		want         list
	}{
		"nothing changed": {newTree(), newTree(dir("a"), reg("a/f", "x")), nil},
		"new file in an unchanged directory comes with its parents": {
			newTree(dir("a"), dir("a/b"), reg("a/b/f", "new")),
			newTree(dir("a"), dir("a/b")),
			list{dir("a"), dir("a/b"), reg("a/b/f", "new")},
		},
		"parents carry the time of upper": {
			newTree(dir("a").with(later), reg("a/f", "new")),
			newTree(dir("a")),
			list{dir("a").with(later), reg("a/f", "new")},
		},
		"directory with only another time is unchanged": {
			newTree(dir("a").with(later)), newTree(dir("a")), nil,
		},
		"directory with another mode": {
			newTree(dir("a").with(mode(0o700))), newTree(dir("a")), list{dir("a").with(mode(0o700))},
		},
		"copied up and left alone": {
			newTree(dir("a"), reg("a/f", "x"), sym("a/l", "f")), newTree(dir("a"), reg("a/f", "x"), sym("a/l", "f")), nil,
		},
		"same size and time, other content": {
			newTree(reg("f", "abc")), newTree(reg("f", "abd")), list{reg("f", "abc")},
		},
		"only the time changed": {
			newTree(reg("f", "abc").with(later)), newTree(reg("f", "abc")), list{reg("f", "abc").with(later)},
		},
		"a fraction of a second is no change": {
			newTree(reg("f", "abc").with(func(e *tree.Entry) { e.ModTime = e.ModTime.Add(1) })), newTree(reg("f", "abc")), nil,
		},
		"owner, mode and attributes": {
			newTree(
				reg("a", "x").with(func(e *tree.Entry) { e.UID = 5 }), reg("b", "x").with(mode(0o755)),
				reg("c", "x").with(xattr("user.a", "1")), reg("d", "x").with(xattr("user.a", "1"))),
			newTree(reg("a", "x"), reg("b", "x"), reg("c", "x").with(xattr("user.a", "2")), reg("d", "x").with(xattr("user.a", "1"))),
			list{
				reg("a", "x").with(func(e *tree.Entry) { e.UID = 5 }), reg("b", "x").with(mode(0o755)),
				reg("c", "x").with(xattr("user.a", "1")),
			},
		},
		"attributes of the overlay itself are no change": {
			newTree(reg("f", "x").with(xattr("trusted.overlay.origin", "?"))), newTree(reg("f", "x")), nil,
		},
		"mode of a symbolic link means nothing": {
			newTree(sym("l", "f").with(mode(0))), newTree(sym("l", "f")), nil,
		},
		"symbolic link with another target": {
			newTree(sym("l", "g")), newTree(sym("l", "f")), list{sym("l", "g")},
		},
		"whiteouts only of what was below": {
			newTree(dir("a"), gone("a/f"), gone("a/never"), gone("b"), gone("never")),
			newTree(dir("a"), reg("a/f", ""), dir("b"), reg("b/f", "")),
			list{dir("a"), gone("a/f"), gone("b")},
		},
		"whiteout in a new directory": {
			newTree(dir("new"), gone("new/f")), newTree(reg("f", "")), list{dir("new")},
		},
		"file instead of a directory": {
			newTree(reg("a", "x")), newTree(dir("a"), reg("a/f", "")), list{reg("a", "x")},
		},
		"directory instead of a file": {
			newTree(dir("a"), reg("a/f", "x")), newTree(reg("a", "")), list{dir("a"), reg("a/f", "x")},
		},
		"opaque directory over nothing": {
			newTree(dir("a").with(opaque), reg("a/f", "x")), newTree(), list{dir("a"), reg("a/f", "x")},
		},
		"opaque directory over a file": {
			newTree(dir("a").with(opaque), reg("a/f", "x")), newTree(reg("a", "")), list{dir("a"), reg("a/f", "x")},
		},
		"opaque directory hides names one by one": {
			newTree(dir("a").with(opaque), reg("a/keep", "new"), dir("a/sub"), reg("a/sub/new", ""), gone("a/x")),
			newTree(
				dir("a"), reg("a/keep", "old"), reg("a/old", ""), dir("a/sub"), reg("a/sub/old", ""), dir("a/sub/olddir"),
				reg("a/sub/olddir/f", ""), reg("a/x", ""), reg("a/zz", "")),
			list{
				dir("a"), reg("a/keep", "new"), gone("a/old"), dir("a/sub"), reg("a/sub/new", ""), gone("a/sub/old"),
				gone("a/sub/olddir"), gone("a/x"), gone("a/zz"),
			},
		},
		"file made again just as it was in an opaque directory": {
			newTree(dir("a").with(opaque), reg("a/f", "same")), newTree(dir("a"), reg("a/f", "same"), reg("a/g", "")),
			list{dir("a"), gone("a/g")},
		},
		"opaque directory emptied": {
			newTree(dir("a"), dir("a/b").with(opaque)), newTree(dir("a"), dir("a/b"), dir("a/b/c"), reg("a/b/c/f", "")),
			list{dir("a"), dir("a/b"), gone("a/b/c")},
		},
		"hard links: the first name carries the data": {
			newTree(reg("a", "data").linked(7), reg("b", "data").linked(7)), newTree(),
			list{reg("a", "data").linked(7), hard("b", "a").linked(7)},
		},
		"hard links: also when an earlier name is unchanged": {
			newTree(reg("a", "data").linked(7), reg("b", "data").linked(7), reg("c", "data").linked(7)), newTree(reg("a", "data")),
			list{reg("b", "data").linked(7), hard("c", "b").linked(7)},
		},
		"hard links of symbolic links": {
			newTree(sym("a", "x").linked(7), sym("b", "x").linked(7)), newTree(),
			list{sym("a", "x").linked(7), hard("b", "a").with(mode(0o777)).linked(7)},
		},
		"one link and a number is no hard link": {
			newTree(reg("a", "x").with(func(e *tree.Entry) { e.Inode, e.Links = 7, 1 }),
				reg("b", "x").with(func(e *tree.Entry) { e.Inode, e.Links = 7, 1 })),
			newTree(),
			list{reg("a", "x").with(func(e *tree.Entry) { e.Inode, e.Links = 7, 1 }),
				reg("b", "x").with(func(e *tree.Entry) { e.Inode, e.Links = 7, 1 })},
		},
		"sockets do not come": {newTree(dir("run"), socket("run/s")), newTree(dir("run")), nil},
		"a socket instead of a file takes the file away": {
			newTree(socket("f")), newTree(reg("f", "")), list{gone("f")},
		},
		"the root never comes": {
			memTree{".": dir(".").with(mode(0o700)), "f": reg("f", "")}, newTree(), list{reg("f", "")},
		},
		"an unchanged sibling directory does not come": {
			newTree(dir("a"), dir("a/quiet"), reg("a/z", "x")), newTree(dir("a"), dir("a/quiet")),
			list{dir("a"), reg("a/z", "x")},
		},
		"order is by component": {
			newTree(dir("a"), reg("a/b", ""), reg("a.b", ""), reg("a-b", "")), newTree(),
			list{dir("a"), reg("a/b", ""), reg("a-b", ""), reg("a.b", "")},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := collect(t.Context(), layer.Diff(c.upper, c.lower))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, got, cmp.AllowUnexported(file{})); d != "" {
				t.Errorf("want (-), got (+):\n%s", d)
			}
			if _, err := layer.Write(t.Context(), got, io.Discard, layer.WriteOptions{}); err != nil {
				t.Errorf("result is not in normal form: %v", err)
			}
		})
	}
}

func TestDiffStopsWithTheContext(t *testing.T) {
	t.Parallel()
	errWhy := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errWhy)
	if _, err := collect(ctx, layer.Diff(newTree(reg("f", "")), newTree())); !errors.Is(err, errWhy) {
		t.Errorf("got %v", err)
	}
}

func TestDiffLooksAtUpperOnly(t *testing.T) {
	t.Parallel()
	lower := &counting{memTree: newTree(dir("a"), dir("b"), reg("a/f", "x"))}
	for i := range 100 {
		p := "b/" + string(rune('A'+i))
		lower.memTree[p] = reg(p, "")
	}
	upper := newTree(dir("a"), reg("a/f", "y"))
	if _, err := collect(t.Context(), layer.Diff(upper, lower)); err != nil {
		t.Fatal(err)
	}
	if lower.calls != 3 { // a, a/f and the content of a/f
		t.Errorf("%d calls to the tree below", lower.calls)
	}
}

type counting struct {
	memTree
	calls int
}

func (c *counting) Lstat(p string) (tree.Entry, error) { c.calls++; return c.memTree.Lstat(p) }

func (c *counting) ReadDir(p string) ([]string, error) { c.calls++; return c.memTree.ReadDir(p) }

func (c *counting) Open(p string) (io.ReadCloser, error) { c.calls++; return c.memTree.Open(p) }
