package filecopy_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
	"hako/internal/filecopy"
	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// moving is a tree whose files are something else when they are opened.
type moving struct {
	tree.Tree
	open func(path string) (io.ReadCloser, error)
}

func (m moving) Open(p string) (io.ReadCloser, error) { return m.open(p) }

func TestFileChangesWhileItIsCopied(t *testing.T) {
	t.Parallel()
	content := func(s string) func(string) (io.ReadCloser, error) {
		return func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(s)), nil }
	}
	failing := func(err error) func(string) (io.ReadCloser, error) {
		return func(p string) (io.ReadCloser, error) { return nil, &fs.PathError{Op: "open", Path: p, Err: err} }
	}
	tests := []struct {
		name string
		open func(string) (io.ReadCloser, error)
		want string
		hint bool
	}{
		{"shorter", content("12"), "COPY: read the file for /d/f: its size changed while it was copied", true},
		{"longer", content("12345"), "COPY: read the file for /d/f: its size changed while it was copied", true},
		{"gone", failing(fs.ErrNotExist), "COPY: read the file for /d/f: open f: file does not exist", true},
		{"not readable", failing(fs.ErrPermission), "COPY: read the file for /d/f: open f: permission denied", true},
		{"broken", failing(errors.New("input/output error")), "COPY: read the file for /d/f: open f: input/output error", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			// The second run compares with an equal file of the stage first.
			for _, below := range []tree.Tree{nil, treetest.New(t, "d/f = 123")} {
				from := moving{Tree: treetest.New(t, "f = 123"), open: tt.open}
				c, err := filecopy.Copy(t.Context(), &filecopy.Request{Below: below, From: from, Paths: []string{"f"}, Dest: "/d/", Now: now()})
				if err != nil {
					t.Fatal(err)
				}
				err = c.Each(t.Context(), func(_ tree.Entry, content io.Reader) error {
					if content == nil {
						return nil
					}
					_, err := io.ReadAll(content)
					return err
				})
				var d *diag.Error
				if err == nil || err.Error() != tt.want || !errors.As(err, &d) || (d.Hint != "") != tt.hint {
					t.Errorf("error %v, want %s", err, tt.want)
				}
			}
		})
	}
}

func TestVanishedDirectory(t *testing.T) {
	t.Parallel()
	from := vanishing{Tree: treetest.New(t, "d/a \n d/b"), gone: "d/b"}
	_, err := filecopy.Copy(t.Context(), &filecopy.Request{From: from, FromName: "the build context", Paths: []string{"d"}, Dest: "/", Now: now()})
	if want := "COPY: /d/b vanished from the build context while it was copied"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// vanishing is a tree that lists a path that is not there any more.
type vanishing struct {
	tree.Tree
	gone string
}

func (v vanishing) Lstat(p string) (tree.Entry, error) {
	if p == v.gone {
		return tree.Entry{}, fs.ErrNotExist
	}
	return v.Tree.Lstat(p)
}

func TestErrorsOfTheReceiverAreTheirOwn(t *testing.T) {
	t.Parallel()
	errFull := errors.New("disk full")
	c, err := filecopy.Copy(t.Context(), &filecopy.Request{From: treetest.New(t, "f = x"), Paths: []string{"f"}, Dest: "/", Now: now()})
	if err != nil {
		t.Fatal(err)
	}
	err = c.Each(t.Context(), func(tree.Entry, io.Reader) error { return errFull })
	if !errors.Is(err, errFull) || err.Error() != "disk full" {
		t.Errorf("error %v", err)
	}
	if err := c.Each(t.Context(), nil); err == nil {
		t.Error("changes were read twice")
	}
}

func TestCancelled(t *testing.T) {
	t.Parallel()
	errStop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	req := &filecopy.Request{From: treetest.New(t, "d/f = x"), Paths: []string{"d"}, Dest: "/", Now: now()}
	c, err := filecopy.Copy(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	cancel(errStop)
	if err := c.Each(ctx, func(tree.Entry, io.Reader) error { return nil }); !errors.Is(err, errStop) {
		t.Errorf("Each: %v", err)
	}
	if _, err := filecopy.Copy(ctx, req); !errors.Is(err, errStop) {
		t.Errorf("Copy: %v", err)
	}
	if _, err := filecopy.Mkdir(ctx, &filecopy.MkdirRequest{Path: "/x"}); !errors.Is(err, errStop) {
		t.Errorf("Mkdir: %v", err)
	}
}

// onTop is below with changes applied, by way of a real layer.
func onTop(t *testing.T, below *rootfs.Tree, c *filecopy.Changes) *rootfs.Tree {
	t.Helper()
	defer c.Close() //nolint:errcheck // a test
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) //nolint:errcheck // a test
	w, err := layer.Write(t.Context(), c, io.Discard, layer.WriteOptions{Image: f})
	if err != nil {
		t.Fatal(err)
	}
	out, err := below.Add(w.Image)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// randomTree is the text of a tree of a few short paths.
func randomTree(r *rand.Rand) string {
	var b strings.Builder
	kinds := map[string]string{}
	var files []string
	for range r.IntN(10) {
		p := string("abc"[r.IntN(3)])
		for r.IntN(2) == 0 {
			p += "/" + string("abc"[r.IntN(3)])
		}
		bad := kinds[p] != ""
		for q := path.Dir(p); q != "."; q = path.Dir(q) {
			bad = bad || kinds[q] == "file"
			kinds[q] = "dir"
		}
		if bad {
			continue
		}
		kinds[p] = "file"
		switch r.IntN(7) {
		case 0:
			kinds[p] = "dir"
			b.WriteString(p + "/ 0711 1:2 @3\n")
		case 1:
			b.WriteString(p + " -> " + []string{"/a", "../b", "c/./a", "/b/../.."}[r.IntN(4)] + "\n")
		case 2:
			if len(files) > 0 {
				b.WriteString(p + " => " + files[r.IntN(len(files))] + "\n")
				continue
			}
			fallthrough
		default:
			files = append(files, p)
			b.WriteString(p + " 0640 3:4 @" + string("56"[r.IntN(2)]) + " = " + strings.Repeat("x", r.IntN(3)) + "\n")
		}
	}
	return b.String()
}

// FuzzCopyTwice copies random trees onto random trees. The changes must be in normal form, a second copy onto the
// result must change nothing, and what was copied must be there.
func FuzzCopyTwice(f *testing.F) {
	for seed := range uint64(100) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 3)) //nolint:gosec // a test
		fromText, belowText := randomTree(r), randomTree(r)
		from, err := treetest.Parse(fromText)
		if err != nil {
			return // no tree
		}
		base, err := treetest.Parse(belowText)
		if err != nil {
			return // no tree
		}
		src := []string{".", "a", "a/b", "*", "?/*", "b/../a/"}[r.IntN(6)]
		req := func(below tree.Tree) *filecopy.Request {
			return &filecopy.Request{
				Below: below, From: from, FromName: "the test", Paths: []string{src},
				Dest: []string{"/", "/a", "/a/", "/n/m", "/b/c/", "/c/."}[seed%6], Now: now(),
			}
		}
		whole := func(below *rootfs.Tree, from tree.Tree) *rootfs.Tree {
			c, err := filecopy.Copy(t.Context(), &filecopy.Request{Below: below, From: from, Paths: []string{"."}, Dest: "/", Now: now()})
			if err != nil {
				t.Fatal(err)
			}
			return onTop(t, below, c)
		}
		below := whole(rootfs.NewTree(), base)
		if diff := cmp.Diff(text(t, base), text(t, below)); diff != "" {
			t.Fatalf("copied to scratch (-from +stage):\n%s", diff)
		}
		c, err := filecopy.Copy(t.Context(), req(below))
		if err != nil {
			return // what BuildKit refuses, too
		}
		if err := normal(t, c, below, "."); err != nil {
			t.Fatal(err)
		}
		if c, err = filecopy.Copy(t.Context(), req(below)); err != nil {
			t.Fatal(err)
		}
		result := onTop(t, below, c)
		if c, err = filecopy.Copy(t.Context(), req(result)); err != nil {
			return // the copy itself made what is now in the way
		}
		if got := dump(t, c); got != "" {
			t.Errorf("the second copy of %s changes\n%s\nfrom\n%s\nstage\n%s", src, got, fromText, belowText)
		}
	})
}

