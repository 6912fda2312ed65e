package build

import (
	"context"
	"crypto/tls"
	"strconv"

	"hako/internal/buildcontext"
	"hako/internal/cgroup"
	"hako/internal/contextsource"
	"hako/internal/web"
)

// openContext opens the build context and reads the Dockerfile.
func (b *builder) openContext(ctx context.Context) (err error) {
	o := b.trees.options
	if b.req.GitSkipTLSVerify {
		b.openInsecureGit(&o)
	}
	b.source, err = contextsource.Open(ctx, o, contextsource.Request{
		Place: b.req.Context, Title: "build context", Flag: "--context", Dockerfile: b.req.Dockerfile, SubPath: b.req.ContextSubPath, Input: b.env.Stdin,
		Git: b.git(),
	})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, b.source.Close)
	b.context, err = buildcontext.Open(ctx, buildcontext.Options{
		Source: firstOf(b.source.Directory, b.source.Name), Tree: b.source.Tree, SubPath: b.req.ContextSubPath,
		Dockerfile: b.req.Dockerfile, Given: b.source.Dockerfile, Cwd: b.env.Cwd, Now: o.Now, Exclude: b.exclude(),
	})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, b.context.Close)
	return nil
}

// git says how a repository that is the build context is fetched: what was asked for, and what BuildKit's build arguments say.
func (b *builder) git() contextsource.Git {
	g := b.req.Git
	if keep, err := strconv.ParseBool(b.req.BuildArgs["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]); err == nil && keep {
		g.KeepDir = true
	}
	if b.req.BuildArgs["SOURCE_DATE_EPOCH"] != "" {
		g.CommitTimes = true
	}
	return g
}

// openInsecureGit has the build context fetched from servers whose certificates are not checked.
func (b *builder) openInsecureGit(o *contextsource.Options) {
	rt := b.env.Sources
	if rt == nil {
		own := web.NewTransport()
		own.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // that is what was asked for
		b.closers = append(b.closers, nothing(own.CloseIdleConnections))
		rt = own
	}
	o.Git.Client, o.Git.Download = b.fetchers(rt)
}

// maxContext is how much an archive may hold: where it is unpacked into memory, half of what there may be; 0 is the default.
func (b *builder) maxContext() int64 {
	if !b.dir.Report().InMemory {
		return 0
	}
	return cgroup.MemoryLimit() / 2
}

// exclude are the directories of our own that a context may hold.
func (b *builder) exclude() []string {
	if p := b.dir.Path(); p != "" {
		return []string{p}
	}
	return nil
}
