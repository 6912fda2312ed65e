package imagesource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/blob"
	"hako/internal/diag"
	"hako/internal/image"
	"hako/internal/plan"
	"hako/internal/registry"
)

const (
	// layoutScheme starts the full name of an image in a layout.
	layoutScheme = "oci-layout://"
	// layoutLimit bounds the index, the manifests and the configurations that are read from a layout.
	layoutLimit = 16 << 20 // 16 MiB, what a configuration from a registry may have
	defaultTag  = "latest"
)

// ResolveLayout returns the image that an OCI layout in a directory has for the platform. ref is "path[:tag][@digest]";
// without either, it is the image with the tag "latest", or the only one.
func (s *Source) ResolveLayout(ctx context.Context, ref string, platform ocispec.Platform) (*plan.ImageRef, error) {
	path, identifier, err := splitLayout(ref)
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(s.options.Cwd, path)
	}
	l := &ociLayout{dir: filepath.Clean(path)}
	platform = image.Normalize(platform)
	q := query{source: s, place: l, name: layoutScheme + l.dir, identifier: identifier, want: platform}
	if identifier != "" {
		q.name += separator(identifier) + identifier
	}
	return s.once(ctx, ref, resolveKey{q.name, image.FormatPlatform(platform)}, func(ctx context.Context) (*found, place, error) {
		f, err := q.run(ctx)
		return f, l, err
	})
}

// separator is what stands between a path and a tag or a digest.
func separator(identifier string) string {
	if strings.Contains(identifier, ":") {
		return "@"
	}
	return ":"
}

// splitLayout cuts "path[:tag][@digest]". The digest wins.
func splitLayout(ref string) (path, identifier string, err error) {
	path = ref
	if i := strings.LastIndex(ref, "@"); i >= 0 && strings.Contains(ref[i:], ":") && !strings.Contains(ref[i:], "/") {
		d, err := digest.Parse(ref[i+1:])
		if err != nil {
			return "", "", &diag.Error{What: layoutScheme + ref, Cause: err, Hint: "Write oci-layout://PATH@sha256:… with 64 hexadecimal digits."}
		}
		path, identifier = ref[:i], d.String()
	}
	if i := strings.LastIndex(path, ":"); i >= 0 && !strings.Contains(path[i:], "/") {
		if identifier == "" {
			identifier = path[i+1:]
		}
		path = path[:i]
	}
	if path == "" {
		return "", "", &diag.Error{What: layoutScheme + ref + ": the path is empty", Hint: "Write oci-layout://PATH[:TAG]."}
	}
	return path, identifier, nil
}

// ociLayout is a directory as the OCI image specification describes it (image-layout.md).
type ociLayout struct{ dir string }

var _ place = (*ociLayout)(nil)

// Name implements place.
func (l *ociLayout) Name() string { return layoutScheme + l.dir }

// Manifest implements place.
func (l *ociLayout) Manifest(ctx context.Context, identifier string) (*registry.Manifest, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if d, err := digest.Parse(identifier); err == nil {
		return l.manifest(ocispec.Descriptor{Digest: d})
	}
	data, err := l.read("index.json")
	if err != nil {
		return nil, l.fail(err)
	}
	var index ocispec.Index
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, l.fail(fmt.Errorf("index.json: %w", err))
	}
	found := tagged(index.Manifests, identifier)
	if len(found) == 0 && identifier == "" {
		if found = tagged(index.Manifests, defaultTag); len(found) == 0 && len(index.Manifests) == 1 {
			found = index.Manifests
		}
	}
	switch len(found) {
	case 0:
		return nil, noTag(l, &index, identifier)
	case 1:
		return l.manifest(found[0])
	}
	// Some tools put the images for several platforms side by side under one tag.
	data, err = json.Marshal(ocispec.Index{Versioned: index.Versioned, MediaType: ocispec.MediaTypeImageIndex, Manifests: found})
	return &registry.Manifest{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(data), Data: data}, err
}

// tagged are the entries of an index with a tag, which is a name on its own or the end of one.
func tagged(index []ocispec.Descriptor, tag string) []ocispec.Descriptor {
	return slices.DeleteFunc(slices.Clone(index), func(d ocispec.Descriptor) bool {
		name := d.Annotations[ocispec.AnnotationRefName]
		return tag == "" || name != tag && !strings.HasSuffix(name, ":"+tag)
	})
}

