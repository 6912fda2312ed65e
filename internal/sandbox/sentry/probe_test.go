package sentry

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestProbeFindsAPlatform(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	r, err := Probe(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := Report{Platform: platformSystrap, Confinement: r.Confinement}
	if d := cmp.Diff(want, r); d != "" {
		t.Errorf("report (-want +got):\n%s", d)
	}
	if len(r.Confinement) == 0 {
		t.Error("nothing is said about confinement")
	}
}

func TestProbeTriesEachPlatform(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	_, err := Probe(t.Context(), Options{Platform: "nothing"})
	var u *UnavailableError
	if !errors.As(err, &u) || len(u.Report.Failures) != 1 || u.Report.Failures[0].Platform != "nothing" {
		t.Errorf("got %v", err)
	}
	if r, err := Probe(t.Context(), Options{Platform: platformPtrace}); err != nil || r.Platform != platformPtrace {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestCausesNameTheYamaSetting(t *testing.T) {
	t.Parallel()
	needSandbox(t)
	if c := causes(t.TempDir()); len(c) != 0 {
		t.Fatalf("got %v", c)
	}
	root := t.TempDir()
	file := filepath.Join(root, "proc/sys/kernel/yama/ptrace_scope")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	u := UnavailableError{Report{Causes: causes(root)}}
	if got, want := u.Hint(), "Set the sysctl kernel.yama.ptrace_scope to 0 or 1 on the node."; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(u.Report.Causes[0].Err, unix.EPERM) {
		t.Errorf("got %v", u.Report.Causes[0].Err)
	}
	if (&UnavailableError{}).Hint() != "" {
		t.Error("a hint without a cause")
	}
}
