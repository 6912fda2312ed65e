package conformance

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/platforms"
	"github.com/klauspost/compress/zstd"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Result is an image as a builder left it, in an OCI layout directory.
type Result struct {
	dir      string
	manifest ocispec.Manifest
	// Config is the whole configuration file.
	Config map[string]any
	// DiffIDs are those of the configuration.
	DiffIDs []string
}

// OpenResult reads the image of an OCI layout that has no index over platforms.
func OpenResult(dir string) (*Result, error) {
	results, err := OpenResults(dir)
	if err != nil {
		return nil, err
	}
	r, ok := results[""]
	if !ok {
		return nil, fmt.Errorf("the layout has an index of %d images", len(results))
	}
	return r, nil
}

// OpenResults reads all images of the OCI layout in dir, by platform; one that is under no index has none ("").
// It checks every digest on the way.
func OpenResults(dir string) (map[string]*Result, error) {
	data, err := os.ReadFile(filepath.Join(dir, ocispec.ImageIndexFile))
	if err != nil {
		return nil, fmt.Errorf("read layout: %w", err)
	}
	list, err := decodeIndex(data)
	if err != nil {
		return nil, err
	}
	if len(list.Manifests) != 1 {
		return nil, fmt.Errorf("layout has %d manifests, want 1", len(list.Manifests))
	}
	top := list.Manifests[0]
	if !strings.Contains(top.MediaType, "index") && !strings.Contains(top.MediaType, "list") {
		r, err := openResult(dir, top)
		return map[string]*Result{"": r}, err
	}
	if data, err = (&Result{dir: dir}).blob(top); err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	if list, err = decodeIndex(data); err != nil {
		return nil, err
	}
	out := map[string]*Result{}
	for _, d := range list.Manifests {
		if d.Platform == nil {
			return nil, fmt.Errorf("manifest %s has no platform", d.Digest)
		}
		name := platforms.FormatAll(*d.Platform)
		if out[name] != nil {
			return nil, fmt.Errorf("the index has %s twice", name)
		}
		if out[name], err = openResult(dir, d); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}

func decodeIndex(data []byte) (*ocispec.Index, error) {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("decode index: %w", err)
	}
	return &index, nil
}

// openResult reads the image that d describes.
func openResult(dir string, d ocispec.Descriptor) (*Result, error) {
	r := &Result{dir: dir}
	if err := r.readJSON(d, &r.manifest); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if err := r.readJSON(r.manifest.Config, &r.Config); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	var rootfs struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := r.readJSON(r.manifest.Config, &rootfs); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	r.DiffIDs = rootfs.RootFS.DiffIDs
	if len(r.DiffIDs) != len(r.manifest.Layers) {
		return nil, fmt.Errorf("config has %d diffIDs, manifest has %d layers", len(r.DiffIDs), len(r.manifest.Layers))
	}
	return r, nil
}

func (r *Result) blob(d ocispec.Descriptor) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(r.dir, "blobs", d.Digest.Algorithm().String(), d.Digest.Encoded()))
	if err != nil {
		return nil, fmt.Errorf("read blob: %w", err)
	}
	if got := digest.FromBytes(b); got != d.Digest || int64(len(b)) != d.Size {
		return nil, fmt.Errorf("blob %s of %d bytes has %s and %d bytes", d.Digest, d.Size, got, len(b))
	}
	return b, nil
}

func (r *Result) readJSON(d ocispec.Descriptor, v any) error {
	b, err := r.blob(d)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// apply puts the layers from the first up to but not including the n-th into one tree.
func (r *Result) apply(n int) (*merged, error) {
	m := newMerged()
	for i, d := range r.manifest.Layers[:n] {
		b, err := r.blob(d)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		if err := m.applyBlob(b, r.DiffIDs[i]); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
	}
	return m, nil
}

// CheckKept returns an error for each attribute that the result does not have.
func (r *Result) CheckKept(kept []Xattr) error {
	m, err := r.apply(len(r.DiffIDs))
	if err != nil {
		return err
	}
	var errs []error
	for _, x := range kept {
		f := m.files[x.Path]
		if f == nil || f.header.PAXRecords[xattrRecord+x.Name] != x.Value {
			errs = append(errs, fmt.Errorf("%s has no attribute %s=%q", x.Path, x.Name, x.Value))
		}
	}
	return errors.Join(errs...)
}

// applyBlob applies one compressed layer and checks its diffID.
func (m *merged) applyBlob(b []byte, diffID string) error {
	plain, err := decompress(b)
	if err != nil {
		return fmt.Errorf("decompress: %w", err)
	}
	if got := digest.FromBytes(plain); got.String() != diffID {
		return fmt.Errorf("diffID is %s, config says %s", got, diffID)
	}
	return m.applyTar(tar.NewReader(bytes.NewReader(plain)))
}

func decompress(b []byte) ([]byte, error) {
	r := bufio.NewReader(bytes.NewReader(b))
	magic, err := r.Peek(4)
	if err != nil {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(z)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(r)
		if err != nil {
			return nil, err
		}
		defer z.Close()
		return io.ReadAll(z)
	}
	return io.ReadAll(r)
}
