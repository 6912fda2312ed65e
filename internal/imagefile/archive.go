// Package imagefile reads finished images from what others wrote: the archive of "docker save" (and of kaniko's --tar-path), a
// directory with an OCI layout, or an archive of one. What it reads is pushed as it is: an OCI image keeps its digest.
package imagefile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/registry"
)

// Options says what to open, and with which means.
type Options struct {
	// Path is a file or a directory; Input, if not nil, is read in its place.
	Path  string
	Input io.Reader
	// Spool makes an empty file without a name, for an archive that cannot be read twice.
	Spool func() (*os.File, error)
	// Compress stores a layer that an archive has as a plain tar, the way layers are pushed, and says how to read it.
	Compress func(ctx context.Context, blob io.Reader, plain layer.Descriptor) (layer.Descriptor, func(context.Context) (io.ReadCloser, error), error)
}

// Image is one of an archive's images.
type Image struct {
	// Names are the references that the archive has for it; there may be none.
	Names  []string
	Result *output.Result
}

// Archive holds images. Their layers can be read until Close.
type Archive struct {
	Images []Image

	options Options
	files   files
	// layers are those of a docker archive that were looked at, by path.
	layers map[string]output.Layer
}

const (
	smallLimit = 16 << 20 // 16 MiB, for lists, manifests and configurations
	listName   = "manifest.json"
)

// Open reads the list of images. What the user can mend is a *diag.Error.
func Open(ctx context.Context, o Options) (_ *Archive, err error) {
	a := &Archive{options: o, layers: map[string]output.Layer{}}
	if a.files, err = openFiles(ctx, o); err != nil {
		return nil, a.fail(err)
	}
	defer func() {
		if err != nil {
			err = a.fail(errors.Join(err, a.files.close()))
		}
	}()
	return a, a.load(ctx)
}

// Close frees what the archive holds.
func (a *Archive) Close() error { return a.files.close() }

func (a *Archive) fail(err error) error {
	var d *diag.Error
	if errors.As(err, &d) {
		return err
	}
	what := "read the image in " + a.options.Path
	if a.options.Input != nil {
		what = "read the image from standard input"
	}
	return &diag.Error{
		What: what, Cause: err,
		Hint: `Give what "docker save" or --tar-path writes, a directory with an OCI layout, or an archive of one.`,
	}
}

// load reads the images. Newer archives of docker's are layouts as well; they are taken as such unless that would push
// layers that are not compressed.
func (a *Archive) load(ctx context.Context) error {
	index, err := a.small(ocispec.ImageIndexFile)
	hasLayout := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	list, err := a.small(listName)
	hasList := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch {
	case !hasLayout && !hasList:
		return fmt.Errorf("it has neither %s nor %s", ocispec.ImageIndexFile, listName)
	case hasLayout:
		if err := a.loadLayout(index); err != nil {
			return err
		}
		if !hasList || !a.hasPlainLayers() {
			return nil
		}
		a.Images = nil
	}
	return a.loadDocker(ctx, list)
}

func (a *Archive) hasPlainLayers() bool {
	return slices.ContainsFunc(a.Images, func(im Image) bool {
		return slices.ContainsFunc(im.Result.Images, func(m output.Image) bool {
			return slices.ContainsFunc(m.Layers, func(l output.Layer) bool {
				c, known := layer.Descriptor{MediaType: l.MediaType}.Compression()
				return known && c == layer.Uncompressed
			})
		})
	})
}

// small reads a small file.
func (a *Archive) small(name string) ([]byte, error) {
	f, size, err := a.files.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if size > smallLimit {
		return nil, fmt.Errorf("%s is larger than %d MiB", name, smallLimit>>20)
	}
	return io.ReadAll(io.LimitReader(f, smallLimit))
}

// blob reads and verifies a small blob of a layout.
func (a *Archive) blob(d digest.Digest) ([]byte, error) {
	name, err := blobName(d)
	if err != nil {
		return nil, err
	}
	data, err := a.small(name)
	if err == nil && d.Algorithm().FromBytes(data) != d {
		err = fmt.Errorf("%s has other content than its digest says", name)
	}
	return data, err
}

func blobName(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", err
	}
	return ocispec.ImageBlobsDir + "/" + d.Algorithm().String() + "/" + d.Encoded(), nil
}

