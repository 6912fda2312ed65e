package plan

import (
	"context"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Resolver looks up images by name.
type Resolver interface {
	// Resolve returns the image that name ("debian:12", always with a tag or a digest) stands for on platform.
	// Name and Config must be set in the result. It is called from many goroutines, and not twice for the same arguments.
	Resolve(ctx context.Context, name string, platform ocispec.Platform) (*ImageRef, error)
	// ResolveLayout returns the image that an OCI layout in a directory has, as Resolve does. ref is "path[:tag][@digest]".
	ResolveLayout(ctx context.Context, ref string, platform ocispec.Platform) (*ImageRef, error)
}

// Options are the choices of the user that a plan depends on. The zero value works.
type Options struct {
	// Target is the name of the stage to build; empty means the last one.
	Target string
	// BuildArgs are the --build-arg values. The predefined names are among them: proxies, BUILDKIT_… and SOURCE_DATE_EPOCH.
	BuildArgs map[string]string
	// Platform is what to build for. Its zero value means BuildPlatform, and that the result keeps
	// the platform of its base image if that is another one.
	Platform ocispec.Platform
	// BuildPlatform is what we run on; its zero value means this machine.
	BuildPlatform ocispec.Platform
	// CanRun says why steps for a platform that BuildPlatform is not cannot run, or nil. It is called before the first
	// such step is planned. If it is nil, none can.
	CanRun func(ocispec.Platform) error `json:"-"`
	// Several says that this is one of several plans of a Dockerfile: IDs of steps then name the platform.
	Several bool
	// ContextTime is the time of the commit or of the file that the build context is, for SOURCE_DATE_EPOCH=context;
	// nil for a directory.
	ContextTime *time.Time
	// IgnorePatterns are those of .dockerignore. A COPY of what they leave out is worth a warning.
	IgnorePatterns []string
	// Warn is called for each warning, in the order of lines, at the end of the planning, even if that fails.
	// nil drops them. Graph.Warnings has them too.
	Warn func(Warning) `json:"-"`
	// Contexts are the --build-context values by name (see [ContextName]). They take the place of the stage or image of
	// that name in FROM, COPY --from and RUN --mount from=: a path or another place that --context takes, a git repository,
	// a URL, "docker-image://NAME", "oci-layout://PATH[:TAG][@DIGEST]", or "target:STAGE".
	Contexts map[string]string
	// Labels are added to the result's own; they win.
	Labels map[string]string
	// Network is what a RUN reaches that does not say, as BuildKit's force-network-mode.
	Network Network
	// Hostname, ExtraHosts and ShmSize are passed on to every Run. ShmSize is in bytes, 0 for the default.
	Hostname   string
	ExtraHosts []HostEntry
	ShmSize    int64
	// Binds are shown to every RUN besides its own mounts, which win.
	Binds []Mount
}
