package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"hako/test/conformance"
)

// buildLimit is how long one build may take.
const buildLimit = 2 * time.Minute

// bench builds cases with both builders. It may be used from many goroutines.
type bench struct {
	dir    string
	shared map[string]conformance.ImageSource
	// names says what to call the content of the shell.
	names map[string]string
	// mu guards library.
	mu            sync.Mutex
	library       *conformance.Library
	host          string
	kit           conformance.Builder
	count, failed atomic.Int64
	server        *http.Server
}

// daemon says how BuildKit is reached, at one or more addresses with commas between them, and where it looks for images.
type daemon struct{ addr, buildctl, registry string }

// newBench starts the registry with the images; dir is for everything that it writes.
func newBench(ctx context.Context, d daemon, dir string) (*bench, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.registry)
	if err != nil {
		return nil, fmt.Errorf("listen for the registry: %w", err)
	}
	b := &bench{dir: dir, server: &http.Server{Handler: registry.New(registry.Logger(silent()))}}
	go b.server.Serve(l) //nolint:errcheck // ends with Close
	host := l.Addr().String()
	shell, err := conformance.LoadShell(ctx, dir)
	if err != nil {
		return nil, fmt.Errorf("make shell: %w", err)
	}
	b.names = map[string]string{}
	for _, f := range shell {
		if f.Content != nil {
			b.names[string(f.Content)] = "shell"
		}
	}
	b.shared = map[string]conformance.ImageSource{"base": plainImage + shellPart, "plain": plainImage}
	b.library = conformance.NewLibrary(host, func() ([]conformance.ShellFile, error) { return shell, nil })
	b.host = host
	b.kit = newBuildKit(d)
	return b, os.Mkdir(filepath.Join(dir, "work"), 0o755)
}

// Close ends the registry.
func (b *bench) Close() error { return b.server.Close() }

// outcome is what became of a build: a description, or how it failed.
type outcome struct {
	image  *conformance.Expectation
	failed *conformance.BuildError
}

// refused says whether hako refuses what BuildKit does not, and means to: see docs/exactness.md.
func refused(e *conformance.BuildError) bool {
	return regexp.MustCompile(`is not supported yet|no matching entries in (passwd|group) file`).MatchString(e.Text)
}

// errInvalid is a recipe that makes no case, as a shrunk one can be.
var errInvalid = errors.New("invalid case")

// trial is a recipe ready to be built.
type trial struct {
	bench   *bench
	c       *conformance.Case
	images  map[string][]v1.Image
	dir     string
	context string
}

// prepare writes the context and pushes the images of a recipe. The caller removes t.dir.
func (b *bench) prepare(r recipe) (*trial, error) {
	dir, err := os.MkdirTemp(b.dir, "case")
	if err != nil {
		return nil, err
	}
	t := &trial{bench: b, dir: dir, context: filepath.Join(dir, "context")}
	return t, t.load(r)
}

func (t *trial) load(r recipe) error {
	file := filepath.Join(t.dir, "case.txtar")
	if err := os.WriteFile(file, []byte(r.text()), 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(t.context, 0o755); err != nil {
		return err
	}
	if !r.sound() {
		return errInvalid
	}
	var err error
	if t.c, err = conformance.LoadCase(file, t.bench.shared); err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	if err := t.c.WriteContext(t.context); err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	t.bench.mu.Lock()
	defer t.bench.mu.Unlock()
	if t.images, err = t.bench.library.Push(t.c); err != nil {
		return fmt.Errorf("%w: %w", errInvalid, err)
	}
	return nil
}

// errFault is an error of the test, not of a builder.
var errFault = errors.New("cannot build")

// build builds with one builder. An error is a fault of the result, or errFault.
func (t *trial) build(ctx context.Context, builder conformance.Builder, name string) (outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, buildLimit)
	defer cancel()
	out := filepath.Join(t.dir, name)
	err := builder.Build(ctx, conformance.Job{Case: t.c, Context: t.context, Out: out})
	if e := (*conformance.BuildError)(nil); errors.As(err, &e) {
		return outcome{failed: e}, nil
	}
	if err != nil {
		return outcome{}, fmt.Errorf("%w: %w", errFault, err)
	}
	res, err := conformance.OpenResult(out)
	if err != nil {
		return outcome{}, err
	}
	e, err := conformance.Describe(res, t.images, t.bench.names)
	if err != nil {
		return outcome{}, err
	}
	e.DropTimes()
	return outcome{image: e}, nil
}

