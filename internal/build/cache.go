package build

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"

	"hako/internal/bucket"
	"hako/internal/cache"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/layer"
	"hako/internal/plan"
	"hako/internal/registry"
	"hako/internal/rootfs"
	"hako/internal/solve"
)

// Cache says what is taken from earlier builds and kept for later ones.
type Cache struct {
	// Enabled switches it on. Repository is where records are read and written: a repository of a registry, or "oci:" and a
	// directory; empty means "cache" below the first destination. Sources are more of them, only read, asked first.
	Enabled    bool
	Repository string
	Sources    []string
	// TTL is the age at which records are too old; 0 means never.
	TTL time.Duration
	// Patience is how long a place may take to answer before the build goes on without it; zero means ten seconds.
	Patience time.Duration
	// Key vouches for records: a secret, or a key of cosign's, private or public. Records without are not used. It may be none.
	Key Signing
	// ReadOnly says to write nothing. SkipRuns leaves out RUN steps. Copies takes all COPY and ADD steps, SkipCopies none of them;
	// neither means those that it is cheaper to cache than to do again.
	ReadOnly, SkipRuns, Copies, SkipCopies bool
	// Explain says to tell for each step that is not there what has changed since the last build.
	Explain bool
	// SizeBytes is what Repository may have when the build is over: what was not used for longest goes. 0 means no limit.
	SizeBytes int64
}

// inferred says whether the repository is one that the user did not name.
func (c *Cache) inferred() bool { return c.Repository == "" }

// validateCache finds what a cache needs and is not there.
func (r *Request) validateCache() error {
	c := &r.Cache
	switch {
	case !c.Enabled || !c.inferred() || r.NoCache || r.DryRun:
		return nil
	case r.Outputs.NoPush && !c.ReadOnly || len(r.Outputs.Destinations) == 0:
		return &diag.Error{What: "there is no place for the cache", Hint: "Give --cache-repo, which can be a directory: --cache-repo=oci:DIRECTORY."}
	}
	return nil
}

// openCache opens the stores that the request names.
func (b *builder) openCache(ctx context.Context) error {
	c := &b.req.Cache
	if !c.Enabled || b.req.NoCache || b.req.DryRun {
		return nil
	}
	place := c.Repository
	if c.inferred() {
		first, err := registry.ParseReference(b.req.Outputs.Destinations[0])
		if err != nil {
			return err
		}
		place = registry.FullName(first.Context().Tag("x"))
		place = strings.TrimSuffix(place, ":x") + "/cache"
	}
	signer, writes, err := b.cacheSigner()
	if err != nil {
		return err
	}
	o := cache.Options{Signer: signer, TTL: c.TTL, Patience: c.Patience, Events: b.env.Events, Now: b.env.Now}
	for _, s := range append(slices.Clone(c.Sources), place) {
		store, err := b.openStore(ctx, s)
		if err != nil {
			return err
		}
		if store == nil {
			continue
		}
		o.Read = append(o.Read, store)
		if s == place {
			b.opened = store
		}
		if s == place && writes && !c.ReadOnly {
			o.Write, b.written = store, store
		}
	}
	b.cache = cache.New(b.life, o)
	b.cache.Connect(b.life)
	b.closers = append(b.closers, b.cache.Close)
	return nil
}

// defaultPatience is how long a place that is opened is waited for.
const defaultPatience = 10 * time.Second

// openStore opens a place for records. It is nil if there is something wrong with the place, and not with its name.
func (b *builder) openStore(ctx context.Context, place string) (cache.Store, error) {
	if dir, ok := strings.CutPrefix(place, "oci:"); ok {
		d, err := cache.OpenDirectory(b.file(strings.TrimPrefix(dir, "//")))
		if err != nil {
			b.env.Events.Emit(event.Warning{Message: fmt.Sprintf("the cache %s is not used: %v", place, err)})
			return nil, nil
		}
		return d, nil
	}
	if bucket.IsPlace(place) {
		return b.openBucket(ctx, place)
	}
	repo, err := name.NewRepository(place, name.WeakValidation)
	if err != nil {
		return nil, &diag.Error{What: fmt.Sprintf("cache repository %q", place), Cause: err, Hint: "Write it as registry.example/path/name, without a tag, oci:DIRECTORY, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX."}
	}
	if b.output != nil && !b.output.Takes(repo) { // without an output, there is no build to keep waiting
		b.client.Hurry(repo)
	}
	return cache.NewRegistry(b.client, repo, b.output), nil
}

// openBucket opens a store in object storage. Nobody who has no credentials for it is kept from building.
func (b *builder) openBucket(ctx context.Context, place string) (cache.Store, error) {
	p, err := bucket.Parse(place)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(b.req.Cache.Patience, defaultPatience))
	defer cancel()
	objects, err := bucket.Open(ctx, bucket.Options{Getenv: b.env.Getenv, Events: b.env.Events, Window: cache.BucketWindow}, p)
	if err != nil && b.life.Err() == nil {
		b.env.Events.Emit(event.Warning{Message: fmt.Sprintf("the cache %s is not used: %v", p, err)})
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return cache.NewBucket(objects, p), nil
}

// stepCache is the cache for the solver.
type stepCache struct {
	*builder
	maker *maker
	// salt is what all keys depend on besides the steps: what layers are written as.
	salt string

	mu   sync.Mutex // guards made
	made map[string]*solve.Cached
}

