package layer_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/tree"
)

func fuzzLimits() layer.Limits {
	return layer.Limits{Entries: 2000, NameBytes: 1 << 20, TarBytes: 8 << 20}
}

// checkIndex verifies what every consumer of an index relies on.
func checkIndex(t *testing.T, im *layer.Image) {
	t.Helper()
	last, dirs, firsts := "", map[string]bool{}, map[string]bool{}
	for i := range im.Index.Entries {
		e := &im.Index.Entries[i]
		if filepath.Clean(e.Path) != e.Path || strings.HasPrefix(e.Path, "/") || strings.HasPrefix(e.Path, "..") && (len(e.Path) == 2 || e.Path[2] == '/') {
			t.Fatalf("path %q escapes or is not clean", e.Path)
		}
		if i > 0 && tree.Compare(last, e.Path) >= 0 {
			t.Fatalf("%q comes before %q", last, e.Path)
		}
		last = e.Path
		if dir, _ := split(e.Path); e.Path != "." && !dirs[dir] {
			t.Fatalf("%q comes without its directory", e.Path)
		}
		switch e.Kind {
		case tree.Dir:
			dirs[e.Path] = true
		case tree.Hardlink:
			if !firsts[e.Linkname] {
				t.Fatalf("%q is linked to %q, which is no earlier file", e.Path, e.Linkname)
			}
		case tree.Whiteout:
		default:
			firsts[e.Path] = true
		}
		if e.Kind == tree.Regular {
			b, err := io.ReadAll(im.Content(e))
			if err != nil || int64(len(b)) != e.Size {
				t.Fatalf("%q has %d bytes of %d: %v", e.Path, len(b), e.Size, err)
			}
		}
		for name := range e.Xattrs {
			if strings.Contains(name, ".overlay.") && (strings.HasPrefix(name, "trusted.") || strings.HasPrefix(name, "user.")) {
				t.Fatalf("%q has %s", e.Path, name)
			}
		}
	}
}

// FuzzTar feeds any bytes to the tar reader; whatever it accepts has to be a sound layer that gVisor can read.
func FuzzTar(f *testing.F) {
	f.Add(tarOf(f, tdir("d"), treg("d/f", "data"), tlink("l", "d/f"), tsym("s", "d"), treg("s/g", ""), twhite("d/.wh.x")))
	f.Add(tarOf(f, twhite("a/.wh..wh..opq"), treg("f", "").with(pax("SCHILY.xattr.user.overlay.x", "y")), tlink("z", "zz"), treg("zz", "1")))
	f.Add(sparseHeader("s", 9000))
	f.Add(tarOf(f, treg("../x", ""), tsym("l", "l"), treg("l/x", "")))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = withChecksums(b)
		file := tempFile(t)
		im, err := layer.Prepare(t.Context(), bytes.NewReader(b), plain(b), layer.PrepareOptions{Image: file, Limits: fuzzLimits()})
		if err != nil {
			return
		}
		checkIndex(t, im)
		got, err := readErofs(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(wantOnDisk(t, im), got); d != "" {
			t.Fatal(d)
		}
	})
}

// withChecksums mends the checksums of all headers, so that mutated headers get past them.
func withChecksums(b []byte) []byte {
	b = bytes.Clone(b)
	for off := 0; off+512 <= len(b); off += 512 {
		h := b[off : off+512]
		if string(h[257:262]) != "ustar" {
			continue
		}
		copy(h[148:], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	}
	return b
}

// FuzzBlob feeds any bytes as a compressed layer.
func FuzzBlob(f *testing.F) {
	for _, opts := range []layer.WriteOptions{{}, {Compression: layer.Zstd}, {Compression: layer.Uncompressed}} {
		blob, _ := written(f, list{dir("d"), reg("d/f", "data")}, opts)
		f.Add(blob, uint8(opts.Compression))
	}
	types := []string{layer.MediaTypeOCIGzip, layer.MediaTypeOCIZstd, layer.MediaTypeOCI}
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		want := withDigest(layer.Descriptor{MediaType: types[int(kind)%len(types)], DiffID: digest.FromString("")}, b)
		if im, err := layer.Prepare(t.Context(), bytes.NewReader(b), want, layer.PrepareOptions{Image: tempFile(t), Limits: fuzzLimits()}); err == nil {
			checkIndex(t, im)
		}
	})
}

