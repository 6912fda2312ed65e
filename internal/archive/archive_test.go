package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"hako/internal/archive"
	"hako/internal/compression"
	"hako/internal/inflate"
	"hako/internal/tree/treetest"
)

// entry is one entry of an archive.
type entry struct {
	tar.Header
	content string
}

func dir(name string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755}}
}

func file(name, content string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}, content: content}
}

func symlink(name, target string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}}
}

func link(name, target string) entry {
	return entry{Header: tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: target}}
}

func pack(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(0, 0)
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// options make files in a directory of the test, which is empty again when the last tree is closed.
func options(t testing.TB) archive.Options {
	t.Helper()
	dir := t.TempDir()
	return archive.Options{File: func(name string) (*os.File, error) {
		f, err := os.CreateTemp(dir, name)
		if err != nil {
			return nil, err
		}
		return f, os.Remove(f.Name())
	}}
}

func unpack(t testing.TB, data []byte, o archive.Options) (*archive.Tree, error) {
	t.Helper()
	tr, err := archive.Unpack(t.Context(), bytes.NewReader(data), o)
	if err == nil {
		t.Cleanup(func() {
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return tr, err
}

func lines(s string) string {
	var out strings.Builder
	for l := range strings.Lines(s) {
		if l = strings.TrimSpace(l); l != "" {
			out.WriteString(l + "\n")
		}
	}
	return out.String()
}

func TestUnpack(t *testing.T) {
	t.Parallel()
	setuid := file("su", "x")
	setuid.Mode, setuid.Uid, setuid.Gid, setuid.ModTime = 0o4755, 7, 8, time.Unix(9, 0)
	xattrs := file("x", "x")
	xattrs.PAXRecords = map[string]string{"SCHILY.xattr.user.a": "1", "SCHILY.xattr.security.capability": "2", "SCHILY.xattr.user.overlay.opaque": "y"}
	old := file("old", "")
	old.ModTime = time.Unix(-5, 0)
	tests := []struct {
		name    string
		entries []entry
		want    string
	}{
		{"nothing", nil, ""},
		{"owners are root, modes and times stay", []entry{setuid}, "su 04755 0:0 @9 = x"},
		{"attributes of users only", []entry{xattrs}, "x 0644 0:0 @0 x:user.a=1 = x"},
		{"times before 1970", []entry{old}, "old 0644 0:0 @0"},
		{"missing directories", []entry{file("a/b/c", "x")}, "a/ 0755 0:0 @0\n a/b/ 0755 0:0 @0\n a/b/c 0644 0:0 @0 = x"},
		{"absolute and unclean names", []entry{dir("./"), dir("/a//./"), file("/a/./f", "x")}, "a/ 0755 0:0 @0\n a/f 0644 0:0 @0 = x"},
		{"a name twice", []entry{file("a", "first"), file("b", "b"), file("a", "second")}, "a 0644 0:0 @0 = second\n b 0644 0:0 @0 = b"},
		{"a directory twice", []entry{dir("d"), file("d/a", "x"), {Header: tar.Header{Name: "d", Typeflag: tar.TypeDir, Mode: 0o700}}}, "d/ 0700 0:0 @0\n d/a 0644 0:0 @0 = x"},
		{"a file in place of a directory and back", []entry{file("d/a", "x"), file("d", "f"), file("e/a", "x"), file("e", "f"), dir("e"), file("e/b", "y")},
			"d 0644 0:0 @0 = f\n e/ 0755 0:0 @0\n e/b 0644 0:0 @0 = y"},
		{"hard links", []entry{file("a", "x"), link("b", "a"), link("./c", "/b")}, "a 0644 0:0 @0 = x\n b => a\n c => a"},
		{"a hard link to itself", []entry{file("a", "x"), link("a", "a")}, "a 0644 0:0 @0 = x"},
		{"a hard link whose first name is replaced", []entry{file("a", "x"), link("b", "a"), file("a", "y")}, "a 0644 0:0 @0 = y\n b 0644 0:0 @0 = x"},
		{"through links inside", []entry{dir("d"), symlink("l", "d"), file("l/f", "x")}, "d/ 0755 0:0 @0\n d/f 0644 0:0 @0 = x\n l 0:0 @0 -> d"},
		{"through links that point out", []entry{symlink("l", "../../etc"), file("l/passwd", "x"), symlink("m", "/etc"), file("m/group", "y")},
			"etc/ 0755 0:0 @0\n etc/group 0644 0:0 @0 = y\n etc/passwd 0644 0:0 @0 = x\n l 0:0 @0 -> ../../etc\n m 0:0 @0 -> /etc"},
		{"a file in place of a link", []entry{symlink("l", "/etc/passwd"), file("l", "x")}, "l 0644 0:0 @0 = x"},
		{"special files", []entry{
			{Header: tar.Header{Name: "c", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}},
			{Header: tar.Header{Name: "b", Typeflag: tar.TypeBlock, Devmajor: 8}},
			{Header: tar.Header{Name: "p", Typeflag: tar.TypeFifo, Mode: 0o600}},
		}, "b 00 0:0 @0 b8:0\n c 00 0:0 @0 c1:3\n p 0600 0:0 @0 fifo"},
		{"names are bytes", []entry{file("caf\xe9", "x"), file("\xff/\xfe\n", "y")}, "caf\xe9 0644 0:0 @0 = x\n\xff/ 0755 0:0 @0\n" + `"\xff/\xfe\n" 0644 0:0 @0 = y`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tr, err := unpack(t, pack(t, tt.entries...), options(t))
			if err != nil {
				t.Fatal(err)
			}
			got, err := treetest.Dump(tr)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(lines(tt.want), got); diff != "" {
				t.Errorf("tree (-want +got):\n%s", diff)
			}
		})
	}
}

func TestBadArchives(t *testing.T) {
	t.Parallel()
	good := pack(t, file("a", strings.Repeat("x", 2000)), file("b", "y"))
	deep := strings.Repeat("a/", 100_000) + "f"
	odd := file("odd", "")
	odd.Typeflag = 'Z'
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "there is nothing in it"},
		{"text", []byte("FROM scratch\n"), "it is not a tar archive"},
		{"long text", bytes.Repeat([]byte("FROM scratch\n"), 100), "it is not a tar archive"},
		{"cut in a header", good[:100], "it is not a tar archive"},
		{"cut in a content", good[:1000], "the archive is cut off"},
		{"cut after an entry", good[:512+2048], "the archive is cut off: it has no end"},
		{"up", pack(t, file("../a", "x")), `entry "../a": name contains ".."`},
		{"up in the middle", pack(t, file("a/../../b", "x")), `name contains ".."`},
		{"the root as a file", pack(t, file(".", "")), "the root of the context must be a directory"},
		{"a link up", pack(t, file("a", "x"), link("b", "../../etc/passwd")), `link to "../../etc/passwd": name contains ".."`},
		{"a link to nothing", pack(t, link("b", "a")), `entry "b": link to "a": a hard link must point to a file that comes before it`},
		{"a link to a directory", pack(t, dir("a"), link("b", "a")), "a hard link cannot point to a directory"},
		{"below a file", pack(t, file("a", "x"), file("a/b", "x")), "it is below something that is not a directory"},
		{"a loop of links", pack(t, symlink("a", "b"), symlink("b", "a"), file("a/f", "x")), "no directory"},
		{"a deep path", pack(t, file(deep, "x")), "name is longer than 4096 bytes"},
		{"a long name", pack(t, file(strings.Repeat("n", 300), "x")), "or a part of it than 255"},
		{"a deep path through links", deepLinks(t), "name is longer than 4096 bytes"},
		{"an unknown type", pack(t, odd), "unknown type 'Z' of an entry"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := unpack(t, tt.data, options(t))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
		})
	}
}

