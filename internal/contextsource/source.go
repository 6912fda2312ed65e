// Package contextsource opens a build context from wherever it comes: a directory, an archive, standard input, a URL, a git
// repository, a bucket, a registry.
//
// What is not a directory of this machine is fetched once, before the build, into files of the work directory that have no
// name, and is a tree from then on: nothing of it can lead out of it, and nothing is left of it afterwards.
package contextsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"hako/internal/bucket"
	"hako/internal/buildcontext"
	"hako/internal/diag"
	"hako/internal/download"
	"hako/internal/event"
	"hako/internal/gittree"
	"hako/internal/registry"
	"hako/internal/tree"
)

// Request is a context that is wanted.
type Request struct {
	// Place is where it comes from, as --context has it.
	Place string
	// Title is what people call it ("build context", "context docs"), Flag where it was given ("--context").
	Title, Flag string
	// Dockerfile is the path of the Dockerfile as given, SubPath the directory that takes the context's place.
	Dockerfile, SubPath string
	// Given is the Dockerfile if it is from elsewhere.
	Given *buildcontext.File
	// Further says that it is a context without a Dockerfile of its own.
	Further bool
	// Input is standard input; nil if it cannot be the context.
	Input io.Reader
	// Git says how a git repository is fetched.
	Git Git
}

// Options says what the sources are opened with. What a scheme does not need may be missing.
type Options struct {
	// Cwd is the absolute directory that relative paths are relative to.
	Cwd string
	// Now is the time of what has none.
	Now time.Time
	// Getenv looks up the environment, for credentials and endpoints.
	Getenv func(string) string
	// File makes an empty file without a name. It must be set.
	File func(name string) (*os.File, error)
	// Download, Git and Registry reach servers.
	Download *download.Client
	Git      gittree.Options
	Registry *registry.Client
	// MaxBytes bounds what an archive may hold unpacked, and what is fetched of it or of a git repository; 0 means 1 TiB.
	MaxBytes int64
	// Events receives progress and warnings; nil drops them.
	Events event.Sink
}

// Source is an open build context before anything is left out of it.
type Source struct {
	// Tree is what it holds; nil if it is a directory of this machine, whose path is Directory then, as written.
	Tree      tree.Tree
	Directory string
	// Name is what people call it, without secrets.
	Name string
	// URI says where it came from to others, and Digest what it was: "sha256:…" of a file, "sha1:…" of a commit.
	// Both are empty for what only this machine knows.
	URI, Digest string
	// Time is that of the commit or of the file; nil if it is not known.
	Time *time.Time
	// SubPathTaken says that Tree is already the directory that [Request].SubPath names.
	SubPathTaken bool
	// Dockerfile is the Dockerfile if the source is nothing else; nil otherwise.
	Dockerfile *buildcontext.File

	closers []func() error
}

// Close frees what was fetched. It is idempotent.
func (s *Source) Close() error {
	var errs []error
	for i := len(s.closers) - 1; i >= 0; i-- {
		errs = append(errs, s.closers[i]())
	}
	s.closers = nil
	return errors.Join(errs...)
}

// kind is the way that a context is fetched.
type kind uint8

const (
	directory kind = iota + 1
	archiveFile
	standardInput
	gitRepository
	webFile
	bucketObject
	artifact
)

// opener opens one context.
type opener struct {
	Options
	req Request
}

// Open opens a context. What the user can mend is a *diag.Error without a position;
// no secret is in it. When ctx ends, Open returns its cause. The caller closes the source, and reads its tree no longer then.
func Open(ctx context.Context, o Options, r Request) (*Source, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if o.Events == nil {
		o.Events = event.Discard{}
	}
	op := &opener{Options: o, req: r}
	k, err := op.kindOf()
	if err != nil {
		return nil, err
	}
	switch k {
	case directory:
		return &Source{Directory: r.Place, Name: r.Place}, nil
	case archiveFile:
		return op.openArchiveFile(ctx)
	case standardInput:
		return op.openStandardInput(ctx)
	case gitRepository:
		return op.openGit(ctx)
	case webFile:
		return op.openWebFile(ctx)
	case bucketObject:
		return op.openBucket(ctx)
	case artifact:
		return op.openArtifact(ctx)
	}
	panic("unknown kind of context") // kindOf returns no other
}

// kindOf tells how a context is fetched by how it is written.
func (o *opener) kindOf() (kind, error) {
	text := o.req.Place
	if IsStandardInput(text) {
		return standardInput, nil
	}
	if o.isGit() {
		return gitRepository, nil
	}
	scheme, _, ok := strings.Cut(text, "://")
	if !ok {
		return directory, nil
	}
	switch scheme {
	case "dir":
		return directory, nil
	case "tar":
		return archiveFile, nil
	case "http", "https":
		if bucket.IsAzure(text) {
			return bucketObject, nil
		}
		return webFile, nil
	case "s3", "gs":
		return bucketObject, nil
	case "oci":
		return artifact, nil
	}
	e := &diag.Error{
		What: fmt.Sprintf("%s %s://…: there is no such kind of context", o.req.Title, scheme),
		Hint: "Use a directory, dir://, tar://, git://, ssh://, http://, https://, s3://, gs:// or oci://.",
	}
	if near, ok := diag.Nearest(scheme, []string{"dir", "tar", "git", "ssh", "http", "https", "s3", "gs", "oci"}); ok {
		e.Hint = fmt.Sprintf("Did you mean %s://?", near)
	}
	return 0, e
}