// loadLayout reads the images of a layout. Entries for one manifest are its names.
func (a *Archive) loadLayout(data []byte) error {
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return fmt.Errorf("%s: %w", ocispec.ImageIndexFile, err)
	}
	at := map[digest.Digest]int{}
	for _, d := range index.Manifests {
		i, ok := at[d.Digest]
		if !ok {
			r, err := a.result(d)
			if err != nil {
				return err
			}
			i, at[d.Digest] = len(a.Images), len(a.Images)
			a.Images = append(a.Images, Image{Result: r})
		}
		if name := nameOf(d); name != "" {
			a.Images[i].Names = append(a.Images[i].Names, name)
		}
	}
	if len(a.Images) == 0 {
		return errors.New("it holds no image")
	}
	return nil
}

// nameOf is what tools call an entry of a layout: a whole reference, or only a tag.
func nameOf(d ocispec.Descriptor) string {
	if name := d.Annotations["io.containerd.image.name"]; name != "" { // containerd: images.AnnotationImageName
		return name
	}
	return d.Annotations[ocispec.AnnotationRefName]
}

// result is what a descriptor of a layout names: an image, or an index with all below it.
func (a *Archive) result(d ocispec.Descriptor) (*output.Result, error) {
	data, err := a.blob(d.Digest)
	if err != nil {
		return nil, err
	}
	d.Annotations = nil // those of the list are not the image's
	if !isIndex(d.MediaType) {
		im, err := a.manifest(d, data)
		if err != nil {
			return nil, err
		}
		return &output.Result{Images: []output.Image{*im}}, nil
	}
	index, err := image.DecodeIndex(data, d.MediaType)
	if err != nil {
		return nil, err
	}
	r := &output.Result{Index: d, IndexData: data}
	for _, m := range index.Manifests {
		if isIndex(m.MediaType) {
			return nil, fmt.Errorf("index %s holds another index, which is not supported", d.Digest)
		}
		data, err := a.blob(m.Digest)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &diag.Error{
				What: fmt.Sprintf("index %s names manifest %s, which is not there", d.Digest, m.Digest), Hint: "Save the images of all its platforms.",
			}
		}
		if err != nil {
			return nil, err
		}
		im, err := a.manifest(m, data)
		if err != nil {
			return nil, err
		}
		r.Images = append(r.Images, *im)
	}
	return r, nil
}

func isIndex(mediaType string) bool {
	return mediaType == image.OCI.IndexType() || mediaType == image.Docker.IndexType()
}

// manifest is an image of a layout.
func (a *Archive) manifest(d ocispec.Descriptor, data []byte) (*output.Image, error) {
	m, err := image.DecodeManifest(data, d.MediaType)
	if err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	out := &output.Image{Manifest: d, ManifestData: data, Config: m.Config}
	if out.ConfigData, err = a.blob(m.Config.Digest); err != nil {
		return nil, err
	}
	for _, l := range m.Layers {
		name, err := blobName(l.Digest)
		if err != nil {
			return nil, err
		}
		f, size, err := a.files.open(name)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Digest, err)
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
		if size != l.Size {
			return nil, fmt.Errorf("layer %s has %d bytes, not %d", l.Digest, size, l.Size)
		}
		out.Layers = append(out.Layers, output.Layer{Descriptor: l, Open: a.opener(name, l.Digest)})
	}
	return out, nil
}

// opener reads a file whose content is d.
func (a *Archive) opener(name string, d digest.Digest) func(context.Context) (io.ReadCloser, error) {
	return func(context.Context) (io.ReadCloser, error) {
		f, _, err := a.files.open(name)
		if err != nil {
			return nil, err
		}
		return &verified{ReadCloser: f, verifier: d.Verifier(), name: name}, nil
	}
}

// verified is a blob that is an error at its end if it is another one.
type verified struct {
	io.ReadCloser
	verifier digest.Verifier
	name     string
}

// Read reads on.
func (v *verified) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	_, _ = v.verifier.Write(p[:n]) // a hash never fails
	if errors.Is(err, io.EOF) && !v.verifier.Verified() {
		return n, fmt.Errorf("%s has other content than its digest says", v.name)
	}
	return n, err
}

// Is says whether name is one of the image's names, or its digest.
func (im *Image) Is(name string) bool {
	return slices.Contains(im.Names, name) || im.Result.Digest().String() == name || slices.ContainsFunc(im.Names, func(n string) bool { return familiar(n) == familiar(name) })
}

// familiar is the whole name of a reference, or the text itself if it is none.
func familiar(s string) string {
	ref, err := registry.ParseReference(s)
	if err != nil {
		return s
	}
	return registry.FullName(ref)
}
