package imagefile_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/ulikunitz/xz"

	"hako/internal/diag"
	"hako/internal/imagefile"
	"hako/internal/layer"
)

// file is an entry of a tar; with a link, it has no data.
type file struct{ name, data, link string }

func tarOf(t *testing.T, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.data)), Typeflag: tar.TypeReg}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// open opens an archive with these bytes, which compresses nothing but remembers that it should.
func open(t *testing.T, data []byte) (*imagefile.Archive, *[]string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	var compressed []string
	a, err := imagefile.Open(t.Context(), imagefile.Options{
		Path:  path,
		Spool: func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "spool") },
		Compress: func(_ context.Context, r io.Reader, plain layer.Descriptor) (layer.Descriptor, func(context.Context) (io.ReadCloser, error), error) {
			got, err := digest.FromReader(r)
			if err == nil && got != plain.DiffID {
				err = errors.New("another layer")
			}
			compressed = append(compressed, string(plain.DiffID))
			plain.MediaType = "application/vnd.docker.image.rootfs.diff.tar.gzip"
			return plain, func(context.Context) (io.ReadCloser, error) { return nil, errors.New("not read here") }, err
		},
	})
	if err == nil {
		t.Cleanup(func() {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return a, &compressed, err
}

func config(diffIDs ...string) string {
	return `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["` + strings.Join(diffIDs, `","`) + `"]}}`
}

// TestArchiveOfDockersBeforeItHadLayouts holds several images whose layers are links to one another and not compressed.
func TestArchiveOfDockersBeforeItHadLayouts(t *testing.T) {
	t.Parallel()
	one, two := string(tarOf(t, file{name: "a", data: "1"})), string(tarOf(t, file{name: "b", data: "2"}))
	d1, d2 := digest.FromString(one).String(), digest.FromString(two).String()
	a, compressed, err := open(t, tarOf(t,
		file{name: "x/layer.tar", data: one},
		file{name: "y/layer.tar", link: "../x/layer.tar"},
		file{name: "z/layer.tar", data: two},
		file{name: "c1.json", data: config(d1)},
		file{name: "c2.json", data: config(d1, d2)},
		file{name: "manifest.json", data: `[{"Config":"c1.json","RepoTags":["a:1","b:1"],"Layers":["x/layer.tar"]},
			{"Config":"c2.json","RepoTags":null,"Layers":["y/layer.tar","z/layer.tar"]}]`},
	))
	if err != nil {
		t.Fatal(err)
	}
	type shown struct {
		Names  []string
		Layers []string
		Config string
	}
	var got []shown
	for _, im := range a.Images {
		s := shown{Names: im.Names, Config: string(im.Result.Images[0].ConfigData)}
		for _, l := range im.Result.Images[0].Layers {
			s.Layers = append(s.Layers, l.Digest.String())
		}
		got = append(got, s)
	}
	want := []shown{{[]string{"a:1", "b:1"}, []string{d1}, config(d1)}, {nil, []string{d1, d2}, config(d1, d2)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if n := len(*compressed); n != 3 {
		t.Errorf("%d layers were compressed: %v", n, *compressed)
	}
	if !a.Images[0].Is("docker.io/library/a:1") || a.Images[1].Is("a:1") {
		t.Error("names are not told apart")
	}
}

// TestBadArchives holds what damaged or hostile archives are: errors with a hint.
func TestBadArchives(t *testing.T) {
	t.Parallel()
	layerTar := string(tarOf(t, file{name: "a", data: "1"}))
	id := digest.FromString(layerTar).String()
	list := `[{"Config":"c","Layers":["l"]}]`
	zero := digest.FromString("").String()
	blob := func(s string) (name, digestOf string) {
		d := digest.FromString(s)
		return "blobs/sha256/" + d.Encoded(), d.String()
	}
	manifest := fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[]}`, zero)
	manifestName, manifestDigest := blob(manifest)
	index := func(d string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d}]}`, d, len(manifest))
	}
	for name, files := range map[string][]file{
		"nothing":             nil,
		"no list":             {{name: "a", data: "x"}},
		"no JSON":             {{name: "manifest.json", data: "{"}},
		"an empty list":       {{name: "manifest.json", data: "[]"}},
		"no configuration":    {{name: "manifest.json", data: list}},
		"a bad configuration": {{name: "manifest.json", data: list}, {name: "c", data: "[]"}},
		"too few layers":      {{name: "manifest.json", data: `[{"Config":"c","Layers":[]}]`}, {name: "c", data: config(id)}},
		"no layer":            {{name: "manifest.json", data: list}, {name: "c", data: config(id)}},
		"another layer":       {{name: "manifest.json", data: list}, {name: "c", data: config(id)}, {name: "l", data: "other"}},
		"a link to itself":    {{name: "manifest.json", data: list}, {name: "c", data: config(id)}, {name: "l", link: "l"}},
		"a link out":          {{name: "manifest.json", data: list}, {name: "c", data: config(id)}, {name: "l", link: "../../../etc/passwd"}},
		"no manifest":         {{name: "index.json", data: index(manifestDigest)}},
		"another manifest":    {{name: "index.json", data: index(manifestDigest)}, {name: manifestName, data: "{}"}},
		"no blob":             {{name: "index.json", data: index(manifestDigest)}, {name: manifestName, data: manifest}},
		"a digest with a way": {{name: "index.json", data: index("sha256:../../../../etc/passwd")}},
		"an empty layout":     {{name: "index.json", data: `{"schemaVersion":2,"manifests":[]}`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := open(t, tarOf(t, files...))
			var d *diag.Error
			if !errors.As(err, &d) || d.Hint == "" {
				t.Errorf("error %v", err)
			}
		})
	}
}

// FuzzOpen holds that no archive crashes it.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("no tar"))
	f.Add(make([]byte, 1024))
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for name, data := range map[string]string{"manifest.json": `[{"Config":"c","Layers":["l"]}]`, "c": config("sha256:00"), "l": "x"} {
		_ = w.WriteHeader(&tar.Header{Name: name, Size: int64(len(data)), Typeflag: tar.TypeReg}) // a buffer takes everything
		_, _ = io.WriteString(w, data)
	}
	f.Add(buf.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := imagefile.Open(t.Context(), imagefile.Options{
			Path: "fuzz", Input: bytes.NewReader(data),
			Spool: func() (*os.File, error) { return os.CreateTemp(t.TempDir(), "spool") },
			Compress: func(context.Context, io.Reader, layer.Descriptor) (layer.Descriptor, func(context.Context) (io.ReadCloser, error), error) {
				return layer.Descriptor{}, nil, errors.New("not here")
			},
		})
		if err == nil {
			_ = a.Close()
		}
	})
}