// deepLinks makes a path that is longer than any name in the archive.
func deepLinks(t *testing.T) []byte {
	var entries []entry
	long := strings.Repeat(strings.Repeat("d", 200)+"/", 10)
	at := "l0"
	entries = append(entries, dir("start"), symlink("l0", "start"))
	for i := range 4 {
		entries = append(entries, dir(at+"/"+long), symlink(fmt.Sprintf("l%d", i+1), at+"/"+strings.TrimSuffix(long, "/")))
		at = fmt.Sprintf("l%d", i+1)
	}
	return pack(t, entries...)
}

func TestLimits(t *testing.T) {
	t.Parallel()
	data := pack(t, file("a", "xxxx"), file("b", "xxxx"), file("c", "xxxx"))
	for _, l := range []archive.Limits{{Entries: 2}, {Bytes: 11}, {NameBytes: 2}} {
		o := options(t)
		o.Limits = l
		if _, err := unpack(t, data, o); !errors.Is(err, archive.ErrTooMuch) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	o := options(t)
	o.Limits = archive.Limits{Entries: 3, Bytes: 12, NameBytes: 3}
	if _, err := unpack(t, data, o); err != nil {
		t.Error(err)
	}
}

// A bomb of zeros takes no room.
func TestHolesTakeNoRoom(t *testing.T) {
	t.Parallel()
	const size = 1 << 30
	var head bytes.Buffer
	w := tar.NewWriter(&head)
	if err := w.WriteHeader(&tar.Header{Name: "z", Typeflag: tar.TypeReg, Size: size}); err != nil {
		t.Fatal(err)
	}
	in := io.MultiReader(&head, io.LimitReader(zeros{}, size+1024))
	o := options(t)
	var stored *os.File
	create := o.File
	o.File = func(name string) (_ *os.File, err error) {
		stored, err = create(name)
		return stored, err
	}
	tr, err := archive.Unpack(t.Context(), in, o)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(stored.Fd()), &st); err != nil || st.Blocks > 1<<10 || st.Size != size {
		t.Errorf("%d blocks for %d bytes, %v", st.Blocks, st.Size, err)
	}
	if err := errors.Join(tr.Close(), tr.Close()); err != nil {
		t.Error(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestBytesAfterTheEnd(t *testing.T) {
	t.Parallel()
	data := append(pack(t, file("a", "x")), make([]byte, 5000)...)
	o := options(t)
	var warnings []string
	o.Warn = func(text string) { warnings = append(warnings, text) }
	if _, err := unpack(t, data, o); err != nil || warnings != nil {
		t.Errorf("zeros: %v, %q", err, warnings)
	}
	if _, err := unpack(t, append(data, "more"...), o); err != nil || len(warnings) != 1 {
		t.Errorf("garbage: %v, %q", err, warnings)
	}
	// What fails after the end counts: a compression has its checksum there.
	bad := errors.New("checksum")
	_, err := archive.Unpack(t.Context(), io.MultiReader(bytes.NewReader(data), &failing{bad}), o)
	if !errors.Is(err, bad) {
		t.Errorf("failure after the end: %v", err)
	}
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

func TestStoppedWhileReading(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	var head bytes.Buffer
	if err := tar.NewWriter(&head).WriteHeader(&tar.Header{Name: "z", Typeflag: tar.TypeReg, Size: 1 << 40}); err != nil {
		t.Fatal(err)
	}
	in := io.MultiReader(&head, readFunc(func(p []byte) (int, error) {
		cancel(why)
		return len(p), nil
	}))
	if _, err := archive.Unpack(ctx, in, options(t)); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// prefixes is a sieve that drops what begins with what the file "ignore" says.
type prefixes struct {
	drop string
	seen []string
}

func (p *prefixes) Wants(path string) bool { return path == "ignore" }

func (p *prefixes) Learn(_ string, content []byte) { p.drop = string(content) }

func (p *prefixes) Drops(path string) bool {
	p.seen = append(p.seen, path)
	return p.drop != "" && strings.HasPrefix(path, p.drop)
}

func TestSieve(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("0123456789abcdef", 2<<20/16) // 2 MiB
	small := "small"
	tests := []struct {
		name    string
		entries []entry
		gone    string // names whose content is not there
		want    string // of the error
	}{
		{"ignore file first", []entry{file("ignore", "x"), file("xbig", big), file("xsmall", small), file("big", big)}, "xbig", ""},
		{"ignore file last", []entry{file("xbig", big), file("xsmall", small), file("big", big), file("ignore", "x")}, "xbig", ""},
		{"no ignore file", []entry{file("xbig", big)}, "", ""},
		{"changed its mind", []entry{file("ignore", "x"), file("xbig", big), file("ignore", "y")}, "", `"xbig" is needed`},
		{"changed its mind about another", []entry{file("ignore", "x"), file("big", big), file("ignore", "b")}, "big", ""},
		{"a further name", []entry{file("ignore", "x"), file("xbig", big), link("kept", "xbig")}, "", `"kept" is needed`},
		{"a further name that was there", []entry{file("xbig", big), link("kept", "xbig"), file("ignore", "x")}, "", ""},
		{"replaced", []entry{file("ignore", "x"), file("xbig", big), file("ignore", ""), file("xbig", "new")}, "", ""},
		{"its directory was replaced", []entry{file("ignore", "x"), file("x/big", big), file("ignore", ""), file("x", "new")}, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.Sieve = &prefixes{}
			tr, err := unpack(t, pack(t, tt.entries...), o)
			if tt.want != "" {
				var needed *archive.NeededError
				if !errors.As(err, &needed) || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			names, err := tr.ReadDir(".")
			if err != nil {
				t.Fatal(err)
			}
			var gone []string
			for _, n := range names {
				if _, err := treetest.ReadAll(tr, n); err != nil {
					gone = append(gone, n)
				}
			}
			if got := strings.Join(gone, " "); got != tt.gone {
				t.Errorf("gone is %q, want %q", got, tt.gone)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	t.Parallel()
	tr, err := unpack(t, pack(t, file("a/f", "x")), options(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"b", "a/g", "a/f/x", "", "/a", "a/", "../a", "a//f"} {
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
	for _, p := range []string{"a", "."} {
		if _, err := tr.Open(p); err == nil {
			t.Errorf("Open(%q) succeeded", p)
		}
	}
}

// FuzzUnpack reads anything: it must end, and what it makes must be a tree that can be walked.
func FuzzUnpack(f *testing.F) {
	for _, s := range [][]entry{
		{file("a/b", "x"), link("c", "a/b"), symlink("d", "a"), file("d/e", "y")},
		{symlink("l", "/../x/"), dir("l/y"), file("l", "z"), dir("l"), link("l/q", "l/y")},
		{file("ignore", "a"), file("ab", "x"), link("b", "ab"), file("ab", "")},
	} {
		f.Add(pack(f, s...))
	}
	f.Add([]byte{})
	f.Add(make([]byte, 1024))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := archive.Options{File: func(name string) (*os.File, error) {
			fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
			return os.NewFile(uintptr(fd), name), err
		}}
		o.Limits = archive.Limits{Entries: 1000, Bytes: 1 << 20, NameBytes: 1 << 20}
		plain, err := unpack(t, data, o)
		if err != nil {
			return
		}
		if _, err := treetest.Dump(plain); err != nil {
			t.Errorf("walk: %v", err)
		}
		o.Sieve = &prefixes{}
		sieved, err := unpack(t, data, o)
		if err != nil && !errors.As(err, new(*archive.NeededError)) {
			t.Errorf("with a sieve: %v", err)
		}
		if err == nil {
			if _, err := treetest.Dump(sieved); err != nil {
				t.Errorf("walk with a sieve: %v", err) // all is small enough to be kept
			}
		}
	})
}

// rawHeader is a header of a type that tar.Writer does not write, with fields at those places.
func rawHeader(t *testing.T, kind byte, fields map[int]string) []byte {
	t.Helper()
	block := pack(t, entry{Header: tar.Header{Name: "z", Typeflag: tar.TypeReg, Format: tar.FormatGNU}})[:512]
	block[156] = kind
	for at, text := range fields {
		copy(block[at:], text)
	}
	copy(block[148:], "        ")
	sum := 0
	for _, b := range block {
		sum += int(b)
	}
	copy(block[148:], fmt.Sprintf("%06o\x00 ", sum))
	return block
}

// A record that claims to be a gigabyte is not read into memory.
func TestHugeRecords(t *testing.T) {
	t.Parallel()
	for _, kind := range []byte{tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink} {
		head := rawHeader(t, kind, map[int]string{124: fmt.Sprintf("%011o\x00", 1<<30)})
		in := &counted{r: io.MultiReader(bytes.NewReader(head), io.LimitReader(zeros{}, 1<<30))}
		if _, err := archive.Unpack(t.Context(), in, options(t)); !errors.Is(err, tar.ErrFieldTooLong) {
			t.Errorf("%q: %v", kind, err)
		}
		if in.n > 4<<20 {
			t.Errorf("%q: %d bytes are read", kind, in.n)
		}
	}
}

// counted counts what is read.
type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// A hole is read without reading anything.
func TestStoppedInAHole(t *testing.T) {
	t.Parallel()
	const size = 4 << 30 // 4 GiB
	// Its one part is at 386, of no bytes; the size is at 483: tar(5).
	block := rawHeader(t, tar.TypeGNUSparse, map[int]string{386: fmt.Sprintf("%011o\x00%011o\x00", size, 0), 483: fmt.Sprintf("%011o\x00", size)})
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	o := options(t)
	create := o.File
	o.File = func(name string) (*os.File, error) {
		cancel(why)
		return create(name)
	}
	data := append(block, make([]byte, 1024)...)
	if tr, err := archive.Unpack(ctx, bytes.NewReader(data), o); !errors.Is(err, why) {
		t.Errorf("got %v, %v", tr, err)
	}
	if tr, err := unpack(t, data, options(t)); err != nil || tr.Size() != size {
		t.Errorf("without an end: %v", err)
	}
}

// Tapes and other programs leave something after compressed data, which gzip(1) does not mind.
func TestBytesAfterCompressedData(t *testing.T) {
	t.Parallel()
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(pack(t, file("a", "x"))); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for tail, want := range map[string]int{"": 0, strings.Repeat("\x00", 512): 1, "no member of gzip": 1} {
		r, err := compression.NewReader(strings.NewReader(zipped.String() + tail))
		if err != nil {
			t.Fatal(err)
		}
		o := options(t)
		warnings := 0
		o.Warn = func(string) { warnings++ }
		tr, err := archive.Unpack(t.Context(), r, o)
		if err != nil || warnings != want || tr.Close() != nil {
			t.Errorf("%q: %v, %d warnings", tail, err, warnings)
		}
	}
	broken := zipped.Bytes()
	broken[len(broken)-6]++ // of the checksum
	r, err := compression.NewReader(&zipped)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := archive.Unpack(t.Context(), r, options(t)); !errors.Is(err, inflate.ErrChecksum) {
		t.Errorf("a wrong checksum: %v", err)
	}
}
