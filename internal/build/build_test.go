package build_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"golang.org/x/sync/errgroup"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/registry/registrytest"
	"hako/internal/sandbox"
	"hako/internal/sandbox/choice"
)

// The test binary is the sandbox's child, and builds that are killed.
func TestMain(m *testing.M) {
	if choice.IsChild(os.Args) {
		os.Exit(choice.ChildMain())
	}
	if spec := os.Getenv(childVariable); spec != "" {
		os.Exit(cacheChild(spec))
	}
	os.Exit(m.Run())
}

// compileStep makes the program of the images in dir: static, whatever the test itself is.
func compileStep(t testing.TB, dir string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags", "-s -w", "-o", filepath.Join(dir, "prog"), "./testdata/step")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("compile the step: %v\n%s", err, out)
	}
}

// world is a registry, a context and a work directory.
type world struct {
	registry *registrytest.Registry
	host     string
	context  string
	work     string
}

func newWorld(t *testing.T, dockerfile string) *world {
	t.Helper()
	w := &world{registry: registrytest.New(), context: t.TempDir(), work: t.TempDir()}
	w.host = w.registry.Start(t)
	compileStep(t, w.context)
	w.write(t, "Dockerfile", dockerfile)
	return w
}

func (w *world) write(t *testing.T, name, data string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.context, name), []byte(data), 0o755); err != nil {
		t.Fatal(err)
	}
}

func (w *world) request() build.Request {
	return build.Request{
		Context: w.context, Dockerfile: filepath.Join(w.context, "Dockerfile"), WorkDir: w.work,
		Outputs:  build.Outputs{Destinations: []string{w.host + "/out:1"}},
		Registry: build.Registry{Insecure: true, InsecurePull: true},
	}
}

func (w *world) build(ctx context.Context, req build.Request, sink event.Sink) error {
	_, err := build.Build(ctx, build.Env{
		Now: time.Now, Getenv: func(string) string { return "" }, Cwd: w.context, Stdout: os.Stdout, Events: sink,
	}, req)
	return err
}

// pushed says whether the tag exists, and checks the image behind it.
func (w *world) pushed(t *testing.T, tag string) bool {
	t.Helper()
	ref, err := name.ParseReference(w.host + "/" + tag)
	if err != nil {
		t.Fatal(err)
	}
	im, err := remote.Image(ref)
	if err != nil {
		return false
	}
	if err := validate.Image(im); err != nil {
		t.Errorf("%s: %v", tag, err)
	}
	return true
}

// empty fails the test if the work directory holds anything.
func (w *world) empty(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(w.work, func(p string, d os.DirEntry, err error) error {
		if err == nil && p != w.work {
			t.Errorf("left behind: %s", p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

const runs = `FROM scratch AS a
COPY prog /prog
RUN ["/prog", "write", "/a", "one"]
FROM scratch AS b
COPY prog /prog
RUN ["/prog", "write", "/b", "two"]
RUN ["/prog", "write", "/b", "three"]
FROM a
COPY --from=b /b /from-b
`

func TestBuildsAtTheSameTimeInOneWorkDirectory(t *testing.T) {
	t.Parallel()
	w := newWorld(t, runs)
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			req := w.request()
			req.Outputs.Destinations = []string{fmt.Sprintf("%s/out:%d", w.host, i)}
			return w.build(t.Context(), req, event.Discard{})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(diag.Format(err))
	}
	for i := range 4 {
		if !w.pushed(t, fmt.Sprintf("out:%d", i)) {
			t.Errorf("out:%d was not pushed", i)
		}
	}
	w.empty(t)
}

func TestFailingRunKeepsItsExitCodeAndPushesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY prog /prog\nRUN [\"/prog\", \"exit\"]\n")
	err := w.build(t.Context(), w.request(), event.Discard{})
	var exit *sandbox.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("got %v, want exit code 42", err)
	}
	var d *diag.Error
	if !errors.As(err, &d) || d.Span.Start != 3 {
		t.Errorf("got %v, want the position of line 3", err)
	}
	if w.pushed(t, "out:1") {
		t.Error("the tag exists")
	}
	w.empty(t)
}

func TestTagAppearsOnlyWhenEverythingIsThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY prog /prog\n")
	w.registry.Inject(registrytest.Fault{Method: http.MethodPut, Path: "/blobs/", Status: http.StatusForbidden})
	err := w.build(t.Context(), w.request(), event.Discard{})
	if err == nil {
		t.Fatal("the push succeeded")
	}
	if w.pushed(t, "out:1") {
		t.Error("the tag exists")
	}
	if n := w.registry.Count(http.MethodPut, "/manifests/"); n != 0 {
		t.Errorf("%d manifests were sent", n)
	}
	w.empty(t)
}

// waiter cancels a build when a step says that it hangs.
type waiter struct {
	once   sync.Once
	cancel func()
}

func (w *waiter) Emit(e event.Event) {
	if o, ok := e.(event.StepOutput); ok && strings.Contains(string(o.Line), "hanging") {
		w.once.Do(w.cancel)
	}
}

func TestCancellationEndsARunningStep(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "FROM scratch\nCOPY prog /prog\nRUN [\"/prog\", \"hang\"]\n")
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	stopped := errors.New("somebody pressed a key")
	err := w.build(ctx, w.request(), &waiter{cancel: func() { cancel(stopped) }})
	if !errors.Is(err, stopped) {
		t.Errorf("got %v, want %v", err, stopped)
	}
	w.empty(t)
}

func TestSourcesAreNotChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t, runs)
	before := listing(t, w.context)
	if err := w.build(t.Context(), w.request(), event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	if after := listing(t, w.context); after != before {
		t.Errorf("the context was\n%sand is\n%s", before, after)
	}
}

// listing describes every file of a directory with its times.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, p, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
