package cli

// kind is how a flag's value is parsed.
type kind uint8

const (
	boolKind kind = iota + 1
	stringKind
	intKind
	durationKind // a Go duration
	multiKind    // repeatable; each value is taken verbatim
	kvKind       // repeatable key=value; the last value of a key wins
	multimapKind // repeatable a=b[;c=d]; values of a key add up
)

// status is what hako does with a flag.
type status uint8

const (
	// used: the flag does what it says.
	used status = iota + 1
	// noEffect: the flag is accepted, and what it asks for is the case anyway; flag.why says why.
	noEffect
)

// flag is one row of the command line.
type flag struct {
	name, short string
	kind        kind
	// def is the default, in the form the flag is given in.
	def string
	// help is one line; why is the reason of a flag without effect.
	help, why string
	// forks says who else has the flag: G kaniko, C Chainguard's, O osscontainertools' fork, D docker build; H: only hako has it.
	forks  string
	status status
	// values, if set, are all that is allowed.
	values []string
	// alias is the name of the flag that this is another spelling of.
	alias string
	// hidden flags are left out of the help.
	hidden bool
	// tell says to warn whoever gives a flag without effect: what it is for has to be done in another way.
	tell bool
}

const (
	whyNoRootFS = "no base image is unpacked over the builder's files, so there is nothing to repeat, clean or protect"
	whyExact    = "a step's changes are recorded exactly and at no extra cost, whatever the mode"
)

// flags is the whole command line of "hako build" and of "executor".
// Everything else about flags derives from it: parsing, help, docs/flags.md.
func flags() []flag {
	var all []flag
	for _, group := range [][]flag{inputFlags(), outputFlags(), attestFlags(), registryFlags(), stepFlags(), cacheFlags(), kanikoFlags(), logFlags()} {
		all = append(all, group...)
	}
	return all
}

func inputFlags() []flag {
	return []flag{
		{name: "context", short: "c", kind: stringKind, def: "/workspace/", help: "build context: a directory, tar://FILE, - (an archive on standard input), a URL, a git repository, s3://, gs:// or oci://; see docs/contexts.md", forks: "GCO", status: used},
		{name: "context-sub-path", kind: stringKind, help: "directory inside the context to use instead of its root", forks: "GCO", status: used},
		{name: "dockerfile", short: "f", kind: stringKind, def: "Dockerfile", help: "Dockerfile: a path, looked up in the current directory, then in the context; a URL; or - for standard input", forks: "GCO", status: used},
		{name: "file", kind: stringKind, help: "docker's name of --dockerfile", forks: "D", status: used, alias: "dockerfile", hidden: true},
		{name: "bucket", short: "b", kind: stringKind, help: "bucket of Google Cloud Storage that holds the context, as context.tar.gz, or the URL of a context; no effect beside a --context that is a directory", forks: "GCO", status: used, hidden: true},
		{name: "git", kind: multiKind, help: "for a git context: branch=NAME, recurse-submodules=BOOL, insecure-skip-tls=BOOL, lfs=BOOL, keep-git-dir=BOOL; single-branch and depth have no effect, since one commit is fetched", forks: "GCO", status: used},
		{name: "target", kind: multiKind, help: "stage to build; the last if not given; of several (repeated, or separated by commas) the first is the result, and all are built", forks: "GCO", status: used},
		{name: "build-arg", kind: multiKind, help: "NAME=VALUE for an ARG; NAME alone takes the value from the environment", forks: "GCO", status: used},
		{name: "build-context", kind: kvKind, help: "NAME=PLACE, what takes the place of the stage or image NAME: a directory, a git repository, a URL, docker-image://IMAGE, oci-layout://PATH or target:STAGE", forks: "D", status: used},
		{name: "custom-platform", kind: stringKind, help: "platform to build for, os/arch[/variant]; this machine's if not given", forks: "GCO", status: used},
		{name: "customPlatform", kind: stringKind, help: "old spelling of --custom-platform", forks: "GCO", status: used, alias: "custom-platform", hidden: true},
		{name: "platform", kind: multiKind, help: "platforms to build for, os/arch[/variant],…; several make an index", forks: "D", status: used},
		{name: "secret", kind: multiKind, help: "secret for RUN --mount=type=secret: id=ID[,src=FILE][,env=NAME][,type=file|env]", forks: "OD", status: used},
		{name: "ssh", kind: multiKind, help: "agent for RUN --mount=type=ssh: ID[=SOCKET|KEY[,KEY…][,raw=true]]; ID is default where a RUN says none; SSH_AUTH_SOCK if no more is given", forks: "D", status: used},
		{name: "network", kind: stringKind, def: "default", help: "what a RUN without --network reaches: default or host, the builder's own network, or none", forks: "D", status: used, values: []string{"default", "host", "none"}},
		{name: "allow", kind: multiKind, help: "rights that docker build asks for", forks: "D", status: noEffect, why: "a step reaches the builder's own network as it is, and no right can give it the host's privileges or devices"},
		{name: "add-host", kind: multiKind, help: "NAME:ADDRESS, one more line of a step's /etc/hosts", forks: "D", status: used},
		{name: "shm-size", kind: stringKind, help: "size of a step's /dev/shm, as 64m", forks: "D", status: used},
	}
}

