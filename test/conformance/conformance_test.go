package conformance

import (
	"context"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"

	"hako/internal/image/imagetest"
	"hako/internal/sandbox/choice"
	"hako/internal/sandbox/native"
)

// options are the flags of the test.
type options struct {
	update             bool
	buildkit, buildctl string
	registry           string
}

func parseOptions() options {
	var o options
	get := func(name string) string { return flag.Lookup(name).Value.String() }
	o.update = get("update") == "true"
	o.buildkit, o.buildctl, o.registry = get("buildkit"), get("buildctl"), get("registry")
	return o
}

func TestMain(m *testing.M) {
	if choice.IsChild(os.Args) {
		os.Exit(choice.ChildMain())
	}
	flag.Bool("update", false, "make the expectations anew with BuildKit instead of comparing hako with them")
	flag.String("buildkit", "", "address of buildkitd, for -update")
	flag.String("buildctl", "buildctl", "the program buildctl, for -update")
	flag.String("registry", "127.0.0.1:0", "where the registry with the images of the cases listens")
	flag.Parse()
	os.Exit(m.Run())
}

// patience is how long one build may take.
const patience = 2 * time.Minute

// suite is what the cases share.
type suite struct {
	options options
	shared  map[string]ImageSource
	shell   []ShellFile
	host    string
	files   *Server
	// mu guards library.
	mu      sync.Mutex
	library *Library
	builder Builder
}

// newSuite readies a suite whose steps run in sandbox.
func newSuite(t *testing.T, sandbox choice.Mode) *suite {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the expectations are those of linux/amd64")
	}
	s := &suite{options: parseOptions()}
	var err error
	if s.shared, err = LoadImages("testdata/images.txtar"); err != nil {
		t.Fatal(err)
	}
	s.host = listen(t, s.options.registry, registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	s.files = NewServer()
	at := "127.0.0.1:0"
	if s.options.update {
		at = filesAddress
	}
	filesHost := listen(t, at, s.files)
	if s.shell, err = loadShell(t.Context(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
	s.library = NewLibrary(s.host, func() ([]ShellFile, error) { return s.shell, nil })
	if s.options.update {
		s.builder = &BuildKit{Buildctl: s.options.buildctl, Addr: s.options.buildkit}
	} else {
		s.builder = &Hako{Registry: s.host, Files: filesHost, WorkDir: t.TempDir(), Sandbox: sandbox}
	}
	return s
}

// listen serves at the address as long as the test runs, and returns the address.
func listen(t *testing.T, address string, h http.Handler) string {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: h}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// needGit skips where git cannot serve repositories.
func needGit(t *testing.T) {
	t.Helper()
	git, err := exec.LookPath("git")
	if err == nil {
		err = exec.Command(git, "--exec-path").Run()
	}
	if err != nil {
		t.Skip("needs git")
	}
}

// TestConformance runs every case; steps run in the sentry, which works everywhere.
func TestConformance(t *testing.T) {
	newSuite(t, choice.Sentry).runAll(t, "")
}

// TestConformanceNative runs the cases that have steps, natively.
func TestConformanceNative(t *testing.T) {
	s := newSuite(t, choice.Native)
	if s.options.update {
		t.Skip("BuildKit has one engine")
	}
	if _, err := native.Probe(t.Context(), native.Options{Dir: t.TempDir()}); err != nil {
		if os.Getenv("HAKO_CI") != "" && os.Geteuid() == 0 {
			t.Fatal(err)
		}
		t.Skip("needs the right to mount in namespaces: ", err)
	}
	s.runAll(t, "RUN")
}

// runAll runs the cases that have word in them.
func (s *suite) runAll(t *testing.T, word string) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if filepath.Base(f) == "images.txtar" {
			continue
		}
		if text, err := os.ReadFile(f); err != nil || !strings.Contains(string(text), word) {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txtar"), func(t *testing.T) {
			if !s.options.update {
				t.Parallel()
			}
			s.run(t, f)
		})
	}
}

