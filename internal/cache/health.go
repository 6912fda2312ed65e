package cache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/event"
)

// use is what a store is used for.
type use uint8

const (
	reading use = iota
	writing
)

// health is what is known of a store. The cache's lock guards it.
type health struct {
	off bool // it failed, and is not read any more
	// writing is the context of all that is written to it; stop ends that when it failed. They are never changed.
	writing context.Context //nolint:containedctx // see above
	stop    context.CancelCauseFunc
	// told says that somebody has been told of a record that was refused.
	told bool
	// asking is how many look-ups are under way, since when, and for how long there were any before that.
	asking int
	since  time.Time
	waited time.Duration
}

// begin notes that a look-up begins, unless the store has failed or has cost too much time.
func (c *Cache) begin(s Store) bool {
	c.mu.Lock()
	h := c.health[s]
	ok := !h.off
	slow := ok && h.waited > allPatience*c.options.Patience
	if ok && !slow {
		if h.asking == 0 {
			h.since = c.options.Now()
		}
		h.asking++
	}
	c.mu.Unlock()
	if slow {
		c.giveUp(s, reading, errSlow)
	}
	return ok && !slow
}

// end notes that a look-up has ended.
func (c *Cache) end(s Store) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.health[s]
	if h.asking--; h.asking == 0 {
		h.waited += c.options.Now().Sub(h.since)
	}
}

// writing is the context of what is written to s; it has ended if s has failed.
func (c *Cache) writing(s Store) context.Context { return c.health[s].writing }

// errFailed is why what is being written to a store ends after it has failed.
var errFailed = errors.New("the cache has failed")

// giveUp leaves a store alone from now on, and says so. One that cannot be read is not written to, either.
func (c *Cache) giveUp(s Store, u use, err error) {
	c.mu.Lock()
	h := c.health[s]
	told := h.off || u == writing && h.writing.Err() != nil
	h.off = h.off || u == reading
	c.mu.Unlock()
	h.stop(errFailed)
	message := fmt.Sprintf("the cache %s is not used any more: %v", s, err)
	if u == writing {
		message = fmt.Sprintf("the cache %s gets no more results: %v", s, err)
	}
	c.tell(told, message)
}

// tell warns, or tells those who look for faults of what has been told already.
func (c *Cache) tell(again bool, message string) {
	if again {
		c.options.Events.Emit(event.Debug{Message: message})
		return
	}
	c.options.Events.Emit(event.Warning{Message: message})
}

// refused tells of a record that is a miss. Of the first in each store everybody hears.
func (c *Cache) refused(s Store, err error) {
	c.mu.Lock()
	told := c.health[s].told
	c.health[s].told = true
	c.mu.Unlock()
	c.tell(told, fmt.Sprintf("the cache %s: %v", s, err))
}

// lose notes that a layer cannot be had, and says so; err says why.
func (c *Cache) lose(s Store, id digest.Digest, err error) {
	c.mu.Lock()
	told := c.lost[blobIn{s, id}]
	c.lost[blobIn{s, id}] = true
	c.mu.Unlock()
	c.tell(told, fmt.Sprintf("the cache %s has lost the result of a step, which is made again: %v", s, err))
}

func (c *Cache) isLost(s Store, id digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost[blobIn{s, id}]
}

// verify says why a record cannot be believed, if there is a signer.
func (c *Cache) verify(r *Record) error {
	if c.options.Signer == nil {
		return nil
	}
	message, err := r.message()
	switch {
	case err != nil:
		return err
	case len(r.Signature) == 0:
		return fmt.Errorf("%w: %s is not signed", ErrRecord, r.Keys[0])
	case !c.options.Signer.Verify(message, r.Signature):
		return fmt.Errorf("%w: %s is not signed with our key", ErrRecord, r.Keys[0])
	}
	return nil
}

// sign vouches for a record.
func (c *Cache) sign(r *Record) error {
	if c.options.Signer == nil {
		return nil
	}
	message, err := r.message()
	if err == nil {
		r.Signature, err = c.options.Signer.Sign(message)
	}
	return err
}

// Abandon makes the cache find nothing from now on.
func (c *Cache) Abandon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.health {
		h.off = true
	}
}
