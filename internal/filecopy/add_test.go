package filecopy_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"hako/internal/filecopy"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// header turns a line of treetest into a tar header. The name is taken as written.
func header(t testing.TB, line string) (*tar.Header, string) {
	t.Helper()
	e, content, err := treetest.ParseLine(line)
	if err != nil {
		t.Fatal(err)
	}
	name, _, _ := strings.Cut(line, " ")
	h := &tar.Header{
		Name: name, Mode: int64(e.Mode), Uid: int(e.UID), Gid: int(e.GID), ModTime: e.ModTime, Size: e.Size,
		Linkname: e.Linkname, Devmajor: int64(e.Major), Devminor: int64(e.Minor), Format: tar.FormatPAX,
	}
	h.Typeflag = map[tree.Kind]byte{
		tree.Dir: tar.TypeDir, tree.Regular: tar.TypeReg, tree.Symlink: tar.TypeSymlink, tree.Hardlink: tar.TypeLink,
		tree.CharDevice: tar.TypeChar, tree.BlockDevice: tar.TypeBlock, tree.Fifo: tar.TypeFifo,
	}[e.Kind]
	for k, v := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	return h, content
}

// archive is a tar of lines of treetest, in their order.
func archive(t testing.TB, text string) []byte {
	t.Helper()
	b, err := pack(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pack(t testing.TB, text string) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		h, content := header(t, line)
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.WriteString(w, content); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return b.Bytes(), err
}

// file is a tree of one file, which treetest's text form is too slow for.
type file struct {
	tree.Tree
	name string
	data []byte
}

func newFile(t testing.TB, name string, data []byte) *file {
	t.Helper()
	return &file{Tree: treetest.New(t, name+" @9"), name: name, data: data}
}

func (f *file) Lstat(p string) (tree.Entry, error) {
	e, err := f.Tree.Lstat(p)
	if p == f.name {
		e.Size = int64(len(f.data))
	}
	return e, err
}

func (f *file) Open(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(f.data)), nil }

