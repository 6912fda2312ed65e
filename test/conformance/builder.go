package conformance

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// Job is one build.
type Job struct {
	Case *Case
	// Context is the directory of the build context; Out is where the OCI layout goes, an empty directory.
	Context, Out string
	// Log takes what the builder has to tell, a line at a time. It may be called from many goroutines.
	Log func(args ...any)
}

// Builder builds images.
type Builder interface {
	// Build leaves the image as an OCI layout in job.Out.
	// A Dockerfile that cannot be built is a *BuildError; any other error is a fault of the test.
	Build(ctx context.Context, job Job) error
}

// BuildError is a build that failed.
type BuildError struct {
	// Text is the builder's message; Line is the line of the Dockerfile that it names, or 0.
	Text string
	Line int
}

// Error is the builder's message.
func (e *BuildError) Error() string { return e.Text }

// BuildKit builds with buildctl and a running buildkitd.
type BuildKit struct {
	// Buildctl is the program; Addr is the daemon's address.
	Buildctl, Addr string
}

var _ Builder = (*BuildKit)(nil)

// Build is Builder's.
func (b *BuildKit) Build(ctx context.Context, job Job) error {
	// BuildKit keeps the files of the last context and takes those of equal size and time for unchanged.
	prune := exec.CommandContext(ctx, b.Buildctl, "--addr", b.Addr, "prune", "--all", "--filter", "type==source.local")
	if out, err := prune.CombinedOutput(); err != nil {
		return fmt.Errorf("run buildctl prune: %w: %s", err, out)
	}
	archive := job.Out + ".tar"
	cmd := exec.CommandContext(ctx, b.Buildctl, b.args(job, archive)...)
	out, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return parseFailure(string(out))
	}
	if err != nil {
		return fmt.Errorf("run buildctl: %w", err)
	}
	return unpack(archive, job.Out)
}

func (b *BuildKit) args(job Job, archive string) []string {
	c := job.Case
	dir, name := filepath.Split(c.Args.Dockerfile)
	args := []string{
		"--addr", b.Addr, "build", "--progress=plain", "--no-cache", "--frontend=dockerfile.v0",
		"--local", "context=" + job.Context, "--local", "dockerfile=" + filepath.Join(job.Context, dir),
		"--opt", "filename=" + name, "--opt", "platform=" + c.Args.Platform,
	}
	output := "type=oci,dest=" + archive
	if c.Args.RewriteTimestamp {
		output += ",rewrite-timestamp=true"
	}
	args = append(args, "--output", output)
	if c.Args.Target != "" {
		args = append(args, "--opt", "target="+c.Args.Target)
	}
	for _, a := range c.Args.BuildArgs {
		args = append(args, "--opt", "build-arg:"+a)
	}
	for _, l := range c.Args.Labels {
		args = append(args, "--opt", "label:"+l)
	}
	args = append(args, mountArgs(job)...)
	for i, context := range c.Args.Contexts {
		args = append(args, contextArgs(job, fmt.Sprintf("named%d", i), context)...)
	}
	return args
}

// mountArgs are what steps mount. Caches live as long as the daemon, so each build has a namespace of its own.
func mountArgs(job Job) []string {
	a := job.Case.Args
	var args []string
	if !slices.ContainsFunc(a.BuildArgs, func(arg string) bool { return strings.HasPrefix(arg, "BUILDKIT_CACHE_MOUNT_NS=") }) {
		args = append(args, "--opt", "build-arg:BUILDKIT_CACHE_MOUNT_NS="+job.Out)
	}
	for _, s := range a.Secrets {
		id, place, _ := strings.Cut(s, "=")
		args = append(args, "--secret", "id="+id+",src="+pathIn(job.Context, place))
	}
	for _, id := range a.Agents {
		args = append(args, "--ssh", id+"="+pathIn(job.Context, keyFile))
	}
	if a.Network != "" {
		args = append(args, "--opt", "force-network-mode="+a.Network)
	}
	return args
}

// layoutScheme starts the place of a named context that is an OCI layout.
const layoutScheme = "oci-layout://"

// contextArgs says "name=place" as buildx does. id names what is sent along.
func contextArgs(job Job, id, context string) []string {
	name, place, _ := strings.Cut(context, "=")
	scheme, dir, beside := strings.Cut(place, besideMark)
	switch {
	case beside && scheme == "":
		return []string{"--local", id + "=" + pathIn(job.Context, place), "--opt", "context:" + name + "=local:" + id}
	case beside && scheme == layoutScheme:
		path, pinned, ok := strings.Cut(dir, "@")
		path, tag, _ := strings.Cut(path, ":")
		path = pathIn(job.Context, besideMark+path)
		if !ok {
			pinned = layoutDigest(path, tag)
		}
		return []string{"--oci-layout", id + "=" + path, "--opt", "context:" + name + "=" + layoutScheme + id + "@" + pinned}
	}
	return []string{"--opt", "context:" + name + "=" + place}
}

// layoutDigest is the digest of the image with the tag in the layout at path.
func layoutDigest(path, tag string) string {
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return err.Error()
	}
	m, err := index.IndexManifest()
	if err != nil {
		return err.Error()
	}
	for _, d := range m.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] == tag {
			return d.Digest.String()
		}
	}
	return "no tag " + tag
}

// parseFailure finds the message and the line in what buildctl wrote.
func parseFailure(out string) error {
	e := &BuildError{}
	if m := regexp.MustCompile(`(?m)^\S*ockerfile\S*:(\d+)$`).FindStringSubmatch(out); m != nil {
		if _, err := fmt.Sscan(m[1], &e.Line); err != nil {
			return fmt.Errorf("parse line: %w", err)
		}
	}
	noise := regexp.MustCompile(`\w+::\w+|/\S*/cachemounts/buildkit\d+`) // names that BuildKit makes up for each build
	for _, l := range strings.Split(out, "\n") {
		if t, ok := strings.CutPrefix(l, "error: "); ok {
			e.Text = noise.ReplaceAllString(t, "…")
		}
	}
	if e.Text == "" {
		return fmt.Errorf("buildctl: %s", out)
	}
	return e
}

// unpack puts the files of a tar of an OCI layout into dir.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("open output: %w", err)
	}
	defer f.Close() // only read
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read output: %w", err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			return fmt.Errorf("read output: %w", err)
		}
		if err := writeFile(filepath.Join(dir, filepath.Clean("/"+h.Name)), b); err != nil {
			return fmt.Errorf("write output: %w", err)
		}
	}
}
