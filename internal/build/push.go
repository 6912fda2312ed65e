package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"hako/internal/blob"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/imagefile"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/registry"
	"hako/internal/workdir"
)

// PushRequest says which finished images go where.
type PushRequest struct {
	// Path is an archive, or a directory with an OCI layout; "-" is an archive on standard input.
	Path string
	// Image is the name of one of several images; empty for the only one, or for all.
	Image string
	// Outputs names the destinations of one image; without any, every image goes where its names say.
	Outputs  Outputs
	Registry Registry
	// WorkDir is as in Request.
	WorkDir string
}

// Push pushes images that were built before. It returns what it pushed, image by image. What a user can mend is a *diag.Error.
func Push(ctx context.Context, env Env, req PushRequest) (_ []Result, err error) {
	b := &builder{life: ctx, env: env, req: Request{Outputs: req.Outputs, Registry: req.Registry, WorkDir: req.WorkDir}}
	defer func() { err = errors.Join(err, b.close()) }()
	if b.dir, err = workdir.Open(workdir.Options{Explicit: req.WorkDir, Candidates: b.places()}); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.dir.Close)
	if b.store, err = blob.New(b.dir); err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.store.Close)
	if err := b.openClient(); err != nil {
		return nil, err
	}
	o := imagefile.Options{Path: b.file(req.Path), Spool: b.spool, Compress: b.compress}
	if req.Path == output.Stdout {
		o.Input = env.Stdin
	}
	from, err := imagefile.Open(ctx, o)
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, from.Close)
	images, err := req.chosen(from.Images)
	if err != nil {
		return nil, err
	}
	var out []Result
	for _, im := range images {
		r, err := b.pushImage(ctx, im)
		if err != nil {
			return out, err
		}
		out = append(out, *r)
	}
	return out, nil
}

// chosen are the images that are asked for.
func (r *PushRequest) chosen(images []imagefile.Image) ([]imagefile.Image, error) {
	var names []string
	for _, im := range images {
		names = append(names, im.Names...)
	}
	hint := "Name one of them with --image."
	if len(names) > 0 {
		hint += " There are " + strings.Join(names[:min(len(names), 20)], ", ") + "."
	}
	if r.Image != "" {
		images = slices.DeleteFunc(slices.Clone(images), func(im imagefile.Image) bool { return !im.Is(r.Image) })
		if len(images) == 0 {
			return nil, &diag.Error{What: fmt.Sprintf("push %s: it has no image %s", r.Path, r.Image), Hint: hint}
		}
	}
	files := r.Outputs.DigestFile != "" || r.Outputs.NameWithDigestFile != "" || r.Outputs.NameTagWithDigestFile != ""
	if len(images) > 1 && (len(r.Outputs.Destinations) > 0 || files) {
		return nil, &diag.Error{What: fmt.Sprintf("push %s: it has %d images, and what is asked for is one", r.Path, len(images)), Hint: hint}
	}
	return images, nil
}

// pushImage pushes one image to the destinations, or to its own names.
func (b *builder) pushImage(ctx context.Context, im imagefile.Image) (_ *Result, err error) {
	o := b.req.Outputs
	if len(o.Destinations) == 0 {
		o.Destinations = slices.DeleteFunc(slices.Clone(im.Names), func(n string) bool { return n == output.Unnamed })
	}
	if len(o.Destinations) == 0 || slices.ContainsFunc(o.Destinations, func(n string) bool { return !isReference(n) }) {
		return nil, &diag.Error{
			What: "push image " + im.Result.Digest().String() + ": the archive does not say where to",
			Hint: "Give the name after the archive: hako push ARCHIVE REGISTRY/NAME:TAG.",
		}
	}
	out, err := output.New(b.client, output.Options{
		Destinations: o.Destinations, DigestFile: o.DigestFile, NameWithDigestFile: o.NameWithDigestFile, NameTagWithDigestFile: o.NameTagWithDigestFile,
		BuilderOutputDir: o.BuilderOutputDir, SkipPushPermissionCheck: o.SkipPushPermissionCheck, PushRetries: o.PushRetries,
		IgnoreImmutableTags: o.IgnoreImmutableTags,
	}, b.env.Events)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := out.Check(ctx); err != nil {
		return nil, err
	}
	if err := out.Write(ctx, im.Result); err != nil {
		return nil, err
	}
	return &Result{Digest: im.Result.Digest(), Destinations: slices.DeleteFunc(slices.Clone(o.Destinations), out.Kept)}, nil
}

// isReference says whether a name of an archive is more than a tag.
func isReference(name string) bool {
	_, err := registry.ParseTag(name)
	return err == nil && strings.ContainsAny(name, "/:")
}

// compress stores a plain layer of an archive as layers are pushed.
func (b *builder) compress(ctx context.Context, r io.Reader, plain layer.Descriptor) (_ layer.Descriptor, _ func(context.Context) (io.ReadCloser, error), err error) {
	b.env.Events.Emit(event.Debug{Message: "compress layer " + plain.DiffID.String()})
	w, err := b.store.CreateHashed(ctx)
	if err != nil {
		return plain, nil, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	made, err := layer.Recompress(ctx, r, plain, w, layer.WriteOptions{Docker: true})
	if err != nil {
		return plain, nil, err
	}
	_, _, err = w.Commit(made.Digest)
	return made, func(context.Context) (io.ReadCloser, error) { return b.store.Open(made.Digest) }, err
}
