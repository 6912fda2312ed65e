// Package contextartifact keeps build contexts in registries, as OCI artifacts: one manifest with one layer, which is a tar
// archive of the context. The same tree always becomes the same artifact, so that a context that did not change is not sent
// again, and a digest names exactly what was built.
package contextartifact

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/archive"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry"
	"hako/internal/tree"
)

// The types of our artifacts.
const (
	// Type is the artifact's own.
	Type = "application/vnd.hako.context.v1"
	// LayerType is that of the archive, without the suffix for its compression.
	LayerType = "application/vnd.hako.context.v1.tar"
	// FilesAnnotation is the number of entries of the archive.
	FilesAnnotation = "hako.context.entries"
)

// emptyConfig is the configuration of an artifact that has none, OCI image specification 1.1, manifest.md.
const emptyConfig = "{}"

// Options says how a context is sent.
type Options struct {
	// File makes an empty file without a name. It must be set.
	File func(name string) (*os.File, error)
	// Gzip says to compress with gzip in place of zstd. Level is that of the compression, 0 for the default.
	Gzip  bool
	Level int
	// Annotations are put on the manifest.
	Annotations map[string]string
	// Events receives progress; nil drops it.
	Events event.Sink
}

// Pushed is a context in a registry.
type Pushed struct {
	// Reference names it by its digest: "registry/repository@sha256:…".
	Reference string
	Digest    digest.Digest
	// Size is that of the archive in bytes, compressed; Entries is how many it has.
	Size    int64
	Entries int
}

// Push sends a tree to the repository of ref, and gives it ref's tag if there is one. What the user can mend is a
// *diag.Error. When ctx ends, Push returns its cause. Memory does not grow with the tree; the archive is stored on its way.
func Push(ctx context.Context, client *registry.Client, ref string, t tree.Tree, o Options) (_ *Pushed, err error) {
	to, tag, err := parse(ref)
	if err != nil {
		return nil, err
	}
	if o.Events == nil {
		o.Events = event.Discard{}
	}
	p, err := Pack(ctx, t, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	repo := client.Repository(to, registry.Push)
	if err := send(ctx, repo, p, o.Events); err != nil {
		return nil, err
	}
	data, err := manifest(p.layer, p.Entries, o.Annotations)
	if err != nil {
		return nil, err
	}
	d := digest.FromBytes(data)
	as := d.String()
	if tag != "" {
		as = tag
	}
	if err := repo.PutManifest(ctx, as, ocispec.MediaTypeImageManifest, data); err != nil {
		return nil, err
	}
	return &Pushed{Reference: repo.Name() + "@" + d.String(), Digest: d, Size: p.Size(), Entries: p.Entries}, nil
}

// parse reads "repository" or "repository:tag"; there is no tag where none is written.
func parse(ref string) (name.Repository, string, error) {
	ref = strings.TrimPrefix(ref, Scheme)
	tag, err := registry.ParseTag(ref)
	if err != nil {
		return name.Repository{}, "", err
	}
	if strings.HasSuffix(ref, ":"+tag.TagStr()) {
		return tag.Repository, tag.TagStr(), nil
	}
	return tag.Repository, "", nil
}

// Packed is the archive of a context, in a file without a name.
type Packed struct {
	// Entries is how many entries the archive has.
	Entries int

	layer ocispec.Descriptor
	file  *os.File
}

// Pack makes the archive that Push sends. Memory does not grow with the tree. The caller closes it.
func Pack(ctx context.Context, t tree.Tree, o Options) (*Packed, error) {
	file, err := o.File("context")
	if err != nil {
		return nil, fmt.Errorf("store the context: %w", err)
	}
	layer, entries, err := pack(ctx, t, file, &o)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pack the context: %w", err), file.Close())
	}
	return &Packed{Entries: entries, layer: layer, file: file}, nil
}

// Digest is that of the archive as it is, compressed.
func (p *Packed) Digest() digest.Digest { return p.layer.Digest }

// Size is that of the archive, in bytes.
func (p *Packed) Size() int64 { return p.layer.Size }

// Reader reads the archive from its start. Several may read at the same time, until Close.
func (p *Packed) Reader() io.Reader { return io.NewSectionReader(p.file, 0, p.layer.Size) }

// Close frees the file.
func (p *Packed) Close() error { return p.file.Close() }

