package minibase

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// compile builds the binary, or skips where there is no go command.
func compile(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("needs the go command")
	}
	path, err := Compile(t.Context(), runtime.GOARCH, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestImageIsDeterministic(t *testing.T) {
	t.Parallel()
	var digests []string
	for range 2 {
		im, err := Image(compile(t), runtime.GOARCH)
		if err != nil {
			t.Fatal(err)
		}
		d, err := im.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("two builds make %s and %s, want the same", digests[0], digests[1])
	}
}

func TestRootFS(t *testing.T) {
	t.Parallel()
	box := compile(t)
	var buf bytes.Buffer
	if err := WriteRootFS(&buf, box); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	last := ""
	tr := tar.NewReader(&buf)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name <= last {
			t.Errorf("%s comes after %s", h.Name, last)
		}
		last = h.Name
		got[h.Name] = fmt.Sprintf("%c %o %d:%d %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Linkname)
	}
	for name, want := range map[string]string{
		"tmp/": "5 1777 0:0 ", "root/": "5 700 0:0 ", "home/app/": "5 755 1000:1000 ", "bin/box": "0 755 0:0 ",
		"bin/sh": "2 777 0:0 box", "etc/shadow": "0 640 0:42 ", "etc/os-release": "2 777 0:0 ../usr/lib/os-release",
	} {
		if diff := cmp.Diff(want, got[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestToolsAreThoseOfTheBinary(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(compile(t), "no-such-tool").CombinedOutput()
	if err == nil {
		t.Fatal("a tool that does not exist runs")
	}
	_, list, _ := strings.Cut(string(out), "there are: ")
	if diff := cmp.Diff(strings.Fields(list), strings.Fields(tools)); diff != "" {
		t.Errorf("tools the binary knows (-) and the image links (+):\n%s", diff)
	}
}
