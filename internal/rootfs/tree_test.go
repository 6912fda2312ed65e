package rootfs_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

func TestMerge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		layers []string
		want   string
	}{
		{"no layer", nil, ""},
		{"empty layers", []string{"", "a", ""}, "a 0644 0:0 @0"},
		{"upper wins", []string{"a 0600 @1 = x", "a 0640 @2 = y"}, "a 0640 0:0 @2 = y"},
		{"directories merge", []string{"d/ 0700 @1 \n d/a \n d/c", "d/ 0711 @2 \n d/b"}, "d/ 0711 0:0 @2 \n d/a 0644 0:0 @0 \n d/b 0644 0:0 @0 \n d/c 0644 0:0 @0"},
		{"an implied directory keeps its metadata", []string{"d/ 0700 1:2 @1 x:user.a=1", "d/b"}, "d/ 0700 1:2 @1 x:user.a=1 \n d/b 0644 0:0 @0"},
		{"implied twice", []string{"d/ 0700 @1", "d/b", "d/c"}, "d/ 0700 0:0 @1 \n d/b 0644 0:0 @0 \n d/c 0644 0:0 @0"},
		{"an implied directory over a file", []string{"d 0700", "d/b"}, "d/ 0755 0:0 @0 \n d/b 0644 0:0 @0"},
		{"whiteout", []string{"a \n d/x/y", "a whiteout \n d/x whiteout"}, "d/ 0755 0:0 @0"},
		{"whiteout of nothing", []string{"a", "b whiteout"}, "a 0644 0:0 @0"},
		{"opaque", []string{"d/ 0700 \n d/a \n d/e/f", "d/ 0711 opaque \n d/e/g"}, "d/ 0711 0:0 @0 \n d/e/ 0755 0:0 @0 \n d/e/g 0644 0:0 @0"},
		{"opaque root", []string{"a \n d/b", ". opaque \n c"}, "c 0644 0:0 @0"},
		{"file over directory and back", []string{"d/a", "d", "d/ 0700 \n d/b"}, "d/ 0700 0:0 @0 \n d/b 0644 0:0 @0"},
		{"directory over link", []string{"l -> d \n d/a", "l/ \n l/b"}, "d/ 0755 0:0 @0 \n d/a 0644 0:0 @0 \n l/ 0755 0:0 @0 \n l/b 0644 0:0 @0"},
		{"hard links", []string{"a @1 = x \n b => a \n c => a"}, "a 0644 0:0 @1 = x \n b => a \n c => a"},
		{"one hard link is replaced", []string{"a @1 = x \n b => a \n c => a", "a @2 = y"}, "a 0644 0:0 @2 = y \n b 0644 0:0 @1 = x \n c => b"},
		{"links of two layers are not one file", []string{"a = x \n b => a", "c = y \n d => c"}, "a 0644 0:0 @0 = x \n b => a \n c 0644 0:0 @0 = y \n d => c"},
		{"order of names", []string{"a/b \n a.b \n a0", "a.c"}, "a/ 0755 0:0 @0 \n a/b 0644 0:0 @0 \n a.b 0644 0:0 @0 \n a.c 0644 0:0 @0 \n a0 0644 0:0 @0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(trim(tt.want), dump(t, merged(t, tt.layers...))); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAddLeavesTheTreeBelow(t *testing.T) {
	t.Parallel()
	below := merged(t, "d/a = x \n d/e/f \n g")
	before := dump(t, below)
	for _, l := range []string{"d/a = y", "d whiteout", "d/ opaque", "d/e", "d/e/f/g"} {
		if _, err := below.Add(image(t, l)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(before, dump(t, below)); diff != "" {
		t.Errorf("tree below (-before +after):\n%s", diff)
	}
}

func TestLinkCounts(t *testing.T) {
	t.Parallel()
	tr := merged(t, "a = x \n b => a \n c", "d = y \n e => d")
	got := map[string]uint32{}
	inodes := map[uint64][]string{}
	for _, p := range []string{"a", "b", "c", "d", "e"} {
		e, err := tr.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		got[p] = e.Links
		if e.Inode != 0 {
			inodes[e.Inode] = append(inodes[e.Inode], p)
		}
	}
	if diff := cmp.Diff(map[string]uint32{"a": 2, "b": 2, "c": 0, "d": 2, "e": 2}, got); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	var files []string
	for _, names := range inodes {
		files = append(files, strings.Join(names, ""))
	}
	slices.Sort(files)
	if diff := cmp.Diff([]string{"ab", "de"}, files); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestMissingPaths(t *testing.T) {
	t.Parallel()
	tr := merged(t, "d/f \n l -> d")
	for _, p := range []string{"x", "d/x", "d/f/x", "l/f", "", "/d", "d/", "./d", "d/../d"} {
		if _, err := tr.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Lstat(%q): %v", p, err)
		}
		if _, err := tr.ReadDir(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadDir(%q): %v", p, err)
		}
		if _, err := tr.Open(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%q): %v", p, err)
		}
	}
	if _, err := tr.ReadDir("d/f"); err == nil {
		t.Error("a file was read as a directory")
	}
	for _, p := range []string{".", "d", "l"} {
		if _, err := tr.Open(p); err == nil {
			t.Errorf("%s was read as a file", p)
		}
	}
}

func TestBadIndex(t *testing.T) {
	t.Parallel()
	entry := func(p string, k tree.Kind) layer.IndexEntry {
		return layer.IndexEntry{Entry: tree.Entry{Path: p, Kind: k}}
	}
	link := func(p, to string) layer.IndexEntry {
		return layer.IndexEntry{Entry: tree.Entry{Path: p, Kind: tree.Hardlink, Linkname: to}}
	}
	root := entry(".", tree.Dir)
	for name, entries := range map[string][]layer.IndexEntry{
		"no root":                     {entry("a", tree.Regular)},
		"root is a file":              {entry(".", tree.Regular)},
		"not sorted":                  {root, entry("b", tree.Regular), entry("a", tree.Regular)},
		"twice":                       {root, entry("a", tree.Regular), entry("a", tree.Regular)},
		"no directory":                {root, entry("a/b", tree.Regular)},
		"in a file":                   {root, entry("a", tree.Regular), entry("a/b", tree.Regular)},
		"in what is gone":             {root, entry("a", tree.Whiteout), entry("a/b", tree.Regular)},
		"link to nothing":             {root, link("a", "b")},
		"link before its first name":  {root, link("a", "b"), entry("b", tree.Regular)},
		"link to a link":              {root, entry("a", tree.Regular), link("b", "a"), link("c", "b")},
		"link to a directory":         {root, entry("a", tree.Dir), link("b", "a")},
		"link to a whiteout":          {root, entry("a", tree.Whiteout), link("b", "a")},
		"a second root":               {root, entry("a", tree.Dir), entry(".", tree.Dir)},
		"a name that is not a path":   {root, entry("", tree.Regular)},
		"a path that leaves the root": {root, entry("../a", tree.Regular)},
	} {
		if tr, err := rootfs.NewTree().Add(&layer.Image{Index: &layer.Index{Entries: entries}}); err == nil {
			s, _ := treetest.Dump(tr)
			t.Errorf("%s: was accepted as\n%s", name, s)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	tr := merged(t, `
		usr/bin/sh
		bin -> usr/bin
		abs -> /usr/bin
		up -> ../../../usr
		loop -> loop
		a -> b
		b -> /c/../bin
		dangling -> /none/x
		usr/lib/back -> ../../bin/sh
		dot -> ./usr/./bin
	`)
	tests := []struct {
		path string
		last bool
		want string
	}{
		{"/", true, "."}, {"", true, "."}, {"..", true, "."}, {"../../usr/../usr", true, "usr"},
		{"/bin", true, "usr/bin"}, {"/bin", false, "bin"}, {"/bin/sh", false, "usr/bin/sh"},
		{"abs/sh", true, "usr/bin/sh"}, {"up/bin", true, "usr/bin"}, {"bin/..", true, "usr"}, {"bin/../bin/sh", true, "usr/bin/sh"},
		{"a/sh", true, "usr/bin/sh"}, {"dangling", true, "none/x"}, {"dangling/y", true, "none/x/y"}, {"dangling", false, "dangling"},
		{"usr/lib/back", true, "usr/bin/sh"}, {"none/../usr", true, "usr"}, {"dot//sh/", true, "usr/bin/sh"},
		{"loop", false, "loop"}, {"loop", true, "too many levels of symbolic links"}, {"loop/x", false, "too many levels of symbolic links"},
		{"usr/bin/sh/x", true, "not a directory"}, {"bin/sh/..", true, "not a directory"},
	}
	for _, tt := range tests {
		got, err := tr.Resolve(tt.path, tt.last)
		for _, e := range []error{syscall.ELOOP, syscall.ENOTDIR} {
			if errors.Is(err, e) {
				got = e.Error()
			}
		}
		if got != tt.want {
			t.Errorf("Resolve(%q, %v) = %q, %v, want %q", tt.path, tt.last, got, err, tt.want)
		}
	}
}

func TestResolveLimit(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 41 {
		fmt.Fprintf(&b, "l%02d -> l%02d\n", i, i+1)
	}
	b.WriteString("l41")
	tr := merged(t, b.String())
	if p, err := tr.Resolve("l01", true); p != "l41" || err != nil {
		t.Errorf("40 links: %q, %v", p, err)
	}
	if _, err := tr.Resolve("l00", true); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("41 links: %v", err)
	}
}

// reference is what layers mean, done slowly: each entry is applied to a map of paths.
type reference map[string]string

func (r reference) apply(ix *layer.Index) {
	for i := range ix.Entries { // first what goes
		e := &ix.Entries[i]
		old, there := r[e.Path]
		wasDir := there && strings.HasPrefix(old, "dir")
		for p := range r {
			hidden := tree.Within(p, e.Path) && (p != e.Path || e.Kind == tree.Whiteout)
			if hidden && p != "." && (e.Kind != tree.Dir || e.Opaque || !wasDir) {
				delete(r, p)
			}
		}
		switch {
		case e.Kind == tree.Whiteout:
		case e.Kind == tree.Hardlink:
			r[e.Path] = r[e.Linkname]
		case e.Kind == tree.Dir && (e.Implied && wasDir || e.Path == "."):
		case e.Kind == tree.Dir:
			r[e.Path] = fmt.Sprintf("dir %o", e.Mode)
		default:
			r[e.Path] = fmt.Sprintf("%d %o", e.Kind, e.Mode)
		}
	}
}

// randomIndex makes a layer of a few short paths, so that layers meet often.
func randomIndex(r *rand.Rand) *layer.Index {
	byPath := map[string]layer.IndexEntry{}
	var files []string
	if r.IntN(4) == 0 {
		byPath["."] = layer.IndexEntry{Offset: -1, Entry: tree.Entry{
			Path: ".", Kind: tree.Dir, Mode: r.Uint32N(0o1000), Opaque: r.IntN(3) == 0,
		}}
	}
	for range r.IntN(8) {
		p := string("abc"[r.IntN(3)])
		for r.IntN(2) == 0 {
			p += "/" + string("abc"[r.IntN(3)])
		}
		if !free(byPath, p) {
			continue
		}
		e := layer.IndexEntry{Entry: tree.Entry{Path: p, Mode: r.Uint32N(0o1000)}, Offset: -1}
		switch r.IntN(6) {
		case 0, 1:
			e.Kind, e.Opaque = tree.Dir, r.IntN(3) == 0
		case 2:
			e.Kind = tree.Whiteout
		case 3:
			e.Kind = tree.Symlink
		case 4:
			e.Kind = tree.Fifo
			if len(files) > 0 && tree.Compare(files[0], p) < 0 {
				e.Kind, e.Linkname = tree.Hardlink, files[0]
				break
			}
			files = append(files, p)
		default:
			e.Kind = tree.CharDevice
		}
		byPath[p] = e
	}
	return index(byPath)
}

// free tells whether a layer can have an entry at p besides those it has.
func free(byPath map[string]layer.IndexEntry, p string) bool {
	for q := range byPath {
		if tree.Within(q, p) {
			return false
		}
	}
	for q := path.Dir(p); q != "."; q = path.Dir(q) {
		if e, ok := byPath[q]; ok && e.Kind != tree.Dir {
			return false
		}
	}
	return true
}

// FuzzMerge compares the merged tree of random layers with the reference, and each tree below with itself before.
func FuzzMerge(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // a test
		tr, want := rootfs.NewTree(), reference{".": "dir 755"}
		for range 1 + r.IntN(6) {
			ix := randomIndex(r)
			next, err := tr.Add(&layer.Image{Index: ix})
			if err != nil {
				t.Fatal(err)
			}
			before := paths(t, tr)
			want.apply(ix)
			if diff := cmp.Diff(map[string]string(want), paths(t, next)); diff != "" {
				t.Fatalf("tree (-want +got):\n%s\nof %+v", diff, ix.Entries)
			}
			if diff := cmp.Diff(before, paths(t, tr)); diff != "" {
				t.Fatalf("tree below changed:\n%s", diff)
			}
			tr = next
		}
	})
}

// paths lists a tree in the form of reference.
func paths(t *testing.T, tr *rootfs.Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(p string)
	walk = func(p string) {
		e, err := tr.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind != tree.Dir {
			out[p] = fmt.Sprintf("%d %o", e.Kind, e.Mode)
			return
		}
		out[p] = fmt.Sprintf("dir %o", e.Mode)
		names, err := tr.ReadDir(p)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			walk(path.Join(p, n))
		}
	}
	walk(".")
	return out
}

