package native_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/sandbox/native"
	"hako/internal/sandbox/sandboxtest"
	"hako/internal/tree"
)

// applet is a layer that holds the suite's program, /do.
type applet []byte

// Each implements [layer.Changes].
func (a applet) Each(_ context.Context, fn func(tree.Entry, io.Reader) error) error {
	e := tree.Entry{Path: "do", Kind: tree.Regular, Mode: 0o755, Size: int64(len(a)), ModTime: time.Unix(0, 0)}
	return fn(e, bytes.NewReader(a))
}

// lowers is a root file system with nothing but the suite's program.
func lowers(t testing.TB) []rootfs.Lower {
	t.Helper()
	program, err := sandboxtest.Applet(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("layer", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	w, err := layer.Write(t.Context(), applet(program), io.Discard, layer.WriteOptions{Image: os.NewFile(uintptr(fd), "layer")})
	if err != nil {
		t.Fatal(err)
	}
	s := rootfs.NewStack(rootfs.Source{DiffID: w.DiffID, Open: func(context.Context) (*layer.Image, error) { return w.Image, nil }})
	return s.Lowers()
}

// TestStepsCannotReachOut tries what would reach the machine or the builder. Everything in it must fail in a step.
func TestStepsCannotReachOut(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	own := strconv.Itoa(os.Getpid())
	attempts := map[string][]string{
		"read a file of the machine":         {"no such file", "cat", secret},
		"see a process of the machine":       {"no such file", "cat", "/proc/" + own + "/cmdline"},
		"see the child's files":              {"no such file", "ls", "/d"},
		"mount":                              {"not permitted", "mount", "/tmp"},
		"write a kernel parameter":           {"read-only", "write", "/proc/sys/kernel/core_pattern", "x"},
		"change a setting of a device":       {"read-only", "mkdir", "/sys/x"},
		"change what it is given to resolve": {"read-only", "write", "/etc/resolv.conf", "x"},
	}
	l := lowers(t)
	for _, rung := range []native.Rung{native.Direct, native.OwnMap} {
		t.Run(rung.String(), func(t *testing.T) {
			t.Parallel()
			e := newEngine(t, rung)
			defer func() {
				if err := e.Close(); err != nil {
					t.Error(err)
				}
			}()
			for name, args := range attempts {
				if _, errs, err := try(t, e, l, append([]string{"mkdir", "/tmp", ";", "fails"}, args...)); err != nil {
					t.Errorf("%s: %v %s", name, err, errs)
				}
			}
			out, _, err := try(t, e, l, []string{"env", ";", "status", "Seccomp", "CapBnd", ";", "procs"})
			if want := "\nCapBnd: 00000000a80425fb\nSeccomp: 2\n1\n"; err != nil || out != want {
				t.Errorf("got %q, %v, want %q", out, err, want)
			}
		})
	}
}

// TestDevicesCannotBeOpened makes the node of a disk, which a step with CAP_MKNOD may, and of memory, and opens them.
func TestDevicesCannotBeOpened(t *testing.T) {
	t.Parallel()
	e := newEngine(t, native.Direct)
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	l := lowers(t)
	for _, dir := range []string{"/", "/dev/", "/dev/shm/"} {
		args := []string{"mknod", dir + "disk", "0060666", "254", "0", ";", "fails", "permission denied", "cat", dir + "disk",
			";", "mknod", dir + "mem", "0020666", "1", "1", ";", "fails", "permission denied", "cat", dir + "mem"}
		if _, errs, err := try(t, e, l, args); err != nil {
			t.Errorf("in %s: %v %s", dir, err, errs)
		}
	}
}

// try runs the suite's program with args.
func try(t *testing.T, e sandbox.Engine, l []rootfs.Lower, args []string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs bytes.Buffer
	o, err := e.Run(t.Context(), &sandbox.Step{
		Name: "test", Lowers: l, Args: append([]string{"/do"}, args...), Dir: "/", Stdout: &out, Stderr: &errs,
	})
	if err == nil {
		err = o.Close()
	}
	return out.String(), errs.String(), err
}

// TestNothingReachesTheMachine wants the machine's mounts and the data directory as they were when an engine is closed.
func TestNothingReachesTheMachine(t *testing.T) {
	dir := t.TempDir()
	mounts := func() int {
		b, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(b), dir)
	}
	e, err := native.New(t.Context(), native.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Ready(t.Context()); err != nil {
		t.Skip("needs a machine that allows it: ", err)
	}
	if _, errs, err := try(t, e, lowers(t), []string{"write", "/x", "1"}); err != nil {
		t.Fatal(err, errs)
	}
	if n := mounts(); n != 0 {
		t.Errorf("%d mounts are to be seen outside", n)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestKilledChildIsReplaced kills the child, as the kernel does when memory runs out, and cleans up all the same.
func TestKilledChildIsReplaced(t *testing.T) {
	dir := t.TempDir()
	e, err := native.New(t.Context(), native.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Ready(t.Context()); err != nil {
		t.Skip("needs a machine that allows it: ", err)
	}
	l := lowers(t)
	for range 2 {
		if _, errs, err := try(t, e, l, []string{"mkdir", "/a", ";", "write", "/a/x", "1"}); err != nil {
			t.Fatal(err, errs)
		}
		p := e.Child()
		if err := p.Signal(os.Kill); err != nil {
			t.Fatal(err)
		}
		<-p.Gone()
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
