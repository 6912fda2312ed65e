package cache

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// Keeper is a store whose contents can be listed and removed.
type Keeper interface {
	Store
	// List returns all that is in the store. What appears or goes meanwhile may be missing.
	List(ctx context.Context) (*Inventory, error)
	// Remove takes entries and blobs of an inventory out of the store, unless they were used after it was made, and returns
	// those that are gone. A record goes before what it needs, so that no build ever finds half of one. It stops at the
	// first error.
	Remove(ctx context.Context, what *Inventory) (*Inventory, error)
}

// Inventory is what is in a store.
type Inventory struct {
	// Now is the time by the store's own clock, or zero if it does not tell.
	Now     time.Time
	Entries []Entry
	// Loose are blobs that no record names, and what killed writers left.
	Loose []Loose
	// Spare is how long before Now something must have been used not to be removed.
	Spare time.Duration
}

// Entry is one record under all its names.
type Entry struct {
	// Record is nil if it cannot be read; Keys are the names under which it was found.
	Record *Record
	Keys   []Key
	// ID is what the store knows it by, if not by its keys: the digest of a manifest.
	ID string
	// Size is that of its blobs, in bytes. Others may have the same blobs.
	Size int64
	// Used is when it was last read or written, or zero if the store does not know.
	Used time.Time
}

// Loose is a blob that no record names.
type Loose struct {
	// Name is that of a file, or a digest.
	Name string
	Size int64
	Used time.Time
}

// Created is when the record was made, or when it was used if that cannot be read.
func (e *Entry) Created() time.Time {
	if e.Record == nil {
		return e.Used
	}
	return e.Record.Created
}

// LastUse is when the record was used, or made if the store does not know.
func (e *Entry) LastUse() time.Time {
	if e.Used.IsZero() {
		return e.Created()
	}
	return e.Used
}

// What says for people what the record is of.
func (e *Entry) What() string {
	switch {
	case e.Record == nil:
		return "a record that cannot be read"
	case e.Record.What != "":
		return e.Record.What
	case e.Record.Layer.Digest == "":
		return "the list of files of a base image's layer"
	}
	return "a step"
}

// Size is that of all blobs, each counted once, in bytes.
func (v *Inventory) Size() int64 {
	var total int64
	seen := map[digest.Digest]bool{}
	for i := range v.Entries {
		total += v.Entries[i].add(seen)
	}
	for _, l := range v.Loose {
		total += l.Size
	}
	return total
}

// add is the size of those of e's blobs that are not in seen, to which they are added.
func (e *Entry) add(seen map[digest.Digest]bool) int64 {
	if e.Record == nil {
		return e.Size
	}
	var n int64
	for _, b := range e.Record.blobs() {
		if !seen[b.Digest] {
			seen[b.Digest] = true
			n += b.Size
		}
	}
	return n
}

// Rules say what is removed from a store.
type Rules struct {
	// All removes everything.
	All bool
	// OlderThan removes records that were made that long ago, UnusedFor those that were not used for so long; 0 means no limit.
	OlderThan, UnusedFor time.Duration
	// MaxSize is what all blobs together may have, in bytes; those that were not used for longest go first. 0 means no limit.
	MaxSize int64
	// Grace spares what was used that recently: builds that run may need it.
	Grace time.Duration
	// Now is the time for stores that do not tell it.
	Now time.Time
}

// Grace is how long what a build has found stays, whatever the rules: builds say again and again that they still need it.
const Grace = 30 * time.Minute

// Choose is what the rules remove of v.
func (r *Rules) Choose(v *Inventory) *Inventory {
	now := v.Now
	if now.IsZero() {
		now = r.Now
	}
	out := &Inventory{Now: now, Spare: r.Grace}
	spared := func(used time.Time) bool { return now.Sub(used) < r.Grace }
	all := slices.Clone(v.Entries)
	slices.SortStableFunc(all, func(a, b Entry) int { return a.LastUse().Compare(b.LastUse()) })
	var left []Entry
	for _, e := range all {
		old := r.OlderThan > 0 && now.Sub(e.Created()) > r.OlderThan || r.UnusedFor > 0 && now.Sub(e.LastUse()) > r.UnusedFor
		if (r.All || old) && !spared(e.LastUse()) {
			out.Entries = append(out.Entries, e)
			continue
		}
		left = append(left, e)
	}
	for _, l := range v.Loose {
		if !spared(l.Used) {
			out.Loose = append(out.Loose, l)
		}
	}
	if r.MaxSize > 0 {
		out.Entries = append(out.Entries, excess(left, r.MaxSize, spared)...)
	}
	return out
}

// excess are those of entries, the least recently used first, without which the blobs of the others fit into limit.
func excess(entries []Entry, limit int64, spared func(time.Time) bool) []Entry {
	users := map[digest.Digest]int{}
	var total int64
	for i := range entries {
		if entries[i].Record == nil {
			total += entries[i].Size
			continue
		}
		for _, b := range entries[i].Record.blobs() {
			if users[b.Digest]++; users[b.Digest] == 1 {
				total += b.Size
			}
		}
	}
	var out []Entry
	for i := range entries {
		if total <= limit || spared(entries[i].LastUse()) { // those that follow were used later still
			break
		}
		out = append(out, entries[i])
		if entries[i].Record == nil {
			total -= entries[i].Size
			continue
		}
		for _, b := range entries[i].Record.blobs() {
			if users[b.Digest]--; users[b.Digest] == 0 {
				total -= b.Size
			}
		}
	}
	return out
}

// Prune removes from a store what the rules say, or with dry only finds out what that is, and returns it.
func Prune(ctx context.Context, s Keeper, r Rules, dry bool) (*Inventory, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the cache %s: %w", s, err)
	}
	chosen := r.Choose(all)
	if dry {
		return chosen, nil
	}
	gone, err := s.Remove(ctx, chosen)
	if err != nil {
		return gone, fmt.Errorf("prune the cache %s: %w", s, err)
	}
	return gone, nil
}

// Sized is a store that knows its size without being listed.
type Sized interface {
	// Size is that of all blobs, in bytes.
	Size(ctx context.Context) (int64, error)
}

// Limit removes what was not used for longest from a store that has more than limit bytes, until it has a tenth less:
// then the next build need not do the same. It returns what is gone.
func Limit(ctx context.Context, s Keeper, limit int64, now time.Time) (*Inventory, error) {
	if sized, ok := s.(Sized); ok {
		if size, err := sized.Size(ctx); err != nil || size <= limit {
			return &Inventory{}, err
		}
	}
	return Prune(ctx, s, Rules{MaxSize: max(1, limit-limit/10), Grace: Grace, Now: now}, false)
}

// sortEntries puts entries in an order that does not depend on chance.
func sortEntries(all []Entry) {
	for i := range all {
		slices.Sort(all[i].Keys)
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Or(a.Created().Compare(b.Created()), slices.Compare(a.Keys, b.Keys)) })
}
