package build

import (
	"context"
	"crypto/tls"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hako/internal/buildcontext"
	"hako/internal/cgroup"
	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/web"
)

// openContext opens the build context and reads the Dockerfile.
func (b *builder) openContext(ctx context.Context) error {
	o := b.trees.options
	given, err := b.givenDockerfile(ctx)
	if err != nil {
		return err
	}
	if b.req.GitSkipTLSVerify {
		b.openInsecureGit(&o)
	}
	b.source, err = contextsource.Open(ctx, o, contextsource.Request{
		Place: b.req.Context, Title: "build context", Flag: "--context", Dockerfile: b.req.Dockerfile, SubPath: b.req.ContextSubPath,
		Given: given, Input: b.env.Stdin, Git: b.git(),
	})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, b.source.Close)
	if given, err = b.contextDockerfile(given); err != nil {
		return err
	}
	sub := b.req.ContextSubPath
	if b.source.SubPathTaken {
		sub = ""
	}
	b.context, err = buildcontext.Open(ctx, buildcontext.Options{
		Source: firstOf(b.source.Directory, b.source.Name), Tree: b.source.Tree, SubPath: sub,
		Dockerfile: b.req.Dockerfile, Given: given, Cwd: b.env.Cwd, Now: o.Now, Exclude: b.exclude(),
	})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, b.context.Close)
	b.tellExcluded()
	return nil
}

// git says how a repository that is the build context is fetched: what was asked for, and what BuildKit's build arguments say.
func (b *builder) git() contextsource.Git {
	g := b.req.Git
	if keep, err := strconv.ParseBool(b.req.BuildArgs["BUILDKIT_CONTEXT_KEEP_GIT_DIR"]); err == nil && keep {
		g.KeepDir = &keep
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

// givenDockerfile is the Dockerfile if it is on standard input or behind a URL; nil otherwise.
func (b *builder) givenDockerfile(ctx context.Context) (*buildcontext.File, error) {
	name := b.req.Dockerfile
	if strings.HasPrefix(name, "http://") || strings.HasPrefix(name, "https://") {
		return contextsource.FetchDockerfile(ctx, b.trees.options.Download, name)
	}
	if name != "-" {
		return nil, nil //nolint:nilnil // it is to be looked up, then
	}
	return contextsource.ReadDockerfile(ctx, b.env.Stdin, b.req.Context)
}

// contextDockerfile is the Dockerfile that was given, or else the context if that is nothing but a Dockerfile.
func (b *builder) contextDockerfile(given *buildcontext.File) (*buildcontext.File, error) {
	own := b.source.Dockerfile
	if own == nil || given != nil {
		return given, nil
	}
	if name := b.req.Dockerfile; name != "" && name != "Dockerfile" {
		return nil, &diag.Error{
			What: fmt.Sprintf("build context %s: it is no archive but looks like a Dockerfile, and --dockerfile names another: %s", b.source.Name, name),
			Hint: "Give an archive, or leave out --dockerfile.",
		}
	}
	return own, nil
}

// maxContext is how much an archive may hold: where it is unpacked into memory, half of what there may be; 0 is the default.
func (b *builder) maxContext() int64 {
	if !b.dir.Report().InMemory {
		return 0
	}
	return cgroup.MemoryLimit() / 2
}

// exclude are the files and directories of our own that a context may hold: what kaniko's flags name, and credentials. What
// --output names is not among them, as with docker build: a directory of results may well be one of sources.
func (b *builder) exclude() []string {
	o, r := &b.req.Outputs, &b.req.Registry
	own := []string{b.dir.Path(), b.req.WorkDir, b.req.Bases.Dir, o.TarPath, o.OCILayoutPath, o.DigestFile, o.NameWithDigestFile, o.NameTagWithDigestFile}
	for _, dir := range r.DockerConfigDirs {
		own = append(own, filepath.Join(dir, "config.json"))
	}
	own = append(own, r.AuthFiles...)
	for _, place := range append([]string{b.req.Cache.Repository}, b.req.Cache.Sources...) {
		if dir, ok := strings.CutPrefix(place, "oci:"); ok {
			own = append(own, strings.TrimPrefix(dir, "//"))
		}
	}
	var out []string
	for _, p := range own {
		switch {
		case p == "" || strings.Contains(p, "://"):
		case filepath.IsAbs(p):
			out = append(out, p)
		default:
			out = append(out, filepath.Join(b.env.Cwd, p))
		}
	}
	return out
}

// tellExcluded says what of our own is in the context, but for the work directory, which nobody could miss.
func (b *builder) tellExcluded() {
	work := filepath.Base(b.dir.Path())
	paths := slices.DeleteFunc(slices.Clone(b.context.Excluded), func(p string) bool { return filepath.Base(p) == work })
	if len(paths) > 0 {
		b.env.Events.Emit(event.Info{Message: "left out of the build context, because the builder itself uses it: " + strings.Join(paths, ", ")})
	}
}
