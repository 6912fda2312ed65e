package attest

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
	"hako/internal/plan"
)

const (
	// ProvenanceType is the predicate type of SLSA 1 (https://slsa.dev/spec/v1.1/provenance).
	ProvenanceType = "https://slsa.dev/provenance/v1"
	// buildType says how the rest is to be read: docs/attestations.md. It is not BuildKit's, because steps are not LLB.
	buildType = "urn:hako:build:v1"
	// defaultBuilder is the builder where nobody says who runs it.
	defaultBuilder = "urn:hako:builder"
)

// Mode is how much provenance says.
type Mode uint8

// The modes, as BuildKit has them: Min leaves out the values of build arguments and labels, secrets' names, the
// Dockerfile and the steps.
const (
	Min Mode = iota + 1
	Max
)

// Build is what provenance says beside the plan. All but Mode, Started and Finished may be empty.
type Build struct {
	Mode Mode
	// BuilderID is the URI of who is trusted to have built; InvocationID tells builds apart. Version is hako's.
	BuilderID, InvocationID, Version string
	// Reproducible is what the user claims, not what was found.
	Reproducible      bool
	Started, Finished time.Time
	BuilderPlatform   ocispec.Platform
	// Dockerfile is the name and content of the Dockerfile.
	Dockerfile string
	Source     []byte
	// Context is where the build context came from if that can be named for others: a URL, already without secrets.
	// ContextDigest is the commit or the digest of what was fetched, as "sha1:…" or "sha256:…".
	Context, ContextDigest string
	// Args are the request as BuildKit's front end would get it: "build-arg:NAME", "label:NAME", "target"….
	Args map[string]string
	// Layers are those of the image, bottom first; nil if they are not one for each step.
	Layers []ocispec.Descriptor
	// Resolved says what a source turned out to be: "sha1:…" of a commit, "sha256:…" of a file; empty if unknown. May be nil.
	Resolved func(*plan.Source) string
}

// The predicate. Its parts are named as BuildKit names them.
type (
	predicate struct {
		Definition definition `json:"buildDefinition"`
		Run        run        `json:"runDetails"`
	}
	definition struct {
		Type         string     `json:"buildType"`
		External     external   `json:"externalParameters"`
		Internal     internal   `json:"internalParameters"`
		Dependencies []resource `json:"resolvedDependencies,omitempty"`
	}
	external struct {
		Source  source  `json:"configSource"`
		Request request `json:"request"`
	}
	source struct {
		URI    string            `json:"uri,omitempty"`
		Digest map[string]string `json:"digest,omitempty"`
		Path   string            `json:"path,omitempty"`
	}
	request struct {
		Frontend string            `json:"frontend"`
		Args     map[string]string `json:"args,omitempty"`
		Secrets  []secret          `json:"secrets,omitempty"`
		SSH      []secret          `json:"ssh,omitempty"`
		Locals   []local           `json:"locals,omitempty"`
	}
	secret struct {
		ID       string `json:"id"`
		Optional bool   `json:"optional,omitempty"`
	}
	local struct {
		Name string `json:"name"`
	}
	internal struct {
		Config          *config `json:"buildConfig,omitempty"`
		BuilderPlatform string  `json:"builderPlatform"`
		TargetPlatform  string  `json:"targetPlatform"`
	}
	config struct {
		Steps []step `json:"steps"`
	}
	resource struct {
		URI    string            `json:"uri"`
		Digest map[string]string `json:"digest,omitempty"`
	}
	run struct {
		Builder  builder  `json:"builder"`
		Metadata metadata `json:"metadata"`
	}
	builder struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version,omitempty"`
	}
	metadata struct {
		InvocationID string       `json:"invocationId,omitempty"`
		Started      string       `json:"startedOn"`
		Finished     string       `json:"finishedOn"`
		BuildKit     details      `json:"buildkit_metadata"`
		Hermetic     bool         `json:"buildkit_hermetic,omitempty"`
		Complete     completeness `json:"buildkit_completeness"`
		Reproducible bool         `json:"buildkit_reproducible,omitempty"`
	}
	details struct {
		Source *sourceMap                        `json:"source,omitempty"`
		Layers map[string][][]ocispec.Descriptor `json:"layers,omitempty"`
	}
	completeness struct {
		Request      bool `json:"request"`
		Dependencies bool `json:"resolvedDependencies"`
	}
)

