package sentry

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"hako/internal/layer"
	"hako/internal/sandbox/remote"
	"hako/internal/tree"
)

// caches are the trees that outlive steps, by ID. They live as long as the child; their data is where uppers have theirs.
type caches struct {
	mu   sync.Mutex // guards byID; held while a cache is made
	byID map[string]*cache
}

// cache is one of them.
type cache struct {
	// upper holds what steps wrote, over the files that the cache began with; root is both.
	upper, root vfs.VirtualDentry
	// lowers are what it began with; none if it was empty.
	lowers []vfs.VirtualDentry
}

// openCache makes s show its part of a cache, which is made if it is not there.
func (b *box) openCache(s *source) error {
	c, err := b.cache(s.Cache)
	if err != nil {
		return err
	}
	err = b.openPart(s, c.root, s.Cache.First.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return &remote.StartError{Reason: fmt.Sprintf("mount %s: the cache has no /%s", s.Target, s.Cache.First.Path)}
	}
	return err
}

func (b *box) cache(req *remote.Cache) (*cache, error) {
	b.caches.mu.Lock()
	defer b.caches.mu.Unlock()
	if c, ok := b.caches.byID[req.ID]; ok {
		return c, nil
	}
	c, err := b.newCache(req)
	if err != nil {
		return nil, fmt.Errorf("make cache %s: %w", req.ID, err)
	}
	b.caches.byID[req.ID] = c
	return c, nil
}

func (b *box) newCache(req *remote.Cache) (*cache, error) {
	if len(req.First.Lowers) == 0 {
		root, err := b.emptyTree()
		if err != nil {
			return nil, err
		}
		if err := b.own(root, req); err != nil {
			b.unmount(root)
			return nil, err
		}
		return &cache{upper: root, root: root}, nil
	}
	roots, err := b.stack(req.First.Lowers)
	if err != nil {
		return nil, err
	}
	below, err := b.merged(roots)
	if err != nil {
		return nil, err
	}
	defer b.unmount(below)
	upper, m, err := b.writable(below, roots, b.pipesOf(req.First.Lowers))
	if err != nil {
		return nil, err
	}
	c := &cache{upper: upper, root: rootOf(m), lowers: roots}
	if req.Owned {
		err = b.own(c.root, req)
	}
	return c, err
}

// own gives a cache's top directory the owner and mode that it is to have.
func (b *box) own(root vfs.VirtualDentry, req *remote.Cache) error {
	now := b.kernel.RealtimeClock().Now()
	e := tree.Entry{Path: ".", Kind: tree.Dir, Mode: req.Mode, UID: req.UID, GID: req.GID, ModTime: time.Unix(0, now.Nanoseconds())}
	return b.setMetadata(at(root, ""), &e)
}

// CacheChanges implements [remote.Kernel].
func (b *box) CacheChanges(id string, write func(layer.Changes) error) error {
	b.caches.mu.Lock()
	c := b.caches.byID[id]
	b.caches.mu.Unlock()
	if c == nil {
		return fmt.Errorf("cache %s: %w", id, fs.ErrNotExist)
	}
	below, err := b.below(c)
	if err != nil {
		return err
	}
	defer b.unmount(below)
	return write(layer.Diff(&vfsTree{box: b, root: c.upper}, &vfsTree{box: b, root: below}))
}

// below is what a cache began with. The caller unmounts it.
func (b *box) below(c *cache) (vfs.VirtualDentry, error) {
	if len(c.lowers) == 0 {
		return b.emptyTree()
	}
	return b.merged(c.lowers)
}
