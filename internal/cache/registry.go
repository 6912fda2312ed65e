package cache

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/registry"
)

const (
	// artifactType marks the manifest of a record.
	artifactType = "application/vnd.hako.cache.v1"
	// annotation of a manifest holds the record.
	annotation = "dev.hako.cache.record"
	// tagPrefix keeps our tags apart from those of others who use the repository.
	tagPrefix = "hako-"
)

// Uploader brings blobs to a repository in the cheapest way, each once however many ask for it.
type Uploader interface {
	PushBlob(ctx context.Context, repo name.Repository, d ocispec.Descriptor, open func(ctx context.Context) (io.ReadCloser, error)) error
}

// Registry is a repository with a manifest for each record, tagged with its keys: the registry's own rules for what is kept
// how long work on it.
type Registry struct {
	repo   name.Repository
	client *registry.Client
	upload Uploader
}

var _ Store = (*Registry)(nil)

// NewRegistry returns a store in repo. upload may be nil if nothing is Put.
func NewRegistry(client *registry.Client, repo name.Repository, upload Uploader) *Registry {
	return &Registry{repo: repo, client: client, upload: upload}
}

// Connect makes the first contact, before the first look-up needs it.
func (r *Registry) Connect(ctx context.Context) {
	r.client.Repository(r.repo, registry.Pull).Connect(ctx)
}

// String is the repository's name.
func (r *Registry) String() string { return r.client.Repository(r.repo, registry.Pull).Name() }

// Close does nothing.
func (r *Registry) Close() error { return nil }

// Get implements [Store]. It costs one request.
func (r *Registry) Get(ctx context.Context, key Key) (*Found, error) {
	m, err := r.client.Repository(r.repo, registry.Pull).Manifest(ctx, tagPrefix+string(key))
	if refused := new(registry.ResponseError); errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rec, err := decodeManifest(m.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s%s: %w", ErrRecord, tagPrefix, key, err)
	}
	if !slices.Contains(rec.Keys, key) {
		return nil, fmt.Errorf("%w: %s%s is of another step", ErrRecord, tagPrefix, key)
	}
	return &Found{Record: *rec, store: registryBlobs{r}}, nil
}

// decodeManifest finds the record in a manifest. What is no record of ours is an error.
func decodeManifest(data []byte) (*Record, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	if m.ArtifactType != artifactType {
		return nil, errors.New("it is not a record")
	}
	rec := &Record{}
	if err := json.Unmarshal([]byte(m.Annotations[annotation]), rec); err != nil {
		return nil, err
	}
	same := func(a, b ocispec.Descriptor) bool { return a.Digest == b.Digest }
	if !slices.EqualFunc(m.Layers, rec.blobs(), same) {
		return nil, errors.New("the manifest has other blobs than its record")
	}
	return rec, nil
}

// Put implements [Store].
func (r *Registry) Put(ctx context.Context, rec *Record, listing []byte, open Opener) error {
	manifest, err := encodeManifest(rec)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, d := range rec.blobs() {
		from := open
		if d.Digest == rec.Listing.Digest {
			from = reader(listing)
		}
		g.Go(func() error { return r.upload.PushBlob(gctx, r.repo, d, from) })
	}
	g.Go(func() error {
		return r.upload.PushBlob(gctx, r.repo, ocispec.DescriptorEmptyJSON, reader(ocispec.DescriptorEmptyJSON.Data))
	})
	if err := g.Wait(); err != nil {
		return err
	}
	to := r.client.Repository(r.repo, registry.Push)
	for _, k := range rec.Keys {
		if err := to.PutManifest(ctx, tagPrefix+string(k), ocispec.MediaTypeImageManifest, manifest); err != nil {
			return err
		}
	}
	return nil
}

// blobs are what a record needs: its layer, if it has one, and the listing.
func (r *Record) blobs() []ocispec.Descriptor {
	if r.Layer.Digest == "" {
		return []ocispec.Descriptor{r.Listing}
	}
	return []ocispec.Descriptor{{MediaType: r.Layer.MediaType, Digest: r.Layer.Digest, Size: r.Layer.Size}, r.Listing}
}

func encodeManifest(rec *Record) ([]byte, error) {
	text, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("write a record: %w", err)
	}
	config := ocispec.DescriptorEmptyJSON
	config.Data = nil
	return json.Marshal(ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Config: config,
		Layers:      rec.blobs(),
		Annotations: map[string]string{annotation: string(text)},
	})
}

func reader(data []byte) Opener {
	return func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}

// registryBlobs are the blobs of a repository.
type registryBlobs struct{ *Registry }

func (b registryBlobs) blob(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	return b.client.Repository(b.repo, registry.Pull).Blob(ctx, d)
}

func (b registryBlobs) repository() string { return b.repo.Name() }
