package build

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hako/internal/blob"
	"hako/internal/buildcontext"
	"hako/internal/cache"
	"hako/internal/contextsource"
	"hako/internal/download"
	"hako/internal/event"
	"hako/internal/gittree"
	"hako/internal/gitwire"
	"hako/internal/imagesource"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/plan"
	"hako/internal/registry"
	"hako/internal/sandbox/child"
	"hako/internal/sandbox/choice"
	"hako/internal/sandbox/native"
	"hako/internal/sign"
	"hako/internal/sshagent"
	"hako/internal/workdir"
)

// builder holds the open parts of one build.
type builder struct {
	life    context.Context //nolint:containedctx // that of Build, for what outlives a part of it
	env     Env
	req     Request
	context *buildcontext.Context
	source  *contextsource.Source // what context is made of
	dir     *workdir.Dir
	room    room
	store   *blob.Store
	client  *registry.Client
	bases   *imagesource.Source
	output  *output.Output
	engine  *choice.Engine
	// steps is where native steps write, if that is not dir; the engine opens it.
	steps   *workdir.Dir
	cache   *cache.Cache // nil without one
	written cache.Store  // the one that gets new records, or nil
	opened  cache.Store  // that of the cache's own place, or nil
	mounts  *mountKeeper // nil if caches of steps are not kept
	trees   *trees
	logins  *logins
	secrets secrets
	agents  *sshagent.Agents
	// contexts are the named contexts by plan.ContextName.
	contexts map[string]string
	// started and invocation tell this run from others.
	started    time.Time
	invocation string
	key        *sign.Key // nil if nothing is signed
	ignored    ignored
	binds      []plan.Mount

	// latest, if not nil, is the time that no file of a new layer may be younger than. It is set before the first is made.
	latest *time.Time
	// inResult are the layers of base images that results have. It is complete before the first is fetched.
	inResult map[digest.Digest]bool

	probing sync.Mutex       // guards probed, and is held while a processor is tried
	probed  map[string]error // why programs for an architecture do not run; nil if they do

	closers []func() error // in the order of opening
}

// open opens all parts, the ones a user gets wrong first.
func open(ctx context.Context, env Env, req Request) (_ *builder, err error) {
	b, err := openForPlan(ctx, env, req)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if err := b.openKey(); err != nil {
		return nil, err
	}
	if err := errors.Join(b.openCache(ctx), b.openMounts(ctx)); err != nil {
		return nil, err
	}
	b.engine, err = choice.New(choice.Options{
		Mode:      choice.Mode(req.Sandbox),
		DataDir:   b.stepDir,
		UpperFile: func() (*os.File, error) { return b.dir.Lend("upper") },
		Chosen:    func(text string) { env.Events.Emit(event.Info{Message: text}) },
		Crashed: func(c *child.CrashError) {
			env.Events.Emit(event.Warning{Message: "the sandbox ended, a step is tried again: " + c.How})
			env.Events.Emit(event.Debug{Message: c.Error()})
		},
	})
	if err != nil {
		return nil, err
	}
	b.closers = append(b.closers, b.closeSteps, b.engine.Close)
	return b, nil
}

var errNoDir = errors.New("there is no directory for state, only memory: mount a volume at /kaniko or /tmp")

// stepDir makes the directory for what native steps write. It goes with the work directory.
func (b *builder) stepDir() (string, error) {
	place := b.dir
	if b.req.WorkDir == "" && onOverlay(place.Path()) {
		// A container's own file system cannot hold an upper, but there may be a volume.
		others := slices.DeleteFunc(b.places(), onOverlay)
		other, err := workdir.Open(workdir.Options{Candidates: others, Stubborn: b.clear})
		if err != nil {
			return "", err
		}
		b.steps = other
		b.room.add(other)
		if other.Path() != "" {
			place = other
		}
	}
	if place.Path() == "" {
		return "", errNoDir
	}
	dir := filepath.Join(place.Path(), stepsName)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("make the directory of steps: %w", err)
	}
	return dir, nil
}