// pack stores the compressed archive of a tree.
func pack(ctx context.Context, t tree.Tree, file *os.File, o *Options) (ocispec.Descriptor, int, error) {
	sum := &counted{w: file, hash: sha256.New()}
	out := ocispec.Descriptor{MediaType: LayerType + "+zstd"}
	var zip io.WriteCloser
	var err error
	if o.Gzip {
		out.MediaType = LayerType + "+gzip"
		level := o.Level
		if level == 0 {
			level = gzip.DefaultCompression
		}
		zip, err = gzip.NewWriterLevel(sum, level)
	} else {
		level := zstd.SpeedDefault
		if o.Level > 0 {
			level = zstd.EncoderLevelFromZstd(o.Level)
		}
		// One goroutine: the bytes must not depend on the machine.
		zip, err = zstd.NewWriter(sum, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1))
	}
	if err != nil {
		return out, 0, err
	}
	entries, err := archive.Write(ctx, t, zip)
	if err := errors.Join(err, zip.Close()); err != nil {
		return out, 0, err
	}
	out.Size, out.Digest = sum.size, digest.NewDigest(digest.SHA256, sum.hash)
	return out, entries, nil
}

// counted hashes and counts what is written through it.
type counted struct {
	w    io.Writer
	hash hash.Hash
	size int64
}

// Write writes on.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.hash.Write(p[:n])
	c.size += int64(n)
	return n, err
}

// send uploads what the repository does not have yet.
func send(ctx context.Context, repo *registry.Repository, p *Packed, events event.Sink) error {
	config := registry.Blob{Digest: digest.FromString(emptyConfig), Size: int64(len(emptyConfig)), Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(emptyConfig)), nil
	}}
	archived := registry.Blob{Digest: p.Digest(), Size: p.Size(), Open: func(context.Context) (io.ReadCloser, error) {
		counter := event.NewCounter(p.Reader(), events, event.Progress{
			ID: "push " + p.Digest().String(), What: "push context", Total: p.Size(),
		})
		return &sent{Counter: counter}, nil
	}}
	for _, b := range []registry.Blob{archived, config} {
		has, err := repo.Has(ctx, b.Digest)
		if err == nil && !has {
			err = repo.Upload(ctx, b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// sent is an upload whose progress is told.
type sent struct{ *event.Counter }

// Close ends the progress.
func (s *sent) Close() error {
	s.Finish()
	return nil
}

// manifest is the document of an artifact.
func manifest(layer ocispec.Descriptor, entries int, annotations map[string]string) ([]byte, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: Type,
		Config: ocispec.Descriptor{
			MediaType: ocispec.MediaTypeEmptyJSON, Digest: digest.FromString(emptyConfig), Size: int64(len(emptyConfig)), Data: []byte(emptyConfig),
		},
		Layers:      []ocispec.Descriptor{layer},
		Annotations: map[string]string{FilesAnnotation: strconv.Itoa(entries)},
	}
	for k, v := range annotations {
		m.Annotations[k] = v
	}
	return json.Marshal(m)
}

// Scheme is what stands before the reference of a context in a registry.
const Scheme = "oci://"

// Artifact is a context in a registry that was found.
type Artifact struct {
	// Reference names it by its digest.
	Reference string
	Digest    digest.Digest
	// Layer is the archive.
	Layer ocispec.Descriptor

	repo *registry.Repository
}

// Find looks up a context: "oci://registry/repository[:tag][@digest]". Artifacts of other programs will do if they have one
// layer, which has to be a tar archive. What the user can mend is a *diag.Error.
func Find(ctx context.Context, client *registry.Client, ref string) (*Artifact, error) {
	parsed, err := registry.ParseReference(strings.TrimPrefix(ref, Scheme))
	if err != nil {
		return nil, err
	}
	repo := client.Repository(parsed.Context(), registry.Pull)
	m, err := repo.Manifest(ctx, parsed.Identifier())
	if err != nil {
		return nil, err
	}
	bad := func(what string) error {
		return &diag.Error{What: fmt.Sprintf("%s is not a build context: %s", registry.FullName(parsed), what), Hint: "Make one with hako push-context."}
	}
	var doc ocispec.Manifest
	if m.MediaType == ocispec.MediaTypeImageIndex || m.MediaType == registry.DockerManifestList {
		return nil, bad("it is an index of several images")
	}
	if err := json.Unmarshal(m.Data, &doc); err != nil {
		return nil, bad("its manifest is damaged: " + err.Error())
	}
	switch {
	case len(doc.Layers) != 1:
		return nil, bad(fmt.Sprintf("it has %d layers, not one", len(doc.Layers)))
	case doc.ArtifactType != Type && doc.Config.MediaType == ocispec.MediaTypeImageConfig, doc.Config.MediaType == registry.DockerConfig:
		return nil, bad("it is an image")
	}
	return &Artifact{Reference: repo.Name() + "@" + m.Digest.String(), Digest: m.Digest, Layer: doc.Layers[0], repo: repo}, nil
}

// Open reads the archive from its start. Reading it to the end verifies it. The caller closes it.
func (a *Artifact) Open(ctx context.Context) (io.ReadCloser, error) { return a.repo.Blob(ctx, a.Layer) }
