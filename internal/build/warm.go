package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/dockerfile"
	"hako/internal/download"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/imagedir"
	"hako/internal/imagesource"
	"hako/internal/plan"
	"hako/internal/prepared"
	"hako/internal/registry"
	"hako/internal/workdir"
)

// WarmRequest says which images are put into a directory for later builds.
type WarmRequest struct {
	// Bases has the directory, and the images that are wanted by name.
	Bases Bases
	// Dockerfile names a file whose images are wanted, too: a path, a URL, "-" for standard input, or nothing.
	Dockerfile string
	// BuildArgs are for the ARGs in it.
	BuildArgs map[string]string
	// Platforms are those that images are wanted for; empty means this machine's.
	Platforms []string
	// Force says to fetch what is there already; Archives to write docker archives in place of OCI layouts; Pack to keep images
	// only as they are fetched, and not as steps need them, too.
	Force, Archives, Pack bool
	Registry              Registry
	// WorkDir is where state lives; empty means to find a place.
	WorkDir string
}

// WarmedImage is what became of one image.
type WarmedImage struct {
	Name   string
	Digest digest.Digest
	// Fetched says that it was not there before.
	Fetched bool
	// Err is why there is no such image in the directory now.
	Err error
}

var errNoneWarmed = errors.New("none of the images could be fetched")

// Warm puts images into a directory. That an image cannot be fetched is in the result, and an error only if it is so for all.
// When ctx ends, Warm returns its cause. Several may fill a directory at the same time.
func Warm(ctx context.Context, env Env, req WarmRequest) (_ []WarmedImage, err error) {
	if len(req.Bases.Images) == 0 && req.Dockerfile == "" {
		return nil, &diag.Error{What: "no image is named", Hint: "Give --image, or --dockerfile to take the images from."}
	}
	w, err := openWarmer(ctx, env, req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	wanted, err := w.wanted(ctx)
	if err != nil {
		return nil, err
	}
	var out []WarmedImage
	failed := 0
	for _, i := range wanted {
		done := w.warm(ctx, i)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if done.Err != nil {
			failed++
		}
		out = append(out, done)
	}
	if failed > 0 && failed == len(out) {
		return out, errNoneWarmed
	}
	return out, nil
}

// warmer fills a directory.
type warmer struct {
	*builder
	req    WarmRequest
	images *imagedir.Dir
	parsed *dockerfile.File // nil before it is read
}

// openWarmer opens what reaches registries.
func openWarmer(ctx context.Context, env Env, req WarmRequest) (_ *warmer, err error) {
	b := &builder{life: ctx, env: env, req: Request{Registry: req.Registry, WorkDir: req.WorkDir, Bases: req.Bases, Platforms: req.Platforms}}
	w := &warmer{builder: b, req: req}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	w.images = b.imageDir(req.Archives)
	if b.dir, err = workdir.Open(workdir.Options{Explicit: req.WorkDir, Candidates: b.places()}); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.dir.Close)
	if err := b.openClient(); err != nil {
		return nil, err
	}
	o := imagesource.Options{
		Registry: b.client, Dir: b.dir, Events: env.Events, Mirrors: b.mirrors(), OnlyMirrors: req.Registry.OnlyMirrors,
		Retries: req.Registry.PullRetries, Cwd: env.Cwd,
	}
	if !req.Force {
		o.Warmed = &imagesource.Warmed{Dir: w.images}
	}
	b.bases = imagesource.New(o)
	b.closers = append(b.closers, b.bases.Close)
	return w, nil
}

// wantedImage is one image for one platform.
type wantedImage struct {
	name     string
	platform ocispec.Platform
}

