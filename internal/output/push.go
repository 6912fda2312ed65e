package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/blob"
	"hako/internal/event"
	"hako/internal/registry"
)

type uploadKey struct {
	repository string
	digest     digest.Digest
}

// upload is a blob on its way to a repository. Whoever holds the token of turn owns done.
type upload struct {
	turn chan struct{}
	done bool
}

// Upload begins to push a layer to all destinations, so that it is there when the image is finished.
// It returns at once. What goes wrong is tried again by Write, and an error then.
func (o *Output) Upload(l Layer) {
	if !o.pushes() {
		return
	}
	o.mu.Lock()
	o.ahead[l.Digest] = true
	o.mu.Unlock()
	for _, r := range o.repositories() {
		o.background.Go(func() error {
			if err := o.pushBlob(o.stopped, r, l); err != nil && o.stopped.Err() == nil {
				o.events.Emit(event.Debug{Message: "upload ahead of time: " + err.Error()})
			}
			return nil
		})
	}
}

// push brings all blobs, and the manifests below an index, to all destinations; then, if that worked for each of them, the tags.
func (o *Output) push(ctx context.Context, r *Result) error {
	g, gctx := errgroup.WithContext(ctx)
	for _, repo := range o.repositories() {
		g.Go(func() error {
			return o.retry(gctx, func() error { return o.pushContent(gctx, repo, r) })
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	type target struct {
		repo name.Repository
		as   string
	}
	var targets []target
	tags, repositories := o.tags, o.digests
	if o.options.ByDigest {
		tags, repositories = nil, o.repositories()
	}
	for _, t := range tags {
		o.events.Emit(event.Info{Message: "Pushing image to " + t.Name()}) // kaniko's words: jobs look for them
		targets = append(targets, target{t.Context(), t.TagStr()})
	}
	for _, repo := range repositories {
		targets = append(targets, target{repo, r.Digest().String()})
	}
	errs := make([]error, len(targets))
	var all errgroup.Group
	for i, t := range targets {
		all.Go(func() error {
			errs[i] = o.retry(ctx, func() error { return o.pushTop(ctx, t.repo, t.as, r) })
			return nil
		})
	}
	_ = all.Wait() // the errors are in errs: one tag must not keep another from being finished
	return errors.Join(errs...)
}

// retry repeats fn as often as the user asked for.
func (o *Output) retry(ctx context.Context, fn func() error) error {
	pause := o.options.RetryDelay
	for try := 0; ; try++ {
		err := fn()
		if err == nil || try >= o.options.PushRetries || ctx.Err() != nil {
			return err
		}
		o.events.Emit(event.Info{Message: fmt.Sprintf("push again in %s: %s", pause, err)})
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
		pause *= 2
	}
}

// pushContent brings everything but what the tag names to a repository.
func (o *Output) pushContent(ctx context.Context, repo name.Repository, r *Result) error {
	if err := o.pushBlobs(ctx, repo, r); err != nil {
		return err
	}
	to := o.client.Repository(repo, registry.Push)
	g, ctx := errgroup.WithContext(ctx)
	if r.HasIndex() {
		for _, im := range r.manifests() {
			g.Go(func() error {
				return to.PutManifest(ctx, im.Manifest.Digest.String(), im.Manifest.MediaType, im.ManifestData)
			})
		}
	}
	for _, ref := range r.Referrers {
		g.Go(func() error {
			return to.PutReferrer(ctx, registry.Referrer{Descriptor: ref.Manifest, Data: ref.ManifestData, Subject: ref.Subject})
		})
	}
	return g.Wait()
}

func (o *Output) pushBlobs(ctx context.Context, repo name.Repository, r *Result) error {
	g, ctx := errgroup.WithContext(ctx)
	all := r.manifests()
	for _, ref := range r.Referrers {
		all = append(all, ref.Image)
	}
	for _, im := range all {
		for _, l := range append([]Layer{im.config()}, im.Layers...) {
			g.Go(func() error { return o.pushBlob(ctx, repo, l) })
		}
	}
	return g.Wait()
}

// config is the configuration as a blob.
func (im *Image) config() Layer {
	return Layer{Descriptor: im.Config, Open: func(context.Context) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(im.ConfigData)), nil
	}}
}

// PushBlob brings a blob to a repository that is no destination, such as that of a cache: once, and without sending the
// bytes if a destination of the same registry gets them, too.
func (o *Output) PushBlob(ctx context.Context, repo name.Repository, d ocispec.Descriptor, open func(ctx context.Context) (io.ReadCloser, error)) error {
	o.mu.Lock()
	elsewhere := !o.ahead[d.Digest]
	o.mu.Unlock()
	return o.pushBlob(ctx, repo, Layer{Descriptor: d, Open: open, elsewhere: elsewhere})
}

// Secure makes sure that a layer which may vanish from where it is can be written: it is pushed to all destinations. The error
// is nil or Is [blob.ErrLost]; what else goes wrong is tried again by Write, and an error then.
func (o *Output) Secure(ctx context.Context, l Layer) error {
	if !o.pushes() {
		return nil
	}
	for _, r := range o.repositories() {
		err := o.pushBlob(ctx, r, l)
		if errors.Is(err, blob.ErrLost) {
			return err
		}
	}
	return nil
}

// Takes says whether a repository is one of the destinations.
func (o *Output) Takes(repo name.Repository) bool {
	return o.pushes() && slices.ContainsFunc(o.repositories(), func(r name.Repository) bool { return r.Name() == repo.Name() })
}

// pushBlob brings a blob to a repository, once, however many ask for it.
func (o *Output) pushBlob(ctx context.Context, repo name.Repository, l Layer) error {
	key := uploadKey{repo.Name(), l.Digest}
	o.mu.Lock()
	u, ok := o.uploads[key]
	if !ok {
		u = &upload{turn: make(chan struct{}, 1)}
		o.uploads[key] = u
	}
	o.mu.Unlock()
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-u.turn }()
	if u.done {
		return nil
	}
	if err := o.transfer(ctx, repo, l); err != nil {
		return err
	}
	u.done = true
	return nil
}