func TestAddArchive(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, archive, below, dest, chown, chmod, want string
	}{{
		name: "entries", dest: "/d/", archive: `
			a 04750 3:4 @7 x:security.capability=\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00 x:user.a=1 x:trusted.overlay.opaque=y x:user.overlay.origin=y = x
			d/ 0700 5:6 @8
			d/f 0600 @9
			l 7:8 @10 x:user.a=1 -> ../../a
			h => a
			p 0622 1:2 @11 fifo
			n 0666 @12 c1:3`,
		want: `d/ 0755 0:0 @1000
			d/a 0644 0:0 @0 x:security.capability=\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00 x:user.a=1 = x
			d/d/ 0700 5:6 @8
			d/d/f 0600 0:0 @9
			d/h => d/a
			d/l 7:8 @10 -> ../../a
			d/n 0666 0:0 @12 c1:3
			d/p 0622 1:2 @11 fifo`,
	}, {
		name: "chown is for what the archive holds, chmod for nothing", dest: "/x/y", chown: "1:2", chmod: "600", archive: "a 0644 3:4 @7 \n d/e/f 0640 3:4 @8",
		want: `x/ 0755 1:2 @1000
			x/y/ 0755 1:2 @1000
			x/y/a 0644 1:2 @7
			x/y/d/ 0755 0:0 @1000
			x/y/d/e/ 0755 0:0 @1000
			x/y/d/e/f 0640 1:2 @8`,
	}, {
		name: "the archive's root directory is left out", dest: "/d", below: "d/ 0700 1:2 @5", archive: "./ 0711 3:4 @7 \n ./a @8",
		want: "d/ 0700 1:2 @1000 \n d/a 0644 0:0 @8",
	}, {
		name: "names that point out come back", dest: "/d", archive: "../../a @7 \n /etc/b @8 \n x/../../c @9",
		want: `d/ 0755 0:0 @1000
			d/a 0644 0:0 @7
			d/c 0644 0:0 @9
			d/etc/ 0755 0:0 @1000
			d/etc/b 0644 0:0 @8`,
	}, {
		name: "a link out does not lead out", dest: "/d", below: "etc/passwd = root", archive: "l -> /etc \n l/passwd = evil",
		want: `error: ADD: unpack x: "l/passwd": its directory is not there`,
	}, {
		name: "an absolute link leads to the destination", dest: "/d", below: "d/etc/", archive: "l @7 -> /etc \n l/x @7 = y",
		want: `d/ 0755 0:0 @1000
			d/etc/ 0755 0:0 @1000
			d/etc/x 0644 0:0 @7 = y
			d/l 0:0 @7 -> /etc`,
	}, {
		name: "through a link of the stage", dest: "/", below: "bin -> usr/bin \n usr/bin/", archive: "bin/a @7",
		want: `usr/ 0755 0:0 @0
			usr/bin/ 0755 0:0 @1000
			usr/bin/a 0644 0:0 @7`,
	}, {
		name: "a directory replaces a link", dest: "/", below: "bin -> usr/bin \n usr/bin/x", archive: "bin/ @7 \n bin/a @7",
		want: `bin/ 0755 0:0 @7
			bin/a 0644 0:0 @7`,
	}, {
		name: "a file replaces a directory", dest: "/", below: "d/e/f", archive: "d @7 = x",
		want: "d 0644 0:0 @7 = x",
	}, {
		name: "a directory replaces a directory's file and back", dest: "/", below: "d/a \n d/b/c", archive: "d @7 \n d/ 0700 @8 \n d/b/ @9 \n d/n @9",
		want: `d/ 0700 0:0 @8
			d/a whiteout
			d/b/ 0755 0:0 @9
			d/b/c whiteout
			d/n 0644 0:0 @9`,
	}, {
		name: "an existing directory gets the metadata", dest: "/", below: "d/ 0700 1:2 @3 \n d/k", archive: "d/ 0711 5:6 @7",
		want: "d/ 0711 5:6 @7",
	}, {
		name: "the last of equal names wins", dest: "/", archive: "a @7 = x \n a @8 = yy",
		want: "a 0644 0:0 @8 = yy",
	}, {
		name: "the destination gets a new time", dest: "/d", below: "d/ @5 \n d/e/ @6", archive: "e/f @7",
		want: `d/ 0755 0:0 @1000
			d/e/ 0755 0:0 @1000
			d/e/f 0644 0:0 @7`,
	}, {
		name: "a file far below a link to nowhere", dest: "/d", archive: "l -> nowhere \n l/a/b",
		want: `error: ADD: unpack x: "l/a/b": its directory is not there`,
	}, {
		name: "a directory's time goes through the link that replaced it", dest: "/d", archive: "a/b/ 0711 @7 \n a/b @8 -> /",
		want: `d/ 0755 0:0 @7
			d/a/ 0755 0:0 @1000
			d/a/b 0:0 @8 -> /`,
	}, {
		name: "a directory's time has nowhere to go", dest: "/d", archive: "b/ 0711 @7 \n b @8 -> nowhere",
		want: `error: ADD: unpack x: set time of "b": it is not there`,
	}, {
		name: "a hard link to a file of the stage", dest: "/", below: "d/a 0600 1:2 @3 = x", archive: "b 0640 4:5 @7 => d/a",
		want: `b 0640 4:5 @7 = x
			d/ 0755 0:0 @0
			d/a => b`,
	}, {
		name: "a hard link to nothing", dest: "/", archive: "b => a", want: `error: ADD: unpack x: "b": a hard link must point to a file that is there`,
	}, {
		name: "a hard link to a directory", dest: "/", archive: "d/ \n b => d", want: `error: ADD: unpack x: "b": a hard link cannot point to a directory`,
	}, {
		name: "a hard link that points out", dest: "/d", below: "etc/shadow = s", archive: "b => ../../etc/shadow",
		want: `error: ADD: unpack x: "b": a hard link must point to a file that is there`,
	}, {
		name: "a file in a file", dest: "/", archive: "a \n a/b", want: `error: ADD: unpack x: "a/b": /a exists in the stage and is not a directory`,
	}, {
		name: "marker of deleted files", dest: "/d", archive: ".wh.a", want: `error: ADD: /d/.wh.a cannot be part of an image: names with ".wh." mark deleted files`,
	}, {
		name: "equal to the stage", dest: "/", below: "d/a 0600 1:2 @3 = x", archive: "d/ @7 \n d/a 0600 1:2 @3 = x", want: "",
	}, {
		name: "the destination is a file", dest: "/f", below: "f", archive: "a", want: `error: ADD to /f: /f exists in the stage and is not a directory
			hint: Choose a destination with nothing but directories on the way.`,
	}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := &filecopy.Request{
				From: newFile(t, "x", archive(t, tt.archive)), Paths: []string{"x"}, Dest: tt.dest,
				Chown: tt.chown, Chmod: tt.chmod, Add: true, Unpack: true,
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

func TestAddCompression(t *testing.T) {
	t.Parallel()
	plain := archive(t, "a 0640 3:4 @7 = x")
	compressed := func(w io.WriteCloser, err error, b *bytes.Buffer) []byte {
		if err == nil {
			_, err = w.Write(plain)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var gz, xzb, zst bytes.Buffer
	xw, xerr := xz.NewWriter(&xzb)
	zw, zerr := zstd.NewWriter(&zst)
	bz, err := os.ReadFile("testdata/a.tar.bz2")
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string][]byte{
		"none": plain, "gzip": compressed(gzip.NewWriter(&gz), nil, &gz), "bzip2": bz,
		"xz": compressed(xw, xerr, &xzb), "zstd": compressed(zw, zerr, &zst),
	}
	tests["zstd after a skippable frame"] = append([]byte("\x5e\x2a\x4d\x18\x04\x00\x00\x00skip"), tests["zstd"]...)
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := copied(t, &filecopy.Request{From: newFile(t, "any.name", data), Paths: []string{"any.name"}, Dest: "/", Add: true, Unpack: true})
			if diff := cmp.Diff("a 0640 3:4 @7 = x\n", got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAddCopiesWhatIsNoArchive(t *testing.T) {
	t.Parallel()
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	if _, err := w.Write([]byte("text")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty": {}, "text": []byte("hi"), "compressed text": gz.Bytes(), "empty tar": make([]byte, 1024),
		"broken gzip": []byte("\x1f\x8b\x08xxxxxxxxxxxxx"), "broken xz": []byte("\xfd7zXZ\x00xxxxxxxxxxxx"),
		"broken zstd": []byte("\x28\xb5\x2f\xfdxxxxxxxxx"), "broken bzip2": []byte("BZhxxxxxxxx"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := copied(t, &filecopy.Request{From: newFile(t, "f.tar", data), Paths: []string{"f.tar"}, Dest: "/d/", Add: true, Unpack: true})
			want := "d/ 0755 0:0 @1000\n" + treetest.Line(tree.Entry{Path: "d/f.tar", Kind: tree.Regular, Mode: 0o644, ModTime: time.Unix(9, 0)}, data) + "\n"
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCopyDoesNotUnpack(t *testing.T) {
	t.Parallel()
	data := archive(t, "a")
	got := copied(t, &filecopy.Request{From: newFile(t, "f.tar", data), Paths: []string{"f.tar"}, Dest: "/"})
	if !strings.HasPrefix(got, "f.tar 0644 0:0 @9 = ") {
		t.Errorf("changes: %.80s", got)
	}
}

func TestAddTruncatedArchive(t *testing.T) {
	t.Parallel()
	data := archive(t, "a = "+strings.Repeat("x", 2000))
	got := copied(t, &filecopy.Request{From: newFile(t, "f.tar", data[:1024]), Paths: []string{"f.tar"}, Dest: "/", Add: true, Unpack: true})
	if want := "error: ADD: unpack f.tar: \"a\": unexpected EOF\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// FuzzAdd unpacks broken and hostile archives. What comes out must be in normal form and inside the destination.
func FuzzAdd(f *testing.F) {
	for _, text := range []string{
		"a @7 = x \n d/ \n d/b = y \n l -> a \n h => a", "../a \n /b \n c/../../d", "l -> / \n l/x \n l/l/y", "a \n a/ \n a/b \n a",
		"d/ 0700 \n d/x => d/y", "n c1:3 \n p fifo \n .wh.x", "s/a \n s/b \n s",
	} {
		f.Add(archive(f, text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		below := treetest.New(t, "d/l -> /etc \n d/s/f = x \n d/h => d/s/f \n etc/passwd = root")
		c, err := filecopy.Copy(t.Context(), &filecopy.Request{
			Below: below, From: newFile(t, "f", data), FromName: "the test", Paths: []string{"f"}, Dest: "/d", Add: true, Unpack: true,
			Now: now(), MaxUnpacked: 1 << 20, Spool: func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "spool") },
		})
		if err != nil {
			return
		}
		if err := normal(t, c, below, "d"); err != nil && !strings.Contains(err.Error(), "cannot be part of an image") {
			t.Error(err)
		}
	})
}

// FuzzAddEntries unpacks archives with whole headers that say anything.
func FuzzAddEntries(f *testing.F) {
	for _, text := range []string{
		"a @7 = x\nd/\nd/b = y\nl -> a\nh => a", "../a\n/b\nc/../../d", "l -> /\nl/x\nl/l/y", "a\na/\na/b\na",
		"s/ 0700\ns/f => h\ns", "l/k\ns => l\ns/f => s/f", "n c1:3\nn/ 0\np fifo\nh => p\np", "s\ns/\ns/f\ns/g => s/f\ns",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for line := range strings.SplitSeq(text, "\n") {
			if e, _, err := treetest.ParseLine(strings.TrimSpace(line)); strings.TrimSpace(line) != "" && (err != nil || e.ModTime.IsZero()) {
				return // not a tree
			}
		}
		data, err := pack(t, text)
		if err != nil {
			return // not an archive
		}
		below := treetest.New(t, "d/l -> /etc \n d/s/f = x \n d/h => d/s/f \n etc/passwd = root")
		c, err := filecopy.Copy(t.Context(), &filecopy.Request{
			Below: below, From: newFile(t, "f", data), FromName: "the test", Paths: []string{"f"}, Dest: "/d", Add: true, Unpack: true,
			Now: now(), MaxUnpacked: 1 << 20, Spool: func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "spool") },
		})
		if err != nil {
			return
		}
		if err := normal(t, c, below, "d"); err != nil && !strings.Contains(err.Error(), "cannot be part of an image") {
			t.Error(err)
		}
	})
}

// normal reads changes and verifies the rules of the normal form, and that they stay inside dir.
func normal(t *testing.T, c *filecopy.Changes, below tree.Tree, dir string) error {
	t.Helper()
	defer c.Close() //nolint:errcheck // a test
	last := "."
	seen := map[string]tree.Kind{}
	return c.Each(t.Context(), func(e tree.Entry, content io.Reader) error {
		if tree.Compare(last, e.Path) >= 0 {
			return fmt.Errorf("%s comes after %s", e.Path, last)
		}
		if last = e.Path; !tree.Within(e.Path, dir) {
			return fmt.Errorf("%s is outside", e.Path)
		}
		if parent := path.Dir(e.Path); parent != "." && seen[parent] != tree.Dir {
			return fmt.Errorf("%s has no directory", e.Path)
		}
		seen[e.Path] = e.Kind
		_, err := below.Lstat(e.Path)
		switch {
		case e.Kind == tree.Whiteout && err != nil:
			return fmt.Errorf("whiteout of %s, which is not there", e.Path)
		case e.Kind == tree.Hardlink && seen[e.Linkname] != tree.Regular && seen[e.Linkname] != tree.Symlink &&
			seen[e.Linkname] != tree.Fifo && seen[e.Linkname] != tree.CharDevice && seen[e.Linkname] != tree.BlockDevice:
			return fmt.Errorf("hard link %s to %s, which has not come", e.Path, e.Linkname)
		case (content != nil) != (e.Kind == tree.Regular):
			return fmt.Errorf("content of %s: %v", e.Path, content)
		case content == nil:
			return nil
		}
		n, err := io.Copy(io.Discard, content)
		if err == nil && n != e.Size {
			err = fmt.Errorf("%s has %d bytes, not %d", e.Path, n, e.Size)
		}
		return err
	})
}
