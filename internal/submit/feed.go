package submit

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"hako/internal/cluster"
	"hako/internal/event"
)

// A pod whose context comes through standard input waits for it, and knows its digest and size. As soon as its container runs,
// the context is sent, from the same file to each pod. A stream that breaks ends the pod's input: the pod then ends with exitAgain,
// and the Job controller makes another, which gets a stream of its own.

// exitAgain is the exit code of a pod that did not get the whole context: EX_TEMPFAIL of sysexits.h.
const exitAgain = 75

// feedPatience is how long a running container may refuse the stream.
const feedPatience = 30 * time.Second

// feed is the stream to one pod.
type feed struct {
	done  chan struct{}
	since time.Time

	mu   sync.Mutex // guards what follows
	sent int64
	err  error
	over bool // nothing is being sent
}

// state is how it went so far.
func (s *feed) state() (sent int64, over bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sent, s.over, s.err
}

// feed sends a pod the context once its container runs, and again if the container did not take anything. An error ends the build.
func (f *follower) feed(ctx context.Context, p *corev1.Pod) error {
	s := status(p)
	if !f.sent.streams() || s == nil || s.State.Running == nil {
		return nil
	}
	now := f.env.Build.Now()
	old := f.feeds[p.Name]
	since := now
	if old != nil {
		sent, over, err := old.state()
		switch {
		case !over:
			return nil
		case err == nil:
			return nil
		case sent > 0:
			f.once(fmt.Sprintf("the context did not get to pod %s whole: %v", p.Name, err))
			return nil
		case ctx.Err() != nil, cluster.IsTemporary(err):
		case cluster.IsForbidden(err), now.Sub(old.since) >= feedPatience:
			return err
		}
		since = old.since
	}
	next := &feed{done: make(chan struct{}), since: since}
	f.feeds[p.Name] = next
	go func() {
		defer close(next.done)
		f.send(ctx, p.Name, next)
	}()
	return nil
}

// send sends the context over one connection.
func (f *follower) send(ctx context.Context, pod string, s *feed) {
	counter := &lateCounter{r: f.sent.packed.Reader(), start: func(r io.Reader) *event.Counter {
		return event.NewCounter(r, f.env.Build.Events, event.Progress{ID: "send " + pod, What: "send context", Total: f.sent.packed.Size()})
	}}
	sent, err := f.env.Cluster.SendInput(ctx, pod, Container, counter)
	counter.finish()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent, s.over = sent, true
	if sent < f.sent.packed.Size() {
		s.err = err
	} // of what is whole the pod is the judge
}

// lateCounter counts from the first byte on: of an attempt that nobody takes there is no progress to tell.
type lateCounter struct {
	r     io.Reader
	start func(io.Reader) *event.Counter
	c     *event.Counter
}

// Read reads on and counts.
func (l *lateCounter) Read(b []byte) (int, error) {
	if l.c == nil {
		l.c = l.start(l.r)
	}
	return l.c.Read(b)
}

func (l *lateCounter) finish() {
	if l.c != nil {
		l.c.Finish()
	}
}

// streamed says whether a pod gets its context through standard input.
func streamed(p *corev1.Pod) bool {
	for _, c := range p.Spec.Containers {
		if c.Name == Container {
			return c.Stdin
		}
	}
	return false
}
