package layer_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/tree"
)

// entry is one header of a tar with its content.
type entry struct {
	tar.Header
	data string
}

func tdir(name string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: at(1000)}}
}

func treg(name, data string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: at(1000)}, data}
}

func tsym(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, ModTime: at(1000)}}
}

func tlink(name, target string) entry {
	return entry{Header: tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: target, ModTime: at(1000)}}
}

func twhite(name string) entry { return treg(name, "") }

func (e entry) with(fn func(*tar.Header)) entry {
	fn(&e.Header)
	return e
}

func pax(k, v string) func(*tar.Header) {
	return func(h *tar.Header) { h.PAXRecords = map[string]string{k: v} }
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// plain describes an uncompressed layer as a manifest would.
func plain(b []byte) layer.Descriptor {
	d := digest.FromBytes(b)
	return layer.Descriptor{MediaType: layer.MediaTypeOCI, Digest: d, DiffID: d, Size: int64(len(b))}
}

// describe writes an index as lines that can be read.
func describe(t testing.TB, im *layer.Image) []string {
	t.Helper()
	var out []string
	for i := range im.Index.Entries {
		e := &im.Index.Entries[i]
		line := fmt.Sprintf("%s %s", kindName(e.Kind), e.Path)
		if e.Kind != tree.Whiteout && !e.Implied && e.Kind != tree.Hardlink {
			line += fmt.Sprintf(" %o %d:%d", e.Mode, e.UID, e.GID)
		}
		if e.Linkname != "" {
			line += " -> " + e.Linkname
		}
		if e.Kind == tree.Regular {
			b, err := io.ReadAll(im.Content(e))
			if err != nil {
				t.Fatal(err)
			}
			line += fmt.Sprintf(" %q", b)
		}
		if e.Kind == tree.CharDevice || e.Kind == tree.BlockDevice {
			line += fmt.Sprintf(" %d:%d", e.Major, e.Minor)
		}
		if len(e.Xattrs) > 0 {
			line += fmt.Sprintf(" %q", e.Xattrs)
		}
		if e.Opaque {
			line += " opaque"
		}
		if e.Implied {
			line += " implied"
		}
		out = append(out, line)
	}
	return out
}

func kindName(k tree.Kind) string {
	return map[tree.Kind]string{
		tree.Dir: "dir", tree.Regular: "file", tree.Symlink: "symlink", tree.Hardlink: "link", tree.CharDevice: "char",
		tree.BlockDevice: "block", tree.Fifo: "fifo", tree.Whiteout: "gone",
	}[k]
}

func TestForeignTarsAreBroughtIntoOrder(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tar  []entry
		want []string
	}{
		"empty": {nil, nil},
		"any order, missing parents": {
			[]entry{treg("b", "1"), treg("a/x/f", "2"), treg("a.b", "3"), tdir("a/")},
			[]string{"dir . implied", "dir a 755 0:0", "dir a/x implied", `file a/x/f 644 0:0 "2"`, `file a.b 644 0:0 "3"`, `file b 644 0:0 "1"`},
		},
		"names as tar programs write them": {
			[]entry{tdir("./"), tdir("./etc/"), treg("./etc//passwd", "1"), treg("/abs/f", "2")},
			[]string{"dir . 755 0:0", "dir abs implied", `file abs/f 644 0:0 "2"`, "dir etc 755 0:0", `file etc/passwd 644 0:0 "1"`},
		},
		"last one wins": {
			[]entry{treg("f", "old"), treg("f", "new"), tdir("d"), tdir("d").with(func(h *tar.Header) { h.Mode, h.Uid = 0o700, 5 })},
			[]string{"dir . implied", "dir d 700 5:0", `file f 644 0:0 "new"`},
		},
		"a second directory entry keeps what is in it": {
			[]entry{tdir("d"), treg("d/f", "1"), tdir("d")},
			[]string{"dir . implied", "dir d 755 0:0", `file d/f 644 0:0 "1"`},
		},
		"a file instead of a directory takes its content away": {
			[]entry{tdir("d"), treg("d/f", "1"), treg("d", "2")},
			[]string{"dir . implied", `file d 644 0:0 "2"`},
		},
		"a directory instead of a file hides what is below": {
			[]entry{treg("d", "1"), tdir("d"), treg("d/f", "2")},
			[]string{"dir . implied", "dir d 755 0:0 opaque", `file d/f 644 0:0 "2"`},
		},
		"whiteouts": {
			[]entry{twhite("a/.wh.f"), twhite(".wh.g"), tdir("a"), treg("a/h", "1")},
			[]string{"dir . implied", "dir a 755 0:0", "gone a/f", `file a/h 644 0:0 "1"`, "gone g"},
		},
		"opaque marker before and after": {
			[]entry{twhite("a/.wh..wh..opq"), tdir("a"), treg("a/f", "1"), tdir("b"), treg("b/f", "2"), twhite("b/.wh..wh..opq"), twhite("c/.wh..wh..opq")},
			[]string{"dir . implied", "dir a 755 0:0 opaque", `file a/f 644 0:0 "1"`, "dir b 755 0:0 opaque", `file b/f 644 0:0 "2"`, "dir c opaque implied"},
		},
		"whiteout, then a new directory of that name": {
			[]entry{twhite(".wh.d"), tdir("d"), treg("d/f", "1"), twhite(".wh.e"), treg("e/f", "2"), twhite(".wh.f"), treg("f", "3")},
			[]string{"dir . implied", "dir d 755 0:0 opaque", `file d/f 644 0:0 "1"`, "dir e 755 0:0 opaque", `file e/f 644 0:0 "2"`, `file f 644 0:0 "3"`},
		},
		"whiteout of what the layer said before": {
			[]entry{tdir("d"), treg("d/f", "1"), twhite(".wh.d")},
			[]string{"dir . implied", "gone d"},
		},
		"what aufs left": {
			[]entry{twhite(".wh..wh.aufs"), tdir(".wh..wh.plnk"), treg(".wh..wh.plnk/1.2", "x"), tdir(".wh..wh.orph")},
			nil,
		},
		"directories through links of the same layer": {
			[]entry{tdir("usr"), tdir("usr/lib"), tsym("lib", "usr/lib"), treg("lib/a", "1"), tsym("usr/up", "../../../lib"), treg("usr/up/b", "2"), tsym("abs", "/new"), treg("abs/c", "3")},
			[]string{"dir . implied", "symlink abs 777 0:0 -> /new", "symlink lib 777 0:0 -> usr/lib", "dir new implied", `file new/c 644 0:0 "3"`, "dir usr 755 0:0", "dir usr/lib 755 0:0", `file usr/lib/a 644 0:0 "1"`, `file usr/lib/b 644 0:0 "2"`, "symlink usr/up 777 0:0 -> ../../../lib"},
		},
		"a link itself is replaced and not followed": {
			[]entry{tsym("l", "/etc/passwd"), treg("l", "mine")},
			[]string{"dir . implied", `file l 644 0:0 "mine"`},
		},
		"a whiteout does not follow the link it names": {
			[]entry{tdir("d"), tsym("l", "d"), treg("d/f", "1"), twhite(".wh.l")},
			[]string{"dir . implied", "dir d 755 0:0", `file d/f 644 0:0 "1"`, "gone l"},
		},
		"hard links to what comes before and after": {
			[]entry{tlink("a", "./z"), treg("m", "1"), tlink("n", "/m"), tlink("o", "n"), treg("z", "2")},
			[]string{"dir . implied", `file a 644 0:0 "2"`, `file m 644 0:0 "1"`, "link n -> m", "link o -> m", "link z -> a"},
		},
		"hard link, then its first name replaced": {
			[]entry{treg("m", "1"), tlink("n", "m"), treg("m", "2")},
			[]string{"dir . implied", `file m 644 0:0 "2"`, `file n 644 0:0 "1"`},
		},
		"hard link to itself": {
			[]entry{treg("m", "1"), tlink("m", "m")}, []string{"dir . implied", `file m 644 0:0 "1"`},
		},
		"hard link to a symbolic link": {
			[]entry{tsym("l", "nowhere"), tlink("m", "l")}, []string{"dir . implied", "symlink l 777 0:0 -> nowhere", "link m -> l"},
		},
		"the last owner of a hard link holds": {
			[]entry{treg("m", "1"), tlink("n", "m").with(func(h *tar.Header) { h.Uid, h.Gid = 7, 8 })},
			[]string{"dir . implied", `file m 644 7:8 "1"`, "link n -> m"},
		},
		"attributes, but none for overlays": {
			[]entry{
				treg("f", "1").with(pax("SCHILY.xattr.user.k", "v\x00\xff")),
				tdir("d").with(pax("SCHILY.xattr.trusted.overlay.opaque", "y")),
				tdir("e").with(pax("SCHILY.xattr.user.overlay.redirect", "/etc")),
			},
			[]string{"dir . implied", "dir d 755 0:0", "dir e 755 0:0", `file f 644 0:0 "1" map["user.k":"v\x00\xff"]`},
		},
		"devices and fifos": {
			[]entry{
				{Header: tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}},
				{Header: tar.Header{Typeflag: tar.TypeBlock, Name: "blk", Mode: 0o660, Devmajor: 259, Devminor: 1 << 19}},
				{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}},
				{Header: tar.Header{Typeflag: tar.TypeChar, Name: "zero", Mode: 0o666}},
			},
			[]string{"dir . implied", "block blk 660 0:0 259:524288", "fifo fifo 600 0:0", "char null 666 0:0 1:3", "gone zero"},
		},
		"long names and large numbers": {
			[]entry{
				treg(strings.Repeat("n", 255), "1").with(func(h *tar.Header) { h.Uid, h.Gid = 1<<32-1, 1<<31 }),
				tsym("l", strings.Repeat("t/", 1000)),
			},
			[]string{"dir . implied", "symlink l 777 0:0 -> " + strings.Repeat("t/", 1000), "file " + strings.Repeat("n", 255) + ` 644 4294967295:2147483648 "1"`},
		},
		"global headers and other modes are not for images": {
			[]entry{{Header: tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "git"}}}, treg("f", "").with(func(h *tar.Header) { h.Mode = 0o106755 })},
			[]string{"dir . implied", `file f 6755 0:0 ""`},
		},
		"opaque root": {
			[]entry{twhite(".wh..wh..opq")}, []string{"dir . opaque implied"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := tarOf(t, c.tar...)
			im, err := layer.Prepare(t.Context(), bytes.NewReader(b), plain(b), layer.PrepareOptions{Image: tempFile(t)})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, describe(t, im)); d != "" {
				t.Errorf("want (-), got (+):\n%s", d)
			}
			got, err := readErofs(im.File)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(wantOnDisk(t, im), got); d != "" {
				t.Errorf("image:\n%s", d)
			}
		})
	}
}

