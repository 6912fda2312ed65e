package layer_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/tree"
)

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return b
}

// mixed is content that compresses about as well as programs do.
func mixed(seed uint64, n int) []byte {
	words := make([][]byte, 300)
	for i := range words {
		words[i] = randomBytes(seed+uint64(i), 3+i%40)
	}
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, 0, n+64)
	for len(out) < n {
		out = append(out, words[int(r.ExpFloat64()*40)%len(words)]...)
		if r.IntN(50) == 0 {
			out = append(out, make([]byte, 100)...)
		}
	}
	return out[:n]
}

// TestWriteIsTheSameOnAnyMachine cannot be parallel: it changes the number of processors.
func TestWriteIsTheSameOnAnyMachine(t *testing.T) {
	l := list{reg("a", string(mixed(1, 3<<20))), reg("b", string(randomBytes(2, 1<<20))), reg("c", string(mixed(3, 1<<20)))}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var all []layer.WriteOptions
	for _, level := range []int{0, 1, 2, 3, 5, 6, 7, 9} {
		all = append(all, layer.WriteOptions{Level: level})
	}
	all = append(all, layer.WriteOptions{Compression: layer.Zstd}, layer.WriteOptions{Compression: layer.Zstd, Level: 9})
	for _, opts := range all {
		var want []byte
		for _, procs := range []int{1, 5, 2} {
			runtime.GOMAXPROCS(procs)
			got, _ := written(t, l, opts)
			if want == nil {
				want = got
			}
			if !bytes.Equal(want, got) {
				t.Errorf("%v level %d with %d processors: other bytes", opts.Compression, opts.Level, procs)
			}
		}
	}
}

// The bytes of a layer are part of what users see: they change only with the compression library or on purpose.
func TestWriteGolden(t *testing.T) {
	t.Parallel()
	l := append(sample(), reg("z", string(mixed(1, 3<<20))))
	for _, c := range []struct {
		opts layer.WriteOptions
		want layer.Descriptor
	}{
		{layer.WriteOptions{Compression: layer.Uncompressed}, layer.Descriptor{
			MediaType: "application/vnd.oci.image.layer.v1.tar",
			Digest:    "sha256:c812aebc47479afac4fcd82774adb5af162aa4c1a688b297ce32d84a0a76f2a3", Size: 3201024,
			DiffID: "sha256:c812aebc47479afac4fcd82774adb5af162aa4c1a688b297ce32d84a0a76f2a3",
		}},
		{layer.WriteOptions{}, layer.Descriptor{
			MediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
			Digest:    "sha256:1f4dfae1691810bc4c6be539811bbe0767c783444b857219f0b00c5d46e34faf", Size: 446652,
			DiffID: "sha256:c812aebc47479afac4fcd82774adb5af162aa4c1a688b297ce32d84a0a76f2a3",
		}},
		{layer.WriteOptions{Compression: layer.Zstd, Docker: true}, layer.Descriptor{
			MediaType: "application/vnd.docker.image.rootfs.diff.tar.zstd",
			Digest:    "sha256:9979cebdb0ab5fa49deaca1e210cf8f2d303d3899a5fe68e14e9269c03393acc", Size: 339168,
			DiffID: "sha256:c812aebc47479afac4fcd82774adb5af162aa4c1a688b297ce32d84a0a76f2a3",
		}},
	} {
		_, w := written(t, l, c.opts)
		if d := cmp.Diff(c.want, w.Descriptor); d != "" {
			t.Errorf("want (-), got (+):\n%s", d)
		}
	}
}