func outputFlags() []flag {
	return []flag{
		{name: "destination", short: "d", kind: multiKind, help: "image reference to push to", forks: "GCO", status: used},
		{name: "tag", short: "t", kind: multiKind, help: "image reference to push to; with --output, a name only, unless --push or type=registry is given", forks: "D", status: used},
		{name: "output", short: "o", kind: multiKind, help: "where else the result goes: DIRECTORY, - for a tar of the files, or type=local|tar|oci|docker|registry,KEY=VALUE,…", forks: "D", status: used},
		{name: "push", kind: boolKind, def: "false", help: "push to every --tag, also with --output", forks: "D", status: used},
		{name: "load", kind: boolKind, def: "false", help: "load the image into a Docker engine; always refused, with what to do instead", forks: "D", status: used},
		{name: "push-by-digest", kind: boolKind, def: "false", help: "push to the repositories of every --destination and --tag without setting the tag, for hako index", forks: "H", status: used},
		{name: "no-push", kind: boolKind, def: "false", help: "do not push the image", forks: "GCO", status: used},
		{name: "tar-path", kind: stringKind, help: "file to write the image to, for docker load", forks: "GCO", status: used},
		{name: "tarPath", kind: stringKind, help: "old spelling of --tar-path", forks: "GCO", status: used, alias: "tar-path", hidden: true},
		{name: "oci-layout-path", kind: stringKind, help: "directory to write the image to, as an OCI layout", forks: "GCO", status: used},
		{name: "digest-file", kind: stringKind, help: "file that gets the image's digest", forks: "GCO", status: used},
		{name: "image-name-with-digest-file", kind: stringKind, help: "file that gets a line repository@digest for each destination", forks: "GCO", status: used},
		{name: "image-name-tag-with-digest-file", kind: stringKind, help: "file that gets a line repository:tag@digest for each destination", forks: "GCO", status: used},
		{name: "metadata-file", kind: stringKind, help: "file that gets the result's digests and names as JSON, as with buildx", forks: "D", status: used},
		{name: "iidfile", kind: stringKind, help: "file that gets the image's ID: the digest of its configuration, or of the index", forks: "D", status: used},
		{name: "label", kind: multiKind, help: "KEY=VALUE, a label of the image", forks: "GCO", status: used},
		{name: "annotation", kind: kvKind, help: "[LEVEL[[PLATFORM]][,LEVEL…]:]KEY=VALUE, an annotation; levels are manifest (the default), index, manifest-descriptor, index-descriptor", forks: "COD", status: used},
		{name: "image-format", kind: stringKind, help: "media types of the image: docker or oci; the base image's if not given", forks: "O", status: used, values: []string{"", "docker", "oci"}},
		{name: "compression", kind: stringKind, def: "gzip", help: "compression of new layers: gzip or zstd", forks: "GCO", status: used, values: []string{"gzip", "zstd"}},
		{name: "compression-level", kind: intKind, def: "-1", help: "level of --compression; the default below 1", forks: "GCO", status: used},
		{name: "reproducible", kind: boolKind, def: "false", help: "leave all times out of the image, or take SOURCE_DATE_EPOCH for them; layers of the base image stay as they are", forks: "GCO", status: used},
		{name: "source-date-epoch", kind: stringKind, help: "seconds since 1970 to use for times in place of now; SOURCE_DATE_EPOCH in the environment or as a build argument does the same", forks: "H", status: used},
		{name: "rewrite-timestamp", kind: boolKind, def: "false", help: "let no file of a new layer be younger than SOURCE_DATE_EPOCH", forks: "H", status: used},
		{name: "single-snapshot", kind: boolKind, def: "false", help: "make one layer of all steps: of everything above the base image", forks: "GCO", status: used},
		{name: "squash", kind: boolKind, def: "false", help: "docker's name of --single-snapshot", forks: "D", status: used, alias: "single-snapshot"},
		{name: "squash-all", kind: boolKind, def: "false", help: "make one layer of everything, the base image's layers included", forks: "H", status: used},
		{name: "dryrun", kind: boolKind, def: "false", help: "print the plan and build nothing", forks: "O", status: used},
		{name: "check", kind: boolKind, def: "false", help: "say what is wrong or unwise in the Dockerfile and build nothing", forks: "D", status: used},
		{name: "call", kind: stringKind, def: "build", help: "build, check or targets (list the stages), with ,format=text|json and for check also sarif and ,ignorestatus=true", forks: "D", status: used},
	}
}