// wanted lists the images, each once.
func (w *warmer) wanted(ctx context.Context) ([]wantedImage, error) {
	platforms, err := w.builder.req.platforms()
	if err != nil {
		return nil, err
	}
	var out []wantedImage
	for _, p := range platforms {
		if p.OS == "" {
			p = image.Default()
		}
		for _, name := range w.req.Bases.Images {
			out = append(out, wantedImage{name, p})
		}
		if w.req.Dockerfile == "" {
			continue
		}
		more, err := w.named(ctx, p)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(out, func(i wantedImage) bool {
		key := i.name
		if ref, err := registry.ParseReference(i.name); err == nil {
			key = registry.FullName(ref)
		}
		key += " " + image.FormatPlatform(i.platform)
		again := seen[key]
		seen[key] = true
		return again
	}), nil
}

// named are the images that the Dockerfile names, in any of its stages: in FROM, in COPY --from and in mounts of RUN.
func (w *warmer) named(ctx context.Context, platform ocispec.Platform) ([]wantedImage, error) {
	if w.parsed == nil {
		name, text, err := w.read(ctx)
		if err != nil {
			return nil, err
		}
		if w.parsed, err = dockerfile.Parse(name, text); err != nil {
			return nil, err
		}
	}
	seen := &recorder{source: w.bases}
	found := plan.Check(ctx, w.parsed, plan.Options{BuildArgs: w.req.BuildArgs, Platform: platform, BuildPlatform: image.Default()}, seen)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if found.Err != nil && len(seen.images) == 0 {
		return nil, found.Err
	}
	if found.Err != nil && !seen.failed {
		w.env.Events.Emit(event.Warning{Message: fmt.Sprintf("the Dockerfile cannot be built like this, and may need more images: %v", found.Err)})
	}
	return seen.images, nil
}

const maxDockerfile = 4 << 20 // 4 MiB, far beyond any real one

// read reads the Dockerfile.
func (w *warmer) read(ctx context.Context) (name string, text []byte, err error) {
	var r io.Reader
	switch d := w.req.Dockerfile; {
	case d == "-" && w.env.Stdin == nil:
		return "", nil, &diag.Error{What: "there is no standard input to read a Dockerfile from"}
	case d == "-":
		name, r = "Dockerfile", w.env.Stdin
	case strings.HasPrefix(d, "http://"), strings.HasPrefix(d, "https://"):
		c := download.New(download.Options{File: w.dir.File, Transport: w.env.Sources, UserAgent: w.req.Registry.UserAgent, Events: w.env.Events})
		defer c.Close()
		f, err := c.Fetch(ctx, download.Request{URL: d})
		if err != nil {
			return "", nil, err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		name, r = "Dockerfile", f.Reader()
	default:
		f, err := os.Open(w.file(d))
		if err != nil {
			return "", nil, &diag.Error{What: "read the Dockerfile " + d, Cause: errors.Unwrap(err), Hint: "Give the path of a file, relative to where the warmer is started."}
		}
		defer f.Close() //nolint:errcheck // nothing was written
		name, r = d, f
	}
	text, err = io.ReadAll(io.LimitReader(r, maxDockerfile+1))
	if err == nil && len(text) > maxDockerfile {
		err = fmt.Errorf("it is larger than %d MiB", maxDockerfile>>20)
	}
	if err != nil {
		return "", nil, fmt.Errorf("read the Dockerfile %s: %w", name, err)
	}
	return name, text, nil
}

// recorder resolves images and remembers which. One that cannot be resolved does not end the search for the others.
type recorder struct {
	source *imagesource.Source

	mu     sync.Mutex // guards the rest
	images []wantedImage
	failed bool
}

var _ plan.Resolver = (*recorder)(nil)

// Resolve implements [plan.Resolver].
func (r *recorder) Resolve(ctx context.Context, name string, platform ocispec.Platform) (*plan.ImageRef, error) {
	ref, err := r.source.Resolve(ctx, name, platform)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images = append(r.images, wantedImage{name, platform})
	if err == nil {
		return ref, nil
	}
	r.failed = true
	return &plan.ImageRef{Name: name, Ref: name, Platform: platform, Config: &image.Config{}}, nil
}

// ResolveLayout implements [plan.Resolver].
func (r *recorder) ResolveLayout(ctx context.Context, ref string, platform ocispec.Platform) (*plan.ImageRef, error) {
	return r.source.ResolveLayout(ctx, ref, platform)
}

// warm puts one image into the directory.
func (w *warmer) warm(ctx context.Context, i wantedImage) WarmedImage {
	out := WarmedImage{Name: i.name}
	ref, err := w.bases.Resolve(ctx, i.name, i.platform)
	var what imagedir.Outcome
	if err == nil {
		out.Digest = ref.Digest
		what, err = w.bases.Store(ctx, ref, w.images, w.req.Force)
	}
	if err != nil {
		out.Err = err
		if ctx.Err() == nil {
			w.env.Events.Emit(event.Warning{Message: fmt.Sprintf("%s is not fetched: %v", i.name, err)})
		}
		return out
	}
	out.Fetched = what == imagedir.Stored
	w.prepare(ctx, i)
	text := map[imagedir.Outcome]string{
		imagedir.Stored: "is fetched", imagedir.Present: "is there already", imagedir.Renewed: "was too old, and is still what the registry has",
	}[what]
	w.env.Events.Emit(event.Info{Message: fmt.Sprintf("%s@%s %s", i.name, ref.Digest, text)})
	return out
}

// prepare keeps the layers of an image of the directory as steps need them. An image is of use without that, too.
func (w *warmer) prepare(ctx context.Context, i wantedImage) {
	if w.req.Pack || w.req.Bases.LimitBytes <= 0 || !workdir.Maps(w.images.Path()) {
		return
	}
	store := w.volume(nil)
	src := imagesource.New(imagesource.Options{
		Registry: w.client, Dir: w.dir, Events: w.env.Events, Mirrors: w.mirrors(), OnlyMirrors: w.req.Registry.OnlyMirrors, Cwd: w.env.Cwd,
		Warmed: &imagesource.Warmed{Dir: w.images}, Prepared: []*prepared.Store{store},
	})
	ref, err := src.Resolve(ctx, i.name, i.platform)
	if err == nil {
		err = src.Fetch(ctx, ref)
	}
	if err = errors.Join(err, src.Close(), store.Close()); err != nil && ctx.Err() == nil {
		w.env.Events.Emit(event.Warning{Message: fmt.Sprintf("%s is not prepared for steps: %v", i.name, err)})
	}
}

// imageDir is the directory of images that the request names.
func (b *builder) imageDir(archives bool) *imagedir.Dir {
	return imagedir.New(imagedir.Options{Path: b.file(b.req.Bases.Dir), TTL: b.req.Bases.TTL, Now: b.env.Now, Archives: archives})
}

// warmed is the directory that the build's images may be in, or nil.
func (b *builder) warmed() *imagesource.Warmed {
	if b.req.Bases.Dir == "" {
		return nil
	}
	d := b.imageDir(false)
	if !d.Exists() && !b.req.Bases.Offline {
		return nil
	}
	return &imagesource.Warmed{Dir: d, Offline: b.req.Bases.Offline}
}

// warmFirst puts the images that the request names into its directory. What does not work costs a warning.
func warmFirst(ctx context.Context, env Env, req *Request) {
	if len(req.Bases.Images) == 0 || req.DryRun {
		return
	}
	w := WarmRequest{Bases: req.Bases, Platforms: req.Platforms, Registry: req.Registry, WorkDir: req.WorkDir}
	if _, err := Warm(ctx, env, w); err != nil && ctx.Err() == nil && !errors.Is(err, errNoneWarmed) {
		env.Events.Emit(event.Warning{Message: fmt.Sprintf("the images for %s are not fetched: %v", req.Bases.Dir, err)})
	}
}

// validateBases finds what a directory of images cannot do.
func (r *Request) validateBases() error {
	switch {
	case r.Bases.Dir == "" && (r.Bases.Offline || len(r.Bases.Images) > 0):
		return &diag.Error{What: "there is no directory for base images", Hint: "Give --cache-dir."}
	case r.Bases.Offline && len(r.Bases.Images) > 0:
		return &diag.Error{What: "--cache-offline and --image exclude each other: without a network nothing is fetched", Hint: "Warm the directory before, with hako warm."}
	}
	return nil
}
