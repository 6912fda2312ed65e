package submit

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"hako/internal/build"
	"hako/internal/contextartifact"
	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/registry"
)

// sent is what became of the contexts of this machine.
type sent struct {
	// place is where the pod gets the context; empty if it is not known yet. args name the further ones.
	place string
	args  []string
	// artifacts are the contexts in registries that are this build's alone, with their scheme: they are deleted at the end.
	artifacts []string
	// packed is the context that goes through standard input; nil if none does.
	packed *contextartifact.Packed
	// dockerfile is that of the context, as far as it is known here.
	dockerfile []byte
}

// streams says whether a context goes through standard input.
func (s *sent) streams() bool { return s.packed != nil }

// close frees what is kept of a stream.
func (s *sent) close() {
	if s.packed != nil {
		_ = s.packed.Close() // it has no name, and was only read
	}
}

// separator is between artifacts in a Job's annotation.
const separator = ","

// annotation names the artifacts for whoever follows the Job to its end.
func (s *sent) annotation() string { return strings.Join(s.artifacts, separator) }

// sendContexts sends what the pod cannot get by itself, to a repository or nowhere.
func (s *submitted) sendContexts(ctx context.Context, to string) error {
	r := s.req
	req := r.Build
	req.Compression, req.CompressionLevel = "zstd", 0 // what is said of compression is about the image's layers
	switch {
	case r.PassContext:
		s.sent.place = req.Context
	case r.StreamContext:
		packed, err := build.PackContext(ctx, s.env.Build, req)
		if err != nil {
			return err
		}
		s.sent.packed, s.sent.dockerfile = packed.Packed, packed.Dockerfile
		s.sent.place = contextsource.StandardInput(packed.Digest(), packed.Size())
	default:
		place, err := s.env.Contexts.place(ctx, r, to, func() (string, error) {
			return s.push(ctx, req, to, build.PushContextOnce)
		})
		if err != nil {
			return err
		}
		s.sent.place = place
		if s.env.Contexts == nil {
			s.sent.artifacts = append(s.sent.artifacts, place)
		}
	}
	for _, c := range r.Contexts {
		req.Context, req.ContextSubPath = c.Value, ""
		place, err := s.push(ctx, req, to, build.PushNamedContextOnce)
		if err != nil {
			return err
		}
		s.sent.artifacts = append(s.sent.artifacts, place)
		s.sent.args = append(s.sent.args, "--build-context="+c.Key+"="+place)
	}
	return nil
}

// pushFunc is build.PushContextOnce or its like.
type pushFunc = func(ctx context.Context, env build.Env, req build.Request, ref, label string) (*build.SentContext, error)

// push sends the context of req to a repository, and returns its place there.
func (s *submitted) push(ctx context.Context, req build.Request, to string, push pushFunc) (string, error) {
	pushed, err := push(ctx, s.env.Build, req, to, s.name)
	if err != nil {
		return "", err
	}
	if s.sent.place == "" { // it is not one of the further ones
		s.sent.dockerfile = pushed.Dockerfile
	}
	return contextartifact.Scheme + pushed.Reference, nil
}

// Bases are the images that FROM names in a Dockerfile as they stand, without variables.
func Bases(dockerfile []byte) []string {
	from := regexp.MustCompile(`(?im)^[ \t]*FROM[ \t]+(?:--\S+[ \t]+)*([^\s$]+)[ \t]*(?:AS[ \t].*)?$`)
	var out []string
	for _, m := range from.FindAllSubmatch(dockerfile, -1) {
		if name := string(m[1]); name != "scratch" {
			out = append(out, name)
		}
	}
	return out
}

// trustBases has the pod get credentials for the bases of a Dockerfile that nobody had seen before: that of an archive.
func (s *submitted) trustBases(ctx context.Context) error {
	r := s.req
	before := len(r.CredentialsFor)
	for _, name := range Bases(s.sent.dockerfile) {
		if _, err := registry.ParseReference(name); err == nil && !slices.Contains(r.CredentialsFor, name) {
			r.CredentialsFor = append(slices.Clip(r.CredentialsFor), name)
		}
	}
	if len(r.CredentialsFor) == before {
		return nil
	}
	return s.credentials(ctx)
}

// contextRepository is where contexts are sent; empty if none is.
func (s *submitted) contextRepository() (string, error) {
	r := s.req
	pushes := !r.PassContext && !r.StreamContext
	if !pushes && len(r.Contexts) == 0 {
		return "", nil
	}
	to := r.ContextRepository
	if o := r.Build.Outputs; to == "" && len(o.Destinations) > 0 {
		ref, err := registry.ParseReference(o.Destinations[0])
		if err != nil {
			return "", err
		}
		to = ref.Context().Name()
	}
	if to == "" {
		return "", &diag.Error{
			What: "it is not said where the context can be sent to",
			Hint: "Give --context-repo, or a --destination whose registry takes it, or send it straight to the pod with --context-stdin.",
		}
	}
	if !pushes {
		return to, nil
	}
	return s.env.Contexts.repository(r, to), nil
}

// forgetContext deletes the contexts that were sent for this build only.
func (s *submitted) forgetContext(ctx context.Context) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer stop()
	for _, place := range s.sent.artifacts {
		deleteContext(ctx, s.env.Build, s.req.Build.Registry, place)
	}
	return nil
}
