package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"hako/internal/cache"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/solve"
)

// The contents of a cache mount are a chain of layers: the first has all that there was, each other one what a build changed.
// A record, the head, names them from the bottom; each layer has a record of its own. A build takes the head when a step first
// uses the cache, mounts the layers read-only under what its steps write, and in the end adds that as one more layer.
//
// Builds do not wait for each other. If the head is another one when a build ends, somebody else was faster: on top of
// his layers goes what this build changed if the cache is shared, since that is what sharing means: of one file the last writer's
// content counts. A private or locked cache has one user at a time, so there the last writer's chain counts as a whole.
// Every head is complete in itself, so whichever of two builds writes last, the next one finds something consistent.

// CacheMounts says where the contents of RUN --mount=type=cache are kept for other builds.
type CacheMounts struct {
	// Place is a repository, or "oci:" and a directory; "none" for nowhere. Empty means the cache's directory, if it is one.
	Place string
	// SizeBytes is what one of them may have in the place; 0 means no limit.
	SizeBytes int64
}

const (
	nowhere = "none"
	// maxChain is how many layers there are before they become one: each costs a mount and a few requests.
	maxChain = 8
	// mountFile is where in a head's listing the chain is.
	mountFile = "mount"
)

// chain is what a head says.
type chain struct {
	Version int `json:"version"`
	// Layers are the keys of the layers' records, from the bottom.
	Layers []chainLayer `json:"layers"`
}

// chainLayer is one layer of a chain.
type chainLayer struct {
	Key    cache.Key     `json:"key"`
	DiffID digest.Digest `json:"diffID"`
	Size   int64         `json:"size"` // bytes of the blob
}

const chainVersion = 1

var errChain = errors.New("it is not what it should be")

// validate finds what cannot be.
func (c *chain) validate() error {
	if c.Version != chainVersion || len(c.Layers) == 0 || len(c.Layers) > maxChain {
		return errChain
	}
	for _, l := range c.Layers {
		if err := errors.Join(l.Key.Validate(), l.DiffID.Validate()); err != nil || l.Size <= 0 {
			return errors.Join(errChain, err)
		}
	}
	return nil
}

func (c *chain) size() (n int64) {
	for _, l := range c.Layers {
		n += l.Size
	}
	return n
}

// mountKeeper keeps the caches of a build's steps.
type mountKeeper struct {
	*builder
	cache *cache.Cache
	// writes says that what steps leave is kept, not only used.
	writes bool
	maker  *maker
	// engine tells what became of caches.
	engine sandbox.CacheReader
	// scope tells caches of builds for other platforms apart.
	scope string

	mu   sync.Mutex // guards byID
	byID map[string]*keptMount
}

var _ solve.CacheMounts = (*mountKeeper)(nil)

// keptMount is one cache. Its fields may be read when once is done.
type keptMount struct {
	id    string
	once  sync.Once
	below *rootfs.Stack // what the Dockerfile says
	first *rootfs.Stack // and what other builds left
	chain chain         // the latter
	// head is what was found; its layers are those of chain, unless they could not be used.
	head chain
	// shared says that steps may use it at the same time.
	shared bool
}

// openMounts opens the place where caches of steps are kept, if there is one.
func (b *builder) openMounts(ctx context.Context) error {
	place := b.req.CacheMounts.Place
	store := b.opened
	switch {
	case place == nowhere || b.req.DryRun:
		return nil
	case place == "":
		if _, ok := store.(*cache.Directory); !ok {
			return nil
		}
	default:
		var err error
		if store, err = b.openStore(ctx, place); err != nil || store == nil {
			return err
		}
	}
	signer, writes, err := b.cacheSigner()
	if err != nil {
		return err
	}
	o := cache.Options{Read: []cache.Store{store}, Signer: signer, Patience: b.req.Cache.Patience, Events: b.env.Events, Now: b.env.Now}
	writes = writes && !b.req.Cache.ReadOnly
	if writes {
		o.Write = store
	}
	kept := cache.New(b.life, o)
	b.closers = append(b.closers, kept.Close)
	b.mounts = &mountKeeper{builder: b, cache: kept, writes: writes, byID: map[string]*keptMount{}}
	return nil
}

