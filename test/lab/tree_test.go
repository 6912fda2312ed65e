package lab

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// headers is one layer; regular files hold their own names.
type headers []tar.Header

func flattenLayers(t *testing.T, layers ...headers) (Tree, error) {
	t.Helper()
	img := empty.Image
	for _, hs := range layers {
		var buf bytes.Buffer
		tw := tar.NewWriter(&buf)
		for _, h := range hs {
			if h.Typeflag == 0 {
				h.Typeflag = tar.TypeReg
			}
			body := ""
			if h.Typeflag == tar.TypeReg {
				body = h.Name
			}
			h.Size = int64(len(body))
			if err := tw.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(tw, body); err != nil {
				t.Fatal(err)
			}
		}
		if err := tw.Close(); err != nil {
			t.Fatal(err)
		}
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	return Flatten(img)
}

func TestFlatten(t *testing.T) {
	t.Parallel()
	dir := func(name string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
	}
	file := func(name string) tar.Header { return tar.Header{Name: name, Mode: 0o644, Uid: 1} }
	link := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	for _, tt := range []struct {
		name   string
		layers []headers
		want   map[string]string
	}{
		{"implied parents", []headers{{file("a/b/c")}}, map[string]string{"/a": "dir", "/a/b": "dir", "/a/b/c": "file"}},
		{"whiteout of a directory", []headers{{dir("a", 0o755), file("a/b"), file("ab")}, {file(".wh.a")}}, map[string]string{"/ab": "file"}},
		{"whiteout leaves what its own layer has", []headers{{file("a/b")}, {dir("a", 0o700), file("a/c"), file("a/.wh..wh..opq")}}, map[string]string{"/a": "dir", "/a/c": "file"}},
		{"file replaces directory", []headers{{file("a/b")}, {file("a")}}, map[string]string{"/a": "file"}},
		{"hard links share", []headers{{file("a"), link("b", "a")}}, map[string]string{"/a": "file /a", "/b": "file /a"}},
		{"hard link to a lower layer", []headers{{file("a")}, {link("b", "a")}}, map[string]string{"/a": "file /a", "/b": "file /a"}},
		{"replaced name leaves the others", []headers{{file("a"), link("b", "a")}, {file("a")}}, map[string]string{"/a": "file", "/b": "file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tree, err := flattenLayers(t, tt.layers...)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			for p, n := range tree {
				if p == "/" {
					continue
				}
				got[p] = n.Kind
				if n.First != "" {
					got[p] += " " + n.First
				}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	if _, err := flattenLayers(t, headers{link("b", "a")}); err == nil {
		t.Error("a hard link to nothing was accepted")
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	want := Tree{
		"/same":   {Kind: "file", Content: "1"},
		"/gone":   {Kind: "dir"},
		"/other":  {Kind: "file", Mode: 0o644, Xattrs: map[string]string{"a": "b"}},
		"/log/x":  {Kind: "file", Content: "1"},
		"/tmp/x":  {Kind: "file"},
		"/log/xy": {Kind: "file", UID: 1},
	}
	got := Tree{
		"/same":   {Kind: "file", Content: "1"},
		"/new":    {Kind: "fifo"},
		"/other":  {Kind: "file", Mode: 0o4644},
		"/log/x":  {Kind: "file", Content: "2"},
		"/log/xy": {Kind: "file", UID: 2},
	}
	diffs := Compare(want, got, []Exception{
		{Pattern: "/log/**", What: "content"}, {Pattern: "/t?p/**", What: "all"}, {Pattern: "/tmp/x", What: "content"},
	})
	wantDiffs := []string{
		"/gone: missing",
		"/log/xy: uid is 2, want 1",
		"/new: extra (fifo)",
		"/other: mode is 4644, want 0644",
		`/other: xattrs is map[], want map["a":"b"]`,
	}
	if d := cmp.Diff(wantDiffs, diffs); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