// compare builds a recipe with both and says how they differ, "" if not at all.
// The second result is a failure that is no difference.
// A difference of another kind than the wanted one, unless that is empty, may be missed.
func (b *bench) compare(ctx context.Context, r recipe, kind string) (string, *conformance.BuildError, error) {
	b.count.Add(1)
	t, err := b.prepare(r)
	if t != nil {
		defer os.RemoveAll(t.dir) //nolint:errcheck // the whole directory goes in the end
	}
	if errors.Is(err, errInvalid) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	ours := &hako{registry: b.host, workDir: filepath.Join(b.dir, "work")}
	got, err := t.build(ctx, ours, "hako")
	if errors.Is(err, errFault) {
		return "", nil, err
	}
	if err != nil {
		return "hako's result: " + err.Error(), nil, nil
	}
	if kind != "" && (got.failed != nil) != strings.HasPrefix(kind, "only hako fails") {
		return "", nil, nil
	}
	want, err := t.build(ctx, b.kit, "buildkit")
	if errors.Is(err, errFault) {
		return "", nil, err
	}
	if err != nil {
		return "BuildKit's result: " + err.Error(), nil, nil
	}
	switch {
	case got.failed != nil && want.failed != nil:
		b.failed.Add(1)
		return "", got.failed, nil
	case got.failed != nil && (refused(got.failed) || missingPart(r, got.failed)):
		return "", got.failed, nil
	case got.failed != nil:
		return "only hako fails: " + got.failed.Text, nil, nil
	case want.failed != nil && (accepted(want.failed, ours) || t.linkToNowhere(want.failed)):
		return "", want.failed, nil
	case want.failed != nil:
		return "only BuildKit fails: " + want.failed.Text, nil, nil
	}
	_, bodies := r.render()
	diff, err := difference(want.image, got.image, !strings.Contains(bodies[dockerfile], "COPY --from="))
	return diff, nil, err
}

// accepted says whether a failure is only BuildKit's with our consent: see "wildcards" and --parents in docs/exactness.md.
func accepted(e *conformance.BuildError, ours *hako) bool {
	if regexp.MustCompile(`: failed to stat \S+: lstat \S+: not a directory$`).MatchString(e.Text) {
		return true
	}
	return regexp.MustCompile(`: lstat \S+: no such file or directory$`).MatchString(e.Text) && ours.warned("no file matches")
}

// missingPart says whether hako missed a source of COPY --from --parents, which BuildKit does not always: see docs/exactness.md.
func missingPart(r recipe, e *conformance.BuildError) bool {
	_, bodies := r.render()
	lines := strings.Split(bodies[dockerfile], "\n")
	return e.Line > 0 && e.Line <= len(lines) && strings.Contains(lines[e.Line-1], "--from=") &&
		strings.Contains(lines[e.Line-1], "--parents") && regexp.MustCompile(`not found in (stage|image) `).MatchString(e.Text)
}

// linkToNowhere says whether BuildKit failed because of a symbolic link that it did not send with what it leads to, or followed although nobody asked for that:
// see docs/exactness.md.
func (t *trial) linkToNowhere(e *conformance.BuildError) bool {
	if strings.HasSuffix(e.Text, ": too many links") {
		return true
	}
	m := regexp.MustCompile(`failed to calculate checksum of ref \S+ "/([^"]+)": not found$`).FindStringSubmatch(e.Text)
	if m == nil {
		return false
	}
	_, err := os.Readlink(filepath.Join(t.context, m[1]))
	return err == nil
}

// buildkit builds with several daemons, each of which does one build at a time:
// BuildKit takes a file for unchanged that has the size and the time of one of the last context.
type buildkit struct {
	daemons chan *conformance.BuildKit
	count   atomic.Int64
}

var _ conformance.Builder = (*buildkit)(nil)

func newBuildKit(d daemon) *buildkit {
	addrs := strings.Split(d.addr, ",")
	k := &buildkit{daemons: make(chan *conformance.BuildKit, len(addrs))}
	for _, a := range addrs {
		k.daemons <- &conformance.BuildKit{Buildctl: d.buildctl, Addr: a}
	}
	return k
}

// Build is Builder's.
func (k *buildkit) Build(ctx context.Context, job conformance.Job) error {
	d := <-k.daemons
	defer func() { k.daemons <- d }()
	if k.count.Add(1)%prunePeriod == 0 {
		if out, err := exec.CommandContext(ctx, d.Buildctl, "--addr", d.Addr, "prune", "--all").CombinedOutput(); err != nil {
			return fmt.Errorf("prune: %w: %s", err, out)
		}
	}
	return d.Build(ctx, job)
}

// prunePeriod is the number of builds after which a daemon has to forget all.
const prunePeriod = 99
