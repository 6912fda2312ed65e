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
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
)

// onBase pushes an image base:1 with a program, and makes a world whose Dockerfile stands on it.
func onBase(t *testing.T, steps string) *world {
	t.Helper()
	w := newWorld(t, "FROM scratch\nCOPY prog /prog\n")
	req := w.request()
	req.Outputs.Destinations = []string{w.host + "/base:1"}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	w.write(t, "Dockerfile", "FROM "+w.host+"/base:1\n"+steps)
	return w
}

// onDisk skips a test of what is kept only where the work directory is no memory.
func (w *world) onDisk(t *testing.T) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(w.work, &st); err != nil || st.Type == unix.TMPFS_MAGIC {
		t.Skip("it needs a TMPDIR on a disk")
	}
}

// sharing is a request whose layers are kept.
func (w *world) sharing() build.Request {
	r := w.request()
	r.Bases.LimitBytes = 1 << 30
	return r
}

// blobs counts how often a layer or a configuration of the base was fetched.
func (w *world) blobs() int { return w.registry.Count(http.MethodGet, "/v2/base/blobs/") }

// left are the names in the work directory, and those of shared layers.
func (w *world) left(t *testing.T) (work, layers []string) {
	t.Helper()
	for dir, out := range map[string]*[]string{w.work: &work, filepath.Join(w.work, "hako-layers"): &layers} {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			*out = append(*out, n.Name())
		}
	}
	return work, layers
}

func TestBuildsShareTheirBases(t *testing.T) {
	t.Parallel()
	w := onBase(t, "RUN [\"/prog\", \"write\", \"/a\", \"one\"]\n")
	w.onDisk(t)
	before := w.blobs()
	var g errgroup.Group
	for i := range 3 {
		g.Go(func() error {
			req := w.sharing()
			req.Outputs.Destinations = []string{fmt.Sprintf("%s/base:out%d", w.host, i)}
			return w.build(t.Context(), req, event.Discard{})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(diag.Format(err))
	}
	const configs, layers = 3, 1
	if n := w.blobs() - before; n != configs+layers {
		t.Errorf("%d blobs were fetched, not %d", n, configs+layers)
	}
	if work, layers := w.left(t); len(work) != 1 || len(layers) != 1 {
		t.Errorf("left: %v, %v", work, layers)
	}
	for i := range 3 {
		if !w.pushed(t, fmt.Sprintf("base:out%d", i)) {
			t.Errorf("out%d was not pushed", i)
		}
	}
}

// TestVolumeOfBases builds twice with a volume and a new work directory, as two pods do, the second time with a volume that
// cannot be written.
func TestVolumeOfBases(t *testing.T) {
	t.Parallel()
	w := onBase(t, "RUN [\"/prog\", \"write\", \"/a\", \"one\"]\n")
	volume := t.TempDir()
	for i, want := range []int{2, 1} { // configuration and layer, then the configuration alone
		before := w.blobs()
		req := w.sharing()
		req.Bases.Dir, req.WorkDir = volume, t.TempDir()
		if err := w.build(t.Context(), req, event.Discard{}); err != nil {
			t.Fatal(diag.Format(err))
		}
		if n := w.blobs() - before; n != want {
			t.Errorf("build %d: %d blobs were fetched, not %d", i, n, want)
		}
		if err := filepath.WalkDir(volume, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				err = os.Chmod(p, 0o555)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := filepath.WalkDir(volume, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o755)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// TestKilledBuildDisturbsNobody kills a builder in the middle of a step, while another one works in the same directory.
func TestKilledBuildDisturbsNobody(t *testing.T) {
	t.Parallel()
	if spec := os.Getenv("BUILD_TEST_HANG"); spec != "" {
		dir, work, _ := strings.Cut(spec, "|")
		env := build.Env{Now: time.Now, Getenv: func(string) string { return "" }, Cwd: dir, Stdout: os.Stdout, Events: &waiter{cancel: func() {
			_, _ = os.Stdout.WriteString("hanging\n")
		}}}
		req := build.Request{
			Context: dir, Dockerfile: filepath.Join(dir, "Hang"), WorkDir: work, Outputs: build.Outputs{NoPush: true},
			Registry: build.Registry{InsecurePull: true}, Bases: build.Bases{LimitBytes: 1 << 30},
		}
		_, err := build.Build(context.Background(), env, req)
		t.Fatal("the build ended: ", err)
	}
	w := onBase(t, "RUN [\"/prog\", \"write\", \"/a\", \"one\"]\n")
	w.onDisk(t)
	w.write(t, "Hang", "FROM "+w.host+"/base:1\nRUN [\"/prog\", \"hang\"]\n")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "BUILD_TEST_HANG="+w.context+"|"+w.work)
	out, err := cmd.StdoutPipe()
	if err := errors.Join(err, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, len("hanging\n"))); err != nil {
		t.Fatal(err)
	}
	other := make(chan error, 1)
	go func() { other <- w.build(t.Context(), w.sharing(), event.Discard{}) }()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	if err := <-other; err != nil {
		t.Error(diag.Format(err))
	}
	if err := w.build(t.Context(), w.sharing(), event.Discard{}); err != nil { // sweeps
		t.Error(diag.Format(err))
	}
	if work, layers := w.left(t); len(work) != 1 || len(layers) != 1 {
		t.Errorf("left: %v, %v", work, layers)
	}
}