// stepsName is the directory for what native steps write, in a work directory.
const stepsName = "steps"

// clear deletes what native steps of a builder that was killed have left, and belongs to their users.
func (b *builder) clear(dir string) error {
	return native.Clear(b.life, filepath.Join(dir, stepsName))
}

// onOverlay says whether a directory is on an overlay file system.
func onOverlay(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// closeSteps removes the directory of steps if it is not in the work directory.
func (b *builder) closeSteps() error {
	if b.steps == nil {
		return nil
	}
	return b.steps.Close()
}

// newBuilder returns a builder with nothing open.
func newBuilder(ctx context.Context, env Env, req Request) *builder {
	return &builder{
		life: ctx, env: env, req: req, probed: map[string]error{}, inResult: map[digest.Digest]bool{}, started: env.Now(),
		invocation: strings.ToLower(rand.Text()),
	}
}

// openForPlan opens what a plan needs.
func openForPlan(ctx context.Context, env Env, req Request) (_ *builder, err error) {
	b := newBuilder(ctx, env, req)
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.ignored, err = parseIgnored(req.IgnorePaths); err != nil {
		return nil, err
	}
	if b.binds, err = b.runBinds(); err != nil {
		return nil, err
	}
	if err := b.openSecrets(); err != nil {
		return nil, err
	}
	if err := b.openState(ctx); err != nil {
		return nil, err
	}
	return b, b.openRegistry()
}

// openState opens the work directory, what reaches servers, and the context, which may hold the directory.
func (b *builder) openState(ctx context.Context) error {
	if err := b.openFetchers(); err != nil {
		return err
	}
	return b.openContext(ctx)
}

// openFetchers opens the work directory and what reaches servers.
func (b *builder) openFetchers() (err error) {
	b.dir, err = workdir.Open(workdir.Options{Explicit: b.req.WorkDir, Candidates: b.places(), Stubborn: b.clear})
	if err != nil {
		return err
	}
	b.closers = append(b.closers, b.dir.Close)
	b.room.limit = b.req.WorkDirBytes
	b.room.add(b.dir)
	if b.store, err = blob.New(b.dir); err != nil {
		return err
	}
	b.closers = append(b.closers, b.store.Close)
	if b.contexts, err = b.req.contexts(); err != nil {
		return err
	}
	if err := b.openClient(); err != nil {
		return err
	}
	b.openTrees()
	return nil
}

// openTrees opens what fetches named contexts and what ADD names.
func (b *builder) openTrees() {
	b.logins = &logins{secrets: func() secrets { return b.secrets }, getenv: b.env.Getenv, trusted: map[string]bool{}}
	b.logins.trust(b.req.Context)
	for _, place := range b.contexts {
		b.logins.trust(place)
	}
	git, fetcher := b.fetchers(b.env.Sources)
	life, cancel := context.WithCancelCause(b.life)
	b.trees = newTrees(life, contextsource.Options{
		Cwd: b.env.Cwd, Now: b.env.Now(), Getenv: b.env.Getenv, File: b.dir.File, Events: b.env.Events, Registry: b.client,
		Download: fetcher, MaxBytes: b.maxContext(),
		Git: gittree.Options{
			Client: git, Download: fetcher, Clock: b.env.Now, File: b.dir.File, Now: b.env.Now(), Events: b.env.Events, Workers: b.req.jobs(),
		},
	}, b.exclude(), []string{b.dir.Path()})
	b.closers = append(b.closers, b.trees.close, nothing(func() { cancel(errEnded) }))
}

// fetchers are what gets git repositories and files by rt; nil is a transport of their own.
func (b *builder) fetchers(rt http.RoundTripper) (*gitwire.Client, *download.Client) {
	git := gitwire.New(gitwire.Options{
		Transport: rt, UserAgent: b.req.Registry.UserAgent, Events: b.env.Events, Credentials: b.logins.forGit, SSH: b.ssh(),
	})
	files := download.New(download.Options{
		File: b.dir.File, Transport: rt, UserAgent: b.req.Registry.UserAgent, Events: b.env.Events, Credentials: b.logins.forFile,
	})
	b.closers = append(b.closers, nothing(git.Close), nothing(files.Close))
	return git, files
}

// errEnded is why sources are no longer fetched when nobody needs them any more.
var errEnded = errors.New("the build has ended")

// openClient opens what talks to registries.
func (b *builder) openClient() error {
	options, err := b.registryOptions()
	if err != nil {
		return err
	}
	if b.client, err = registry.New(options); err != nil {
		return err
	}
	b.closers = append(b.closers, nothing(b.client.Close))
	return nil
}

// openRegistry opens where base images come from and where results go.
func (b *builder) openRegistry() error {
	b.bases = imagesource.New(imagesource.Options{
		Registry: b.client, Dir: b.dir, Blobs: b.store, Keep: b.keeps, Shared: b.shares, Events: b.env.Events,
		Mirrors: b.mirrors(), OnlyMirrors: b.req.Registry.OnlyMirrors, Retries: b.req.Registry.PullRetries, Cwd: b.env.Cwd, Warmed: b.warmed(), Prepared: b.openPrepared(),
	})
	b.closers = append(b.closers, b.bases.Close)
	return b.openOutput()
}

// openOutput opens where results go.
func (b *builder) openOutput() (err error) {
	o := b.req.Outputs
	b.output, err = output.New(b.client, output.Options{
		Destinations: o.Destinations, NoPush: o.NoPush, ByDigest: o.ByDigest, TarPath: o.TarPath, OCILayoutPath: o.OCILayoutPath,
		DigestFile: o.DigestFile, NameWithDigestFile: o.NameWithDigestFile, NameTagWithDigestFile: o.NameTagWithDigestFile,
		Names: o.Names, Repositories: o.Repositories, Exports: o.Exports, Stdout: b.env.Stdout,
		MetadataFile: o.MetadataFile, IIDFile: o.IIDFile,
		BuilderOutputDir: o.BuilderOutputDir, SkipPushPermissionCheck: o.SkipPushPermissionCheck, PushRetries: o.PushRetries, IgnoreImmutableTags: o.IgnoreImmutableTags,
	}, b.env.Events)
	if err != nil {
		return err
	}
	b.closers = append(b.closers, nothing(b.output.Close))
	return nil
}

// places are where state may live, in kaniko's order of habit.
func (b *builder) places() []string {
	out := []string{defaultDir}
	if tmp := b.env.Getenv("TMPDIR"); tmp != "" {
		out = append(out, tmp)
	}
	return append(out, "/tmp")
}

// maker stores layers the way the request asks for. Those that will be merged are not worth compressing, unless a cache keeps them.
func (b *builder) maker() *maker {
	opts := b.req.layers()
	if b.req.Squash != SquashNone && b.cache == nil {
		opts = layer.WriteOptions{Compression: layer.Uncompressed, Docker: true}
	}
	opts.Digests = b.cache != nil
	m := &maker{store: b.store, dir: b.dir, opts: opts, life: b.life, latest: b.latest, room: &b.room}
	if b.sendsAhead() {
		m.ahead = b.output.Stream
	}
	return m
}

// spool makes an empty file without a name.
func (b *builder) spool() (*os.File, error) { return b.dir.File("spool") }

// close closes all parts, last opened first.
func (b *builder) close() error {
	var errs []error
	for i := len(b.closers) - 1; i >= 0; i-- {
		errs = append(errs, b.closers[i]())
	}
	b.closers = nil
	return errors.Join(errs...)
}

// nothing makes a closer of a function that cannot fail.
func nothing(f func()) func() error {
	return func() error {
		f()
		return nil
	}
}
