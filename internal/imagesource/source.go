// Package imagesource gives the images that a build starts or copies from: their configuration when the build
// is planned, their layers when somebody reads files, and their blobs when they have to be pushed elsewhere.
//
// Nothing a registry says is believed before it has been hashed, and nothing is fetched twice in a build.
package imagesource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/blob"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/registry"
	"hako/internal/workdir"
)

// defaultJobs is how many layers are fetched and inflated at the same time.
const defaultJobs = 4

// Options says what a Source works with.
type Options struct {
	// Registry fetches. It must be set.
	Registry *registry.Client
	// Dir makes the files that layers are inflated to. It must be set.
	Dir *workdir.Dir
	// Blobs keeps what was fetched, unless it lies in memory; what is not kept is fetched again for a push.
	// It may be nil.
	Blobs *blob.Store
	// Events receives the progress of downloads; nil drops it.
	Events event.Sink
	// Mirrors are asked for the images of their registries before these, in this order; OnlyMirrors says not to ask a registry
	// that has mirrors itself.
	Mirrors     []Mirror
	OnlyMirrors bool
	// Jobs is how many layers are fetched and inflated at the same time; zero means four.
	Jobs int
}

// Source resolves images and gives their layers. It may be used from many goroutines.
type Source struct {
	options Options
	slots   chan struct{} // one per layer being opened

	mu        sync.Mutex // guards what follows
	manifests map[manifestKey]*flight[*registry.Manifest]
	resolved  map[resolveKey]*flight[*resolved]
	images    map[imageKey]*resolved
	layers    map[layer.Descriptor]*baseLayer
	files     []*os.File
	closed    bool
}

type (
	manifestKey struct{ repository, identifier string }
	resolveKey  struct{ ref, platform string }
	imageKey    struct {
		ref    string
		digest digest.Digest
	}
)

// resolved is an image and its layers, bottom first.
type resolved struct {
	ref    plan.ImageRef
	layers []*baseLayer
}

var _ plan.Resolver = (*Source)(nil)

// New returns a Source without images.
func New(o Options) *Source {
	if o.Events == nil {
		o.Events = event.Discard{}
	}
	if o.Jobs <= 0 {
		o.Jobs = defaultJobs
	}
	return &Source{
		options:   o,
		slots:     make(chan struct{}, o.Jobs),
		manifests: map[manifestKey]*flight[*registry.Manifest]{},
		resolved:  map[resolveKey]*flight[*resolved]{},
		images:    map[imageKey]*resolved{},
		layers:    map[layer.Descriptor]*baseLayer{},
	}
}

// Close closes the files of all layers. Nothing may use them any more.
func (s *Source) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Close())
	}
	s.files = nil
	return errors.Join(errs...)
}

// Resolve returns the image that name ("debian:12", "ghcr.io/a/b@sha256:…") stands for on the platform.
// An image is resolved once; failures are not remembered.
func (s *Source) Resolve(ctx context.Context, name string, platform ocispec.Platform) (*plan.ImageRef, error) {
	ref, err := registry.ParseReference(name)
	if err != nil {
		return nil, err
	}
	platform = image.Normalize(platform)
	s.mu.Lock()
	f := flightFor(s.resolved, resolveKey{ref.Name(), image.FormatPlatform(platform)})
	s.mu.Unlock()
	r, err := f.do(ctx, func(ctx context.Context) (*resolved, error) { return s.resolve(ctx, ref, platform) })
	if err != nil {
		return nil, err
	}
	out := r.ref
	out.Name = name
	return &out, nil
}

// ResolveLayout is not supported yet.
func (s *Source) ResolveLayout(context.Context, string, ocispec.Platform) (*plan.ImageRef, error) {
	return nil, &diag.Error{What: "oci-layout:// is not supported yet"}
}

