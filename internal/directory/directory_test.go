package directory_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
	"hako/internal/directory"
	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// whole is a tree as changes to nothing.
func whole(t *testing.T, text string) layer.Changes {
	t.Helper()
	return layer.Diff(treetest.New(t, text), rootfs.NewTree())
}

// list describes what is in dir, but its owners.
func list(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		fi, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		b.WriteString(rel + " " + fi.Mode().String())
		switch fi.Mode().Type() {
		case 0:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			b.WriteString(" = " + string(data))
		case fs.ModeSymlink:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			b.WriteString(" -> " + to)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const picture = `a/ 0750 5:6 @100
a/b 0640 7:8 @200 = text
a/c => a/b
l -> /etc/passwd
d/ 0711
d/s 04755 = s
p fifo 0600
`

const written = `a drwxr-x---
a/b -rw-r----- = text
a/c -rw-r----- = text
d drwx--x--x
d/s urwxr-xr-x = s
l Lrwxrwxrwx -> /etc/passwd
p prw-------
`

func TestWrite(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "dir")
	for range 2 { // the second time over the first
		if _, err := directory.Write(t.Context(), dir, whole(t, picture)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(written, list(t, dir)); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
	}
	one, err := os.Stat(filepath.Join(dir, "a/b"))
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.Stat(filepath.Join(dir, "a/c"))
	if err != nil || !os.SameFile(one, two) {
		t.Errorf("two names of one file are two files (%v)", err)
	}
	for p, sec := range map[string]int64{"a": 100, "a/b": 200} {
		fi, err := os.Stat(filepath.Join(dir, p))
		if err != nil || !fi.ModTime().Equal(time.Unix(sec, 0)) {
			t.Errorf("time of %s is %v (%v)", p, fi.ModTime(), err)
		}
	}
}

func TestWhatIsInTheWayIsReplaced(t *testing.T) {
	t.Parallel()
	outside := t.TempDir()
	keep := filepath.Join(outside, "keep")
	if err := os.WriteFile(keep, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, prepare := range map[string]func(dir string) error{
		"a link for a directory": func(dir string) error { return os.Symlink(outside, filepath.Join(dir, "a")) },
		"a link for a file": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "a"), 0o700), os.Symlink(keep, filepath.Join(dir, "a/b")))
		},
		"a directory for a file": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "a/b/c/d"), 0o700) },
		"a directory for a link": func(dir string) error { return os.MkdirAll(filepath.Join(dir, "l/c"), 0o700) },
		"a file for a directory": func(dir string) error { return os.WriteFile(filepath.Join(dir, "a"), nil, 0o600) },
		"a directory without rights": func(dir string) error {
			return errors.Join(os.MkdirAll(filepath.Join(dir, "a"), 0o700), os.Chmod(filepath.Join(dir, "a"), 0))
		},
		"another name of a file": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "a"), 0o700), os.Link(keep, filepath.Join(dir, "a/b")))
		},
		"something of another name": func(dir string) error { return os.WriteFile(filepath.Join(dir, "other"), []byte("o"), 0o600) },
		"a link to a directory below": func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "other"), 0o700), os.Symlink("other", filepath.Join(dir, "d")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := directory.Write(t.Context(), dir, whole(t, picture)); err != nil {
				t.Fatal(err)
			}
			got := list(t, dir)
			got = strings.ReplaceAll(strings.ReplaceAll(got, "other -rw------- = o\n", ""), "other drwx------\n", "")
			if d := cmp.Diff(written, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
			data, err := os.ReadFile(keep)
			if left, _ := os.ReadDir(outside); err != nil || string(data) != "x" || len(left) != 1 { //nolint:errcheck // its length tells
				t.Errorf("something outside changed: %q, %v", data, err)
			}
		})
	}
}

// entries are changes as they come, whatever they are.
type entries []tree.Entry

func (es entries) Each(_ context.Context, fn func(tree.Entry, io.Reader) error) error {
	for _, e := range es {
		if err := fn(e, strings.NewReader("")); err != nil {
			return err
		}
	}
	return nil
}

func TestNothingIsWrittenOutside(t *testing.T) {
	t.Parallel()
	link := func(p, to string) tree.Entry { return tree.Entry{Path: p, Kind: tree.Symlink, Linkname: to} }
	file := func(p string) tree.Entry { return tree.Entry{Path: p, Kind: tree.Regular, Mode: 0o644} }
	hard := func(p, to string) tree.Entry { return tree.Entry{Path: p, Kind: tree.Hardlink, Linkname: to} }
	for name, es := range map[string]entries{
		"dots":                  {file("../x")},
		"absolute":              {file("/x")},
		"the root":              {{Path: ".", Kind: tree.Regular}},
		"through a link":        {link("l", ".."), file("l/x")},
		"through a long link":   {link("l", "/tmp"), {Path: "l/d", Kind: tree.Dir, Mode: 0o755}},
		"hard link outside":     {hard("x", "../keep")},
		"hard link by a link":   {link("l", ".."), hard("x", "l/keep")},
		"a parent is missing":   {file("no/x")},
		"a parent is a file":    {file("f"), file("f/x")},
		"no kind":               {{Path: "x"}},
		"a whiteout":            {{Path: "x", Kind: tree.Whiteout}},
		"an absolute link name": {hard("x", "/etc/passwd")},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir := filepath.Join(top, "dir")
			if err := os.WriteFile(filepath.Join(top, "keep"), []byte("x"), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := directory.Write(t.Context(), dir, es); err == nil {
				t.Error("it succeeded")
			}
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff("keep -rw------- = x\n", list(t, top)); d != "" {
				t.Errorf("outside (-want +got):\n%s", d)
			}
		})
	}
}

func TestDevicesNeedRoot(t *testing.T) {
	t.Parallel()
	_, err := directory.Write(t.Context(), t.TempDir(), whole(t, "d/ \n d/null 0666 c1:3"))
	if os.Getuid() == 0 {
		if err != nil && !errors.Is(err, os.ErrPermission) {
			t.Error(err)
		}
		return
	}
	var d *diag.Error
	if !errors.As(err, &d) || !strings.Contains(d.Hint, "type=tar") {
		t.Errorf("got %v", err)
	}
}

func TestStopsWithTheContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	if _, err := directory.Write(ctx, t.TempDir(), whole(t, "a")); !errors.Is(err, stopped) {
		t.Errorf("got %v", err)
	}
}