func TestTarHeaders(t *testing.T) {
	t.Parallel()
	blob, _ := written(t, sample(), layer.WriteOptions{Compression: layer.Uncompressed})
	var got []string
	for r := tar.NewReader(bytes.NewReader(blob)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(h.Linkname) > 20 {
			h.Linkname = h.Linkname[:20]
		}
		if len(h.Name) > 30 {
			h.Name = h.Name[:30]
		}
		delete(h.PAXRecords, "path")
		delete(h.PAXRecords, "linkpath")
		line := fmt.Sprintf("%c %s %o %d:%d %d @%d %s %d:%d %q", h.Typeflag, h.Name, h.Mode, h.Uid, h.Gid, h.Size, h.ModTime.Unix(),
			h.Linkname, h.Devmajor, h.Devminor, h.PAXRecords)
		if h.Uname != "" || h.Gname != "" || !h.AccessTime.IsZero() || !h.ChangeTime.IsZero() {
			line += " with what is not the file's"
		}
		got = append(got, line)
	}
	capability := `map["SCHILY.xattr.security.capability":"\x01\x00\x00\x02\xff=\n\x80" "SCHILY.xattr.user.empty":""]`
	want := []string{
		"5 bin/ 755 0:0 0 @1000  0:0 map[]",
		"0 bin/busybox 4755 0:0 20000 @1000  0:0 map[]",
		"1 bin/sh 4755 0:0 0 @1000 bin/busybox 0:0 map[]",
		"5 dev/ 755 0:0 0 @1000  0:0 map[]",
		"6 dev/fifo 600 1000:1000 0 @5  0:0 map[]",
		"3 dev/null 666 0:0 0 @5  1:3 map[]",
		"4 dev/sda 660 0:6 0 @5  259:70000 map[]",
		`5 etc/ 755 0:0 0 @1000  0:0 map["SCHILY.xattr.user.dir":"yes"]`,
		"0 etc/empty 644 0:0 0 @1000  0:0 map[]",
		"0 etc/.wh.motd 0 0:0 0 @0  0:0 map[]",
		"0 etc/passwd 644 0:0 22 @1000  0:0 map[]",
		"0 etc/ping 644 0:0 4 @1000  0:0 " + capability,
		"1 etc/ping2 644 0:0 0 @1000 etc/ping 0:0 " + capability,
		"2 lib 777 0:0 0 @1000 usr/lib 0:0 map[]",
		"1 lib2 777 0:0 0 @1000 lib 0:0 map[]",
		"5 usr/ 755 0:0 0 @1000  0:0 map[]",
		`5 usr/lib/ 2775 4000000000:2147483648 0 @-7  0:0 map["gid":"2147483648" "mtime":"-7" "uid":"4000000000"]`,
		"0 usr/lib/ünï\xffcode nnnnnnnnnnn 644 0:0 12289 @1000  0:0 map[]",
		"2 usr/long 777 0:0 0 @1000 ../../../../../../.. 0:0 map[]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("want (-), got (+):\n%s", d)
	}
}

func TestGzipIsWhatOthersRead(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 1<<20 - 513, 1<<20 - 512, 1<<20 - 511, 3<<20 + 17} {
		blob, w := written(t, list{reg("f", string(mixed(uint64(n), n)))}, layer.WriteOptions{})
		zr, err := gzip.NewReader(bytes.NewReader(blob))
		if err != nil {
			t.Fatal(err)
		}
		tarball, err := io.ReadAll(zr)
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		got := layer.Descriptor{
			MediaType: layer.MediaTypeOCIGzip, Digest: digest.FromBytes(blob), Size: int64(len(blob)), DiffID: digest.FromBytes(tarball),
		}
		if d := cmp.Diff(w.Descriptor, got); d != "" {
			t.Error(d)
		}
	}
}