func attestFlags() []flag {
	return []flag{
		{name: "provenance", kind: stringKind, def: "false", help: "attach how the image was made: false, min, max or true (as max), or buildx's options: mode=max,builder-id=URI,…", forks: "D", status: used},
		{name: "sbom", kind: stringKind, def: "false", help: "attach a list of the packages in the image: true or false", forks: "D", status: used},
		{name: "attest", kind: multiKind, help: "type=provenance,mode=max or type=sbom, buildx's long form of --provenance and --sbom", forks: "D", status: used},
		{name: "sign", kind: boolKind, def: "false", help: "sign the image and its attestations with --sign-key, as cosign does, and push the signatures beside it", forks: "H", status: used},
		{name: "sign-key", kind: stringKind, help: "private key of cosign's to sign with: a file, or env://NAME; its password is in COSIGN_PASSWORD", forks: "H", status: used},
	}
}

func registryFlags() []flag {
	return []flag{
		{name: "insecure", kind: boolKind, def: "false", help: "push by plain HTTP", forks: "GCO", status: used},
		{name: "insecure-pull", kind: boolKind, def: "false", help: "pull by plain HTTP", forks: "GCO", status: used},
		{name: "insecure-registry", kind: multiKind, help: "HOST[:PORT] to reach by plain HTTP", forks: "GCO", status: used},
		{name: "skip-tls-verify", kind: boolKind, def: "false", help: "do not check certificates, for pushes and pulls", forks: "GCO", status: used},
		{name: "skip-tls-verify-pull", kind: boolKind, def: "false", help: "do not check certificates for pulls", forks: "GCO", status: used},
		{name: "skip-tls-verify-registry", kind: multiKind, help: "HOST[:PORT] whose certificate is not checked", forks: "GCO", status: used},
		{name: "registry-certificate", kind: kvKind, help: "HOST=FILE, one more certificate authority to trust; for all registries, as in kaniko", forks: "GCO", status: used},
		{name: "registry-client-cert", kind: kvKind, help: "HOST=CERTIFICATE,KEY to show to a registry", forks: "GCO", status: used},
		{name: "registry-mirror", kind: multiKind, help: "HOST[:PORT][/PREFIX], a mirror of Docker Hub, asked before it", forks: "GCO", status: used},
		{name: "registry-map", kind: multimapKind, help: "HOST=MIRROR[;HOST=MIRROR], mirrors of registries, asked before them in this order", forks: "GCO", status: used},
		{name: "skip-default-registry-fallback", kind: boolKind, def: "false", help: "fail if no mirror has an image", forks: "GCO", status: used},
		{name: "push-retry", kind: intKind, def: "0", help: "times to repeat a whole push that failed", forks: "GCO", status: used},
		{name: "image-download-retry", kind: intKind, def: "0", help: "times to look for a base image again that a registry or mirror does not give, whatever the reason, after 1, 2, 4 seconds; cut downloads go on in any case", forks: "GCO", status: used},
		{name: "push-ignore-immutable-tag-errors", kind: boolKind, def: "false", help: "succeed if the tag exists and the registry lets no tag change", forks: "GCO", status: used},
		{name: "skip-push-permission-check", kind: boolKind, def: "false", help: "do not check before the build that every destination can be pushed to", forks: "GCO", status: used},
		{name: "credential-helpers", kind: multiKind, help: "where to look for credentials after the configuration files, in order: env, google, ecr, acr, gitlab; all if not given, none if empty", forks: "O", status: used},
		{name: "azure-container-registry-config", kind: stringKind, help: "has no effect in kaniko either", forks: "GCO", status: noEffect, why: "a leftover of a library that kaniko uses; it never had an effect", hidden: true},
	}
}