func TestFractionsOfSecondsAreKept(t *testing.T) {
	t.Parallel()
	when := time.Unix(1234, 567)
	b := tarOf(t, treg("f", "").with(func(h *tar.Header) { h.ModTime, h.Format = when, tar.FormatPAX }))
	im, err := layer.Prepare(t.Context(), bytes.NewReader(b), plain(b), layer.PrepareOptions{Image: tempFile(t)})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := readErofs(im.File)
	if err != nil {
		t.Fatal(err)
	}
	if got := im.Index.Find("f").ModTime; !got.Equal(when) || disk["f"].Nsec != 567 || disk["f"].MTime != 1234 {
		t.Errorf("index says %v, image %+v", got, disk["f"])
	}
}

func TestHostileTarsAreRefused(t *testing.T) {
	t.Parallel()
	loop := []entry{tsym("a", "b"), tsym("b", "a"), treg("a/f", "")}
	var deep []entry
	for i := range 50 {
		deep = append(deep, tsym(fmt.Sprintf("%sl%d", strings.Repeat("d/", i%3), i), strings.Repeat("x/", 1500)))
	}
	deep = append(deep, treg("l0/l1/l2/f", ""), tsym("l0/m", strings.Repeat("y/", 1500)), treg("l0/m/f", ""))
	for name, c := range map[string]struct {
		tar  []entry
		want string
	}{
		"parent":                     {[]entry{treg("../f", "")}, `name contains ".."`},
		"parent in the middle":       {[]entry{treg("a/../../f", "")}, `name contains ".."`},
		"parent at the end":          {[]entry{tdir("a/..")}, `name contains ".."`},
		"hard link out":              {[]entry{tlink("f", "../../etc/shadow")}, `name contains ".."`},
		"hard link to nothing":       {[]entry{tlink("f", "g")}, `hard link to "g", which is not in the layer`},
		"hard link to a directory":   {[]entry{tdir("d"), tlink("f", "d")}, "hard link to the directory d"},
		"hard link to the root":      {[]entry{tlink("f", "/")}, "not in the layer"},
		"hard links in a circle":     {[]entry{tlink("a", "b"), tlink("b", "a")}, "not in the layer"},
		"hard link to what is gone":  {[]entry{treg("a", ""), twhite(".wh.a"), tlink("b", "a")}, "not in the layer"},
		"symbolic links in a circle": {loop, "more than 40 symbolic links"},
		"paths that grow by links":   {deep, "path is longer than 4096 bytes"},
		"below a file":               {[]entry{treg("f", ""), treg("f/g", "")}, "f is not a directory in this layer"},
		"below a device":             {[]entry{{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "f"}}, treg("f/g", "")}, "not a directory"},
		"opaque marker below a file": {[]entry{treg("f", ""), twhite("f/.wh..wh..opq")}, "not a directory"},
		"root as a file":             {[]entry{treg("./.", "")}, "the root of a layer must be a directory"},
		"root as a link":             {[]entry{tsym("/", "etc")}, "the root of a layer must be a directory"},
		"whiteout of nothing":        {[]entry{twhite("a/.wh.")}, `whiteout of ""`},
		"whiteout of the directory":  {[]entry{twhite("a/.wh..")}, `whiteout of "."`},
		"whiteout of the parent":     {[]entry{twhite("a/.wh...")}, `whiteout of ".."`},
		"inside a whiteout":          {[]entry{treg("a/.wh.d/f", "")}, "lies inside the whiteout"},
		"long component":             {[]entry{treg(strings.Repeat("n", 256), "")}, "component longer than 255"},
		"long path":                  {[]entry{treg(strings.Repeat("n/", 2050)+"f", "")}, "longer than 4096"},
		"long link":                  {[]entry{tsym("l", strings.Repeat("n", 4096))}, "link target is longer than 4095"},
		"empty link":                 {[]entry{tsym("l", "")}, "link target is empty"},
		"device out of range":        {[]entry{{Header: tar.Header{Typeflag: tar.TypeChar, Name: "c", Devmajor: 4096}}}, "out of range"},
		"negative owner":             {[]entry{treg("f", "").with(func(h *tar.Header) { h.Uid, h.Format = -1, tar.FormatGNU })}, "owner -1 is out of range"},
		"owner out of range":         {[]entry{treg("f", "").with(func(h *tar.Header) { h.Gid = 1 << 32 })}, "group 4294967296 is out of range"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := tarOf(t, c.tar...)
			_, err := layer.Prepare(t.Context(), bytes.NewReader(b), plain(b), layer.PrepareOptions{Image: tempFile(t)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	var names []entry
	for i := range 100 {
		names = append(names, tdir(fmt.Sprintf("d%d/%s", i, strings.Repeat("x", 100))))
	}
	sparse := slices.Concat(sparseHeader("bomb", 1<<40), make([]byte, 1024))
	overflow := slices.Concat(sparseHeader("small", 10), sparseHeader("bomb", math.MaxInt64), make([]byte, 1024))
	var early []entry
	for range 100 {
		early = append(early, tlink("l", "later"))
	}
	for name, c := range map[string]struct {
		tar    []byte
		limits layer.Limits
		want   string
	}{
		"entries":        {tarOf(t, names...), layer.Limits{Entries: 50}, "more than 50 entries"},
		"names":          {tarOf(t, names...), layer.Limits{NameBytes: 2000}, "more than 2000 bytes of names"},
		"tar":            {tarOf(t, treg("f", strings.Repeat("x", 5000))), layer.Limits{TarBytes: 3000}, "more than 3000 bytes"},
		"garbage after":  {append(tarOf(t), make([]byte, 9000)...), layer.Limits{TarBytes: 3000}, "larger than allowed"},
		"sparse bomb":    {sparse, layer.Limits{TarBytes: 1 << 30}, "more than 1073741824 bytes of content"},
		"sparse sum":     {overflow, layer.Limits{}, "bytes of content"},
		"early links":    {tarOf(t, append(early, treg("later", ""))...), layer.Limits{Entries: 50}, "more than 50 entries"},
		"sparse default": {slices.Concat(sparseHeader("bomb", 1<<41), make([]byte, 1024)), layer.Limits{}, "bytes of content"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := layer.Prepare(t.Context(), bytes.NewReader(c.tar), plain(c.tar), layer.PrepareOptions{Image: tempFile(t), Limits: c.limits})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// sparseHeader is an old GNU header of a file that is one hole.
func sparseHeader(name string, size int64) []byte {
	h := make([]byte, 512)
	copy(h, name)
	copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00        S")
	copy(h[257:], "ustar  \x00")
	h[483] = 0x80 // base-256
	for i := range 8 {
		h[494-i] = byte(size >> (8 * i))
	}
	sum := 0
	for _, b := range h {
		sum += int(b)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

func TestSparseFilesAreRead(t *testing.T) {
	t.Parallel()
	b := slices.Concat(sparseHeader("hole", 10000), make([]byte, 1024))
	f := tempFile(t)
	im, err := layer.Prepare(t.Context(), bytes.NewReader(b), plain(b), layer.PrepareOptions{Image: f})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"dir . implied", fmt.Sprintf("file hole 644 0:0 %q", make([]byte, 10000))}
	if d := cmp.Diff(want, describe(t, im)); d != "" {
		t.Error(d)
	}
}

// TestAccountFilesAtHand: the content at hand is that of the file that ended up under the name.
func TestAccountFilesAtHand(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		entries []entry
		path    string
		want    string
	}{
		"plain":        {[]entry{treg("etc/passwd", "a")}, "etc/passwd", "a"},
		"twice":        {[]entry{treg("etc/passwd", "a"), treg("etc/passwd", "b")}, "etc/passwd", "b"},
		"other case":   {[]entry{treg("./etc/passwd", "a")}, "etc/passwd", "a"},
		"moved":        {[]entry{treg("etc/passwd", "a"), tlink("etc/a", "etc/passwd"), treg("etc/passwd", "b")}, "etc/passwd", "b"},
		"linked":       {[]entry{treg("etc/passwd", "a"), tlink("etc/a", "etc/passwd")}, "etc/a", "a"},
		"through link": {[]entry{treg("real/passwd", "c"), tsym("etc", "real")}, "", ""},
	} {
		b := tarOf(t, tt.entries...)
		im, err := layer.Prepare(t.Context(), bytes.NewReader(b), plain(b), layer.PrepareOptions{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if tt.path == "" {
			continue
		}
		got, err := io.ReadAll(im.Content(im.Index.Find(tt.path)))
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	replaced := tarOf(t, treg("etc/passwd", "a"), treg("other", "b"), tlink("etc/passwd", "other"))
	im, err := layer.Prepare(t.Context(), bytes.NewReader(replaced), plain(replaced), layer.PrepareOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(im.Content(im.Index.Find("etc/passwd"))); err == nil {
		t.Errorf("a replaced file reads %q", got)
	}
}