func (s *Source) resolve(ctx context.Context, ref name.Reference, platform ocispec.Platform) (*resolved, error) {
	found, repo, err := s.find(ctx, ref, platform)
	if err != nil {
		return nil, err
	}
	r := &resolved{ref: plan.ImageRef{
		Ref:       registry.FullName(ref),
		Digest:    found.digest,
		MediaType: found.mediaType,
		Platform:  found.platform,
		Config:    found.config,
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range found.layers {
		r.layers = append(r.layers, s.layerLocked(repo, d, fmt.Sprintf("%s layer %d/%d", r.ref.Ref, i+1, len(found.layers))))
	}
	s.images[imageKey{r.ref.Ref, r.ref.Digest}] = r
	return r, nil
}

// layerLocked returns the layer that d describes; the same layer of two images is one. The caller holds s.mu.
func (s *Source) layerLocked(repo name.Repository, d foundLayer, title string) *baseLayer {
	l, ok := s.layers[d.Descriptor]
	if !ok {
		l = &baseLayer{source: s, repo: repo, title: title, desc: d.Descriptor, urls: d.urls, image: newFlight[*layer.Image]()}
		s.layers[d.Descriptor] = l
	}
	return l
}

// manifest fetches a manifest or index once.
func (s *Source) manifest(ctx context.Context, repo name.Repository, identifier string) (*registry.Manifest, error) {
	s.mu.Lock()
	f := flightFor(s.manifests, manifestKey{repo.Name(), identifier})
	s.mu.Unlock()
	return f.do(ctx, func(ctx context.Context) (*registry.Manifest, error) {
		return s.options.Registry.Repository(repo, registry.Pull).Manifest(ctx, identifier)
	})
}

// Layers returns the layers of an image that Resolve returned, bottom first. Nothing is fetched.
func (s *Source) Layers(_ context.Context, ref *plan.ImageRef) ([]Layer, error) {
	r, err := s.lookUp(ref)
	if err != nil {
		return nil, err
	}
	out := make([]Layer, len(r.layers))
	for i, l := range r.layers {
		out[i] = Layer{Descriptor: l.desc, Repository: l.repo.Name(), base: l}
	}
	return out, nil
}

func (s *Source) lookUp(ref *plan.ImageRef) (*resolved, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.images[imageKey{ref.Ref, ref.Digest}]
	if !ok {
		return nil, fmt.Errorf("image %s@%s was not resolved here", ref.Ref, ref.Digest)
	}
	return r, nil
}

// flight runs a function until it succeeds once, one caller at a time, and keeps the result.
// A caller whose context ends does not disturb the others.
type flight[T any] struct {
	turn  chan struct{} // holds one token: whoever has it owns the fields
	done  bool
	value T
}

func newFlight[T any]() *flight[T] { return &flight[T]{turn: make(chan struct{}, 1)} }

func flightFor[K comparable, T any](m map[K]*flight[T], key K) *flight[T] {
	f, ok := m[key]
	if !ok {
		f = newFlight[T]()
		m[key] = f
	}
	return f
}

func (f *flight[T]) do(ctx context.Context, fn func(context.Context) (T, error)) (T, error) {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		var none T
		return none, context.Cause(ctx)
	}
	defer func() { <-f.turn }()
	if f.done {
		return f.value, nil
	}
	v, err := fn(ctx)
	if err != nil {
		return v, err
	}
	f.done, f.value = true, v
	return v, nil
}

// keeps says whether fetched blobs are stored.
func (s *Source) keeps() bool {
	return s.options.Blobs != nil && !s.options.Dir.Report().InMemory
}

// own remembers the file of a layer, to close it in the end.
func (s *Source) own(f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(errors.New("the images are closed"), f.Close())
	}
	s.files = append(s.files, f)
	return nil
}

// disown closes a file that came to nothing.
func (s *Source) disown(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.files, f); i >= 0 {
		s.files = slices.Delete(s.files, i, i+1)
		_ = f.Close() // its content is not wanted
	}
}
