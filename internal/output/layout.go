package output

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/registry"
)

// layoutStore takes the files of a layout.
type layoutStore interface {
	// blob takes a blob; it may be there already.
	blob(ctx context.Context, l Layer) error
	// file takes a small file at the top.
	file(name string, data []byte) error
}

// writeLayout writes an OCI image layout that holds this one result: all blobs first, and last the list that names it.
func writeLayout(ctx context.Context, to layoutStore, e export, r *Result) error {
	if err := to.file(ocispec.ImageLayoutFile, mustJSON(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})); err != nil {
		return err
	}
	for _, im := range r.manifests() {
		for _, l := range append(im.blobs(), bytesLayer(im.Manifest, im.ManifestData)) {
			if err := to.blob(ctx, l); err != nil {
				return err
			}
		}
	}
	top, data := r.top()
	if err := to.blob(ctx, bytesLayer(top, data)); err != nil {
		return err
	}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: e.named(top),
	}
	return to.file(ocispec.ImageIndexFile, mustJSON(index))
}

// mustJSON encodes what can always be encoded.
func mustJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic("encode a plain structure: " + err.Error())
	}
	return data
}

// named is one descriptor for each name of the image, or a single one. Beside the tag, which tools of OCI look for,
// it has the full name, which containerd's import looks for.
func (e *export) named(d ocispec.Descriptor) []ocispec.Descriptor {
	var out []ocispec.Descriptor
	for _, t := range e.tags {
		n := d
		n.Annotations = map[string]string{}
		maps.Copy(n.Annotations, d.Annotations)
		n.Annotations[ocispec.AnnotationRefName] = t.TagStr()
		if !e.kaniko {
			n.Annotations["io.containerd.image.name"] = registry.FullName(t) // containerd: images.AnnotationImageName
		}
		out = append(out, n)
	}
	if len(out) == 0 {
		out = append(out, d)
	}
	return out
}

// layoutDir is a layout in a directory. Blobs of an earlier image stay, but index.json, which is replaced last, no
// longer names them.
type layoutDir string

var _ layoutStore = layoutDir("")

func (dir layoutDir) blob(ctx context.Context, l Layer) error {
	return writeLayoutBlob(ctx, string(dir), l)
}

func (dir layoutDir) file(name string, data []byte) error {
	if err := os.MkdirAll(string(dir), 0o755); err != nil {
		return err
	}
	return writeFile(filepath.Join(string(dir), name), func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// layoutTar is a layout in a tar.
type layoutTar struct {
	tw   *tar.Writer
	seen map[digest.Digest]bool
}

var _ layoutStore = (*layoutTar)(nil)

func (t *layoutTar) blob(ctx context.Context, l Layer) error {
	if err := l.Digest.Validate(); err != nil || t.seen[l.Digest] {
		return err
	}
	t.seen[l.Digest] = true
	return addBlob(ctx, t.tw, path.Join(ocispec.ImageBlobsDir, l.Digest.Algorithm().String(), l.Digest.Encoded()), l)
}

func (t *layoutTar) file(name string, data []byte) error {
	return addFile(t.tw, name, int64(len(data)), bytes.NewReader(data))
}

func writeLayoutTar(ctx context.Context, w io.Writer, e export, r *Result) error {
	t := &layoutTar{tw: tar.NewWriter(w), seen: map[digest.Digest]bool{}}
	if err := writeLayout(ctx, t, e, r); err != nil {
		return err
	}
	return t.tw.Close()
}

// writeLayoutBlob writes a blob unless it is there, whole.
func writeLayoutBlob(ctx context.Context, root string, l Layer) error {
	if err := l.Digest.Validate(); err != nil {
		return err
	}
	dir := filepath.Join(root, ocispec.ImageBlobsDir, l.Digest.Algorithm().String())
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, l.Digest.Encoded())
	if isBlob(file, l.Digest) {
		return nil
	}
	return writeFile(file, func(w io.Writer) error { return copyBlob(ctx, w, l) })
}

// isBlob says whether the file has the content that the digest says.
func isBlob(path string, d digest.Digest) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // read only: nothing to lose
	v := d.Verifier()
	if _, err := io.Copy(v, f); err != nil {
		return false
	}
	return v.Verified()
}
