package sentry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/sandbox/remote"
	"hako/internal/tree"
)

// loops is a program that writes a byte and never ends, exits one that does nothing.
func loops() []byte { return staticELF(machine, append(writeCode(), pauseCode()...)) }
func exits() []byte { return staticELF(machine, exitCode()) }

// program is a layer that holds one executable, /run.
type program []byte

func (p program) Each(_ context.Context, fn func(tree.Entry, io.Reader) error) error {
	e := tree.Entry{Path: "run", Kind: tree.Regular, Mode: 0o755, Size: int64(len(p)), ModTime: time.Unix(0, 0)}
	return fn(e, bytes.NewReader(p))
}

// stackOf makes a stack of one layer that counts how often it is opened.
func stackOf(t testing.TB, p program) ([]rootfs.Lower, *atomic.Int32) {
	t.Helper()
	fd, err := unix.MemfdCreate("layer", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	w, err := layer.Write(t.Context(), p, io.Discard, layer.WriteOptions{Image: os.NewFile(uintptr(fd), "layer")})
	if err != nil {
		t.Fatal(err)
	}
	var opened atomic.Int32
	return []rootfs.Lower{{ID: w.DiffID, Open: func(context.Context) (*rootfs.Mountable, error) {
		opened.Add(1)
		return &rootfs.Mountable{Image: w.Image}, nil
	}}}, &opened
}

// needSandbox skips a test on machines that do not allow what a sandbox needs, and fails it where they are known to.
func needSandbox(t testing.TB) {
	t.Helper()
	_, err := Probe(t.Context(), Options{})
	switch {
	case err == nil:
	case os.Getenv("HAKO_CI") != "":
		t.Fatal(err)
	default:
		t.Skip("needs a machine that allows ptrace and seccomp: ", err)
	}
}

func newEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	needSandbox(t)
	e, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func runStep(lowers []rootfs.Lower) *sandbox.Step {
	return &sandbox.Step{Name: "test", Lowers: lowers, Args: []string{"/run"}, Dir: "/", Stdout: io.Discard, Stderr: io.Discard}
}

// killChild ends the engine's child the hard way and waits until that is noticed.
func (e *Engine) killChild(t *testing.T) {
	t.Helper()
	p := e.Child()
	if err := p.Signal(unix.SIGABRT); err != nil {
		t.Fatal(err)
	}
	<-p.Gone()
}

func TestCrashBetweenStepsLosesNothing(t *testing.T) {
	t.Parallel()
	e := newEngine(t, Options{})
	lowers, opened := stackOf(t, exits())
	kept := rootfs.Lower{ID: digest.FromString("kept"), Open: lowers[0].Open}
	out, err := e.Run(t.Context(), runStep(lowers))
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Keep(kept.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Run(t.Context(), runStep(append(lowers, kept))); err != nil {
		t.Fatal(err)
	}
	if n := opened.Load(); n != 1 {
		t.Errorf("opened %d times, want once", n)
	}
	e.killChild(t)
	if err := errors.Join(out.Keep(digest.FromString("late")), out.Close(), out.Close()); err != nil {
		t.Errorf("an outcome whose sentry is gone: %v", err)
	}
	again, err := e.Run(t.Context(), runStep(append(lowers, kept)))
	if err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	if n := opened.Load(); n != 3 {
		t.Errorf("opened %d times, want both lowers once more", n)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

func TestCrashDuringAStepIsRetriedOnceAndReported(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var crashes []*CrashError
	e := newEngine(t, Options{Crashed: func(c *CrashError) {
		mu.Lock()
		defer mu.Unlock()
		crashes = append(crashes, c)
	}})
	lowers, _ := stackOf(t, loops())
	done, running := make(chan error), make(starts, 1)
	step := runStep(lowers)
	step.Stdout = running
	go func() {
		_, err := e.Run(t.Context(), step)
		done <- err
	}()
	for range 2 {
		running.wait(t)
		e.killChild(t)
	}
	err := <-done
	var crash *CrashError
	if !errors.As(err, &crash) || !strings.Contains(crash.Log, "SIGABRT") {
		t.Errorf("got %v, want a crash with its log", err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(crashes) != 1 {
		t.Errorf("%d crashes reported, want 1", len(crashes))
	}
}

// starts is the output of loops: it has an element for each time that it was started.
type starts chan struct{}

func (s starts) Write(p []byte) (int, error) {
	s <- struct{}{}
	return len(p), nil
}

// wait returns when loops runs once more.
func (s starts) wait(t *testing.T) {
	t.Helper()
	select {
	case <-s:
	case <-t.Context().Done():
		t.Fatal("the step does not run")
	}
}

func TestCloseEndsStepsAndEngine(t *testing.T) {
	t.Parallel()
	e := newEngine(t, Options{})
	lowers, _ := stackOf(t, loops())
	done, running := make(chan error), make(starts, 1)
	step := runStep(lowers)
	step.Stdout = running
	go func() {
		_, err := e.Run(t.Context(), step)
		done <- err
	}()
	running.wait(t)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, remote.ErrClosed) {
		t.Errorf("got %v, want %v", err, remote.ErrClosed)
	}
}

func TestUpperFileHoldsFilesThatRun(t *testing.T) {
	t.Parallel()
	file, err := os.CreateTemp(t.TempDir(), "uppers")
	if err != nil {
		t.Fatal(err)
	}
	keep, err := os.Open(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	defer keep.Close() //nolint:errcheck // only read
	e := newEngine(t, Options{UpperFile: func() (*os.File, error) { return file, nil }})
	lowers, _ := stackOf(t, exits())
	image, err := lowers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The program gets an xattr, and so comes from the patch, whose data lies where that of uppers does.
	run := image.Image.Index.Entries[len(image.Image.Index.Entries)-1]
	run.Xattrs = map[string]string{"user.x": "y"}
	patch := rootfs.Patch{Entries: []rootfs.PatchEntry{
		{Entry: tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755}, Offset: -1},
		{Entry: run.Entry, Offset: run.Offset},
	}}
	lowers[0].Open = func(context.Context) (*rootfs.Mountable, error) {
		return &rootfs.Mountable{Image: image.Image, Patch: patch}, nil
	}
	out, err := e.Run(t.Context(), runStep(lowers))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	err = out.Changes().Each(t.Context(), func(e tree.Entry, _ io.Reader) error {
		names = append(names, e.Path)
		return nil
	})
	if d := cmp.Diff([]string{"dev", "proc", "sys"}, names); err != nil || d != "" {
		t.Errorf("%v, changes (-want +got):\n%s", err, d)
	}
	st, err := keep.Stat()
	if err != nil || st.Size() < int64(len(exits())) {
		t.Errorf("the file has %v bytes, %v", st.Size(), err)
	}
}

func TestChangesStopWhenTheirReaderDoes(t *testing.T) {
	t.Parallel()
	e := newEngine(t, Options{})
	lowers, _ := stackOf(t, exits())
	out, err := e.Run(t.Context(), runStep(lowers))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() //nolint:errcheck // reported elsewhere
	errEnough := errors.New("enough")
	if err := out.Changes().Each(t.Context(), func(tree.Entry, io.Reader) error { return errEnough }); !errors.Is(err, errEnough) {
		t.Errorf("got %v, want %v", err, errEnough)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errEnough)
	if err := out.Changes().Each(ctx, func(tree.Entry, io.Reader) error { return nil }); !errors.Is(err, errEnough) {
		t.Errorf("got %v, want %v", err, errEnough)
	}
}
