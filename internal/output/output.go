// Package output puts a finished image where it was asked for: registries, an OCI layout, a docker archive,
// and the files that tell others its digest. A tag appears in a registry only when everything that it
// needs is in all registries; files appear under their names only when they are complete.
package output

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry"
	"hako/internal/tree"
)

// Options says where the result goes. Its zero value is nowhere.
type Options struct {
	// Destinations are references to push to. NoPush says not to push, but they still name the image in files.
	Destinations []string
	NoPush       bool
	// ByDigest says that the repositories of Destinations get the result without the tags.
	ByDigest bool
	// Names are further references of the image, which are not pushed to.
	Names []string
	// Repositories are pushed to without a tag: whoever pulls must know the digest.
	Repositories []string
	// TarPath is a file for "docker load", OCILayoutPath a directory, both as kaniko writes them; empty for none.
	TarPath, OCILayoutPath string
	// Exports are further places on this machine. Stdout is the one whose Dest is "-".
	Exports []Export
	Stdout  io.Writer
	// DigestFile gets the digest; NameWithDigestFile and NameTagWithDigestFile get a line for each destination,
	// "repository@digest" and "repository:tag@digest". Each may be an https URL, which is PUT to.
	DigestFile, NameWithDigestFile, NameTagWithDigestFile string
	// MetadataFile gets what buildx writes about a result, as JSON; IIDFile the image's ID: the digest of its
	// configuration, or of the index if there is one.
	MetadataFile, IIDFile string
	// BuilderOutputDir gets a file "images" with a JSON line for each pushed destination (Google Cloud Build).
	BuilderOutputDir string
	// SkipPushPermissionCheck makes Check do nothing.
	SkipPushPermissionCheck bool
	// IgnoreImmutableTags makes a success of a registry's refusal to give a tag another image; see Kept.
	IgnoreImmutableTags bool
	// PushRetries repeats a destination's push that many times, after a second, two, four…
	PushRetries int
	// RetryDelay is the first of these pauses; zero means one second.
	RetryDelay time.Duration
}

// Layer is one blob of an image.
type Layer struct {
	// MediaType, Digest and Size are used; they must be those of the manifest.
	ocispec.Descriptor
	// Open reads the blob from the start. It may be called more than once, and from many goroutines.
	Open func(ctx context.Context) (io.ReadCloser, error)
	// From are repositories that have the blob ("index.docker.io/library/debian"); it is mounted from there if possible.
	From []string
	// elsewhere says that no destination gets the blob.
	elsewhere bool
}

// Image is a finished image for one platform, or another manifest with its blobs.
type Image struct {
	// Manifest describes ManifestData; its Platform should be set. Its annotations are those of a descriptor that
	// names the manifest, in an index or in the list of a layout.
	Manifest     ocispec.Descriptor
	ManifestData []byte
	// Config describes ConfigData.
	Config     ocispec.Descriptor
	ConfigData []byte
	// Layers are those of the manifest, in its order.
	Layers []Layer
	// Files opens the image's file tree. Only exports of files need it.
	Files func(ctx context.Context) (tree.Tree, error)
	// Documents makes files about an exported tree that are exported with it; nil for none.
	Documents func(ctx context.Context, files tree.Tree) ([]Document, error)
}

// Document is a file in the root of exported files.
type Document struct {
	// Name has no slash.
	Name string
	Data []byte
	Time time.Time
}

// Result is what a build made: one image, or an index over one or more images and what belongs to them.
type Result struct {
	// Images are the platforms' images, in the order in which the platforms were given.
	Images []Image
	// Extra are manifests that the index has beside the images, such as attestations. They need an index.
	Extra []Image
	// Index describes IndexData, which names Images and then Extra. Its Digest is empty if there is one image and no index.
	Index     ocispec.Descriptor
	IndexData []byte
	// Time, if not nil, is the time of every file that is exported, as BuildKit has it with SOURCE_DATE_EPOCH.
	Time *time.Time
	// Referrers are manifests that belong to the others without being named by the index, such as signatures.
	// They are pushed before the tags; exports do not have them.
	Referrers []Referrer
}

// Referrer is a manifest about another one, Subject, with its blobs. Its Manifest has an artifact type.
type Referrer struct {
	Image
	Subject digest.Digest
}

// HasIndex says whether a tag points to an index.
func (r *Result) HasIndex() bool { return r.Index.Digest != "" }

// manifests are all manifests below the index, or the only one.
func (r *Result) manifests() []Image { return slices.Concat(r.Images, r.Extra) }

// top is what a tag points to.
func (r *Result) top() (ocispec.Descriptor, []byte) {
	if r.HasIndex() {
		return r.Index, r.IndexData
	}
	return r.Images[0].Manifest, r.Images[0].ManifestData
}

// Digest is that of the index, or of the manifest if there is none.
func (r *Result) Digest() digest.Digest { return r.Descriptor().Digest }

// Descriptor is that of the index, or of the manifest if there is none: what a tag points to.
func (r *Result) Descriptor() ocispec.Descriptor {
	d, _ := r.top()
	return d
}

