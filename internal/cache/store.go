package cache

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"hako/internal/event"
)

// Store holds records.
type Store interface {
	// Get returns the record with this key, or nil if there is none that can be used.
	Get(ctx context.Context, key Key) (*Found, error)
	// Put keeps a record under all its keys, with the layer that open reads and its listing. What is there already is replaced.
	Put(ctx context.Context, r *Record, l *Listing, open func(ctx context.Context) (io.ReadCloser, error)) error
	// String names the store for people.
	String() string
	// Close releases the store.
	Close() error
}

// Options say how a Cache is used.
type Options struct {
	// Read are asked in this order; Write gets new records, and may be nil.
	Read  []Store
	Write Store
	// TTL is the age at which records are too old; 0 means never.
	TTL time.Duration
	// Events is told what went wrong, once for each store.
	Events event.Sink
	// Now is the clock.
	Now func() time.Time
}

// Cache asks several stores and keeps their failures from builds. It may be used from many goroutines.
type Cache struct {
	options Options

	mu   sync.Mutex // guards told
	told map[Store]bool
	puts sync.WaitGroup
}

// New returns a cache over stores, which it closes when it is closed.
func New(o Options) *Cache { return &Cache{options: o, told: map[Store]bool{}} }

// Get returns the first record with this key that is not too old, or nil.
func (c *Cache) Get(ctx context.Context, key Key) *Found {
	for _, s := range c.options.Read {
		f, err := s.Get(ctx, key)
		switch {
		case err != nil:
			c.failed(ctx, s, "read", err)
		case f == nil:
		case c.options.TTL > 0 && c.options.Now().Sub(f.Created) > c.options.TTL:
		default:
			return f
		}
	}
	return nil
}

// Put keeps a record in the background; Close waits for it. Without a store to write to it does nothing.
func (c *Cache) Put(ctx context.Context, r *Record, l *Listing, open func(ctx context.Context) (io.ReadCloser, error)) {
	if c.options.Write == nil {
		return
	}
	c.puts.Go(func() {
		if err := c.options.Write.Put(ctx, r, l, open); err != nil {
			c.failed(ctx, c.options.Write, "write", err)
		}
	})
}

// failed tells once that a store cannot be used; of further failures only those who look for faults hear.
func (c *Cache) failed(ctx context.Context, s Store, what string, err error) {
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	told := c.told[s]
	c.told[s] = true
	c.mu.Unlock()
	message := fmt.Sprintf("the cache %s is not used for some steps: %s: %v", s, what, err)
	if told {
		c.options.Events.Emit(event.Debug{Message: message})
		return
	}
	c.options.Events.Emit(event.Warning{Message: message})
}

// Wait waits until everything that was Put is kept, or has failed.
func (c *Cache) Wait() { c.puts.Wait() }

// Close waits, and closes all stores.
func (c *Cache) Close() error {
	c.Wait()
	var first error
	closed := map[Store]bool{}
	for _, s := range append(c.options.Read, c.options.Write) {
		if s == nil || closed[s] {
			continue
		}
		closed[s] = true
		if err := s.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
