package output

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/layer"
)

// Unnamed is the image's name in an archive when there is no destination. It is kaniko's, and no place to push to.
const Unnamed = "docker.io/unset-repo/unset-image-name:latest"

// archiveManifest is an entry of manifest.json in a docker archive.
type archiveManifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// writeDockerTar writes the image as "docker save" does; layers stay compressed, as kaniko leaves them.
func writeDockerTar(ctx context.Context, w io.Writer, e export, r *Result) error {
	if len(r.Images) != 1 {
		return errors.New("a docker archive holds one image, but several platforms were built")
	}
	im := r.Images[0]
	m := archiveManifest{Config: im.Config.Digest.String(), RepoTags: e.repoTags()}
	for _, l := range im.Layers {
		m.Layers = append(m.Layers, archiveName(l.Descriptor))
	}
	manifest := mustJSON([]archiveManifest{m})
	tw := tar.NewWriter(w)
	for i, l := range im.blobs() {
		name := archiveName(l.Descriptor)
		if i == 0 {
			name = m.Config
		}
		if err := addBlob(ctx, tw, name, l); err != nil {
			return err
		}
	}
	if err := addFile(tw, "manifest.json", int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return err
	}
	return tw.Close()
}

func addBlob(ctx context.Context, tw *tar.Writer, name string, l Layer) error {
	if err := addFile(tw, name, l.Size, strings.NewReader("")); err != nil {
		return err
	}
	return copyBlob(ctx, tw, l)
}

// addFile writes a header and what r has.
func addFile(tw *tar.Writer, name string, size int64, r io.Reader) error {
	err := tw.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: time.Unix(0, 0),
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(tw, r)
	return err
}

// archiveName is a layer's name in an archive.
func archiveName(d ocispec.Descriptor) string {
	switch d.MediaType {
	case layer.MediaTypeOCI, layer.MediaTypeDocker:
		return d.Digest.Encoded() + ".tar"
	case layer.MediaTypeOCIZstd, layer.MediaTypeDockerZstd:
		return d.Digest.Encoded() + ".tar.zst"
	}
	return d.Digest.Encoded() + ".tar.gz"
}

// repoTags are the names that "docker load" gives the image: the destinations as they were written,
// with the tag that Docker insists on.
func (e *export) repoTags() []string {
	if len(e.tags) == 0 && e.kaniko {
		return []string{Unnamed}
	}
	var out []string
	for _, t := range e.tags {
		s := t.String()
		if !strings.Contains(s[strings.LastIndex(s, "/")+1:], ":") {
			s += ":" + t.TagStr()
		}
		out = append(out, s)
	}
	return out
}