// run builds one case and compares, or writes what it got as the expectation.
func (s *suite) run(t *testing.T, path string) {
	c, err := LoadCase(path, s.shared)
	if err != nil {
		t.Fatal(err)
	}
	got, buildErr := s.build(t, c)
	golden := strings.TrimSuffix(path, ".txtar") + ".json"
	if s.options.update {
		checkFailure(t, c.Failure, buildErr, false)
		if buildErr != nil {
			got = &Expectation{Error: buildErr.Text}
		}
		if err := got.Save(golden); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := LoadExpectation(golden)
	if err != nil {
		t.Fatal(err)
	}
	failure := c.Failure
	if c.Refused != nil {
		failure = c.Refused
	}
	checkFailure(t, failure, buildErr, true)
	if buildErr != nil {
		return
	}
	if diff := cmp.Diff(want, reload(t, got)); diff != "" {
		t.Errorf("BuildKit's (-) and hako's (+):\n%s", diff)
	}
}

// build returns what became of the case: a description, or how the build failed.
func (s *suite) build(t *testing.T, c *Case) (*Expectation, *BuildError) {
	t.Helper()
	job := Job{Case: c, Context: t.TempDir(), Out: filepath.Join(t.TempDir(), "out"), Log: t.Log}
	images, err := s.push(c)
	if err != nil {
		t.Fatal(err)
	}
	c.built = images
	if c.needsGit() {
		needGit(t)
	}
	if err := c.WriteRepositories(pathIn(job.Context, besideMark+"git")); err != nil {
		t.Fatal(err)
	}
	if err := s.files.Add(job); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteKey(job.Context); err != nil {
		t.Fatal(err)
	}
	err = c.WriteContext(job.Context)
	if errors.Is(err, unix.ENOTSUP) {
		t.Skip("needs a temporary directory with extended attributes")
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the build takes too long"))
	defer cancel()
	err = s.builder.Build(ctx, job)
	if e := (*BuildError)(nil); errors.As(err, &e) {
		return nil, e
	}
	if err != nil {
		t.Fatal(err)
	}
	if !s.options.update { // BuildKit writes "layers": null
		if err := imagetest.CheckLayout(job.Out); err != nil {
			t.Error(err)
		}
	}
	results, err := OpenResults(job.Out)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if err := r.CheckKept(c.Kept); err != nil && !s.options.update {
			t.Error(err)
		}
	}
	e, err := DescribeAll(results, images, s.names())
	if err != nil {
		t.Fatal(err)
	}
	if !c.Times {
		e.DropTimes()
	}
	return e, nil
}

func (s *suite) push(c *Case) (map[string][]v1.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.library.Push(c)
}

// names calls the shell's program "shell", whatever its bytes are.
func (s *suite) names() map[string]string {
	names := map[string]string{}
	for _, f := range s.shell {
		if f.Content != nil {
			names[string(f.Content)] = "shell"
		}
	}
	return names
}

// checkFailure compares how the build ended with what the case says; with strict, it looks at the text too.
func checkFailure(t *testing.T, want *Failure, got *BuildError, strict bool) {
	t.Helper()
	switch {
	case want == nil && got == nil:
	case want == nil:
		t.Fatalf("build: %v (line %d)", got, got.Line)
	case got == nil:
		t.Fatalf("build succeeded, want a failure in line %d: %s", want.Line, want.Text)
	case strict && got.Line != want.Line:
		t.Errorf("error names line %d, want %d: %s", got.Line, want.Line, got.Text)
	case strict && !strings.Contains(got.Text, want.Text):
		t.Errorf("error is %q, want something with %q", got.Text, want.Text)
	case got.Line != 0 && got.Line != want.Line:
		t.Logf("BuildKit names line %d, the case %d: %s", got.Line, want.Line, got.Text)
	}
}

// reload gives e the types that it has after it was stored and read again.
func reload(t *testing.T, e *Expectation) *Expectation {
	t.Helper()
	p := filepath.Join(t.TempDir(), "got.json")
	if err := e.Save(p); err != nil {
		t.Fatal(err)
	}
	e, err := LoadExpectation(p)
	if err != nil {
		t.Fatal(err)
	}
	return e
}
