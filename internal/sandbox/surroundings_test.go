package sandbox_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/sandbox"
)

func TestResolvConfIsOurs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/resolv.conf"), []byte("nameserver 127.0.0.53\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := string(sandbox.ResolvConf(root)); got != "nameserver 127.0.0.53\n" {
		t.Errorf("got %q", got)
	}
	if got := sandbox.ResolvConf(t.TempDir()); got == nil || len(got) != 0 {
		t.Errorf("without one: got %q, want an empty file", got)
	}
}

func TestHosts(t *testing.T) {
	t.Parallel()
	got := string(sandbox.Hosts("box", []sandbox.Host{{Name: "db", IP: "10.0.0.1"}, {Name: "v6", IP: "fe80::1"}}))
	want := "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\nfe80::1\tv6\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("hosts (-want +got):\n%s", d)
	}
}