var _ solve.Cache = (*stepCache)(nil)

// stepCache returns the solver's view of the cache, or nil if there is none.
func (b *builder) stepCache(m *maker) *stepCache {
	if b.cache == nil {
		return nil
	}
	salt := fmt.Sprintf("%s level %d", m.opts.Compression, m.opts.Level)
	if m.latest != nil {
		salt += fmt.Sprintf(" until %d", m.latest.UnixNano())
	}
	return &stepCache{builder: b, maker: m, salt: salt, made: map[string]*solve.Cached{}}
}

func (c *stepCache) key(k string) cache.Key {
	h := sha256.New()
	fmt.Fprintf(h, "%d:%s%d:%s", len(c.salt), c.salt, len(k), k)
	return cache.Key(hex.EncodeToString(h.Sum(nil)))
}

// dearCopy is how many bytes a COPY of the context has to take to be cached without being asked for: to pack and send them takes
// longer than the requests for a record. A layer that is made again is mostly sent again, as the directory copied to has a new time.
const dearCopy = 1 << 20

// Keeps implements [solve.Cache]. What a COPY takes from a stage or an image would have to be fetched to be copied again.
func (c *stepCache) Keeps(op plan.Op, sizeBytes int64) (keeps bool, why string) {
	cp, ok := op.(*plan.Copy)
	switch {
	case !ok:
		return !c.req.Cache.SkipRuns, ""
	case c.req.Cache.Copies || c.req.Cache.SkipCopies:
		return c.req.Cache.Copies, ""
	case cp.From.Stage != nil || cp.From.Image != nil || sizeBytes >= dearCopy:
		return true, ""
	}
	return false, "small COPY and ADD steps are done again, which is cheaper than to cache them (see --cache-copy-layers)"
}

// listed makes the files of a base image's layer known without the layer: by a record of what is in it, which is made the first
// time that the layer is read.
func (c *stepCache) listed(src rootfs.Source) rootfs.Source {
	key := cache.Key(digest.FromString("hako listing 1 " + src.DiffID.String()).Encoded())
	open, list := src.Open, src.List
	var known atomic.Bool
	put := func(im *layer.Image, err error) (*layer.Image, error) {
		if err == nil && !known.Swap(true) {
			rec := &cache.Record{Keys: []cache.Key{key}, Created: c.env.Now(), Image: c.imageName(), Layer: layer.Descriptor{DiffID: src.DiffID}}
			c.cache.Put(rec, &cache.Listing{Index: im.Index, Small: im.AtHand()}, nil)
		}
		return im, err
	}
	src.Open = func(ctx context.Context) (*layer.Image, error) { return put(open(ctx)) }
	src.List = func(ctx context.Context) (*layer.Image, error) {
		if f := c.cache.Get(ctx, key); f != nil {
			if l, err := f.Listing(ctx); err == nil {
				known.Store(true)
				return layer.Listing(l.Index, l.Small, func() (*layer.Image, error) { return open(c.life) }), nil
			}
		}
		if list == nil {
			return nil, errNotCached
		}
		return put(list(ctx))
	}
	return src
}

// shorten leaves enough of a text to know it again.
func shorten(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

var errNotCached = errors.New("the listing of a base image's layer is not cached")

// Get implements [solve.Cache]. What was made in this build is taken from it.
func (c *stepCache) Get(ctx context.Context, key string) *solve.Cached {
	c.mu.Lock()
	made := c.made[key]
	c.mu.Unlock()
	if made != nil {
		return made
	}
	f := c.cache.Get(ctx, c.key(key))
	if f == nil {
		return nil
	}
	again := &reopened{maker: c.maker, desc: f.Layer, blob: f.Blob, reject: f.Reject}
	out := solve.Layer{Descriptor: f.Layer, Content: f.Content, Blob: f.Blob, Source: rootfs.Source{
		DiffID: f.Layer.DiffID, Open: again.open,
		List: func(ctx context.Context) (*layer.Image, error) {
			l, err := f.Listing(ctx)
			if err != nil {
				c.env.Events.Emit(event.Debug{Message: err.Error()})
				return nil, err
			}
			return layer.Listing(l.Index, l.Small, func() (*layer.Image, error) { return again.open(c.life) }), nil
		},
	}}
	if r := f.Repository(); r != "" {
		out.Repositories = []string{r}
	}
	return &solve.Cached{Layer: out, Inputs: string(f.Inputs), Exact: string(f.Exact), Created: f.Created}
}

// Put implements [solve.Cache].
func (c *stepCache) Put(s *solve.Cached, keys []string) {
	rec := &cache.Record{Created: s.Created, What: shorten(s.Text), Image: c.imageName(), Layer: s.Layer.Descriptor, Content: s.Layer.Content, Inputs: cache.Key(s.Inputs), Exact: cache.Key(s.Exact)}
	c.mu.Lock()
	for _, k := range keys {
		rec.Keys = append(rec.Keys, c.key(k))
		c.made[k] = s
	}
	c.mu.Unlock()
	list := s.Layer.Source.List
	if list == nil {
		list = s.Layer.Source.Open
	}
	im, err := list(c.life)
	if err != nil {
		c.env.Events.Emit(event.Debug{Message: "a step is not cached: " + err.Error()})
		return
	}
	l := &cache.Listing{Index: im.Index, Small: im.AtHand()}
	open := c.blob(s.Layer).Open
	c.cache.Put(rec, l, open)
}