// startMounts tells the keeper what is built.
func (b *builder) startMounts(graphs []*plan.Graph) {
	if b.mounts == nil {
		return
	}
	var platforms []string
	for _, g := range graphs {
		platforms = append(platforms, image.FormatPlatform(g.Target.Config.Platform))
	}
	slices.Sort(platforms)
	b.mounts.engine = b.engine
	b.mounts.scope = strings.Join(slices.Compact(platforms), ",")
	b.mounts.maker = &maker{store: b.store, dir: b.dir, opts: layer.WriteOptions{Compression: layer.Zstd, Digests: true}, life: b.life}
}

func (m *mountKeeper) headKey(id string) cache.Key {
	return cache.Key(digest.FromString(fmt.Sprintf("hako cache mount 1 %d:%s%d:%s", len(m.scope), m.scope, len(id), id)).Encoded())
}

func layerKey(id digest.Digest) cache.Key {
	return cache.Key(digest.FromString("hako cache mount layer 1 " + id.String()).Encoded())
}

// First implements [solve.CacheMounts].
func (m *mountKeeper) First(ctx context.Context, r *solve.FirstRequest) *rootfs.Stack {
	m.mu.Lock()
	k := m.byID[r.ID]
	if k == nil {
		k = &keptMount{id: r.ID, shared: r.Shared}
		m.byID[r.ID] = k
	}
	m.mu.Unlock()
	k.once.Do(func() {
		k.below, k.first = r.Below, r.Below
		if err := m.fetch(ctx, k); err != nil {
			k.first, k.chain = r.Below, chain{}
			if ctx.Err() == nil {
				m.env.Events.Emit(event.Warning{Message: fmt.Sprintf("the cache mount %s begins anew: %v", k.name(), err)})
			}
		}
	})
	return k.first
}

// name is what people call it: the ID without what we add.
func (k *keptMount) name() string {
	name, _, _ := strings.Cut(strings.TrimPrefix(k.id, "/"), "#")
	return name
}

// head reads what is kept under an ID; without an error and without layers there is nothing.
func (m *mountKeeper) head(ctx context.Context, id string) (chain, error) {
	f := m.cache.Get(ctx, m.headKey(id))
	if f == nil {
		return chain{}, nil
	}
	l, err := f.Listing(ctx)
	if err != nil {
		return chain{}, err
	}
	var c chain
	if err := json.Unmarshal(l.Small[mountFile], &c); err != nil {
		return chain{}, fmt.Errorf("read the list of its layers: %w", err)
	}
	return c, c.validate()
}

