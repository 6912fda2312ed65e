package submit

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"

	"hako/internal/build"
	"hako/internal/contextartifact"
	"hako/internal/event"
	"hako/internal/registry"
)

// Contexts are the contexts of many builds: each directory is sent once, used by all builds of it, and deleted at the end. It may
// be used from many goroutines. Where it is nil, each build has a context of its own.
type Contexts struct {
	env build.Env

	mu   sync.Mutex // guards sent, not what it points to
	sent map[contextKey]*sentContext
}

// contextKey is what decides what is sent, and to which registry: the pods of one may not reach another. The Dockerfile counts
// since it may have an ignore file of its own; files that the build writes are left out.
type contextKey struct{ directory, subPath, dockerfile, written, registry, repository string }

// sentContext is a context that one build sends and others wait for.
type sentContext struct {
	repository string
	registry   build.Registry
	// turn holds one token; who has it may look at and set place, which has its scheme and is empty until the context is sent.
	turn  chan struct{}
	place string
}

// NewContexts returns none. env is the world in which they are deleted.
func NewContexts(env build.Env) *Contexts {
	return &Contexts{env: env, sent: map[contextKey]*sentContext{}}
}

// find is the context of a build, which would send it to a repository.
func (c *Contexts) find(r *Request, to string) *sentContext {
	host, _, _ := strings.Cut(to, "/")
	o := &r.Build.Outputs
	key := contextKey{
		directory: filepath.Clean(strings.TrimPrefix(r.Build.Context, "dir://")), subPath: filepath.Clean(r.Build.ContextSubPath), dockerfile: r.Build.Dockerfile,
		written: strings.Join([]string{o.DigestFile, o.NameWithDigestFile, o.NameTagWithDigestFile}, "\x00"), registry: host, repository: r.ContextRepository,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sent[key]
	if s == nil {
		s = &sentContext{repository: to, registry: r.Build.Registry, turn: make(chan struct{}, 1)}
		s.turn <- struct{}{}
		c.sent[key] = s
	}
	return s
}

// repository is where the context of a build lies or will lie: that of the first build that has it.
func (c *Contexts) repository(r *Request, to string) string {
	if c == nil {
		return to
	}
	return c.find(r, to).repository
}

// place is that of the context of a build, with its scheme. If no other build has sent it, send does.
func (c *Contexts) place(ctx context.Context, r *Request, to string, send func() (string, error)) (string, error) {
	if c == nil {
		return send()
	}
	s := c.find(r, to)
	select {
	case <-s.turn:
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer func() { s.turn <- struct{}{} }()
	if s.place != "" {
		return s.place, nil
	}
	// If it fails, the next build that needs it tries again: it may have been this build that was stopped.
	place, err := send()
	if err == nil {
		s.place = place
	}
	return place, err
}

// Close deletes all contexts, when no build uses them any more. That one cannot be deleted is told, and no failure.
func (c *Contexts) Close(ctx context.Context) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	var group sync.WaitGroup
	for _, s := range c.sent {
		if s.place != "" {
			group.Go(func() { deleteContext(ctx, c.env, s.registry, s.place) })
		}
	}
	group.Wait()
}

// deleteContext deletes a context, or tells that it stays.
func deleteContext(ctx context.Context, env build.Env, r build.Registry, place string) {
	err := build.DeleteContext(ctx, env, ofDestinations(r), strings.TrimPrefix(place, contextartifact.Scheme))
	switch {
	case errors.Is(err, registry.ErrNoDelete):
		env.Events.Emit(event.Debug{Message: "the context stays at " + place + ": " + err.Error()})
	case err != nil:
		env.Events.Emit(event.Warning{Message: "the context stays at " + place + ": " + err.Error()})
	}
}
