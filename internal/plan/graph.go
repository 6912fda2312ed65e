// Package plan turns a parsed Dockerfile into an immutable graph of steps, without any I/O of its own:
// variables are expanded, configurations complete, unneeded stages gone. Everything a later package does is in the graph.
package plan

import (
	"strconv"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
	"hako/internal/image"
)

// Graph is what has to be done for one target on one platform. It is immutable and prints as text (String).
type Graph struct {
	// Aside says that the target is built for its own sake: nothing is done with what comes out.
	Aside bool
	// Stages holds only what Target needs, each stage after those it stands on or copies from.
	Stages []*Stage
	Target *Stage
	// Created is the time of every new history entry where the user fixed it (SOURCE_DATE_EPOCH); nil means now.
	Created *time.Time
	// Warnings are things the user should know although the build goes on.
	Warnings []Warning
}

// Warning is something odd in the Dockerfile.
type Warning struct {
	// Rule is the name of BuildKit's rule that is broken ("UndefinedVar"), Description what the rule is about and URL where
	// it is explained. Rule is empty for what no rule is about; URL is empty for a rule without a page.
	Rule, Description, URL string
	// Message is what is odd here; it does not repeat the rule.
	Message string
	Span    diag.Span
}

// String is the message, with the rule in front.
func (w Warning) String() string {
	if w.Rule == "" {
		return w.Message
	}
	return w.Rule + ": " + w.Message
}

// Stage is one FROM and what follows it.
type Stage struct {
	// Index is the position in the file, from 0; Name is the AS name, lower case, or empty.
	Index int
	Name  string
	Span  diag.Span
	// Platform is what the stage's image runs on.
	Platform ocispec.Platform
	Base     Base
	Steps    []*Step
	// ListContext and ListStage say that the user wants to know what the build context and this stage hold, beside the
	// result, if there is a list of its contents (BUILDKIT_SBOM_SCAN_CONTEXT, BUILDKIT_SBOM_SCAN_STAGE).
	// ListContext counts for the target only, ListStage for all other stages.
	ListContext, ListStage bool
	// Config is the finished configuration but for what only the build can know:
	// Created, RootFS and the Created times of History. The base's history comes first.
	Config image.Config
}

// ID is the stage's name, or "stage-N".
func (s *Stage) ID() string {
	if s.Name != "" {
		return s.Name
	}
	return "stage-" + itoa(s.Index)
}

// Base is what a stage starts from: exactly one of the fields is set, or none (scratch).
type Base struct {
	Stage *Stage
	Image *ImageRef
}

// ImageRef is an image of a registry, resolved for one platform.
type ImageRef struct {
	// Name is as written, after expansion; Ref is the full reference ("docker.io/library/debian:12"),
	// or "oci-layout://" and the path of a directory.
	Name, Ref string
	// Digest and MediaType are those of the platform's manifest.
	Digest    digest.Digest
	MediaType string
	Platform  ocispec.Platform
	// Config is the image's own configuration. It must not be changed.
	Config *image.Config
}

// Step is one instruction of a stage that leaves a history entry.
type Step struct {
	// ID is "stage/number", the number counting from 1.
	ID   string
	Span diag.Span
	// Text is the instruction for people, on one line.
	Text string
	// Op is what is to be done; nil for an instruction that changes the configuration only.
	Op Op
	// History is the index of this step's entry in Stage.Config.History.
	// A step with an Op makes exactly one layer, even if nothing changed; others make none.
	History int
	// Env and Args are what the step could see: ENV, and the declared ARGs with their values, both as "K=V".
	Env, Args []string
	Platform  ocispec.Platform
}

// Op is one of *Run, *Copy, *Mkdir.
type Op interface{ op() }

// Run is a RUN instruction.
type Run struct {
	// Args is the final argument vector, shell included.
	Args []string
	// Env is the environment: image ENV, ARGs, proxies, and the default PATH where none is set, each name once.
	// Only HOME is missing if the Dockerfile does not set it, or sets it to nothing: whoever resolves User adds it,
	// as runc does for BuildKit: the home directory of the uid's first entry in the image's /etc/passwd, or else "/".
	// The variables of secrets are not in it; they come last, over all others of their names.
	Env []string
	// Dir is the absolute working directory. User is the USER text, empty for root.
	Dir, User string
	// Mounts come in the order in which they are made, parents first. Targets are all different.
	Mounts []Mount
	// Network is what the command can reach.
	Network Network
	// Files are heredocs that the command runs: executable (0755) scripts in the read-only directory "/dev/pipes",
	// Path absolute. The directory exists for this command only.
	Files []InlineFile
	// Hostname, ExtraHosts and ShmSize come from the options.
	Hostname   string
	ExtraHosts []HostEntry
	ShmSize    int64
}

// HostEntry is one line of /etc/hosts.
type HostEntry struct{ Name, IP string }

// InlineFile is a heredoc. Of a Run, Path is absolute; of a Copy, it is a plain name, and the file has mode 0644 and owner 0:0
// unless the Copy says otherwise.
type InlineFile struct {
	Path string
	Data []byte
}

// Copy is a COPY or ADD instruction.
type Copy struct {
	// Add marks ADD.
	Add bool
	// Unpack says whether archives among the sources are unpacked; nil leaves it to the kind of source:
	// an ADD unpacks archives of the context and not those of URLs.
	Unpack *bool
	// Link says that the layer does not depend on what is below it: the destination is made as if there were nothing.
	// As in BuildKit, --link with --chmod is an ordinary copy.
	Link bool
	// From is where Paths are looked up.
	From From
	// Paths are the source patterns, in order, cleaned and with a leading slash; they are relative to From.
	// Inline are heredoc sources, copied after them.
	Paths  []string
	Inline []InlineFile
	// Fetched, if there are any, say for each of Paths what it is a path of, instead of From: what ADD fetches.
	// Such a path is no pattern. It is nil for a path of From.
	Fetched []*Source
	// Parents, if there are any, say for each of Paths what is taken of that directory, together with the directories
	// on the way to it (--parents).
	Parents []Part
	// Exclude are patterns, as in a .dockerignore, of what is left out of directories. They are relative to each source.
	Exclude []string
	// Dest is absolute and clean; a trailing slash, or one for a trailing "/.", says that it is a directory.
	Dest string
	// Chown is "user[:group]" or empty (0:0); Chmod is octal text up to 7777 or symbolic text, checked, or empty.
	Chown, Chmod string
}

// Part is the part of a directory that --parents takes.
type Part struct {
	// Pattern is relative to the directory, as in a .dockerignore: "src/**/*.go".
	Pattern string
	// Required says that something has to match.
	Required bool
}

// From is where a COPY or a mount reads: exactly one of the fields is set, or none (the build context).
type From struct {
	Stage  *Stage
	Image  *ImageRef
	Source *Source
}

// Mkdir is a WORKDIR that has to exist.
type Mkdir struct {
	// Path is absolute. User is the USER text that the new directory belongs to, empty for root.
	Path, User string
	// Created is the time of what is made; nil means now.
	Created *time.Time
}

func (*Run) op()   {}
func (*Copy) op()  {}
func (*Mkdir) op() {}

func itoa(n int) string { return strconv.Itoa(n) }
