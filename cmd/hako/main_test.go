package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"hako/internal/minibase"
	"hako/internal/sandbox/choice"
)

// roleVariable makes the test binary play another program.
const roleVariable = "HAKO_TEST_ROLE"

func TestMain(m *testing.M) {
	if choice.IsChild(os.Args) {
		os.Exit(choice.ChildMain())
	}
	switch os.Getenv(roleVariable) {
	case "hako":
		os.Exit(run())
	case "reaper":
		os.Exit(playReaper())
	case "parent": // leaves an orphan that ends a moment later
		orphan := as("nothing")
		if err := orphan.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Print(orphan.Process.Pid)
		os.Exit(0)
	case "nothing":
		os.Exit(7)
	}
	os.Exit(m.Run())
}

// as is this binary in a role.
func as(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = []string{roleVariable + "=" + role, "PATH=" + os.Getenv("PATH"), "TMPDIR=" + os.Getenv("TMPDIR"), "NO_COLOR=1"}
	return cmd
}

// playReaper is a process that inherits orphans, as process 1 does. It collects an orphan, and not the child it waits for itself.
func playReaper() int {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Println("become a reaper:", err)
		return 1
	}
	own := as("nothing")
	if err := own.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	out, err := as("parent").Output()
	if err != nil {
		fmt.Println("run parent:", err)
		return 1
	}
	orphan, err := strconv.Atoi(string(out))
	if err != nil {
		fmt.Println("the parent does not name its child:", err)
		return 1
	}
	for _, pid := range []int{own.Process.Pid, orphan} {
		if err := awaitZombie(pid); err != nil {
			fmt.Printf("wait for process %d: %v\n", pid, err)
			return 1
		}
	}
	reapOnce()
	if left := zombieChildren(os.Getpid()); len(left) != 1 || left[0] != own.Process.Pid {
		fmt.Printf("zombies %v are left, want only our own child %d (orphan %d)\n", left, own.Process.Pid, orphan)
		return 1
	}
	var exit *exec.ExitError
	if err := own.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		fmt.Println("our own child ended with", err)
		return 1
	}
	return 0
}

// awaitZombie returns when a child has ended, and leaves it to be collected.
func awaitZombie(pid int) error {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func TestOrphansAreCollectedAndChildrenAreNot(t *testing.T) {
	t.Parallel()
	if fd, err := unix.PidfdOpen(os.Getpid(), 0); err != nil {
		t.Skip("needs pidfd_open(2)")
	} else if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	if out, err := as("reaper").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// base serves a registry with the small base image and returns the image's name.
func base(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	box, err := minibase.Compile(t.Context(), runtime.GOARCH, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	im, err := minibase.Image(box, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/box:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, im); err != nil {
		t.Fatal(err)
	}
	return ref.String()
}

// watched is a buffer that tells when a text has been written to it.
type watched struct {
	got  []byte
	text string
	seen chan struct{}
}

func (w *watched) Write(p []byte) (int, error) {
	w.got = append(w.got, p...)
	if strings.Contains(string(w.got), w.text) {
		select {
		case <-w.seen:
		default:
			close(w.seen)
		}
	}
	return len(p), nil
}

// unfinished lists what a build has left in its directory of state, but for base layers that later builds there can use.
func unfinished(t *testing.T, state string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(state, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(state, path) // both are absolute
		layer, ok := strings.CutPrefix(name, "hako-layers/")
		if err != nil || name == "." || name == "hako-layers" || ok && len(layer) == sha256.Size*2 {
			return err
		}
		out = append(out, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestSignalStopsABuildAndCleansUp(t *testing.T) {
	t.Parallel()
	image := base(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		dir, state := t.TempDir(), t.TempDir()
		text := "FROM " + image + "\nRUN echo began && sleep 600\n"
		if err := os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		out := &watched{text: "began", seen: make(chan struct{})}
		var logged bytes.Buffer
		cmd := as("hako", "build", dir, "--no-push", "--kaniko-dir", state)
		cmd.Args[0] = "hako"
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, &logged
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() }) // a build that hangs fails below
		select {
		case <-out.seen:
		case <-ctx.Done():
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err := cmd.Wait()
		cancel()
		took := time.Since(start)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 128+int(sig) {
			t.Errorf("%s: hako ended with %v, want exit code %d; log:\n%s", sig, err, 128+int(sig), logged.String())
		}
		if took > 10*time.Second {
			t.Errorf("%s: hako took %s to stop", sig, took)
		}
		if want := "error building image: stopped by signal: " + sig.String() + "\n"; !strings.HasSuffix(logged.String(), want) {
			t.Errorf("%s: the log ends with %q, want %q", sig, logged.String(), want)
		}
		if left := unfinished(t, state); len(left) > 0 {
			t.Errorf("%s: %q is left of the state", sig, left)
		}
	}
}
