package imagesource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry"
)

// Mirror is another place for the images of a registry.
type Mirror struct {
	// Registry is the host of the images' names ("docker.io", any of Docker Hub's names).
	Registry string
	// Place is "host[:port][/prefix]"; an image's path follows the prefix.
	Place string
}

// places are the references to try for ref: those of its registry's mirrors, in their order, and ref itself,
// unless only mirrors shall be asked.
func (s *Source) places(ref name.Reference) ([]name.Reference, error) {
	if w := s.options.Warmed; w != nil && w.Offline {
		return []name.Reference{ref}, nil
	}
	var out []name.Reference
	for _, m := range s.options.Mirrors {
		if !registry.SameHost(m.Registry, ref.Context().RegistryStr()) {
			continue
		}
		at, err := m.reference(ref)
		if err != nil {
			return nil, err
		}
		out = append(out, at)
	}
	if len(out) == 0 || !s.options.OnlyMirrors {
		out = append(out, ref)
	}
	return out, nil
}

// reference is ref in the mirror.
func (m *Mirror) reference(ref name.Reference) (name.Reference, error) {
	sep := ":"
	if _, ok := ref.(name.Digest); ok {
		sep = "@"
	}
	place := strings.Trim(m.Place, "/")
	if _, rest, ok := strings.Cut(place, "://"); ok {
		place = rest
	}
	// The name of a host without a dot or port would be taken for a path of Docker Hub.
	host, prefix, _ := strings.Cut(place, "/")
	reg, err := name.NewRegistry(host, name.WeakValidation)
	if err == nil {
		path := strings.TrimPrefix(prefix+"/"+ref.Context().RepositoryStr(), "/")
		var at name.Reference
		if at, err = name.ParseReference(reg.Name()+"/"+path+sep+ref.Identifier(), name.WeakValidation); err == nil {
			return at, nil
		}
	}
	return nil, &diag.Error{
		What: fmt.Sprintf("mirror %q of %s", m.Place, m.Registry), Cause: err,
		Hint: "Write a mirror as HOST[:PORT][/PREFIX].",
	}
}

// find asks for the image in one place after the other. An image that a mirror does not have, or not for the platform,
// is looked for in the next; the error is that of the last place.
func (s *Source) find(ctx context.Context, ref name.Reference, platform ocispec.Platform) (*found, place, error) {
	places, err := s.places(ref)
	if err != nil {
		return nil, nil, err
	}
	var missed []string
	for i, at := range places {
		q := query{
			source: s, place: s.repository(at, ref), name: registry.FullName(at), identifier: at.Identifier(), want: platform,
		}
		f, err := s.insist(ctx, &q)
		switch {
		case err == nil:
			return f, q.place, nil
		case ctx.Err() != nil:
			return nil, nil, err
		case i == len(places)-1:
			return nil, nil, withMissed(err, missed)
		}
		missed = append(missed, at.Context().RegistryStr())
		s.options.Events.Emit(event.Warning{Message: fmt.Sprintf("the mirror %s does not give %s: %v", at.Context().RegistryStr(), registry.FullName(ref), err)})
	}
	return nil, nil, errors.New("find an image: there is no place to look at") // places is never empty
}

// withMissed says in which mirrors the image was looked for before.
func withMissed(err error, missed []string) error {
	if len(missed) == 0 {
		return err
	}
	return fmt.Errorf("%w (after its mirrors: %s)", err, strings.Join(missed, ", "))
}

// insist runs q, and again as often as the user asked for.
func (s *Source) insist(ctx context.Context, q *query) (*found, error) {
	pause := cmp.Or(s.options.RetryDelay, time.Second)
	for try := 0; ; try++ {
		f, err := q.run(ctx)
		if err == nil || try >= s.options.Retries || ctx.Err() != nil {
			return f, err
		}
		s.options.Events.Emit(event.Info{Message: fmt.Sprintf("look for %s again in %s: %s", q.name, pause, err)})
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, context.Cause(ctx)
		}
		pause *= 2
	}
}
