package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"hako/internal/cache"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry"
)

// ListCache says what is in the cache that req.Cache.Repository names. Of the request only that and Registry count.
func ListCache(ctx context.Context, env Env, req Request) (_ *cache.Inventory, err error) {
	store, end, err := openKeeper(ctx, env, req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	out, err := store.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the cache %s: %w", store, err)
	}
	return out, nil
}

// PruneCache removes from the cache that req.Cache.Repository names what the rules say, or with dry only finds out what
// that is, and returns it; also if it fails half way.
func PruneCache(ctx context.Context, env Env, req Request, rules cache.Rules, dry bool) (_ *cache.Inventory, err error) {
	store, end, err := openKeeper(ctx, env, req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, end()) }()
	rules.Now = env.Now()
	return cache.Prune(ctx, store, rules, dry)
}

// openKeeper opens a store outside of a build. The caller calls end.
func openKeeper(ctx context.Context, env Env, req Request) (_ cache.Keeper, end func() error, err error) {
	b := &builder{life: ctx, env: env, req: req}
	if dir, ok := strings.CutPrefix(req.Cache.Repository, "oci:"); ok {
		if _, err := os.Stat(filepath.Join(b.file(strings.TrimPrefix(dir, "//")), "records")); err != nil {
			return nil, nil, &diag.Error{What: "open the cache " + dir, Cause: err, Hint: "Name the directory that builds had as --cache-repo."}
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	options, err := b.registryOptions()
	if err != nil {
		return nil, nil, err
	}
	if b.client, err = registry.New(options); err != nil {
		return nil, nil, err
	}
	b.closers = append(b.closers, nothing(b.client.Close))
	store, err := b.openStore(ctx, req.Cache.Repository)
	if err != nil {
		return nil, nil, err
	}
	if store == nil {
		return nil, nil, &diag.Error{What: "the cache " + req.Cache.Repository + " cannot be opened", Hint: "Look at the warning above."}
	}
	b.closers = append(b.closers, store.Close)
	keeper, ok := store.(cache.Keeper)
	if !ok {
		return nil, nil, &diag.Error{What: fmt.Sprintf("what is in the cache %s cannot be listed", store), Hint: "Use the rules of the place itself for what is old."}
	}
	return keeper, b.close, nil
}

// limitCache makes room in the cache that was written to, if it has a limit. It never fails a build.
func (b *builder) limitCache(ctx context.Context) {
	limit := b.req.Cache.SizeBytes
	if limit <= 0 || b.written == nil {
		return
	}
	keeper, ok := b.written.(cache.Keeper)
	if !ok {
		b.env.Events.Emit(event.Warning{Message: fmt.Sprintf("--cache-size has no effect on the cache %s: it cannot be listed", b.written)})
		return
	}
	gone, err := cache.Limit(ctx, keeper, limit, b.env.Now())
	if err != nil {
		b.env.Events.Emit(event.Warning{Message: fmt.Sprintf("the cache %s is not kept small: %v", keeper, err)})
		return
	}
	if n := len(gone.Entries); n > 0 {
		b.env.Events.Emit(event.Info{Message: fmt.Sprintf("removed %d records from the cache %s, which were not used for longest", n, keeper)})
	}
}