// Output writes one result. Its methods may be called from many goroutines.
type Output struct {
	client  *registry.Client
	options Options
	events  event.Sink
	tags    []name.Tag        // parsed Destinations, each once
	named   []name.Tag        // these and parsed Names, each once
	digests []name.Repository // parsed Repositories
	exports []export

	background errgroup.Group // uploads of Upload; their errors are not returned by it
	stop       context.CancelCauseFunc
	stopped    context.Context // ends the background uploads

	mu        sync.Mutex // guards what follows
	uploads   map[uploadKey]*upload
	ahead     map[digest.Digest]bool // what Upload was given
	streams   map[uploadKey]*part    // finished, and not asked for yet
	immutable map[string]bool        // names of tags
}

// errClosed is why uploads end that nobody needs any more.
var errClosed = errors.New("the output was closed")

// New checks the options and returns an Output. The client must be set if anything is pushed.
// A nil events drops what happens. The caller must Close the Output.
func New(client *registry.Client, o Options, events event.Sink) (*Output, error) {
	if events == nil {
		events = event.Discard{}
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = time.Second
	}
	out := &Output{
		client: client, options: o, events: events,
		uploads: map[uploadKey]*upload{}, ahead: map[digest.Digest]bool{}, streams: map[uploadKey]*part{}, immutable: map[string]bool{},
	}
	var err error
	if out.tags, err = parseTags(o.Destinations); err != nil {
		return nil, err
	}
	if out.named, err = parseTags(slices.Concat(o.Destinations, o.Names)); err != nil {
		return nil, err
	}
	if out.digests, err = parseRepositories(o.Repositories); err != nil {
		return nil, err
	}
	if out.exports, err = out.parseExports(); err != nil {
		return nil, err
	}
	if len(out.named) == 0 && len(out.digests) == 0 && (o.NameWithDigestFile != "" || o.NameTagWithDigestFile != "") {
		return nil, &diag.Error{
			What: "write the image's name and digest to a file: there is no destination",
			Hint: "Give the image a name with --destination.",
		}
	}
	out.stopped, out.stop = context.WithCancelCause(context.Background())
	return out, nil
}

// parseTags reads references and drops those that come again.
func parseTags(references []string) ([]name.Tag, error) {
	var out []name.Tag
	seen := map[string]bool{}
	for _, d := range references {
		tag, err := registry.ParseTag(d)
		if err != nil {
			return nil, err
		}
		if !seen[tag.Name()] {
			seen[tag.Name()] = true
			out = append(out, tag)
		}
	}
	return out, nil
}

// parseRepositories reads names that must have no tag.
func parseRepositories(names []string) ([]name.Repository, error) {
	var out []name.Repository
	for _, n := range names {
		repo, err := name.NewRepository(n, name.WeakValidation)
		if err != nil {
			return nil, &diag.Error{What: fmt.Sprintf("push %q by digest: it is no repository", n), Hint: "Leave out the tag."}
		}
		out = append(out, repo)
	}
	return out, nil
}

// Close ends the uploads that Upload started and waits for them. It is idempotent.
func (o *Output) Close() {
	o.stop(errClosed)
	_ = o.background.Wait() // the group's functions return nil
}

// pushes says whether anything goes to a registry.
func (o *Output) pushes() bool {
	return !o.options.NoPush && len(o.tags)+len(o.digests) > 0
}

// repositories lists where we push to, each once, in the order of the destinations.
func (o *Output) repositories() []name.Repository {
	var out []name.Repository
	seen := map[string]bool{}
	add := func(r name.Repository) {
		if !seen[r.Name()] {
			seen[r.Name()] = true
			out = append(out, r)
		}
	}
	for _, t := range o.tags {
		add(t.Context())
	}
	for _, r := range o.digests {
		add(r)
	}
	return out
}

// Check makes sure that every export can be written and every destination be pushed to, as far as that can be known
// before there is an image.
func (o *Output) Check(ctx context.Context) error {
	for _, e := range o.exports {
		if err := e.check(); err != nil {
			return err
		}
	}
	if !o.pushes() || o.options.SkipPushPermissionCheck {
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, r := range o.repositories() {
		g.Go(func() error { return o.client.Repository(r, registry.Push).CheckPush(ctx) })
	}
	return g.Wait()
}

// Write puts the result everywhere: files first, then registries, as kaniko does; and last what tells buildx's users of success.
func (o *Output) Write(ctx context.Context, r *Result) error {
	if err := r.validate(); err != nil {
		return err
	}
	if err := o.writeDigestFiles(ctx, r.Digest()); err != nil {
		return err
	}
	for _, e := range o.exports {
		if err := o.export(ctx, e, r); err != nil {
			return e.failed(err)
		}
	}
	if o.pushes() {
		if err := o.push(ctx, r); err != nil {
			return err
		}
		if err := o.writeBuilderOutput(r.Digest()); err != nil {
			return err
		}
	}
	return o.writeMetadata(ctx, r.described())
}

func (r *Result) validate() error {
	if len(r.Images) == 0 || (len(r.Images)+len(r.Extra) > 1 && !r.HasIndex()) {
		return errors.New("write the image: it is neither one image nor an index")
	}
	return nil
}