func text(t *testing.T, tr tree.Tree) string {
	t.Helper()
	s, err := treetest.Dump(tr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// ignoring is a tree that leaves everything out that it has not.
type ignoring struct{ tree.Tree }

func (ignoring) Excluded(string) (pattern, file string, ok bool) {
	return "dist", ".dockerignore", true
}

func TestHintAtIgnoreFile(t *testing.T) {
	t.Parallel()
	got := copied(t, &filecopy.Request{From: ignoring{treetest.New(t, "a")}, Paths: []string{"dist/app.js"}, Dest: "/"})
	want := trim(`error: COPY: "dist/app.js" not found in the build context
		hint: .dockerignore leaves it out with "dist"; change that pattern or add "!dist/app.js" after it.`)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

// endlessDir is a tree in which every directory has another one.
type endlessDir struct{ tree.Tree }

func (endlessDir) Lstat(p string) (tree.Entry, error) {
	return tree.Entry{Path: p, Kind: tree.Dir, Mode: 0o755}, nil
}
func (endlessDir) ReadDir(string) ([]string, error) { return []string{"directory"}, nil }

func TestPathsThatAreTooLong(t *testing.T) {
	t.Parallel()
	for _, parts := range [][]filecopy.Part{nil, {{Pattern: "**/file"}}} {
		_, err := filecopy.Copy(t.Context(), &filecopy.Request{
			From: endlessDir{}, FromName: "the test", Paths: []string{"/"}, Parents: parts, Dest: "/d/", Now: now(),
		})
		if err == nil || !strings.Contains(err.Error(), "longer than Linux allows") || len(err.Error()) > 200 {
			t.Errorf("got %v", err)
		}
	}
}

func TestCancelledWhileListing(t *testing.T) {
	t.Parallel()
	why := errors.New("somebody pressed a key")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	for _, req := range []*filecopy.Request{
		{Paths: []string{"/a/*"}}, {Paths: []string{"/a*"}, Parents: []filecopy.Part{{Pattern: "*"}}, Sparse: true},
	} {
		req.From, req.Dest, req.FromName = treetest.New(t, "a/b/c = x"), "/d/", "the test"
		if _, err := filecopy.Copy(ctx, req); !errors.Is(err, why) {
			t.Errorf("%s: got %v, want %v", req.Paths[0], err, why)
		}
	}
}
