// Package sandboxtest is the behaviour that every sandbox engine has, as a test suite.
package sandboxtest

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/tree"
)

const (
	stepTimeout = 2 * time.Minute // of one step; generous, because the machine may be busy
	appletPath  = "/bin/do"
	baseTime    = 1_600_000_000 // modification time of everything in the base, in Unix seconds
)

// file is one entry of a layer and, for regular files, what is in it.
type file struct {
	tree.Entry
	Content string
}

// list is a change set held in memory.
type list []file

// Each implements [layer.Changes].
func (l list) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	for i := range l {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		var content io.Reader
		if l[i].Kind == tree.Regular {
			content = bytes.NewReader([]byte(l[i].Content))
		}
		if err := fn(l[i].Entry, content); err != nil {
			return err
		}
	}
	return nil
}

// collect reads changes into memory.
func collect(ctx context.Context, c layer.Changes) (list, error) {
	var out list
	err := c.Each(ctx, func(e tree.Entry, content io.Reader) error {
		f := file{Entry: e}
		if content != nil {
			b, err := io.ReadAll(content)
			if err != nil {
				return err
			}
			f.Content = string(b)
		}
		out = append(out, f)
		return nil
	})
	return out, err
}

// imageFile makes a file for the image of a layer as a work directory does: on a disk where there is one, and without a name.
func imageFile() (*os.File, error) {
	f, err := os.CreateTemp("", "layer")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// source makes a layer of changes, through the blob and back: what a later build would mount.
func source(ctx context.Context, changes layer.Changes) (rootfs.Source, error) {
	file, err := imageFile()
	if err != nil {
		return rootfs.Source{}, err
	}
	w, err := layer.Write(ctx, changes, io.Discard, layer.WriteOptions{Image: file})
	if err != nil {
		return rootfs.Source{}, err
	}
	return rootfs.Source{DiffID: w.DiffID, Open: func(context.Context) (*layer.Image, error) { return w.Image, nil }}, nil
}

// tarSource makes a layer of empty files as a registry might have it, with marks that no change set of ours has.
func tarSource(t *testing.T, headers []*tar.Header) rootfs.Source {
	t.Helper()
	var blob bytes.Buffer
	w := tar.NewWriter(&blob)
	for _, h := range headers {
		if err := w.WriteHeader(h); err != nil {
			t.Fatalf("write a tar: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("write a tar: %v", err)
	}
	file, err := imageFile()
	if err != nil {
		t.Fatalf("make a file for a layer: %v", err)
	}
	id := digest.FromBytes(blob.Bytes())
	want := layer.Descriptor{MediaType: layer.MediaTypeOCI, Digest: id, DiffID: id}
	image, err := layer.Prepare(t.Context(), &blob, want, layer.PrepareOptions{Image: file})
	if err != nil {
		t.Fatalf("prepare a layer: %v", err)
	}
	return rootfs.Source{DiffID: id, Open: func(context.Context) (*layer.Image, error) { return image, nil }}
}

func dir(path string, mode uint32) file {
	return file{Entry: tree.Entry{Path: path, Kind: tree.Dir, Mode: mode, ModTime: time.Unix(baseTime, 0)}}
}

func regular(path, content string, mode uint32) file {
	return file{
		Entry:   tree.Entry{Path: path, Kind: tree.Regular, Mode: mode, Size: int64(len(content)), ModTime: time.Unix(baseTime, 0)},
		Content: content,
	}
}

// base is what most steps stand on.
func base(applet []byte) list {
	tool := regular("bin/do", string(applet), 0o755)
	owned := regular("data/owned", "owned\n", 0o640)
	owned.UID, owned.GID = 7, 8
	marked := regular("data/xattr", "marked\n", 0o644)
	marked.Xattrs = map[string]string{"security.capability": capability, "user.note": "a\x00\xff"}
	return list{
		dir("bin", 0o755), tool,
		dir("data", 0o755), regular("data/a", "a\n", 0o644), regular("data/b", "b\n", 0o600), owned,
		dir("data/sub", 0o755), regular("data/sub/c", "c\n", 0o644), regular("data/sub/d", "d\n", 0o644),
		marked,
		dir("etc", 0o755), regular("etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0o644),
		dir("tmp", 0o1777),
	}
}

// capability is cap_setuid,cap_net_raw=ep in revision 2, with a byte that is not UTF-8.
const capability = "\x01\x00\x00\x02\x80\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// appletVariable names a file that is the compiled applet, for test runs where there is no Go: in a bare container.
const appletVariable = "HAKO_TEST_APPLET"

// quoted is a value with bytes that an argument cannot hold, as the applet reads it.
func quoted(s string) string { return strings.Trim(strconv.QuoteToASCII(s), `"`) }

// Applet compiles the program that the steps run; the Go tool chain is there because it runs this test.
func Applet(dir string) ([]byte, error) {
	if p := os.Getenv(appletVariable); p != "" {
		return os.ReadFile(p)
	}
	out := filepath.Join(dir, "applet")
	cmd := exec.Command("go", "build", "-ldflags", "-s -w", "-o", out, "./testdata/applet")
	src, err := packageDir()
	if err != nil {
		return nil, err
	}
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.Join(err, errors.New(string(b)))
	}
	return os.ReadFile(out)
}

// bed is what a test of the suite works with.
type bed struct {
	engine sandbox.Engine
	traits Traits
	base   *rootfs.Stack
	applet []byte
}

// result is what came of a step.
type result struct {
	Out, Err string
	Exit     *sandbox.ExitError // nil if the step succeeded
	Changes  list
	// Stack is what the next step stands on: the lowers and what this step changed.
	Stack *rootfs.Stack
}

// command is a step over the base, as root.
func (b *bed) command(args ...string) *sandbox.Step {
	return &sandbox.Step{
		Name: "test", Lowers: b.base.Lowers(), Args: append([]string{appletPath}, args...),
		Env: []string{"PATH=/bin"}, Dir: "/",
	}
}

// on makes step stand on s.
func on(s *rootfs.Stack, step *sandbox.Step) *sandbox.Step {
	step.Lowers = s.Lowers()
	return step
}

// run runs step, which must end by itself, and keeps its result.
func (b *bed) run(t *testing.T, stack *rootfs.Stack, step *sandbox.Step) *result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepTimeout)
	defer cancel()
	r := &result{Stack: stack}
	var stdout, stderr lockedBuffer
	step.Stdout, step.Stderr = &stdout, &stderr
	out, err := b.engine.Run(ctx, on(stack, step))
	r.Out, r.Err = stdout.String(), stderr.String()
	if errors.As(err, &r.Exit) {
		return r
	}
	if err != nil {
		t.Fatalf("run %q: %v", step.Args[1:], err)
	}
	defer func() {
		if err := out.Close(); err != nil {
			t.Errorf("close the outcome: %v", err)
		}
	}()
	if r.Changes, err = collect(ctx, out.Changes()); err != nil {
		t.Fatalf("read the changes of %q: %v", step.Args[1:], err)
	}
	src, err := source(ctx, r.Changes)
	if err != nil {
		t.Fatalf("write the layer of %q: %v", step.Args[1:], err)
	}
	r.Stack = stack.Push(src)
	if err := out.Keep(r.Stack.ChainID()); err != nil {
		t.Fatalf("keep the result of %q: %v", step.Args[1:], err)
	}
	return r
}

// ok runs args over the base and fails the test unless they succeed.
func (b *bed) ok(t *testing.T, args ...string) *result {
	t.Helper()
	return b.okOn(t, b.base, args...)
}

func (b *bed) okOn(t *testing.T, stack *rootfs.Stack, args ...string) *result {
	t.Helper()
	r := b.run(t, stack, b.command(args...))
	if r.Exit != nil {
		t.Fatalf("%q: %v\n%s%s", args, r.Exit, r.Out, r.Err)
	}
	return r
}

// want compares the changes of r with entries; times are compared only where want has one.
func (r *result) want(t *testing.T, want ...file) {
	t.Helper()
	got := make(list, len(r.Changes))
	copy(got, r.Changes)
	times := map[string]bool{}
	for _, w := range want {
		times[w.Path] = !w.ModTime.IsZero()
	}
	for i := range got {
		got[i].Inode, got[i].Links = 0, 0
		got[i].ModTime = got[i].ModTime.Truncate(time.Second).UTC()
		if !times[got[i].Path] {
			got[i].ModTime = time.Time{}
		}
	}
	for i := range want {
		if !want[i].ModTime.IsZero() {
			want[i].ModTime = want[i].ModTime.UTC()
		}
	}
	if d := cmp.Diff(list(want), got, cmpopts.EquateEmpty()); d != "" {
		t.Errorf("changes (-want +got):\n%s", d)
	}
}

// lockedBuffer is a buffer for the output of a step, which may come from several goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
