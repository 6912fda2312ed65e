package build

import (
	"context"

	"hako/internal/buildcontext"
	"hako/internal/cgroup"
	"hako/internal/contextsource"
)

// openContext opens the build context and reads the Dockerfile.
func (b *builder) openContext(ctx context.Context) (err error) {
	o := b.trees.options
	b.source, err = contextsource.Open(ctx, o, contextsource.Request{
		Place: b.req.Context, Title: "build context", Flag: "--context", Dockerfile: b.req.Dockerfile, SubPath: b.req.ContextSubPath, Input: b.env.Stdin,
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
