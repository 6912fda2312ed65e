// Package build is the one place that knows all parts: it takes a Request and makes an image.
package build

import (
	"io"
	"net/http"
	"time"

	"hako/internal/contextsource"
	"hako/internal/event"
	"hako/internal/image"
	"hako/internal/output"
)

// Request is everything a build depends on, as a plain value: no flag and no environment variable
// is read below it. Its zero value is not valid; see Validate.
type Request struct {
	// Context is where files come from, as given: a path, "dir://…"; ContextSubPath is a directory in it.
	Context, ContextSubPath string
	// Dockerfile is the path as given: looked up in the current directory first, then in the context.
	Dockerfile string
	// Git says how a git repository that is the context is fetched; with GitSkipTLSVerify, certificates are not checked for that.
	Git              contextsource.Git
	GitSkipTLSVerify bool
	// Target is the stage to build; empty means the last.
	Target string
	// AlsoTargets are further stages to build, whose results nothing is done with.
	AlsoTargets []string
	// BuildArgs are --build-arg values by name, already resolved against the environment.
	BuildArgs map[string]string
	// Labels are added to the result, in order; later ones win.
	Labels []KeyValue
	// Platforms are what to build for ("linux/amd64"); empty means this machine's. More than one makes an index.
	Platforms []string
	// NamedContexts take the place of stages and images by name, as plan.Options.Contexts says; a later one of a name wins.
	NamedContexts []KeyValue
	// Secrets and Agents are what RUN --mount=type=secret and type=ssh can have.
	Secrets []Secret
	Agents  []Agent
	// Network is what a RUN reaches that does not say: "none", or "default", "host" or empty for the builder's own network.
	Network string
	// ExtraHosts are --add-host entries, name and address; Hostname is the steps' host name; ShmSizeBytes their /dev/shm.
	ExtraHosts   []KeyValue
	ShmSizeBytes int64
	// IgnorePaths are left out of every new layer of the result, with all below them; elements may be patterns of path.Match.
	IgnorePaths []string
	// RunBinds show files and directories of this machine to every RUN.
	RunBinds []RunBind
	// RewriteTimestamp says that no file of a new layer may be younger than SOURCE_DATE_EPOCH, which is a build argument.
	// Reproducible says the same, and that all times are zero if there is no epoch.
	RewriteTimestamp, Reproducible bool
	// DryRun says to print the plan to Env.Stdout and build nothing.
	DryRun bool
	// PrintPlan says to print it, and then to build.
	PrintPlan bool
	// Jobs bounds how many steps run at the same time; 0 leaves it to the machine's cores and the memory limit.
	Jobs int
	// Sandbox is the engine that RUN steps run in: "native", "sentry", or "auto" for the first that works; empty is "auto".
	Sandbox string
	// NoCache says not to use any cache.
	NoCache bool

	Outputs  Outputs
	Registry Registry
	Cache    Cache
	Bases    Bases
	// CacheMounts says where the caches of steps are kept.
	CacheMounts CacheMounts
	// WorkDir is where state lives; empty means to find a place.
	WorkDir string
	// WorkDirBytes is how much room the work directory may take before the build fails; 0 means no limit.
	WorkDirBytes int64
	// Format is "docker" or "oci"; empty leaves the choice to the base image, unless something needs OCI's.
	Format string
	// Annotations are put on the documents of the image; they need OCI's format.
	Annotations image.Annotations
	// Compression is that of new layers: "gzip", "zstd" or "uncompressed"; CompressionLevel is 0 for the default.
	// ForceCompression says that layers of base images are to have it too.
	Compression      string
	CompressionLevel int
	ForceCompression bool
	// Squash says which layers become one.
	Squash Squash
	// Attestations are the statements that each image gets; they need OCI's format.
	Attestations Attestations
	// Signing says how what is pushed is signed.
	Signing Signing
}

// Agent is an ssh agent for steps: one socket, or files with private keys. Raw means whatever listens at the socket.
type Agent struct {
	ID    string
	Paths []string
	Raw   bool
}

// RunBind shows a file or directory of this machine to steps, as it is when the first of them needs it. What they write
// there is gone after the step, unless ReadOnly refuses it.
type RunBind struct {
	// Source may be relative; Target is absolute.
	Source, Target string
	ReadOnly       bool
}