// Provenance is the predicate for the target of g.
func Provenance(g *plan.Graph, b Build) (Predicate, error) {
	w := newWalk(g, b)
	deps, complete, err := w.dependencies()
	if err != nil {
		return Predicate{}, fmt.Errorf("make the provenance: %w", err)
	}
	p := predicate{
		Definition: definition{
			Type: buildType, Dependencies: deps,
			External: external{
				Source:  source{URI: b.Context, Digest: parseDigest(b.ContextDigest), Path: b.Dockerfile},
				Request: request{Frontend: "dockerfile.v0", Args: b.redactedArgs(), Secrets: w.secrets, SSH: w.ssh, Locals: w.locals()},
			},
			Internal: internal{
				BuilderPlatform: image.FormatPlatform(b.BuilderPlatform),
				TargetPlatform:  image.FormatPlatform(g.Target.Platform),
			},
		},
		Run: run{
			Builder: builder{ID: defaultBuilder},
			Metadata: metadata{
				InvocationID: b.InvocationID, Started: b.Started.UTC().Format(time.RFC3339Nano), Finished: b.Finished.UTC().Format(time.RFC3339Nano),
				Hermetic: complete && !w.network, Reproducible: b.Reproducible,
				Complete: completeness{Request: true, Dependencies: complete},
			},
		},
	}
	if b.BuilderID != "" {
		p.Run.Builder.ID = b.BuilderID
	}
	if b.Version != "" {
		p.Run.Builder.Version = map[string]string{"hako": b.Version}
	}
	if b.Mode == Min {
		p.Run.Metadata.Complete.Request = p.Definition.External.Request.scrub()
	} else {
		p.Definition.Internal.Config = &config{Steps: w.steps}
		p.Run.Metadata.BuildKit = details{Source: w.sourceMap(), Layers: w.layers()}
	}
	data, err := encode(p)
	if err != nil {
		return Predicate{}, fmt.Errorf("encode the provenance: %w", err)
	}
	return Predicate{Type: ProvenanceType, Data: data}, nil
}

// scrub takes out what may be nobody's business. It says whether all arguments are left.
func (r *request) scrub() (complete bool) {
	before := len(r.Args)
	maps.DeleteFunc(r.Args, func(k, _ string) bool {
		return strings.HasPrefix(k, "build-arg:") || strings.HasPrefix(k, "label:")
	})
	r.Secrets, r.SSH = nil, nil
	return len(r.Args) == before
}

// locals are the local directories of the request: by BuildKit's names, and named contexts.
func (w *walk) locals() []local {
	var out []local
	if w.build.Context == "" {
		out = []local{{"context"}, {"dockerfile"}}
	}
	for _, s := range w.sources {
		if s.URI() == "" {
			out = append(out, local{localName(s)})
		}
	}
	return out
}

// redactedArgs are the arguments without users and passwords of URLs.
func (b *Build) redactedArgs() map[string]string {
	out := make(map[string]string, len(b.Args))
	for k, v := range b.Args {
		if u, err := url.Parse(v); err == nil && u.User != nil {
			u.User = url.User("xxxxx") // as in BuildKit
			v = u.String()
		}
		out[k] = v
	}
	return out
}

// parseDigest makes a set of "sha256:…".
func parseDigest(s string) map[string]string {
	algorithm, value, ok := strings.Cut(s, ":")
	if !ok || value == "" {
		return nil
	}
	return map[string]string{algorithm: value}
}

// withoutDirectory is a git repository without the directory of it that is meant.
func withoutDirectory(uri string) string {
	at, ref, ok := strings.Cut(uri, "#")
	if !ok {
		return uri
	}
	if ref, _, _ = strings.Cut(ref, ":"); ref == "" {
		return at
	}
	return at + "#" + ref
}

// dependencies are the images and remote files that the build took, each once, by URI. complete says that there is
// nothing else: neither a local directory nor anything without a digest.
func (w *walk) dependencies() (out []resource, complete bool, err error) {
	complete = w.build.Context != "" && w.build.ContextDigest != ""
	if w.build.Context != "" {
		out = append(out, resource{withoutDirectory(w.build.Context), parseDigest(w.build.ContextDigest)})
	}
	for _, ref := range w.images {
		r, err := imageResource(ref)
		if err != nil {
			return nil, false, err
		}
		out = append(out, r)
	}
	for _, s := range w.sources {
		r, ok := w.sourceResource(s)
		if !ok {
			complete = false // a local directory
			continue
		}
		complete = complete && r.Digest != nil
		out = append(out, r)
	}
	slices.SortStableFunc(out, func(a, b resource) int { return strings.Compare(a.URI, b.URI) })
	return slices.CompactFunc(out, func(a, b resource) bool { return a.URI == b.URI && maps.Equal(a.Digest, b.Digest) }), complete, nil
}
