package layer_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/layer"
	"hako/internal/tree"
)

// tempFile creates an empty file that goes with the test.
func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// sample has every kind of entry that a change set can hold.
func sample() list {
	return list{
		dir("bin"),
		reg("bin/busybox", strings.Repeat("busy", 5000)).with(func(e *tree.Entry) { e.Mode = 0o4755 }),
		hard("bin/sh", "bin/busybox").with(func(e *tree.Entry) { e.Mode = 0o4755 }),
		dir("dev"),
		file{Entry: tree.Entry{Path: "dev/fifo", Kind: tree.Fifo, Mode: 0o600, UID: 1000, GID: 1000, ModTime: at(5)}},
		file{Entry: tree.Entry{Path: "dev/null", Kind: tree.CharDevice, Mode: 0o666, Major: 1, Minor: 3, ModTime: at(5)}},
		file{Entry: tree.Entry{Path: "dev/sda", Kind: tree.BlockDevice, Mode: 0o660, GID: 6, Major: 259, Minor: 70000, ModTime: at(5)}},
		dir("etc").with(func(e *tree.Entry) { e.Xattrs = map[string]string{"user.dir": "yes"} }),
		reg("etc/empty", ""),
		gone("etc/motd"),
		reg("etc/passwd", "root:x:0:0::/:/bin/sh\n"),
		reg("etc/ping", "ping").with(func(e *tree.Entry) {
			e.Xattrs = map[string]string{"security.capability": "\x01\x00\x00\x02\xff=\n\x80", "user.empty": ""}
		}),
		hard("etc/ping2", "etc/ping").with(func(e *tree.Entry) {
			e.Xattrs = map[string]string{"security.capability": "\x01\x00\x00\x02\xff=\n\x80", "user.empty": ""}
		}),
		sym("lib", "usr/lib"),
		hard("lib2", "lib").with(func(e *tree.Entry) { e.Mode = 0o777 }),
		dir("usr"),
		dir("usr/lib").with(func(e *tree.Entry) { e.Mode, e.UID, e.GID, e.ModTime = 0o2775, 4e9, 1<<31, at(-7) }),
		reg("usr/lib/ünï\xffcode "+strings.Repeat("n", 200), strings.Repeat("\x00", 3*4096+1)),
		sym("usr/long", strings.Repeat("../", 1300)+"x"),
	}
}

func TestWriteAndPrepareAgree(t *testing.T) {
	t.Parallel()
	for _, opts := range []layer.WriteOptions{
		{}, {Level: 9}, {Compression: layer.Zstd}, {Compression: layer.Zstd, Level: 19, Docker: true},
		{Compression: layer.Uncompressed}, {Docker: true},
	} {
		t.Run(opts.MediaType(), func(t *testing.T) {
			t.Parallel()
			opts.Image = tempFile(t)
			var blob bytes.Buffer
			w, err := layer.Write(t.Context(), sample(), &blob, opts)
			if err != nil {
				t.Fatal(err)
			}
			im, err := layer.Prepare(t.Context(), bytes.NewReader(blob.Bytes()), w.Descriptor, layer.PrepareOptions{Image: tempFile(t)})
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(w.Image.Index, im.Index); d != "" {
				t.Errorf("index of Write (-) and of Prepare (+):\n%s", d)
			}
			if d := cmp.Diff(contentsOf(t, sample()), contentsIn(t, im)); d != "" {
				t.Errorf("contents:\n%s", d)
			}
			if d := cmp.Diff(readAll(t, w.Image.File), readAll(t, im.File)); d != "" {
				t.Error("images of Write and of Prepare differ")
			}
		})
	}
}

func readAll(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func contentsOf(t *testing.T, l list) map[string]string {
	t.Helper()
	m := map[string]string{}
	for _, f := range l {
		if f.Kind == tree.Regular {
			m[f.Path] = f.data
		}
	}
	return m
}

func contentsIn(t *testing.T, im *layer.Image) map[string]string {
	t.Helper()
	m := map[string]string{}
	for i := range im.Index.Entries {
		e := &im.Index.Entries[i]
		if e.Kind != tree.Regular {
			continue
		}
		b, err := io.ReadAll(im.Content(e))
		if err != nil {
			t.Fatal(err)
		}
		m[e.Path] = string(b)
	}
	return m
}
