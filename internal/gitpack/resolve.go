package gitpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Deltas form trees: each stands on one object, and many can stand on the same. A tree is walked from its root with the
// content of the object at hand, so that everything is unpacked once. Of the deltas on an object, the one with the
// smallest tree comes first, and before the last of them the object is let go: so the contents that wait for their
// other deltas are at most as many as the logarithm of all objects, however deep the trees are.

// resolver hashes the deltas of a pack.
type resolver struct {
	pack  *Pack
	first []int32 // the deltas on each object, a list each: -1 ends it
	next  []int32
	size  []int32 // how many deltas are in the tree of each object, with it
	done  []bool
	total atomic.Int64 // unpacked so far
}

var errLoop = errors.New("its deltas stand on each other, or on objects that are not in it")

// resolve unpacks all deltas, to know their ids and sizes.
func (s *scanner) resolve() error {
	p := s.pack
	deltas := 0
	for i := range p.entries {
		if p.entries[i].delta {
			deltas++
		}
	}
	if deltas == 0 {
		return nil
	}
	r := &resolver{pack: p, first: fill(len(p.entries)), next: fill(len(p.entries)), size: make([]int32, len(p.entries)), done: make([]bool, len(p.entries))}
	r.total.Store(s.total)
	for i := range p.entries {
		r.done[i] = !p.entries[i].delta
	}
	s.linkRefs(r)
	for deltas > 0 {
		roots := r.link()
		if len(roots) == 0 {
			return errLoop
		}
		n, err := r.round(s.ctx, roots)
		if err != nil {
			return err
		}
		deltas -= n
		s.linkRefs(r)
	}
	return nil
}

// fill is a list of nothings.
func fill(n int) []int32 {
	out := make([]int32, n)
	for i := range out {
		out[i] = -1
	}
	return out
}

// linkRefs finds the bases that deltas name by id, among the objects whose ids are known by now.
func (s *scanner) linkRefs(r *resolver) {
	if len(s.refs) == 0 {
		return
	}
	wanted := map[ID][]int32{}
	for n, id := range s.refs {
		wanted[id] = append(wanted[id], n)
	}
	for i := range s.pack.entries {
		if !r.done[i] {
			continue
		}
		for _, n := range wanted[NewID(s.pack.id(int32(i)))] { //nolint:gosec // bounded by Limits.Objects
			s.pack.entries[n].base = int32(i) //nolint:gosec // likewise
			delete(s.refs, n)
		}
	}
}

// link makes the lists of deltas that wait, and returns the objects whose ids are known that some stand on.
func (r *resolver) link() []int32 {
	entries := r.pack.entries
	for i := range r.first {
		r.first[i], r.size[i] = -1, 1
	}
	var roots []int32
	for i := len(entries) - 1; i >= 0; i-- { // a base comes before its deltas, but for those that name it by id
		e := &entries[i]
		if r.done[i] || e.base < 0 {
			continue
		}
		if r.done[e.base] && r.first[e.base] < 0 {
			roots = append(roots, e.base)
		}
		r.next[i], r.first[e.base] = r.first[e.base], int32(i) //nolint:gosec // bounded by Limits.Objects
		r.size[e.base] += r.size[i]
	}
	return roots
}

// round unpacks the trees of the roots, and returns how many deltas they have.
func (r *resolver) round(ctx context.Context, roots []int32) (int, error) {
	var count atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(max(1, r.pack.options.Workers))
	for _, root := range roots {
		group.Go(func() error {
			c, err := r.pack.content(ctx, root)
			if err != nil {
				return err
			}
			w := &walk{resolver: r, ctx: ctx, kind: r.pack.entries[root].kind}
			err = w.tree(root, c)
			count.Add(w.count)
			return err
		})
	}
	err := group.Wait()
	return int(count.Load()), err
}

// walk is one tree on its way. One goroutine uses it.
type walk struct {
	*resolver
	ctx   context.Context //nolint:containedctx // lives as long as the call it serves
	kind  Kind
	stack []level
	held  int64 // bytes of the contents on the stack
	count int64
}

// level is an object and the deltas on it that are still to be unpacked, the next one last.
type level struct {
	content *content
	deltas  []int32
	depth   int // deltas below it
}

// maxHeld bounds the contents that wait. Only a pack that was made to need them has more.
const maxHeld = 128 << 20 // 128 MiB

// tree unpacks all deltas above root, whose content is c. It closes c.
func (w *walk) tree(root int32, c *content) (err error) {
	defer func() {
		for _, l := range w.stack {
			err = errors.Join(err, l.content.close())
		}
	}()
	w.push(root, c, 0)
	for len(w.stack) > 0 {
		if w.ctx.Err() != nil {
			return context.Cause(w.ctx)
		}
		top := &w.stack[len(w.stack)-1]
		n := top.deltas[len(top.deltas)-1]
		top.deltas = top.deltas[:len(top.deltas)-1]
		depth := top.depth + 1
		if depth > w.pack.limits.Chain {
			return fmt.Errorf("%w: more than %d deltas stand on each other", ErrTooMuch, w.pack.limits.Chain)
		}
		next, err := w.one(n, top.content)
		if err != nil {
			return err
		}
		if len(top.deltas) == 0 {
			done := top.content
			w.held -= int64(len(done.mem))
			w.stack = w.stack[:len(w.stack)-1]
			if err := done.close(); err != nil {
				return errors.Join(err, next.close())
			}
		}
		if w.first[n] < 0 {
			if err := next.close(); err != nil {
				return err
			}
			continue
		}
		w.push(n, next, depth)
		if w.held > maxHeld {
			return fmt.Errorf("%w: its deltas branch too much", ErrTooMuch)
		}
	}
	return nil
}

// push puts an object with deltas on the stack.
func (w *walk) push(n int32, c *content, depth int) {
	var deltas []int32
	for d := w.first[n]; d >= 0; d = w.next[d] {
		deltas = append(deltas, d)
	}
	slices.SortFunc(deltas, func(a, b int32) int { return int(w.size[b]) - int(w.size[a]) }) // the smallest last
	w.stack = append(w.stack, level{content: c, deltas: deltas, depth: depth})
	w.held += int64(len(c.mem))
}

// one unpacks the delta number n and notes its id.
func (w *walk) one(n int32, base *content) (*content, error) {
	p := w.pack
	c, err := p.apply(w.ctx, n, base)
	if err != nil {
		return nil, fmt.Errorf("object at %d: %w", p.entries[n].offset, err)
	}
	if w.total.Add(c.size()) > p.limits.TotalBytes {
		return nil, errors.Join(ErrTooMuch, c.close())
	}
	h := objectHash(p.options.Format, w.kind, c.size())
	if _, err := io.Copy(h, io.NewSectionReader(c, 0, c.size())); err != nil {
		return nil, errors.Join(err, c.close())
	}
	copy(p.id(n), sumID(h).Bytes())
	e := &p.entries[n]
	e.kind, e.size = w.kind, c.size()
	w.done[n] = true
	w.count++
	return c, nil
}
