package build_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sys/unix"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/minibase"
)

// foreignEnv says that this process is in a user namespace of its own, where it may register interpreters.
const foreignEnv = "HAKO_TEST_FOREIGN"

// TestForeignSteps builds for arm64 on amd64, with RUN steps, by qemu. Interpreters belong to a user namespace, so that
// the test makes one, and leaves those of the machine alone.
func TestForeignSteps(t *testing.T) {
	if os.Getenv(foreignEnv) != "" {
		foreignSteps(t)
		return
	}
	t.Parallel()
	switch _, err := exec.LookPath("qemu-aarch64-static"); {
	case runtime.GOARCH != "amd64":
		t.Skip("needs amd64")
	case err != nil:
		t.Skip("needs qemu-user-static")
	case os.Getuid() != 0:
		t.Skip("needs root")
	}
	all := []syscall.SysProcIDMap{{Size: 1 << 16}}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestForeignSteps$", "-test.v")
	cmd.Env = append(os.Environ(), foreignEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, UidMappings: all, GidMappings: all, GidMappingsEnableSetgroups: true,
	}
	out, err := cmd.CombinedOutput()
	switch {
	case errors.Is(err, unix.EPERM):
		t.Skip("needs to make user namespaces")
	case err != nil:
		t.Fatalf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP"):
		t.Skipf("%s", out)
	}
}

// registerArm64 has the kernel run programs for arm64 by qemu, in this user namespace.
func registerArm64(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("binfmt_misc", dir, "binfmt_misc", 0, ""); err != nil {
		t.Skipf("needs a kernel with binfmt_misc for user namespaces (Linux 6.7): %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Fatal(err)
	}
	// As Debian's qemu-user-static registers it: an ELF file of 64 bits, little-endian, for machine 183.
	rule := `:arm64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:` +
		`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:` + qemu + ":OCF"
	if err := os.WriteFile(filepath.Join(dir, "register"), []byte(rule), 0o200); err != nil {
		t.Fatal(err)
	}
}

// pushMinibase pushes the small base image for both architectures.
func pushMinibase(t *testing.T, reference string) {
	t.Helper()
	var adds []mutate.IndexAddendum
	for _, arch := range []string{"amd64", "arm64"} {
		box, err := minibase.Compile(t.Context(), arch, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		im, err := minibase.Image(box, arch)
		if err != nil {
			t.Fatal(err)
		}
		adds = append(adds, mutate.IndexAddendum{Add: im, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, mutate.AppendManifests(empty.Index, adds...)); err != nil {
		t.Fatal(err)
	}
}

func foreignSteps(t *testing.T) {
	registerArm64(t)
	w := newWorld(t, `ARG BASE
FROM $BASE
ARG TARGETARCH
RUN uname -m >/machine && echo for $TARGETARCH >>/machine && touch /made
RUN rm /made && chown 7:8 /machine
`)
	pushMinibase(t, w.host+"/mini:1")
	req := w.request()
	req.Sandbox = "native"
	req.BuildArgs = map[string]string{"BASE": w.host + "/mini:1"}
	req.Platforms = []string{"linux/amd64", "linux/arm64"}
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Fatal(diag.Format(err))
	}
	got := map[string]string{}
	for _, arch := range []string{"amd64", "arm64"} {
		got[arch] = fileOf(t, w.host+"/out:1", arch, "machine")
	}
	want := map[string]string{"amd64": "x86_64\nfor amd64\n", "arm64": "aarch64\nfor arm64\n"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	req.Platforms = []string{"linux/s390x"}
	notForeign(t, w, req)
}

// notForeign builds for a processor whose programs do not run: that fails before any step.
func notForeign(t *testing.T, w *world, req build.Request) {
	t.Helper()
	w.write(t, "Dockerfile", "FROM scratch\nCOPY prog /\nRUN [\"/prog\"]\n")
	seen := &started{}
	err := w.build(t.Context(), req, seen)
	var d *diag.Error
	if !errors.As(err, &d) || d.Span.Start != 3 || !strings.Contains(err.Error(), "RUN for linux/s390x") || !strings.Contains(d.Hint, "binfmt_misc") {
		t.Errorf("got %v", err)
	}
	if len(seen.steps) > 0 {
		t.Errorf("started: %v", seen.steps)
	}
}

func TestForeignStepsFailBeforeTheBuild(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	req := w.request()
	req.Sandbox = "sentry"
	req.Platforms = []string{"linux/s390x"}
	notForeign(t, w, req)
	req.DryRun = true
	if err := w.build(t.Context(), req, event.Discard{}); err != nil {
		t.Errorf("a dry run needs nothing that runs: %v", err)
	}
}

// fileOf is the text of a file in the image for an architecture.
func fileOf(t *testing.T, reference, arch, path string) string {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	im, err := remote.Image(ref, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
	if err != nil {
		t.Fatal(err)
	}
	flat := mutate.Extract(im)
	defer flat.Close() //nolint:errcheck // only read
	tr := tar.NewReader(flat)
	for {
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("find %s for %s: %v", path, arch, err)
		}
		if h.Name == path {
			data, err := io.ReadAll(tr)
			if err != nil {
				t.Fatal(err)
			}
			return string(data)
		}
	}
}