// KeyValue is a pair whose order matters.
type KeyValue struct{ Key, Value string }

// Outputs says where the result goes.
type Outputs struct {
	// Destinations are image references to push to. NoPush says not to push, whatever they are.
	Destinations []string
	NoPush       bool
	// ByDigest says to push to the repositories of Destinations without setting their tags.
	ByDigest bool
	// Names are references that the image has in archives and files, without being pushed to.
	Names []string
	// Repositories are pushed to without a tag.
	Repositories []string
	// TarPath and OCILayoutPath are files and directories to write, empty for none.
	TarPath, OCILayoutPath string
	// Exports are further places on this machine.
	Exports []output.Export
	// MetadataFile and IIDFile get what buildx writes there.
	MetadataFile, IIDFile string
	// DigestFile, NameWithDigestFile and NameTagWithDigestFile get the digest in kaniko's three forms.
	DigestFile, NameWithDigestFile, NameTagWithDigestFile string
	// BuilderOutputDir gets a file "images" that lists what was pushed (Google Cloud Build's BUILDER_OUTPUT).
	BuilderOutputDir string
	// SkipPushPermissionCheck leaves out the check, before the build, that every destination can be pushed to.
	SkipPushPermissionCheck bool
	// IgnoreImmutableTags makes a success of a registry's refusal to give a tag another image.
	IgnoreImmutableTags bool
	// PushRetries repeats a whole push of a destination that many times.
	PushRetries int
}

// Bases says which base images are kept on this machine.
type Bases struct {
	// Dir is a directory of images, as [Warm] fills it; empty means none. TTL is the age at which they are too old; zero means never.
	Dir string
	TTL time.Duration
	// Offline says to take images from Dir only, and to ask no registry for them.
	Offline bool
	// Images are put into Dir before the build.
	Images []string
	// LimitBytes is how much layers in the form that steps need may take, in Dir and beside the work directory; 0 keeps none.
	LimitBytes int64
}

// Registry says how registries are reached.
type Registry struct {
	// Insecure and InsecurePull allow plain HTTP for pushes and pulls; InsecureRegistries does for single hosts.
	Insecure, InsecurePull bool
	InsecureRegistries     []string
	// SkipTLSVerify, SkipTLSVerifyPull and SkipTLSVerifyRegistries leave out certificate checks likewise.
	SkipTLSVerify, SkipTLSVerifyPull bool
	SkipTLSVerifyRegistries          []string
	// Certificates are PEM files of authorities to trust, by the host that they were given for; ClientCertificates are
	// "CERTIFICATE,KEY" files to show to a host.
	Certificates, ClientCertificates []KeyValue
	// Mirrors are places to ask for the images of a registry, in order: registry and "host[:port][/prefix]".
	// PullRetries is how often an image is looked for again that a place does not give.
	PullRetries int
	// OnlyMirrors says not to ask a registry that has mirrors itself.
	Mirrors     []KeyValue
	OnlyMirrors bool
	// DockerConfigDirs are searched for config.json; credentials of an earlier directory are tried first.
	DockerConfigDirs []string
	// AuthConfig is the text of a config.json, tried before all files; AuthFiles are files of the same form, tried after docker's.
	AuthConfig string
	AuthFiles  []string
	// CredentialHelpers are the helpers to ask where no file has credentials, in order; nil means all, none an empty list.
	CredentialHelpers []string
	// UserAgent is sent to registries.
	UserAgent string
}

// Env is the world that a build runs in.
type Env struct {
	// Now is the clock.
	Now func() time.Time
	// Getenv looks up the builder's own environment, for credential helpers and the work directory only.
	Getenv func(string) string
	// Cwd is the directory that relative paths are relative to.
	Cwd string
	// Stdin, for contexts and Dockerfiles from standard input; may be nil.
	Stdin io.Reader
	// Stdout receives what was asked for on standard output (the printed plan).
	Stdout io.Writer
	// Events receives everything that happens.
	Events event.Sink
	// Transport reaches registries, and Sources what ADD and named contexts fetch; nil means http.DefaultTransport's settings.
	Transport, Sources http.RoundTripper
}