func stepFlags() []flag {
	return []flag{
		{name: "jobs", short: "j", kind: intKind, def: "0", help: "steps to run at the same time; 0: two for each core, at least 4, and less where memory is limited", forks: "H", status: used},
		{name: "sandbox", kind: stringKind, def: "auto", help: "what RUN steps run in: native (the kernel, in namespaces), sentry (gVisor, needs no privilege), or auto: native where it works", forks: "H", status: used, values: []string{"auto", "native", "sentry"}},
		{name: "run-bind", kind: multiKind, help: "SRC[:DST][:ro], a file or directory of the builder's that every RUN sees at DST, or at SRC; what it writes there is dropped", forks: "H", status: used},
		{name: "snapshot-mode", kind: stringKind, def: "full", help: "how changed files are found: full, redo or time", forks: "GCO", status: noEffect, why: whyExact, values: []string{"full", "redo", "time"}},
		{name: "snapshotMode", kind: stringKind, help: "old spelling of --snapshot-mode", forks: "GCO", status: noEffect, why: whyExact, alias: "snapshot-mode", hidden: true},
		{name: "use-new-run", kind: boolKind, def: "false", help: "find changed files by their metadata", forks: "GCO", status: noEffect, why: whyExact},
		{name: "ignore-path", kind: multiKind, help: "path to leave out of the new layers of the image, with all below; an element may be a pattern, as /opt/*/cache", forks: "GCO", status: used},
		{name: "ignore-var-run", kind: boolKind, def: "true", help: "leave /var/run out of the image", forks: "GCO", status: noEffect, why: "nothing of the builder's is ever seen in /var/run, so what is there belongs to the image, as with docker build"},
		{name: "whitelist-var-run", kind: boolKind, def: "true", help: "old spelling of --ignore-var-run", forks: "GCO", status: noEffect, why: "as --ignore-var-run", hidden: true},
		{name: "image-fs-extract-retry", kind: intKind, def: "0", help: "times to repeat unpacking the base image", forks: "GCO", status: noEffect, why: whyNoRootFS},
		{name: "cleanup", kind: boolKind, def: "false", help: "delete the file system at the end", forks: "GCO", status: noEffect, why: "everything that a build makes on the way is always deleted"},
		{name: "pre-cleanup", kind: boolKind, def: "false", help: "delete the file system before the build", forks: "O", status: noEffect, why: whyNoRootFS},
		{name: "preserve-context", kind: boolKind, def: "false", help: "keep the context and restore it afterwards", forks: "O", status: noEffect, why: "the context is never changed"},
		{name: "materialize", kind: boolKind, def: "false", help: "leave the final file system in place", forks: "O", status: noEffect, why: "the builder's own root is never touched; --output DIRECTORY writes the files of the image", tell: true},
		{name: "skip-unused-stages", kind: boolKind, def: "false", help: "build only the stages that are needed", forks: "GCO", status: noEffect, why: "only the stages that are needed are ever built"},
		{name: "force-build-metadata", kind: boolKind, def: "false", help: "make layers for instructions that change no file", forks: "GCO", status: noEffect, why: "such instructions are part of the configuration and the history, as with docker build"},
	}
}

