package solve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"hako/internal/blob"
	"hako/internal/event"
	"hako/internal/plan"
	"hako/internal/trail"
)

// Cache keeps what steps made.
type Cache interface {
	// Keeps says whether results of op are looked up and kept, and if not, perhaps why: words that are told with the number of
	// such steps. sizeBytes is how much op reads of what is no stage and no image.
	Keeps(op plan.Op, sizeBytes int64) (keeps bool, why string)
	// Get returns what is known by a key, or nil.
	Get(ctx context.Context, key string) *Cached
	// Put keeps a result by its keys. It may do so later.
	Put(c *Cached, keys []string)
}

// Cached is the result of a step in a cache.
type Cached struct {
	Layer Layer
	// Inputs and Exact are the keys that the step had when it ran.
	Inputs, Exact string
	Created       time.Time
	// Text is the instruction, for people; it is empty in a result that was found.
	Text string
}

// keys are those of one step on one state.
type keys struct{ definition, inputs, exact string }

// consult finds the definitions of all steps and asks the cache for them, all at once.
func (s *solver) consult(ctx context.Context) error {
	if s.parts.Cache == nil {
		return nil
	}
	steps := s.share.inOrder()
	contexts := make([][]string, len(steps))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(max(s.parts.Jobs, 1))
	for i, sh := range steps {
		g.Go(func() error {
			var sizeBytes int64
			contexts[i], sizeBytes = s.contextDigests(gctx, sh)
			sh.keeps, sh.why = s.parts.Cache.Keeps(sh.step.Op, sizeBytes)
			return context.Cause(gctx)
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.sayWhatIsNotKept(steps)
	definitions := s.share.definitions(contexts)
	const lookups = 16 // at once
	g, gctx = errgroup.WithContext(ctx)
	g.SetLimit(lookups)
	for i, sh := range steps {
		sh.definition = definitions[i]
		if sh.definition != "" && sh.link == nil && sh.keeps {
			g.Go(func() error {
				sh.known = s.parts.Cache.Get(gctx, sh.definition)
				return context.Cause(gctx)
			})
		}
	}
	return g.Wait()
}

// contextDigests identifies what sh reads of places that are no stage and no image, in the order of reads. It is nil if they
// cannot be read: the step itself will say why. sizeBytes is how much that is.
func (s *solver) contextDigests(ctx context.Context, sh *shared) (_ []string, sizeBytes int64) {
	all := reads(sh.step.Op)
	sh.noted = make([]trail.Read, len(all))
	out := make([]string, len(all))
	for i, r := range all {
		note := &sh.noted[i]
		note.Name = readName(r.from)
		if r.from.Stage != nil || r.from.Image != nil {
			continue
		}
		if s.parts.Trailed != nil {
			note.Files = &trail.Files{}
		}
		id, n, err := s.measure(ctx, sh.step.Op, r, note.Files)
		if err != nil {
			return nil, 0
		}
		note.Digest = id
		out[i] = id
		sizeBytes += n
	}
	return out, sizeBytes
}

// sayWhatIsNotKept tells for each reason how many steps are not looked up.
func (s *solver) sayWhatIsNotKept(steps []*shared) {
	counts := map[string]int{}
	for _, sh := range steps {
		if sh.link == nil && sh.why != "" {
			counts[sh.why]++
		}
	}
	for _, why := range slices.Sorted(maps.Keys(counts)) {
		s.parts.Events.Emit(event.Info{Message: fmt.Sprintf("%s: %d", why, counts[why])})
	}
}

// inputsOf is the key of sh on cur made of all that it reads, as wholes.
func (s *solver) inputsOf(ctx context.Context, sh *shared, cur *state) (string, error) {
	f := newFramed(keyVersion + " inputs")
	f.add(sh.operation, cur.content)
	for i, r := range reads(sh.step.Op) {
		st, err := s.stateOf(ctx, r.from)
		if err != nil {
			return "", err
		}
		whole := ""
		if st != nil {
			whole = st.content
		} else if whole, err = s.digestOf(ctx, sh.step.Op, r); err != nil {
			return "", err
		}
		sh.noted[i].Whole = whole
		f.add(whole)
	}
	return f.hex(), nil
}

// exactOf is the key of sh on cur made of what it reads, for which the names of all that have to be there.
func (s *solver) exactOf(ctx context.Context, sh *shared, cur *state) (string, error) {
	f := newFramed(keyVersion + " exact")
	f.add(sh.operation, cur.content)
	for i, r := range reads(sh.step.Op) {
		part, err := s.digestOf(ctx, sh.step.Op, r)
		if err != nil {
			return "", err
		}
		sh.noted[i].Digest = part
		f.add(part)
	}
	return f.hex(), nil
}

// cached is the state after sh on cur as the cache has it, or nil, and the keys by which to keep the result.
func (s *solver) cached(ctx context.Context, sh *shared, cur *state) (*state, keys, error) {
	if s.parts.Cache == nil || !sh.keeps {
		return nil, keys{}, nil
	}
	if err := s.ready(ctx, sh.step); err != nil {
		return nil, keys{}, err
	}
	hit, k, err := s.lookUp(ctx, sh, cur)
	if hit == nil && err == nil {
		s.explain(sh)
	}
	if hit == nil || err != nil {
		return nil, k, err
	}
	now := s.parts.Now()
	s.parts.Events.Emit(event.StepStarted{Step: sh.step.ID, Name: sh.step.Text, Time: now})
	if s.parts.Made != nil && sh.result {
		s.parts.Made(hit.Layer)
	}
	s.parts.Events.Emit(event.StepDone{Step: sh.step.ID, Cached: true, Duration: s.parts.Now().Sub(now)})
	return cur.with(hit.Layer), k, nil
}

// lookUp finds a record of sh on cur, and the keys by which to keep one if there is none. The exact key is found only if it is
// needed: it takes lists of files, which take requests.
func (s *solver) lookUp(ctx context.Context, sh *shared, cur *state) (*Cached, keys, error) {
	k := keys{definition: sh.definition}
	var err error
	if k.inputs, err = s.inputsOf(ctx, sh, cur); err != nil {
		return nil, keys{}, lostOnly(err)
	}
	hit := sh.known
	if hit != nil && hit.Inputs == k.inputs {
		return hit, k, nil
	}
	if k.exact, err = s.exactOf(ctx, sh, cur); err != nil {
		return nil, keys{}, lostOnly(err)
	}
	if hit != nil && hit.Exact == k.exact {
		return hit, k, nil
	}
	if hit = s.parts.Cache.Get(ctx, k.exact); hit != nil && (hit.Exact == k.exact || hit.Inputs == k.inputs) {
		return hit, k, nil
	}
	return nil, k, context.Cause(ctx)
}

// lostOnly drops other errors than that of a lost layer: the step itself will say what is wrong.
func lostOnly(err error) error {
	if errors.Is(err, blob.ErrLost) {
		return err
	}
	return nil
}

// keep puts the result of a step that ran into the cache.
func (s *solver) keep(sh *shared, k keys, next *state) {
	if k.exact == "" {
		return
	}
	ids := []string{k.exact}
	if k.definition != "" {
		ids = append(ids, k.definition)
	}
	s.parts.Cache.Put(&Cached{Layer: next.layers[len(next.layers)-1], Inputs: k.inputs, Exact: k.exact, Created: s.parts.Now(), Text: sh.step.Text}, ids)
}

// stateOf is the state that f is the files of, or nil if it is no stage and no image.
func (s *solver) stateOf(ctx context.Context, f plan.From) (*state, error) {
	switch {
	case f.Stage != nil:
		return s.wait(ctx, f.Stage)
	case f.Image != nil:
		return s.image(ctx, f.Image)
	}
	return nil, nil
}

// contentsOf is the tree of f, with the digests of its files remembered.
func (s *solver) contentsOf(ctx context.Context, f plan.From) (*contents, error) {
	t, _, err := s.from(ctx, f)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.contents[f]
	if !ok {
		c = &contents{Tree: t, sparse: f == (plan.From{}), known: map[string]digest.Digest{}}
		s.contents[f] = c
	}
	return c, nil
}

// contentID identifies what a state of these layers holds.
func contentID(below string, l *Layer) string {
	f := newFramed("state 1")
	f.add(below)
	if l.Content != "" {
		f.add("content", l.Content.String())
	} else {
		f.add("layer", l.DiffID.String())
	}
	return f.hex()
}
