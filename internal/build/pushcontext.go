package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"

	"hako/internal/archive"
	"hako/internal/buildcontext"
	"hako/internal/contextartifact"
	"hako/internal/contextsource"
	"hako/internal/tree"
)

// PushContext sends the build context of req to the repository ref, without what its ignore file leaves out, and gives it ref's
// tag if there is one. Of req count the context, the Dockerfile, the registries, the compression and the work directory.
func PushContext(ctx context.Context, env Env, req Request, ref string) (*contextartifact.Pushed, error) {
	sent, err := pushContext(ctx, env, req, contextPush{ref: ref})
	if err != nil {
		return nil, err
	}
	return sent.Pushed, nil
}

// SentContext is a context in a registry, and PackedContext one in a file. Dockerfile is what it has as such; nil if it has none.
type (
	SentContext struct {
		*contextartifact.Pushed
		Dockerfile []byte
	}
	PackedContext struct {
		*contextartifact.Packed
		Dockerfile []byte
	}
)

// PushContextOnce is PushContext for one build: label, which no other has, makes it an artifact of its own that can be
// deleted after the build, whatever others have pushed.
func PushContextOnce(ctx context.Context, env Env, req Request, ref, label string) (*SentContext, error) {
	return pushContext(ctx, env, req, contextPush{ref: ref, annotations: map[string]string{"hako.context.job": label}})
}

// PushNamedContextOnce is PushContextOnce for a further context, one without a Dockerfile: req.Context says where it is.
func PushNamedContextOnce(ctx context.Context, env Env, req Request, ref, label string) (*SentContext, error) {
	return pushContext(ctx, env, req, contextPush{ref: ref, annotations: map[string]string{"hako.context.job": label}, further: true})
}

// PackContext makes the archive that PushContext sends, in a file without a name in the work directory. The caller closes it.
func PackContext(ctx context.Context, env Env, req Request) (_ *PackedContext, err error) {
	b := newBuilder(ctx, env, req)
	defer func() { err = errors.Join(err, b.close()) }()
	t, dockerfile, err := b.openSent(ctx, false)
	if err != nil {
		return nil, err
	}
	packed, err := contextartifact.Pack(ctx, t, b.packing())
	if err != nil {
		return nil, err
	}
	return &PackedContext{packed, dockerfile}, nil
}

// contextPush is where a context goes, and as what.
type contextPush struct {
	ref         string
	annotations map[string]string
	further     bool
}

func pushContext(ctx context.Context, env Env, req Request, to contextPush) (_ *SentContext, err error) {
	b := newBuilder(ctx, env, req)
	defer func() { err = errors.Join(err, b.close()) }()
	t, dockerfile, err := b.openSent(ctx, to.further)
	if err != nil {
		return nil, err
	}
	o := b.packing()
	o.Annotations = to.annotations
	pushed, err := contextartifact.Push(ctx, b.client, to.ref, t, o)
	if err != nil {
		return nil, fmt.Errorf("push the context: %w", err)
	}
	return &SentContext{pushed, dockerfile}, nil
}

// packing says how a context becomes an archive.
func (b *builder) packing() contextartifact.Options {
	return contextartifact.Options{
		File: b.dir.File, Gzip: b.req.Compression == "gzip", Level: b.req.CompressionLevel, Events: b.env.Events,
	}
}

// openSent opens the context as it is sent elsewhere, and reads its Dockerfile. One that is nothing but a Dockerfile is a directory
// with that.
func (b *builder) openSent(ctx context.Context, further bool) (t tree.Tree, dockerfile []byte, err error) {
	if err := b.openSecrets(); err != nil {
		return nil, nil, err
	}
	if err := b.openFetchers(); err != nil {
		return nil, nil, err
	}
	o := b.trees.options
	src, err := contextsource.Open(ctx, o, contextsource.Request{
		Place: b.req.Context, Title: "build context", Flag: "--context", Further: true, SubPath: b.req.ContextSubPath, Input: b.env.Stdin, Git: b.git(),
	})
	if err != nil {
		return nil, nil, err
	}
	b.closers = append(b.closers, src.Close)
	if src.Dockerfile != nil && !further {
		t, err := b.onlyDockerfile(ctx, src.Dockerfile)
		return t, src.Dockerfile.Content, err
	}
	open := buildcontext.OpenSent
	if further {
		open = buildcontext.OpenTree
	}
	opened, err := open(ctx, buildcontext.Options{
		Source: firstOf(src.Directory, src.Name), Tree: src.Tree, SubPath: b.req.ContextSubPath, Dockerfile: b.req.Dockerfile,
		Cwd: b.env.Cwd, Now: o.Now, Exclude: b.exclude(),
	})
	if err != nil {
		return nil, nil, err
	}
	b.closers = append(b.closers, opened.Close)
	return opened.Tree(), opened.Dockerfile, nil
}

// onlyDockerfile is the tree of a context that holds nothing else.
func (b *builder) onlyDockerfile(ctx context.Context, f *buildcontext.File) (tree.Tree, error) {
	var text bytes.Buffer
	w := tar.NewWriter(&text)
	const readable = 0o644
	err := w.WriteHeader(&tar.Header{Name: "Dockerfile", Size: int64(len(f.Content)), Mode: readable, ModTime: b.trees.options.Now})
	if err == nil {
		_, err = w.Write(f.Content)
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("pack the Dockerfile: %w", err)
	}
	t, err := archive.Unpack(ctx, &text, archive.Options{File: b.dir.File, Now: b.trees.options.Now})
	if err != nil {
		return nil, fmt.Errorf("pack the Dockerfile: %w", err)
	}
	b.closers = append(b.closers, t.Close)
	return t, nil
}