func cacheFlags() []flag {
	return []flag{
		{name: "cache", kind: boolKind, def: "false", help: "take steps from a cache and keep them there", forks: "GCO", status: used},
		{name: "no-cache", kind: boolKind, def: "false", help: "do not use any cache", forks: "D", status: used},
		{name: "cache-repo", kind: stringKind, help: "repository of the cache, oci:DIRECTORY, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or the URL of an Azure container; /cache below the first destination if not given", forks: "GCO", status: used},
		{name: "cache-from", kind: multiKind, help: "further repository, bucket or oci:DIRECTORY to take steps from", forks: "D", status: used},
		{name: "cache-dir", kind: stringKind, def: "/cache", help: "directory of base images that the warmer fetched; used with --cache, or if this flag is given", forks: "GCO", status: used},
		{name: "image", kind: multiKind, help: "image to put into --cache-dir before the build, as the warmer does", forks: "H", status: used},
		{name: "cache-offline", kind: boolKind, def: "false", help: "take base images from --cache-dir only, and ask no registry for them", forks: "H", status: used},
		{name: "bases-limit", kind: stringKind, def: "20g", help: "what base images in the form that steps need may take, in --cache-dir and beside the state of builds in /kaniko or --kaniko-dir: what was not used for longest goes; 0 keeps none", forks: "H", status: used},
		{name: "cache-ttl", kind: durationKind, def: "336h0m0s", help: "age at which the cache's entries are too old", forks: "GCO", status: used},
		{name: "cache-key-file", kind: stringKind, help: "key that cached steps must be signed with: a file with a secret or with a key of cosign's, or env://NAME", forks: "H", status: used},
		{name: "cache-timeout", kind: durationKind, def: "10s", help: "how long the cache may take to answer before the build goes on without it", forks: "H", status: used},
		{name: "cache-copy-layers", kind: boolKind, def: "false", help: "cache all COPY and ADD steps, or with false none; otherwise those of stages and images, and of 1 MiB and more", forks: "GCO", status: used},
		{name: "cache-run-layers", kind: boolKind, def: "true", help: "cache RUN steps", forks: "GCO", status: used},
		{name: "no-push-cache", kind: boolKind, def: "false", help: "write nothing to the cache", forks: "GCO", status: used},
		{name: "explain-cache", kind: boolKind, def: "false", help: "say for each step that is not in the cache what has changed since the last build: the file, the argument, the base image", forks: "H", status: used},
		{name: "cache-mounts", kind: stringKind, help: "repository or oci:DIRECTORY that keeps what RUN --mount=type=cache leaves, or none; the directory of --cache-repo, if it is one, if not given", forks: "H", status: used},
		{name: "cache-mounts-size", kind: stringKind, help: "what one of these may have there, as 2g; what is more is not kept; no limit if not given", forks: "H", status: used},
		{name: "cache-size", kind: stringKind, help: "what the cache may have after the build, as 20g: what was not used for longest is removed; no limit if not given", forks: "H", status: used},
		{name: "compressed-caching", kind: boolKind, def: "true", help: "keep compressed layers in memory", forks: "GCO", status: noEffect, why: "no layer is ever kept in memory"},
	}
}

func kanikoFlags() []flag {
	return []flag{
		{name: "kaniko-dir", kind: stringKind, help: "directory for the builder's own files; found by trying if not given", forks: "GCO", status: used},
		{name: "work-dir-size", kind: stringKind, help: "what a build's own files may take before it fails with the line of the step, as 8g or as Kubernetes gives limits.ephemeral-storage; no limit if not given", forks: "H", status: used},
		{name: "force", kind: boolKind, def: "false", help: "build outside a container", forks: "GCO", status: noEffect, why: "building outside a container is safe and needs no flag"},
	}
}

func logFlags() []flag {
	return []flag{
		{name: "verbosity", short: "v", kind: stringKind, def: "info", help: "trace, debug, info, warn, error, fatal or panic", forks: "GCO", status: used},
		{name: "log-format", kind: stringKind, def: "color", help: "text, color or json", forks: "GCO", status: used},
		{name: "trace", kind: stringKind, help: "file to write a trace of the build to, in Chrome's format", forks: "H", status: used},
		{name: "log-timestamp", kind: boolKind, def: "false", help: "show the time of day in text and color", forks: "GCO", status: used},
	}
}
