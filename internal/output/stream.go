package output

import (
	"context"
	"io"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"hako/internal/event"
	"hako/internal/registry"
)

// Growing is a layer that is still being made.
type Growing interface {
	// Open reads the layer from its start, as far as it is made, and then waits for more. It may be called many times.
	Open() io.ReadCloser
	// Close is called when nobody reads it any more.
	Close() error
}

// Stream is a layer on its way to registries while it is still being compressed, so that nobody knows its digest.
// It saves time only: what does not arrive this way is uploaded as any other layer. A nil Stream goes nowhere.
type Stream struct {
	output *Output
	stop   context.CancelCauseFunc
	parts  []*part
}

// part is what a stream is to one repository.
type part struct {
	repo name.Repository
	done chan struct{}  // closed when sent may be read
	sent *registry.Sent // nil if it went wrong
}

// Stream begins to send a layer that is still being made to the first destination of each registry; the others get it from
// there. The caller calls Finish or Drop, whatever comes.
func (o *Output) Stream(g Growing) (*Stream, error) {
	if !o.pushes() {
		return nil, g.Close()
	}
	ctx, stop := context.WithCancelCause(o.stopped)
	s := &Stream{output: o, stop: stop}
	var sending errgroup.Group
	seen := map[string]bool{}
	for _, repo := range o.repositories() {
		if seen[repo.RegistryStr()] {
			continue
		}
		seen[repo.RegistryStr()] = true
		p := &part{repo: repo, done: make(chan struct{})}
		s.parts = append(s.parts, p)
		sending.Go(func() error {
			o.send(ctx, p, g)
			return nil
		})
	}
	o.background.Go(func() error {
		_ = sending.Wait() // its functions return nil
		if err := g.Close(); err != nil {
			o.events.Emit(event.Debug{Message: "upload while it is made: " + err.Error()})
		}
		return nil
	})
	return s, nil
}

// send sends a layer to one repository.
func (o *Output) send(ctx context.Context, p *part, g Growing) {
	defer close(p.done)
	var err error
	p.sent, err = o.client.Repository(p.repo, registry.Push).Send(ctx, func() (io.ReadCloser, error) { return g.Open(), nil })
	if err != nil && ctx.Err() == nil {
		o.events.Emit(event.Debug{Message: "upload while it is made: " + err.Error()})
	}
}

// Finish says what the layer has become. It is called before the layer is given to Upload or Write.
func (s *Stream) Finish(d digest.Digest) {
	if s == nil {
		return
	}
	s.output.mu.Lock()
	defer s.output.mu.Unlock()
	for _, p := range s.parts {
		s.output.streams[uploadKey{p.repo.Name(), d}] = p
	}
}

// Drop ends a stream whose layer could not be made.
func (s *Stream) Drop() {
	if s == nil {
		return
	}
	s.stop(errClosed)
	for _, p := range s.parts {
		s.output.background.Go(func() error {
			if <-p.done; p.sent != nil {
				p.sent.Cancel(s.output.stopped)
			}
			return nil
		})
	}
}

// streamed says whether a blob has come to a repository by a stream.
func (o *Output) streamed(ctx context.Context, key uploadKey) bool {
	o.mu.Lock()
	p := o.streams[key]
	delete(o.streams, key)
	o.mu.Unlock()
	if p == nil {
		return false
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		return false
	}
	if p.sent == nil {
		return false
	}
	if err := p.sent.Commit(ctx, key.digest); err != nil {
		o.events.Emit(event.Debug{Message: "upload again: " + err.Error()})
		return false
	}
	return true
}