// transfer brings a blob to a repository in the cheapest way: it was sent while it was made; it is there; it is in a
// repository beside it; it has to be uploaded.
func (o *Output) transfer(ctx context.Context, repo name.Repository, l Layer) error {
	to := o.client.Repository(repo, registry.Push)
	if o.streamed(ctx, uploadKey{repo.Name(), l.Digest}) {
		return nil
	}
	has, err := to.Has(ctx, l.Digest)
	if err != nil || has {
		return err
	}
	for _, from := range o.neighbours(ctx, repo, l) {
		mounted, err := to.Mount(ctx, l.Digest, from)
		if err != nil || mounted {
			return err
		}
	}
	return to.Upload(ctx, registry.Blob{Digest: l.Digest, Size: l.Size, Open: func(ctx context.Context) (io.ReadCloser, error) {
		rc, err := l.Open(ctx)
		if err != nil {
			return nil, err
		}
		return &counted{rc: rc, Counter: event.NewCounter(rc, o.events, event.Progress{
			ID:    "push " + l.Digest.String() + " " + repo.Name(),
			What:  fmt.Sprintf("push %s to %s", l.Digest, to.Name()),
			Total: l.Size,
		})}, nil
	}})
}

// counted is a blob that reports its progress.
type counted struct {
	*event.Counter
	rc io.ReadCloser
}

func (c *counted) Close() error {
	c.Finish()
	return c.rc.Close()
}

// neighbours lists repositories of the same registry that have the blob: where the base image came from, and the
// first of our own destinations there, which the others wait for.
func (o *Output) neighbours(ctx context.Context, repo name.Repository, l Layer) []name.Repository {
	var out []name.Repository
	for _, f := range l.From {
		from, err := name.NewRepository(f, name.WeakValidation)
		if err == nil && from.RegistryStr() == repo.RegistryStr() {
			out = append(out, from)
		}
	}
	if !o.pushes() || l.elsewhere {
		return out
	}
	for _, first := range o.repositories() {
		if first.RegistryStr() != repo.RegistryStr() {
			continue
		}
		if first.Name() != repo.Name() && o.pushBlob(ctx, first, l) == nil {
			out = append(out, first)
		}
		break
	}
	return out
}

// pushTop puts the manifest or index of the result, as a tag or as its digest.
func (o *Output) pushTop(ctx context.Context, repo name.Repository, as string, r *Result) error {
	d, data := r.top()
	err := o.client.Repository(repo, registry.Push).PutManifest(ctx, as, d.MediaType, data)
	if o.options.IgnoreImmutableTags && registry.IsImmutableTag(err) {
		o.events.Emit(event.Info{Message: fmt.Sprintf("Immutable tag error ignored for %s@%s: the tag %s stays as it is", repo.Name(), d.Digest, as)})
		o.mu.Lock()
		defer o.mu.Unlock()
		o.immutable[repo.Name()+":"+as] = true
		return nil
	}
	if err != nil {
		return err
	}
	o.events.Emit(event.Debug{Message: fmt.Sprintf("pushed %s as %s in %s", d.Digest, as, repo.Name())})
	return nil
}

// Kept says whether the tag that destination names has its old image still, because its registry lets no tag change.
func (o *Output) Kept(destination string) bool {
	tag, err := registry.ParseTag(destination)
	if err != nil {
		return false
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.immutable[tag.Name()]
}
