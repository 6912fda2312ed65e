package output

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// writeLayout writes an OCI image layout that holds this one image. Blobs of an earlier image stay, but
// index.json, which is replaced last, no longer names them.
func (o *Output) writeLayout(ctx context.Context, r *Result) error {
	root := o.options.OCILayoutPath
	for _, im := range r.manifests() {
		for _, l := range append(im.blobs(), bytesLayer(im.Manifest, im.ManifestData)) {
			if err := writeLayoutBlob(ctx, root, l); err != nil {
				return err
			}
		}
	}
	top, data := r.top()
	if err := writeLayoutBlob(ctx, root, bytesLayer(top, data)); err != nil {
		return err
	}
	index := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []ocispec.Descriptor{o.named(top)},
	}
	if err := writeJSON(filepath.Join(root, ocispec.ImageLayoutFile), ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}); err != nil {
		return err
	}
	return writeJSON(filepath.Join(root, ocispec.ImageIndexFile), index)
}

// named adds the tag of the first destination to the annotations that the descriptor has.
func (o *Output) named(d ocispec.Descriptor) ocispec.Descriptor {
	d.Annotations = maps.Clone(d.Annotations)
	if len(o.tags) > 0 {
		if d.Annotations == nil {
			d.Annotations = map[string]string{}
		}
		d.Annotations[ocispec.AnnotationRefName] = o.tags[0].TagStr()
	}
	return d
}

func writeJSON(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
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
	path := filepath.Join(dir, l.Digest.Encoded())
	if isBlob(path, l.Digest) {
		return nil
	}
	return writeFile(path, func(w io.Writer) error { return copyBlob(ctx, w, l) })
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