// FuzzDecode feeds any bytes to the reader of a sandbox's changes; whatever it accepts can be written as a layer
// that says the same.
func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, sample()))
	f.Add(encoded(f, list{gone("a"), dir("b"), reg("b/c", "x")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := collect(t.Context(), layer.Decode(bytes.NewReader(b)))
		if err != nil {
			return
		}
		again, err := collect(t.Context(), layer.Decode(bytes.NewReader(encoded(t, got))))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(got, again, cmp.AllowUnexported(file{})); d != "" {
			t.Fatal(d)
		}
		roundTrip(t, got)
	})
}

// roundTrip writes l as a layer and reads it back.
func roundTrip(t *testing.T, l list) {
	t.Helper()
	var blob bytes.Buffer
	w, err := layer.Write(t.Context(), l, &blob, layer.WriteOptions{Level: 1, Image: tempFile(t)})
	if err != nil {
		if strings.Contains(err.Error(), "cannot be part of a layer") {
			return // an attribute that a tar cannot hold
		}
		t.Fatal(err)
	}
	im, err := layer.Prepare(t.Context(), &blob, w.Descriptor, layer.PrepareOptions{Image: tempFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	checkIndex(t, im)
	if d := cmp.Diff(w.Image.Index, im.Index); d != "" {
		t.Fatal(d)
	}
	if d := cmp.Diff(contentsOf(t, l), contentsIn(t, im)); d != "" {
		t.Fatal(d)
	}
}

// FuzzNames checks names alone: what a step may call a file comes back as it was, and nothing else is accepted.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", ".wh.a", ".wh..wh..opq", "a/.wh.b", "..", "a/../b", "/a", "ü\xff", "a\nb", " ", "a//b", ".", "", "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		var l list
		for i := range len(name) {
			if name[i] == '/' {
				l = append(l, dir(name[:i]))
			}
		}
		l = append(l, reg(name, "x"))
		_, err := layer.Write(t.Context(), l, io.Discard, layer.WriteOptions{Level: 1})
		bad := name == "" || strings.HasPrefix(name, "/") || filepath.Clean(name) != name || name == "." || name == ".." ||
			strings.HasPrefix(name, "../") || strings.ContainsRune(name, 0) || len(name) > 4096
		for part := range strings.SplitSeq(name, "/") {
			bad = bad || strings.HasPrefix(part, ".wh.") || len(part) > 255
		}
		if bad != (err != nil) {
			t.Fatalf("%q: %v", name, err)
		}
		if err == nil {
			roundTrip(t, l)
		}
	})
}

// FuzzDiff makes a random tree and a random upper directory, and checks that the difference, put onto the
// lower tree, gives the same as the overlay of the two.
func FuzzDiff(f *testing.F) {
	f.Add([]byte("some bytes to make trees from, long enough to have a few entries in each"))
	f.Add(bytes.Repeat([]byte{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9}, 10))
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &generator{b: b}
		lower := g.tree(false)
		upper := g.tree(true)
		changes, err := collect(t.Context(), layer.Diff(upper, lower))
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, changes)
		if d := cmp.Diff(overlay(upper, lower), apply(t, changes, lower)); d != "" {
			t.Fatalf("overlay (-), difference applied (+):\n%s", d)
		}
		for _, c := range changes {
			low, ok := lower[c.Path]
			if c.Kind == tree.Whiteout && !ok {
				t.Fatalf("whiteout of %s, which is not below", c.Path)
			}
			if ok && c.Kind != tree.Dir && same(c, low) {
				t.Fatalf("%s is unchanged", c.Path)
			}
		}
	})
}

func same(a, b file) bool {
	return a.Kind == b.Kind && a.Mode == b.Mode && a.data == b.data && a.Linkname == b.Linkname && a.ModTime.Equal(b.ModTime)
}

// generator makes trees out of bytes.
type generator struct{ b []byte }

func (g *generator) next(n int) int {
	if len(g.b) == 0 {
		return 0
	}
	v := int(g.b[0]) % n
	g.b = g.b[1:]
	return v
}

func (g *generator) tree(upper bool) memTree {
	t := newTree()
	kinds := 3
	if upper {
		kinds = 6
	}
	for range 4 + g.next(20) {
		parent := "."
		for range g.next(3) {
			parent = joinPath(parent, string(rune('a'+g.next(3))))
			if f, ok := t[parent]; !ok {
				t[parent] = dir(parent).with(mode(0o750 + uint32(g.next(2))))
			} else if f.Kind != tree.Dir {
				parent, _ = split(parent)
				break
			}
		}
		p := joinPath(parent, string(rune('a'+g.next(4))))
		if _, ok := t[p]; ok {
			continue
		}
		switch g.next(kinds) {
		case 0:
			t[p] = reg(p, string(rune('0'+g.next(3))))
		case 1:
			t[p] = sym(p, string(rune('a'+g.next(2))))
		case 2:
			t[p] = dir(p)
		case 3:
			t[p] = gone(p)
		case 4:
			t[p] = dir(p).with(opaque)
		case 5:
			t[p] = socket(p)
		}
	}
	return t
}