// largeIndex is a layer of many files, 20 in a directory.
func largeIndex(files int) *layer.Index {
	ix := &layer.Index{Entries: []layer.IndexEntry{{Entry: tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755}, Implied: true}}}
	for i := range files {
		if i%20 == 0 {
			ix.Entries = append(ix.Entries, layer.IndexEntry{Entry: tree.Entry{Path: fmt.Sprintf("d%05d", i/20), Kind: tree.Dir, Mode: 0o755}})
		}
		ix.Entries = append(ix.Entries, layer.IndexEntry{Entry: tree.Entry{Path: fmt.Sprintf("d%05d/file%02d", i/20, i%20), Kind: tree.Regular}})
	}
	return ix
}

func TestMemoryOfTree(t *testing.T) {
	im := &layer.Image{Index: largeIndex(70_000)}
	before := heap()
	tr, err := rootfs.NewTree().Add(im)
	if err != nil {
		t.Fatal(err)
	}
	full := heap() - before
	small := image(t, "d00000/file00 = x")
	for range 100 {
		if tr, err = tr.Add(small); err != nil {
			t.Fatal(err)
		}
	}
	more := heap() - before - full
	t.Logf("70,000 files: %d KiB; 100 small layers on top: %d KiB", full>>10, more>>10)
	if full > 8<<20 || more > 1<<20 {
		t.Errorf("the tree takes %d bytes, small layers on top %d", full, more)
	}
	runtime.KeepAlive(tr)
	runtime.KeepAlive(im)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // not that large
}

func BenchmarkAddSmallLayer(b *testing.B) {
	tr, err := rootfs.NewTree().Add(&layer.Image{Index: largeIndex(70_000)})
	if err != nil {
		b.Fatal(err)
	}
	small := image(b, "d00000/file00 = x")
	for b.Loop() {
		if _, err := tr.Add(small); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLstat(b *testing.B) {
	tr, err := rootfs.NewTree().Add(&layer.Image{Index: largeIndex(70_000)})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := tr.Lstat("d01234/file07"); err != nil {
			b.Fatal(err)
		}
	}
}
