package build

import (
	"context"
	"errors"
	"fmt"

	"hako/internal/buildcontext"
	"hako/internal/contextartifact"
	"hako/internal/contextsource"
)

// PushContext sends the context of req to a registry, as an artifact that can be the context of a build elsewhere, without
// what its ignore file leaves out, but with that and with the Dockerfile. Of req only what is about the context, registries and
// compression counts. What the user can mend is a *diag.Error.
func PushContext(ctx context.Context, env Env, req Request, ref string) (*contextartifact.Pushed, error) {
	return pushContext(ctx, env, req, contextPush{ref: ref})
}

// PushContextOnce is PushContext for one build: label, which no other has, makes it an artifact of its own that can be
// deleted after the build, whatever others have pushed.
func PushContextOnce(ctx context.Context, env Env, req Request, ref, label string) (*contextartifact.Pushed, error) {
	return pushContext(ctx, env, req, contextPush{ref, map[string]string{"hako.context.job": label}})
}

// contextPush is where a context goes, and as what.
type contextPush struct {
	ref         string
	annotations map[string]string
}

func pushContext(ctx context.Context, env Env, req Request, to contextPush) (_ *contextartifact.Pushed, err error) {
	b := newBuilder(ctx, env, req)
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.openSecrets(); err != nil {
		return nil, err
	}
	if err := b.openFetchers(); err != nil {
		return nil, err
	}
	o := b.trees.options
	src, err := contextsource.Open(ctx, o, contextsource.Request{
		Place: req.Context, Title: "build context", Flag: "--context", Further: true, SubPath: req.ContextSubPath, Input: env.Stdin, Git: b.git(),
	})
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, src.Close)
	opened, err := buildcontext.OpenSent(ctx, buildcontext.Options{
		Source: firstOf(src.Directory, src.Name), Tree: src.Tree, SubPath: req.ContextSubPath, Dockerfile: req.Dockerfile,
		Cwd: env.Cwd, Now: o.Now, Exclude: b.exclude(),
	})
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, opened.Close)
	pushed, err := contextartifact.Push(ctx, b.client, to.ref, opened.Tree(), contextartifact.Options{
		Annotations: to.annotations,
		File:        b.dir.File, Gzip: req.Compression == "gzip", Level: req.CompressionLevel, Events: env.Events,
	})
	if err != nil {
		return nil, fmt.Errorf("push the context: %w", err)
	}
	return pushed, nil
}
