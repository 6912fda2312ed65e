// Package imagesource gives the images that a build starts or copies from: their configuration when the build
// is planned, their layers when somebody reads files, and their blobs when they have to be pushed elsewhere.
//
// Nothing a registry says is believed before it has been hashed, and nothing is fetched twice in a build.
package imagesource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/blob"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/prepared"
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
	// It may be nil. Keep, if not nil, says which layers are worth keeping; it is called once a layer is fetched.
	Blobs *blob.Store
	Keep  func(Layer) bool
	// Shared says which layers' blobs several readers will want: these are stored when the first one asks, and fetched once.
	// Nil means none.
	Shared func(Layer) bool
	// Events receives the progress of downloads; nil drops it.
	Events event.Sink
	// Mirrors are asked for the images of their registries before these, in this order; OnlyMirrors says not to ask a registry
	// that has mirrors itself.
	Mirrors     []Mirror
	OnlyMirrors bool
	// Retries is how often an image is looked for again that a place does not give, whatever the reason, after a second, two,
	// four… It comes on top of what the registry's client does on its own. RetryDelay is the first pause; zero means a second.
	Retries    int
	RetryDelay time.Duration
	// Warmed, if not nil, is a directory that is looked into before registries.
	Warmed *Warmed
	// Prepared are where opened layers may be found, in this order; one that is in none is kept in the first that takes it.
	Prepared []*prepared.Store
	// Cwd is the absolute directory that paths of layouts are relative to.
	Cwd string
	// Jobs is how many layers are fetched and inflated at the same time; zero means four.
	Jobs int
}

// Source resolves images and gives their layers. It may be used from many goroutines.
type Source struct {
	options Options
	slots   chan struct{} // one per layer being opened
	wide    chan struct{} // one for all that need much memory
	// life ends when the source is closed: a file of a layer may be read after the step that listed it.
	life context.Context //nolint:containedctx // that of a tree's files, whose readers have no place for one
	end  context.CancelCauseFunc

	mu        sync.Mutex // guards what follows
	manifests map[manifestKey]*flight[*registry.Manifest]
	resolved  map[resolveKey]*flight[*resolved]
	images    map[imageKey]*resolved
	layers    map[layer.Descriptor]*baseLayer
	files     []*os.File
	shelf     shelf
	closed    bool
}

var errClosed = errors.New("the images are closed")

type (
	manifestKey struct{ place, identifier string }
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
	found  *found
	place  place
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
	life, end := context.WithCancelCause(context.Background())
	return &Source{
		life: life, end: end,
		options:   o,
		slots:     make(chan struct{}, o.Jobs),
		wide:      make(chan struct{}, 1),
		manifests: map[manifestKey]*flight[*registry.Manifest]{},
		resolved:  map[resolveKey]*flight[*resolved]{},
		images:    map[imageKey]*resolved{},
		layers:    map[layer.Descriptor]*baseLayer{},
	}
}

// Close closes the files of all layers. Nothing may use them any more.
func (s *Source) Close() error {
	s.end(errClosed)
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
	find := func(ctx context.Context) (*found, place, error) { return s.find(ctx, ref, platform) }
	return s.once(ctx, name, resolveKey{registry.FullName(ref), image.FormatPlatform(platform)}, find)
}

// once finds an image unless it has been found, and returns it under the name that the caller gave it.
func (s *Source) once(ctx context.Context, name string, key resolveKey, find finder) (*plan.ImageRef, error) {
	s.mu.Lock()
	f := flightFor(s.resolved, key)
	s.mu.Unlock()
	r, err := f.do(ctx, func(ctx context.Context) (*resolved, error) { return s.resolve(ctx, key.ref, find) })
	if err != nil {
		return nil, err
	}
	out := r.ref
	out.Name = name
	return &out, nil
}

// finder looks for one image and says where it lies.
type finder func(ctx context.Context) (*found, place, error)

// place is where images lie: a repository of a registry, or a layout.
type place interface {
	// Manifest returns what a tag or a digest stands for, verified if it is a digest.
	Manifest(ctx context.Context, identifier string) (*registry.Manifest, error)
	// Config returns an image's configuration, verified.
	Config(ctx context.Context, want ocispec.Descriptor) ([]byte, error)
	// Blob reads a blob. Only if the last Read returned io.EOF, the content is what it should be. The caller closes it.
	Blob(ctx context.Context, want ocispec.Descriptor) (io.ReadCloser, error)
	// Name is unique among places.
	Name() string
}

// repository is a place in a registry.
type repository struct {
	*registry.Repository
	name string
}

// Name implements place.
func (r repository) Name() string { return r.name }

// repository is where at lies, which is ref or a mirror's name of it.
func (s *Source) repository(at, ref name.Reference) place {
	r := repository{s.options.Registry.Repository(at.Context(), registry.Pull), at.Context().Name()}
	if w := s.options.Warmed; w != nil {
		return &warmed{repository: r, Warmed: w, shelf: &s.shelf, events: s.options.Events, ref: registry.FullName(ref)}
	}
	return r
}

// repositoryName is the name for mounting blobs elsewhere.
func repositoryName(p place) string {
	switch r := p.(type) {
	case repository:
		return r.name
	case *warmed:
		return r.name
	}
	return ""
}

func (s *Source) resolve(ctx context.Context, ref string, find finder) (*resolved, error) {
	found, at, err := find(ctx)
	if err != nil {
		return nil, err
	}
	r := &resolved{found: found, place: at, ref: plan.ImageRef{
		Ref:       ref,
		Digest:    found.digest,
		MediaType: found.mediaType,
		Platform:  found.platform,
		Config:    found.config,
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, d := range found.layers {
		r.layers = append(r.layers, s.layerLocked(at, d, fmt.Sprintf("%s layer %d/%d", r.ref.Ref, i+1, len(found.layers))))
	}
	s.images[imageKey{r.ref.Ref, r.ref.Digest}] = r
	return r, nil
}

// layerLocked returns the layer that d describes; the same layer of two images is one. The caller holds s.mu.
func (s *Source) layerLocked(p place, d foundLayer, title string) *baseLayer {
	l, ok := s.layers[d.Descriptor]
	if !ok {
		l = &baseLayer{source: s, place: p, title: title, desc: d.Descriptor, urls: d.urls, image: newFlight[*layer.Image](), names: newFlight[*layer.Image](), stored: newFlight[struct{}]()}
		s.layers[d.Descriptor] = l
	}
	return l
}

// manifest fetches a manifest or index once.
func (s *Source) manifest(ctx context.Context, p place, identifier string) (*registry.Manifest, error) {
	s.mu.Lock()
	f := flightFor(s.manifests, manifestKey{p.Name(), identifier})
	s.mu.Unlock()
	return f.do(ctx, func(ctx context.Context) (*registry.Manifest, error) {
		return p.Manifest(ctx, identifier)
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
		out[i] = l.layer()
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

// get waits for a caller of do, if there is one, and returns the value if there is one by then.
func (f *flight[T]) get(ctx context.Context) (value T, ok bool, err error) {
	select {
	case f.turn <- struct{}{}:
	case <-ctx.Done():
		return value, false, context.Cause(ctx)
	}
	defer func() { <-f.turn }()
	return f.value, f.done, nil
}

// keeps says whether the blob of l is stored when it is fetched.
func (s *Source) keeps(l *baseLayer) bool {
	if s.options.Blobs == nil || s.options.Dir.Report().InMemory {
		return false
	}
	return s.options.Keep == nil || s.options.Keep(l.layer())
}

// own remembers the file of a layer, to close it in the end.
func (s *Source) own(f *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.Join(errClosed, f.Close())
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