// TestCompressedArchives are whole archives in any compression that ADD unpacks; a window beyond all reason is refused.
func TestCompressedArchives(t *testing.T) {
	t.Parallel()
	plain := tarOf(t, file{name: "c.json", data: strings.Replace(config(), `""`, "", 1)}, file{name: "manifest.json", data: `[{"Config":"c.json","RepoTags":["a:1"],"Layers":[]}]`})
	for name, c := range map[string]struct {
		writer func(io.Writer) (io.WriteCloser, error)
		fails  bool
	}{
		"gzip": {writer: func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil }},
		"zstd": {writer: func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }},
		"xz":   {writer: func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }},
		"zstd with a window of 512 MiB": {fails: true, writer: func(w io.Writer) (io.WriteCloser, error) {
			return zstd.NewWriter(w, zstd.WithWindowSize(512<<20), zstd.WithSingleSegment(false))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var buf bytes.Buffer
			w, err := c.writer(&buf)
			if err != nil {
				t.Fatal(err)
			}
			data := plain
			if c.fails {
				data = append(bytes.Clone(plain), make([]byte, 2<<20)...)
			}
			if _, err := w.Write(data); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			a, _, err := open(t, buf.Bytes())
			if (err != nil) != c.fails || c.fails && !errors.Is(err, zstd.ErrWindowSizeExceeded) {
				t.Fatal(err)
			}
			if err == nil && (len(a.Images) != 1 || !a.Images[0].Is("a:1")) {
				t.Errorf("%+v", a.Images)
			}
		})
	}
}
