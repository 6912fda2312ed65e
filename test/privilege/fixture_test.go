package privilege

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"hako/test/lab"
)

// fixture is what the tests share: a registry with base images, the executor image, the binary.
// Its parts are made when first asked for, once.
type fixture struct {
	registry *lab.Registry
	// dir is readable by every user, and gone at the end.
	dir string

	busybox  func() (string, error)
	debian   func() (string, error)
	executor func() (string, error)
	binary   func() (string, error)
}

// newFixture starts the registry; it skips the test if something is missing, or fails it in CI.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	need(t, missing(t.Context()))
	dir, err := os.MkdirTemp("", "hako-privilege-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	f := &fixture{dir: dir}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f.registry = f.startRegistry(t, "", "")
	t.Cleanup(func() {
		if err := lab.ForgetImages(context.WithoutCancel(t.Context()), f.registry.Addr); err != nil {
			t.Error(err)
		}
	})
	base := func(name string, push func(context.Context, string) error) func() (string, error) {
		return sync.OnceValues(func() (string, error) {
			ref := f.registry.Addr + "/library/" + name
			return ref, push(context.WithoutCancel(t.Context()), ref)
		})
	}
	f.busybox = base("busybox:1", lab.PushBusybox)
	f.debian = base("debian:bookworm", lab.PushDebian)
	f.executor = sync.OnceValues(func() (string, error) { return lab.LoadExecutor(context.WithoutCancel(t.Context())) })
	f.binary = sync.OnceValues(func() (string, error) { return f.buildBinary(context.WithoutCancel(t.Context())) })
	return f
}

// startRegistry runs one more registry until the test ends.
func (f *fixture) startRegistry(t *testing.T, user, password string) *lab.Registry {
	t.Helper()
	r, err := lab.StartRegistry(t.Context(), f.newDir(t), user, password)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// newDir makes a directory below the fixture's, readable by all.
func (f *fixture) newDir(t *testing.T) string {
	t.Helper()
	return must[string](t)(lab.NewDir(f.dir))
}

// missing says what the tests need and this machine lacks.
func missing(ctx context.Context) error {
	if os.Getuid() != 0 {
		return errors.New("needs root: containers, owners and mounts of any kind")
	}
	for tool, pkg := range map[string]string{
		"docker-registry": "docker-registry", "mmdebstrap": "mmdebstrap", "busybox": "busybox-static", "setpriv": "util-linux", "make": "make",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("needs %s (apt-get install %s): %w", tool, pkg, err)
		}
	}
	return lab.FindDocker(ctx)
}

// need skips the test with what is missing; in CI it fails it.
func need(t *testing.T, missing error) {
	t.Helper()
	switch {
	case missing == nil:
	case os.Getenv("HAKO_CI") != "":
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
}

// must is for set-up that every check after it needs.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// buildBinary builds hako for running on the machine itself.
func (f *fixture) buildBinary(ctx context.Context) (string, error) {
	root, err := lab.ModuleRoot()
	if err != nil {
		return "", err
	}
	out := filepath.Join(f.dir, "hako")
	cmd := lab.Command{Args: []string{"go", "build", "-o", out, "./cmd/hako"}, Dir: root, Env: append(os.Environ(), "CGO_ENABLED=0")}
	r, err := lab.Run(ctx, cmd)
	if err != nil {
		return "", err
	}
	if r.ExitCode != 0 {
		return "", fmt.Errorf("build hako: %s", strings.TrimSpace(r.Output))
	}
	return out, nil
}