// noTag says which tags there are.
func noTag(l *ociLayout, index *ocispec.Index, tag string) error {
	var names []string
	for _, d := range index.Manifests {
		if name := d.Annotations[ocispec.AnnotationRefName]; name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if tag == "" {
		tag = defaultTag
	}
	e := &diag.Error{What: fmt.Sprintf("use %s: it has no image with the tag %s", l.Name(), tag)}
	if near, ok := diag.Nearest(tag, names); ok {
		e.Hint = fmt.Sprintf("Did you mean %s?", near)
	} else if len(names) > 0 {
		e.Hint = fmt.Sprintf("Its tags are %s.", strings.Join(names[:min(len(names), 20)], ", "))
	}
	return e
}

// manifest reads and verifies a manifest.
func (l *ociLayout) manifest(d ocispec.Descriptor) (*registry.Manifest, error) {
	data, err := l.small(d)
	if err != nil {
		return nil, err
	}
	return &registry.Manifest{MediaType: d.MediaType, Digest: d.Digest, Data: data}, nil
}

// Config implements place.
func (l *ociLayout) Config(ctx context.Context, want ocispec.Descriptor) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return l.small(want)
}

// small reads and verifies a blob into memory.
func (l *ociLayout) small(want ocispec.Descriptor) ([]byte, error) {
	path, err := blobPath(want.Digest)
	if err != nil {
		return nil, l.fail(err)
	}
	data, err := l.read(path)
	if err != nil {
		return nil, l.fail(err)
	}
	if got := want.Digest.Algorithm().FromBytes(data); got != want.Digest {
		return nil, l.fail(fmt.Errorf("%s: its content has the digest %s", path, got))
	}
	return data, nil
}

// Blob implements place.
func (l *ociLayout) Blob(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error) {
	path, err := blobPath(want.Digest)
	if err != nil {
		return nil, l.fail(err)
	}
	f, size, err := l.open(path)
	if err != nil {
		return nil, l.fail(err)
	}
	if size != want.Size {
		return nil, errors.Join(l.fail(fmt.Errorf("%s: it has %d bytes, not %d", path, size, want.Size)), f.Close())
	}
	return &layoutBlob{ctx: ctx, file: f, layout: l, verifier: want.Digest.Verifier(), path: path}, nil
}

// blobPath is where a blob lies in a layout.
func blobPath(d digest.Digest) (string, error) {
	if err := d.Validate(); err != nil {
		return "", err
	}
	return filepath.Join("blobs", d.Algorithm().String(), d.Encoded()), nil
}

// open opens a file of the layout.
func (l *ociLayout) open(path string) (*os.File, int64, error) {
	f, size, err := blob.OpenFile(filepath.Join(l.dir, path))
	if p := new(fs.PathError); errors.As(err, &p) {
		err = fmt.Errorf("%s: %w", path, p.Err)
	}
	return f, size, err
}

// read reads a small file of the layout.
func (l *ociLayout) read(path string) ([]byte, error) {
	f, size, err := l.open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	if size > layoutLimit {
		return nil, fmt.Errorf("%s: it is larger than %d MiB", path, layoutLimit>>20)
	}
	return io.ReadAll(io.LimitReader(f, layoutLimit))
}

func (l *ociLayout) fail(err error) error {
	return &diag.Error{
		What: "use " + l.Name(), Cause: err,
		Hint: "Give the path of a directory that holds a complete OCI layout (oci-layout, index.json, blobs).",
	}
}

// layoutBlob reads and verifies a blob of a layout.
type layoutBlob struct {
	ctx      context.Context //nolint:containedctx // lives as long as one reading
	file     *os.File
	layout   *ociLayout
	verifier digest.Verifier
	path     string
}

// Read reads on; at the end, other content than expected is an error.
func (b *layoutBlob) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	n, err := b.file.Read(p)
	_, _ = b.verifier.Write(p[:n]) // a hash never fails
	if errors.Is(err, io.EOF) && !b.verifier.Verified() {
		return n, b.layout.fail(fmt.Errorf("%s: its content has another digest", b.path))
	}
	return n, err
}

// Close implements io.Closer.
func (b *layoutBlob) Close() error { return b.file.Close() }