func TestWriteRefusesWhatNoImageCanHold(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		list list
		want string
	}{
		"whiteout name":             {list{dir("a"), reg("a/.wh.f", "")}, `"a/.wh.f": an image cannot hold names that start with ".wh."`},
		"whiteout directory":        {list{dir(".wh.d")}, `".wh.d": an image cannot hold`},
		"opaque name":               {list{reg(".wh..wh..opq", "")}, `an image cannot hold`},
		"whiteout device":           {list{file{Entry: tree.Entry{Path: "c", Kind: tree.CharDevice}}}, "character device 0:0"},
		"socket":                    {list{socket("s")}, "cannot be"},
		"opaque":                    {list{dir("d").with(opaque)}, "opaque"},
		"out of order":              {list{reg("b", ""), reg("a", "")}, `comes after "b"`},
		"twice":                     {list{reg("a", ""), reg("a", "")}, `comes after "a"`},
		"without parent":            {list{reg("a/b", "")}, "its directory does not come before it"},
		"parent is a file":          {list{reg("a", ""), reg("a/b", "")}, "its directory does not come before it"},
		"inside a whiteout":         {list{gone("a"), reg("a/b", "")}, "its directory does not come before it"},
		"parent":                    {list{reg("../a", "")}, "not clean and relative"},
		"absolute":                  {list{reg("/a", "")}, "not clean and relative"},
		"not clean":                 {list{dir("a"), reg("a//b", "")}, "not clean and relative"},
		"empty":                     {list{reg("", "")}, "not clean and relative"},
		"zero byte":                 {list{reg("a\x00b", "")}, "zero byte"},
		"hard link to later":        {list{hard("a", "b"), reg("b", "")}, "hard link"},
		"hard link to a directory":  {list{dir("a"), hard("b", "a")}, "hard link"},
		"hard link to a whiteout":   {list{gone("a"), hard("b", "a")}, "hard link"},
		"root as a file":            {list{reg(".", "")}, "the root must be a directory"},
		"attribute name with equal": {list{reg("a", "").with(xattr("user.a=b", ""))}, `extended attribute "user.a=b"`},
		"mode":                      {list{reg("a", "").with(mode(0o100644))}, "mode"},
		"negative size":             {list{reg("a", "").with(func(e *tree.Entry) { e.Size = -1 })}, "size -1"},
		"size of a directory":       {list{dir("a").with(func(e *tree.Entry) { e.Size = 1 })}, "size 1"},
		"long name":                 {list{reg(strings.Repeat("n", 256), "")}, "name is longer"},
		"unknown kind":              {list{file{Entry: tree.Entry{Path: "a", Kind: 99}}}, "kind 99"},
		"short content":             {list{reg("a", "abc").with(func(e *tree.Entry) { e.Size = 4 })}, "1 bytes are missing"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := layer.Write(t.Context(), c.list, io.Discard, layer.WriteOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestWriteReportsErrorsOfAllSides(t *testing.T) {
	t.Parallel()
	errDisk := errors.New("disk full")
	big := list{reg("f", string(randomBytes(1, 30<<20)))}
	for _, opts := range []layer.WriteOptions{{}, {Compression: layer.Zstd}, {Compression: layer.Uncompressed}} {
		for _, limit := range []int{0, 1000, 5 << 20} {
			n := 0
			dst := writerFunc(func(p []byte) (int, error) {
				if n += len(p); n > limit {
					return 0, errDisk
				}
				return len(p), nil
			})
			if _, err := layer.Write(t.Context(), big, dst, opts); !errors.Is(err, errDisk) {
				t.Errorf("%v after %d bytes: %v", opts.Compression, limit, err)
			}
		}
		errRead := errors.New("bad sector")
		broken := brokenChanges{reg("f", ""), io.MultiReader(bytes.NewReader(randomBytes(1, 5<<20)), iotest.ErrReader(errRead))}
		if _, err := layer.Write(t.Context(), broken, io.Discard, opts); !errors.Is(err, errRead) || !strings.Contains(err.Error(), "f: ") {
			t.Errorf("%v: %v", opts.Compression, err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		errWhy := errors.New("why")
		dst := writerFunc(func(p []byte) (int, error) { cancel(errWhy); return len(p), nil })
		if _, err := layer.Write(ctx, big, dst, opts); !errors.Is(err, errWhy) {
			t.Errorf("%v: %v", opts.Compression, err)
		}
	}
	for _, opts := range []layer.WriteOptions{{Level: 10}, {Level: -1}, {Compression: layer.Zstd, Level: 23}, {Compression: layer.Uncompressed, Level: 1}, {Compression: 9}} {
		if _, err := layer.Write(t.Context(), big, io.Discard, opts); err == nil {
			t.Errorf("%+v was accepted", opts)
		}
	}
}

// brokenChanges is one file of 10 MiB whose content cannot be read to its end.
type brokenChanges struct {
	file    file
	content io.Reader
}

func (b brokenChanges) Each(_ context.Context, fn func(tree.Entry, io.Reader) error) error {
	e := b.file.Entry
	e.Size = 10 << 20
	return fn(e, b.content)
}

// TestMemoryIsBounded cannot be parallel: it measures the heap.
func TestMemoryIsBounded(t *testing.T) {
	const size = 128 << 20
	var worst uint64
	sample := func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		worst = max(worst, m.HeapAlloc)
	}
	content := mixed(1, 8<<20)
	for _, opts := range []layer.WriteOptions{{Level: 1}, {Compression: layer.Zstd, Level: 1}} {
		runtime.GC()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		worst = 0
		blob, err := os.Create(t.TempDir() + "/blob")
		if err != nil {
			t.Fatal(err)
		}
		opts.Image = tempFile(t)
		w, err := layer.Write(t.Context(), repeated{content, size, sample}, blob, opts)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = blob.Seek(0, io.SeekStart)
		if _, err := layer.Prepare(t.Context(), blob, w.Descriptor, layer.PrepareOptions{Image: tempFile(t)}); err != nil {
			t.Fatal(err)
		}
		sample()
		_ = blob.Close()
		const most = 60 << 20 // with the garbage of GOGC=100
		if grown := int64(worst) - int64(before.HeapAlloc); grown > most {
			t.Errorf("%v: heap grew by %d MiB", opts.Compression, grown>>20)
		} else {
			t.Logf("%v: heap grew by %d MiB", opts.Compression, grown>>20)
		}
	}
}

// repeated is files of 64 MiB of the same content over and over.
type repeated struct {
	content []byte
	total   int64
	sample  func()
}

func (r repeated) Each(_ context.Context, fn func(tree.Entry, io.Reader) error) error {
	const size = 64 << 20
	for i := range r.total / size {
		f := reg(fmt.Sprintf("file%03d", i), "")
		f.Size = size
		if err := fn(f.Entry, &cycle{content: r.content, sample: r.sample}); err != nil {
			return err
		}
	}
	return nil
}

type cycle struct {
	content []byte
	pos     int
	sample  func()
	reads   int
}

func (c *cycle) Read(p []byte) (int, error) {
	if c.reads++; c.reads%100 == 0 && c.sample != nil {
		c.sample()
	}
	n := copy(p, c.content[c.pos:])
	c.pos = (c.pos + n) % len(c.content)
	return n, nil
}