// fetch takes what earlier builds left, all layers at once. What is fetched is verified, and read as any layer is.
func (m *mountKeeper) fetch(ctx context.Context, k *keptMount) error {
	start := m.env.Now()
	c, err := m.head(ctx, k.id)
	if err != nil || len(c.Layers) == 0 {
		return err
	}
	k.head = c
	images := make([]*layer.Image, len(c.Layers))
	g, gctx := errgroup.WithContext(ctx)
	for i, l := range c.Layers {
		g.Go(func() error {
			f := m.cache.Get(gctx, l.Key)
			if f == nil || f.Layer.Digest == "" || layerKey(f.Layer.Digest) != l.Key || f.Layer.DiffID != l.DiffID || f.Layer.Size != l.Size {
				return errors.New("one of its layers is gone")
			}
			again := &reopened{maker: m.maker, desc: f.Layer, blob: f.Blob}
			var err error
			images[i], err = again.open(gctx)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, l := range c.Layers {
		k.first = k.first.Push(rootfs.Source{DiffID: l.DiffID, Open: func(context.Context) (*layer.Image, error) { return images[i], nil }})
	}
	// A layer that does not fit onto what is below must not fail the step.
	if _, err := k.first.Tree(ctx); err != nil {
		return err
	}
	k.chain = c
	m.env.Events.Emit(event.Span{Name: "cache mount " + k.name(), Start: start, End: m.env.Now()})
	m.env.Events.Emit(event.Info{Message: fmt.Sprintf("the cache mount %s has what earlier builds left", k.name())})
	return nil
}

// keepMounts keeps what steps left in their caches. It never fails a build.
func (b *builder) keepMounts(ctx context.Context) {
	m := b.mounts
	if m == nil || !m.writes || ctx.Err() != nil {
		return
	}
	start := b.env.Now()
	var g errgroup.Group
	g.SetLimit(2)
	m.mu.Lock()
	for _, k := range m.byID {
		g.Go(func() error {
			if err := m.keep(ctx, k); err != nil && ctx.Err() == nil {
				b.env.Events.Emit(event.Warning{Message: fmt.Sprintf("the cache mount %s is not kept: %v", k.name(), err)})
			}
			return nil
		})
	}
	m.mu.Unlock()
	_ = g.Wait() // it has been told what went wrong
	m.cache.Wait()
	b.env.Events.Emit(event.Span{Name: "keep cache mounts", Start: start, End: b.env.Now()})
}

// keep adds to a chain what this build changed.
func (m *mountKeeper) keep(ctx context.Context, k *keptMount) error {
	made, err := m.maker.Make(ctx, m.engine.CacheChanges(k.id), solve.MakeOptions{})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no step came to use it, or its sandbox ended
	}
	if err != nil {
		return err
	}
	index, err := made.Source.List(ctx)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(index.Index.Entries, func(e layer.IndexEntry) bool { return !e.Implied && e.Path != "." }) {
		return nil // nothing has changed
	}
	now, err := m.head(ctx, k.id)
	if err != nil {
		now = chain{} // it is of no use to anybody
	}
	below := k.chain
	if k.shared && !slices.Equal(now.Layers, k.head.Layers) {
		below = now // somebody else was faster
	}
	next := chain{Version: chainVersion, Layers: append(slices.Clone(below.Layers), linkOf(made))}
	limit := m.req.CacheMounts.SizeBytes
	if len(next.Layers) > maxChain || limit > 0 && next.size() > limit {
		if made, err = m.merge(ctx, k, made); err != nil {
			return err
		}
		next.Layers = []chainLayer{linkOf(made)}
	}
	if limit > 0 && next.size() > limit {
		return &diag.Error{What: fmt.Sprintf("it has %d bytes, and may have %d", next.size(), limit), Hint: "Raise --cache-mounts-size, or let a step remove what it does not need."}
	}
	return m.put(ctx, k, made, next)
}

func linkOf(l solve.Layer) chainLayer {
	return chainLayer{Key: layerKey(l.Digest), DiffID: l.DiffID, Size: l.Size}
}

// merge makes one layer of all that the cache holds now, as this build sees it.
func (m *mountKeeper) merge(ctx context.Context, k *keptMount, made solve.Layer) (solve.Layer, error) {
	from, err := k.below.Tree(ctx)
	if err != nil {
		return made, err
	}
	to, err := k.first.Push(made.Source).Tree(ctx)
	if err != nil {
		return made, err
	}
	return m.maker.Make(ctx, rootfs.Changes(from, to), solve.MakeOptions{})
}

// put writes a new layer, and when it is there the head that names it.
func (m *mountKeeper) put(ctx context.Context, k *keptMount, made solve.Layer, next chain) error {
	text, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("write the list of its layers: %w", err)
	}
	index, err := made.Source.List(ctx)
	if err != nil {
		return err
	}
	key := layerKey(made.Digest)
	rec := &cache.Record{
		Keys: []cache.Key{key}, Created: m.env.Now(), What: shorten("a layer of the cache mount " + k.name()), Image: m.imageName(),
		Layer: made.Descriptor, Content: made.Content, Inputs: key, Exact: key,
	}
	m.cache.Put(rec, &cache.Listing{Index: index.Index}, m.blob(made).Open)
	m.renew(ctx, next.Layers[:len(next.Layers)-1])
	m.cache.Wait()
	head := m.headKey(k.id)
	rec = &cache.Record{
		Keys: []cache.Key{head}, Created: m.env.Now(), What: shorten("the cache mount " + k.name()), Image: m.imageName(),
		Layer: layer.Descriptor{DiffID: digest.FromBytes(text)},
	}
	m.cache.Put(rec, &cache.Listing{Index: &layer.Index{}, Small: map[string][]byte{mountFile: text}}, nil)
	return nil
}

// renew makes the records of layers young that are still needed: whoever prunes by age would take a chain's foundation away.
func (m *mountKeeper) renew(ctx context.Context, layers []chainLayer) {
	const age = 24 * time.Hour
	for _, l := range layers {
		f := m.cache.Get(ctx, l.Key)
		if f == nil || m.env.Now().Sub(f.Created) < age {
			continue
		}
		if listing, err := f.Listing(ctx); err == nil { // otherwise the next build finds out
			rec := f.Record
			rec.Created = m.env.Now()
			m.cache.Put(&rec, listing, f.Blob)
		}
	}
}

// imageName is what is built, for people who look at a cache.
func (b *builder) imageName() string {
	if len(b.req.Outputs.Destinations) == 0 {
		return ""
	}
	return shorten(b.req.Outputs.Destinations[0])
}
