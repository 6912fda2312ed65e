package solve

import (
	"context"
	"fmt"
	"sync"

	"hako/internal/plan"
)

// caches hands out the caches of RUN --mount=type=cache, as BuildKit does (solver/llbsolver/mounts): of one key there may
// be several, all of which are kept. Who shares joins others who share, or takes a free one; who wants one alone takes a
// free one; both get a new one if there is none. Who locks waits until one is free, unless there is none at all.
type caches struct {
	mu      sync.Mutex // guards the rest
	byKey   map[string][]*cache
	changed chan struct{} // closed and replaced when a cache comes free
}

// cache is one of those with the same key.
type cache struct {
	// id is what the engine knows it by.
	id     string
	users  int
	shared bool // its users share it
}

// want is a cache that a step needs.
type want struct {
	key     string
	sharing plan.Sharing
}

func newCaches() *caches {
	return &caches{byKey: map[string][]*cache{}, changed: make(chan struct{})}
}

// claim waits until all wants can be had at the same time, and returns the IDs of the caches in their order.
// That nobody waits with some of what he wants is why nobody waits for ever. The caller calls release when it is done.
func (c *caches) claim(ctx context.Context, wants []want) (ids []string, release func(), _ error) {
	for {
		c.mu.Lock()
		got, ok := c.tryLocked(wants)
		changed := c.changed
		c.mu.Unlock()
		if ok {
			for _, x := range got {
				ids = append(ids, x.id)
			}
			return ids, func() { c.release(got) }, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// tryLocked claims all wants or nothing.
func (c *caches) tryLocked(wants []want) ([]*cache, bool) {
	var got []*cache
	mine := map[string]*cache{} // of one key a step has one cache, whatever its mounts say
	for _, w := range wants {
		x := mine[w.key]
		if x == nil {
			if x = c.findLocked(w); x == nil {
				c.undoLocked(got)
				return nil, false
			}
			x.shared = w.sharing == plan.SharingShared
		}
		mine[w.key] = x
		x.users++
		got = append(got, x)
	}
	return got, true
}

// findLocked is a cache that w can have, or nil if it has to wait.
func (c *caches) findLocked(w want) *cache {
	var free *cache
	all := c.byKey[w.key]
	for _, x := range all {
		switch {
		case x.users > 0 && x.shared && w.sharing == plan.SharingShared:
			return x
		case x.users == 0 && free == nil:
			free = x
		}
	}
	if free == nil && (len(all) == 0 || w.sharing != plan.SharingLocked) {
		free = &cache{id: fmt.Sprintf("%s#%d", w.key, len(all))}
		c.byKey[w.key] = append(all, free)
	}
	return free
}

func (c *caches) undoLocked(got []*cache) {
	for _, x := range got {
		x.users--
	}
}

func (c *caches) release(got []*cache) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.undoLocked(got)
	close(c.changed)
	c.changed = make(chan struct{})
}
