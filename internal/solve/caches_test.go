package solve

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/plan"
)

// claimer claims caches by words: "a" shared, "a!" locked, "a-" private.
type claimer struct {
	t *testing.T
	c *caches
}

func wantsOf(words string) []want {
	var out []want
	for w := range strings.FieldsSeq(words) {
		x := want{key: strings.TrimRight(w, "!-")}
		switch {
		case strings.HasSuffix(w, "!"):
			x.sharing = plan.SharingLocked
		case strings.HasSuffix(w, "-"):
			x.sharing = plan.SharingPrivate
		}
		out = append(out, x)
	}
	return out
}

// gets claims what can be had at once.
func (c *claimer) gets(words, want string) func() {
	c.t.Helper()
	ids, release, err := c.c.claim(c.t.Context(), wantsOf(words))
	if err != nil {
		c.t.Fatal(err)
	}
	if diff := cmp.Diff(want, strings.Join(ids, " ")); diff != "" {
		c.t.Errorf("%s (-want +got):\n%s", words, diff)
	}
	return release
}

// waits claims what cannot be had now.
func (c *claimer) waits(words string) {
	c.t.Helper()
	c.c.mu.Lock()
	defer c.c.mu.Unlock()
	if got, ok := c.c.tryLocked(wantsOf(words)); ok {
		c.t.Errorf("%s did not wait", words)
		c.c.undoLocked(got)
	}
}

func TestCachesAreShared(t *testing.T) {
	t.Parallel()
	c := &claimer{t, newCaches()}
	a := c.gets("a b", "a#0 b#0")
	b := c.gets("a", "a#0")
	c.waits("a!")
	private := c.gets("a-", "a#1")
	c.gets("a", "a#0")()
	a()
	c.waits("a!")
	b()
	locked := c.gets("a!", "a#0")
	c.waits("a!")
	second := c.gets("a", "a#2") // as in BuildKit: sharing does not mean to wait
	locked()
	private()
	second()
	c.gets("a- a!", "a#0 a#0")()
}

func TestLockedCachesAreNotHeldWhileWaiting(t *testing.T) {
	t.Parallel()
	c := &claimer{t, newCaches()}
	a := c.gets("a!", "a#0")
	c.waits("b! a!")
	c.gets("b!", "b#0")()
	a()
	c.gets("b! a!", "b#0 a#0")()
}

func TestClaimsWakeUp(t *testing.T) {
	t.Parallel()
	c := newCaches()
	running := 0
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			words := "a! b!"
			if i%2 == 0 {
				words = "b! a!"
			}
			_, release, err := c.claim(t.Context(), wantsOf(words))
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			if running++; running > 1 {
				t.Error("two at a time")
			}
			mu.Unlock()
			mu.Lock()
			running--
			mu.Unlock()
			release()
		})
	}
	wg.Wait()
}

func TestClaimEndsWithItsContext(t *testing.T) {
	t.Parallel()
	c := newCaches()
	_, release, err := c.claim(t.Context(), wantsOf("a!"))
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	errStop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	if _, _, err := c.claim(ctx, wantsOf("a!")); !errors.Is(err, errStop) {
		t.Errorf("got %v", err)
	}
}
