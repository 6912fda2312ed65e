package reproducible

import (
	"archive/tar"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// describe lists all that an image is made of.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	idx, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := idx.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	im, err := idx.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := im.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{string(config)}
	layers, err := im.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		entries, err := list(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, fmt.Sprintf("layer %d: %s", i, e))
		}
	}
	return out
}

// list describes the entries of a layer; short contents are shown.
func list(l v1.Layer) ([]string, error) {
	r, err := l.Uncompressed()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var out []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			return nil, err
		}
		const short = 4000
		content := string(data)
		if len(content) > short {
			content = fmt.Sprintf("%x", sha256.Sum256(data))
		}
		out = append(out, fmt.Sprintf("%c %o %d:%d %d %s %s %v %q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.ModTime.Unix(), h.Name, h.Linkname, h.PAXRecords, content))
	}
}
