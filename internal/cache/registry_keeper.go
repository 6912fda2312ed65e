package cache

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"hako/internal/registry"
)

var _ Keeper = (*Registry)(nil)

// lookups is how many manifests are asked for, or removed, at the same time.
const lookups = 8

// List implements [Keeper]. It costs a request for each name of a record. A registry does not tell when something was used,
// and what its blobs are used for is its own affair.
func (r *Registry) List(ctx context.Context) (*Inventory, error) {
	from := r.client.Repository(r.repo, registry.Pull)
	tags, err := from.Tags(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex // guards found
	found := map[string]*Entry{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for _, tag := range tags {
		key := Key(strings.TrimPrefix(tag, tagPrefix))
		if !strings.HasPrefix(tag, tagPrefix) || key.Validate() != nil {
			continue
		}
		g.Go(func() error {
			m, err := from.Manifest(gctx, tag)
			if refused := new(registry.ResponseError); errors.As(err, &refused) && refused.Status == http.StatusNotFound {
				return nil // it has gone since
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			e := found[m.Digest.String()]
			if e == nil {
				e = &Entry{ID: m.Digest.String()}
				if e.Record, err = decodeManifest(m.Data); err != nil {
					e.Record = nil // whatever it is, it has our name and is of no use
				} else {
					e.Size = e.Record.size()
				}
				found[e.ID] = e
			}
			e.Keys = append(e.Keys, key)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	out := &Inventory{}
	for _, e := range found {
		out.Entries = append(out.Entries, *e)
	}
	sortEntries(out.Entries)
	return out, nil
}

// size is that of all blobs.
func (r *Record) size() int64 {
	var n int64
	for _, b := range r.blobs() {
		n += b.Size
	}
	return n
}

// Remove implements [Keeper]. The blobs go when the registry collects its garbage.
func (r *Registry) Remove(ctx context.Context, what *Inventory) (*Inventory, error) {
	from := r.client.Repository(r.repo, registry.Delete)
	var mu sync.Mutex // guards gone
	gone := &Inventory{Now: what.Now}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i := range what.Entries {
		e := &what.Entries[i]
		g.Go(func() error {
			if err := remove(gctx, from, e); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			gone.Entries = append(gone.Entries, *e)
			return nil
		})
	}
	err := g.Wait()
	sortEntries(gone.Entries)
	return gone, err
}

// remove deletes a manifest. Most registries take its tags with it; some want them gone before, some leave them where they are.
func remove(ctx context.Context, from *registry.Repository, e *Entry) error {
	err := from.Delete(ctx, e.ID)
	if err != nil && (ctx.Err() != nil || errors.Is(err, registry.ErrNoDelete)) {
		return err
	}
	var tagErr error
	for _, k := range e.Keys {
		tagErr = errors.Join(tagErr, from.Delete(ctx, tagPrefix+string(k)))
	}
	if err != nil && tagErr == nil {
		return from.Delete(ctx, e.ID)
	}
	return err // tags that were gone with the manifest cannot always be deleted
}
