package native_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"hako/internal/sandbox"
	"hako/internal/sandbox/native"
	"hako/internal/sandbox/sandboxtest"
)

func TestMain(m *testing.M) {
	if native.IsChild(os.Args) {
		os.Exit(native.ChildMain())
	}
	os.Exit(m.Run())
}

// newEngine makes an engine on one rung, or skips the test where that does not bear.
func newEngine(t testing.TB, rung native.Rung) *native.Engine {
	t.Helper()
	e, err := native.New(t.Context(), native.Options{Dir: t.TempDir(), Rungs: []native.Rung{rung}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Ready(t.Context()); err != nil {
		if os.Getenv("HAKO_CI") != "" {
			t.Fatal(err)
		}
		t.Skip("needs a machine that allows it: ", err)
	}
	return e
}

func TestEngine(t *testing.T) {
	t.Parallel()
	for name, rung := range map[string]native.Rung{"direct": native.Direct, "own map": native.OwnMap} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sandboxtest.Run(t, func(t *testing.T) sandbox.Engine { return newEngine(t, rung) })
		})
	}
}

// plainUser is the user ID of the tests of a plain user that root runs.
const plainUser = 61_234

// plainScript makes a user with subordinate IDs in a mount namespace of its own and becomes that user.
const plainScript = `set -e
mount --bind "$1/passwd" /etc/passwd
mount --bind "$1/subuid" /etc/subuid
mount --bind "$1/subgid" /etc/subgid
shift
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups "$@"`

// TestPlainUser runs the suite as a user with subordinate IDs: as the one that runs it, or if that is root, as another.
func TestPlainUser(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("newuidmap"); err != nil {
		t.Skip("needs newuidmap: ", err)
	}
	if os.Geteuid() != 0 {
		traits := sandboxtest.Traits{NoNodes: true, ForeignDevices: true}
		sandboxtest.RunWith(t, traits, func(t *testing.T) sandbox.Engine { return newEngine(t, native.SetuidMap) })
		clears(t)
		return
	}
	for _, tool := range []string{"unshare", "setpriv"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("needs util-linux: ", err)
		}
	}
	applet, err := sandboxtest.Applet(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	etc := t.TempDir()
	for name, text := range map[string]string{
		"passwd": fmt.Sprintf("root:x:0:0::/root:/bin/sh\nplain:x:%d:%[1]d::/nonexistent:/bin/sh\n", plainUser),
		"subuid": "plain:200000:65536\n", "subgid": "plain:200000:65536\n",
	} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// All of this has to be reachable by somebody else.
	dir, err := os.MkdirTemp("/var/tmp", "hako-plain")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	}()
	program := filepath.Join(dir, "native.test")
	if err := errors.Join(copyFile("/proc/self/exe", program), os.WriteFile(filepath.Join(dir, "applet"), applet, 0o755), //nolint:gosec // likewise
		os.Chown(dir, plainUser, plainUser)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", plainScript, "sh", etc,
		program, "-test.run=^TestPlainUser$", "-test.count=1")
	cmd.Env = append(os.Environ(), fmt.Sprintf("USER_ID=%d", plainUser), "TMPDIR="+dir, "HAKO_TEST_APPLET="+filepath.Join(dir, "applet"))
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as a plain user: %v\n%s", err, out)
	}
}

// clears leaves what a killed builder leaves: files of users that there are only in a user namespace.
func clears(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "unshare", "--user", "--map-auto", "--map-root-user", "sh", "-c",
		"mkdir -m 700 $0/theirs && touch $0/theirs/file && chown -R 5:5 $0/theirs", dir).CombinedOutput()
	if err != nil {
		t.Skipf("needs unshare --map-auto: %v\n%s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(dir, "theirs")); err == nil {
		t.Error("a plain user can delete it")
	}
	if err := native.Clear(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Error("left: ", left, err)
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755) //nolint:gosec // a program
}