// overlay is what an overlay file system shows of upper above lower, times of directories left out.
func overlay(upper, lower memTree) map[string]string {
	out := map[string]string{}
	for p, f := range lower {
		if visible(p, upper) {
			out[p] = show(f)
		}
	}
	for p, f := range upper {
		if f.Kind == tree.Whiteout || f.Kind == tree.Socket {
			continue
		}
		out[p] = show(f)
	}
	delete(out, ".")
	return out
}

// visible tells whether what lower has at p can be seen through upper.
func visible(p string, upper memTree) bool {
	if _, ok := upper[p]; ok {
		return false
	}
	for d, _ := split(p); d != "."; d, _ = split(d) {
		if f, ok := upper[d]; ok && (f.Kind != tree.Dir || f.Opaque) {
			return false
		}
	}
	return true
}

func show(f file) string {
	return fmt.Sprintf("%s %o %s %s", kindName(f.Kind), f.Mode, f.Linkname, f.data)
}

// apply puts changes onto lower as an extractor would.
func apply(t *testing.T, changes list, lower memTree) map[string]string {
	t.Helper()
	out := map[string]string{}
	for p, f := range lower {
		out[p] = show(f)
	}
	err := changes.Each(context.Background(), func(e tree.Entry, content io.Reader) error {
		wasDir := strings.HasPrefix(out[e.Path], "dir ")
		if e.Kind != tree.Dir || !wasDir {
			for p := range out {
				if tree.Within(p, e.Path) {
					delete(out, p)
				}
			}
		}
		if e.Kind == tree.Whiteout {
			return nil
		}
		f := file{Entry: e}
		if content != nil {
			b, _ := io.ReadAll(content)
			f.data = string(b)
		}
		out[e.Path] = show(f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(out, ".")
	return out
}

// FuzzErofs makes random layers with many kinds of names and sizes, and reads them with gVisor's reader.
func FuzzErofs(f *testing.F) {
	f.Add([]byte("a b/c d"), uint16(4096), uint8(3))
	f.Add(bytes.Repeat([]byte("name "), 200), uint16(4032), uint8(200))
	f.Add([]byte{1, 2, 0xff, '.', ' ', '!', ' ', '-'}, uint16(1), uint8(9))
	f.Fuzz(func(t *testing.T, names []byte, size uint16, kinds uint8) {
		l := layerOf(names, int(size), kinds)
		w, err := layer.Write(t.Context(), l, io.Discard, layer.WriteOptions{Level: 1, Image: tempFile(t)})
		if err != nil {
			return // names that no layer can hold are another test's business
		}
		checkIndex(t, w.Image)
		got, err := readErofs(w.Image.File)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(wantOnDisk(t, w.Image), got); d != "" {
			t.Fatal(d)
		}
	})
}

func layerOf(names []byte, size int, kinds uint8) list {
	var l list
	seen := map[string]bool{}
	for i, part := range bytes.Fields(names) {
		name := strings.Trim(strings.ReplaceAll(string(part), "/", "_"), "\x00")
		if seen[name] || name == "" {
			continue
		}
		seen[name] = true
		n := (size + i*1021) % 9000
		switch (int(kinds) + i) % 6 {
		case 0:
			l = append(l, reg(name, string(make([]byte, n))+"x"))
		case 1:
			l = append(l, sym(name, strings.Repeat("t", n%4095+1)))
		case 2:
			l = append(l, dir(name))
			for j := range n % 100 {
				l = append(l, reg(fmt.Sprintf("%s/%03d%s", name, j, strings.Repeat("n", (n+j)%240)), fmt.Sprint(j)))
			}
		case 3:
			l = append(l, gone(name))
		case 4:
			l = append(l, reg(name, "x").with(xattr("user.x", "y")))
		case 5:
			l = append(l, file{Entry: tree.Entry{Path: name, Kind: tree.CharDevice, Major: uint32(n % 4096), Minor: uint32(n) * 116}})
		}
	}
	slices.SortStableFunc(l, func(a, b file) int { return tree.Compare(a.Path, b.Path) })
	return l
}
