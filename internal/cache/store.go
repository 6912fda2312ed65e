package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/blob"
	"hako/internal/event"
)

// Opener reads a blob from the start. It may be called more than once, and from many goroutines.
type Opener func(ctx context.Context) (io.ReadCloser, error)

// ErrRecord is the kind of error of a record that is not what it should be: damaged, of another step, not signed.
// The store is none the worse for it.
var ErrRecord = errors.New("the record is not used")

// errSlow is why a store is not asked any more.
var errSlow = errors.New("there is no answer in time")

// Store holds records. It may be used from many goroutines.
type Store interface {
	// Get returns the record with this key, or nil if there is none. An error that Is [ErrRecord] is about this record; after
	// any other the store is not asked again. It gives up when ctx ends.
	Get(ctx context.Context, key Key) (*Found, error)
	// Put keeps a record under all its keys, with the listing that it describes and the layer that open reads, which is nil if
	// the record has none. What is there already is replaced.
	Put(ctx context.Context, r *Record, listing []byte, open Opener) error
	// String names the store for people.
	String() string
	// Close releases the store.
	Close() error
}

// near is a store on this machine, which is asked before others.
type near interface{ Near() }

// Options say how a Cache is used.
type Options struct {
	// Read are asked: those on this machine first, one after the other, and if none of them has a record the others,
	// all at once; of several records that of the first store counts.
	Read []Store
	// Write gets new records, and may be nil. If it is on this machine, it gets what is found elsewhere as well.
	Write Store
	// TTL is the age at which records are too old; 0 means never.
	TTL time.Duration
	// Patience is how long a store may think about a look-up; zero means ten seconds. All look-ups together may keep the
	// build for six times as long.
	Patience time.Duration
	// Signer vouches for records; nil means that all are believed that are well-formed.
	Signer Signer
	// Events is told what went wrong.
	Events event.Sink
	// Now is the clock.
	Now func() time.Time
}

const (
	defaultPatience = 10 * time.Second
	allPatience     = 6 // times Patience
	copies          = 4 // of records found elsewhere, at once
)

// Cache asks several stores and keeps their failures from builds: one that fails or is slow is not asked again, which is told
// once. It may be used from many goroutines.
type Cache struct {
	options Options
	tiers   [][]Store
	puts    sync.WaitGroup
	copying chan struct{} // one token for each copy that runs

	mu     sync.Mutex // guards what follows
	health map[Store]*health
	lost   map[blobIn]bool
	copied map[blobIn]*copied // by the listing of the record and where it comes from
}

// blobIn is a blob in a store.
type blobIn struct {
	store Store
	id    digest.Digest
}

// New returns a cache over stores, which it closes when it is closed. What it does in the background ends with ctx.
func New(ctx context.Context, o Options) *Cache {
	if o.Patience <= 0 {
		o.Patience = defaultPatience
	}
	c := &Cache{
		options: o, copying: make(chan struct{}, copies), health: map[Store]*health{}, lost: map[blobIn]bool{}, copied: map[blobIn]*copied{},
	}
	var far []Store
	for _, s := range o.Read {
		if _, ok := s.(near); ok {
			c.tiers = append(c.tiers, []Store{s})
		} else {
			far = append(far, s)
		}
	}
	if len(far) > 0 {
		c.tiers = append(c.tiers, far)
	}
	for _, s := range c.stores() {
		h := &health{}
		h.writing, h.stop = context.WithCancelCause(ctx)
		c.health[s] = h
	}
	return c
}

// stores are all stores, each once.
func (c *Cache) stores() []Store {
	var out []Store
	for _, s := range append(slices.Clone(c.options.Read), c.options.Write) {
		if s != nil && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// connector is a store that can be contacted before it is needed.
type connector interface{ Connect(ctx context.Context) }

// Connect contacts the stores in the background.
func (c *Cache) Connect(ctx context.Context) {
	for _, s := range c.options.Read {
		if s, ok := s.(connector); ok {
			c.puts.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, c.options.Patience)
				defer cancel()
				s.Connect(ctx)
			})
		}
	}
}

// Get returns the record with this key, or nil if there is none that can be used.
func (c *Cache) Get(ctx context.Context, key Key) *Found {
	for _, tier := range c.tiers {
		found := make([]*Found, len(tier))
		var all sync.WaitGroup
		for i, s := range tier[1:] {
			all.Go(func() { found[i+1] = c.get(ctx, s, key) })
		}
		found[0] = c.get(ctx, tier[0], key)
		all.Wait()
		for _, f := range found {
			if f != nil {
				c.copy(f)
				return f
			}
		}
	}
	return nil
}

// get asks one store.
func (c *Cache) get(ctx context.Context, s Store, key Key) *Found {
	if !c.begin(s) {
		return nil
	}
	limited, cancel := context.WithTimeoutCause(ctx, c.options.Patience, errSlow)
	defer cancel()
	f, err := s.Get(limited, key)
	c.end(s)
	if err == nil && f != nil {
		err = c.verify(&f.Record)
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, ErrRecord):
		c.refused(s, err)
		return nil
	case err != nil:
		c.giveUp(s, reading, err)
		return nil
	case f == nil || c.isLost(s, f.Layer.Digest):
		return nil
	case c.options.TTL > 0 && c.options.Now().Sub(f.Created) > c.options.TTL:
		return nil
	}
	f.cache, f.from = c, s
	return f
}

// Put keeps a record in the background; Wait waits for it. Without a store to write to it does nothing.
func (c *Cache) Put(r *Record, l *Listing, open Opener) {
	s := c.options.Write
	if s == nil {
		return
	}
	ctx := c.writing(s)
	c.puts.Go(func() {
		rec, listing, err := Complete(r, l)
		if err != nil {
			c.refused(s, err) // others may do
			return
		}
		err = c.sign(rec)
		if err == nil && ctx.Err() == nil {
			err = s.Put(ctx, rec, listing, open)
		}
		if err != nil && ctx.Err() == nil && !errors.Is(err, blob.ErrLost) {
			c.giveUp(s, writing, err)
		}
	})
}

// Wait waits until everything that was Put is kept, or has failed.
func (c *Cache) Wait() { c.puts.Wait() }

// Close waits, and closes all stores.
func (c *Cache) Close() error {
	c.Wait()
	for _, h := range c.health {
		h.stop(nil)
	}
	var errs []error
	for _, s := range c.stores() {
		if err := s.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close the cache %s: %w", s, err))
		}
	}
	return errors.Join(errs...)
}
