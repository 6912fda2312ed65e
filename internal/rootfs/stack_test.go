package rootfs_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

func TestChainIDs(t *testing.T) {
	t.Parallel()
	a, b, c := digest.FromString("a"), digest.FromString("b"), digest.FromString("c")
	s := rootfs.NewStack(rootfs.Source{DiffID: a}, rootfs.Source{DiffID: b}, rootfs.Source{DiffID: c})
	var got []digest.Digest
	for _, l := range s.Lowers() {
		got = append(got, l.ID)
	}
	ab := digest.FromString(a.String() + " " + b.String())
	want := []digest.Digest{a, ab, digest.FromString(ab.String() + " " + c.String())}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("chain IDs (-want +got):\n%s", diff)
	}
	var none *rootfs.Stack
	if s.ChainID() != want[2] || none.ChainID() != "" || len(none.Lowers()) != 0 {
		t.Error("wrong chain ID of a stack")
	}
	if tr, err := none.Tree(t.Context()); err != nil || dump(t, tr) != "" {
		t.Errorf("tree of no layers: %v", err)
	}
}

func TestStackOpensOnce(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	src := func(text string) rootfs.Source {
		im := image(t, text)
		return rootfs.Source{DiffID: digest.FromString(text), Open: func(context.Context) (*layer.Image, error) {
			opened.Add(1)
			return im, nil
		}}
	}
	base := rootfs.NewStack(src("a = 1"), src("b = 2"))
	one, two := base.Push(src("c = 3")), base.Push(src("d = 4"))
	if opened.Load() != 0 {
		t.Fatal("opened before anything was read")
	}
	errs := make(chan error)
	for range 4 {
		for _, s := range []*rootfs.Stack{one, two} {
			go func() {
				_, err := s.Tree(context.Background())
				for _, l := range s.Lowers() {
					_, openErr := l.Open(context.Background())
					err = errors.Join(err, openErr)
				}
				errs <- err
			}()
		}
	}
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := opened.Load(); n != 4 {
		t.Errorf("opened %d times, want 4", n)
	}
}

func TestFailureIsNotRemembered(t *testing.T) {
	t.Parallel()
	im, fail := image(t, "a"), true
	errBroken := errors.New("broken")
	s := rootfs.NewStack(rootfs.Source{DiffID: "sha256:x", Open: func(context.Context) (*layer.Image, error) {
		if fail {
			return nil, errBroken
		}
		return im, nil
	}})
	if _, err := s.Tree(t.Context()); !errors.Is(err, errBroken) || !strings.Contains(err.Error(), "sha256:x") {
		t.Errorf("error %v", err)
	}
	fail = false
	if _, err := s.Tree(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestOpenEndsWithContext(t *testing.T) {
	t.Parallel()
	started, release := make(chan struct{}), make(chan struct{})
	im := image(t, "a")
	s := rootfs.NewStack(rootfs.Source{Open: func(context.Context) (*layer.Image, error) {
		close(started)
		<-release
		return im, nil
	}})
	done := make(chan error)
	go func() {
		_, err := s.Tree(context.Background())
		done <- err
	}()
	<-started
	errStop := errors.New("stop")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	if _, err := s.Tree(ctx); !errors.Is(err, errStop) {
		t.Errorf("waiting for another caller: %v", err)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// mounted opens the top layer of a stack.
func mounted(t *testing.T, layers ...string) *rootfs.Mountable {
	t.Helper()
	var s *rootfs.Stack
	for _, l := range layers {
		s = s.Push(source(t, l))
	}
	lowers := s.Lowers()
	m, err := lowers[len(lowers)-1].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestPatch(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		layers []string
		want   string
	}{
		{"nothing to say", []string{". 0755\nd/ 0700 1:2 \n d/a"}, ""},
		{"an implied root like any other", []string{"d/a", ".\nd/\n d/b"}, ""},
		{"a root directory of its own", []string{"a", ". 0700 1:2 @3 x:user.a=1 \n b"}, "./ 0755 0:0 @0"},
		{"a layer above it", []string{". 0700 1:2 @3", "a"}, ""},
		{"a file with attributes", []string{".\nd/ 0700 1:2 @4 \n d/p 04755 5:6 @5 x:security.capability=c = x"},
			"./ 0755 0:0 @0 \n d/ 0700 1:2 @4 \n d/p 04755 5:6 @5 x:security.capability=c = x"},
		{"all its names", []string{".\n a/ \n a/p x:user.a=1 = x \n b/ \n b/q => a/p \n b/r => a/p"},
			"./ 0755 0:0 @0 \n a/ 0755 0:0 @0 \n a/p 0644 0:0 @0 x:user.a=1 = x \n b/ 0755 0:0 @0 \n b/q => a/p \n b/r => a/p"},
		{"a directory with attributes", []string{".\n d/ 0711 x:user.a=1 \n d/f"}, "./ 0755 0:0 @0 \n d/ 0711 0:0 @0 x:user.a=1"},
		{"an implied directory", []string{"d/ 0700 1:2 @4 x:user.a=1", "d/e/f"}, "./ 0755 0:0 @0 \n d/ 0700 1:2 @4 x:user.a=1"},
		{"an implied directory in a whiteout's place", []string{"d/ 0700", "d whiteout", "d/e"}, ""},
		{"opaque", []string{"d/a \n d/b/c \n d/x/y/z", ".\n d/ 0711 opaque \n d/x/ \n d/x/n \n d/b whiteout"},
			"./ 0755 0:0 @0 \n d/ 0711 0:0 @0 \n d/a whiteout \n d/x/ 0755 0:0 @0 \n d/x/y whiteout"},
		{"opaque over a file", []string{"d", ".\n d/ opaque \n d/a"}, ""},
		{"opaque root", []string{"a \n b/c", ". opaque \n b/ \n b/d"}, "./ 0755 0:0 @0 \n a whiteout \n b/ 0755 0:0 @0 \n b/c whiteout"},
		{"implied inside opaque", []string{"d/ 0700 \n d/e/ 0700 \n d/e/x", ".\n d/ 0711 opaque \n d/e/f"},
			"./ 0755 0:0 @0 \n d/ 0711 0:0 @0 \n d/e/ 0755 0:0 @0 \n d/e/x whiteout"},
		{"opaque implied by a parent of another layer", []string{"d/ 0700 \n d/e/x", "d/e/ 0711 opaque"},
			"./ 0755 0:0 @0 \n d/ 0700 0:0 @0 \n d/e/ 0711 0:0 @0 \n d/e/x whiteout"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := mounted(t, tt.layers...)
			var b strings.Builder
			for i := range m.Patch.Entries {
				e := &m.Patch.Entries[i]
				var content []byte
				if e.Kind == tree.Regular {
					var err error
					if content, err = io.ReadAll(m.Content(e)); err != nil {
						t.Fatal(err)
					}
				}
				b.WriteString(treetest.Line(e.Entry, content) + "\n")
			}
			if diff := cmp.Diff(trim(tt.want), b.String()); diff != "" {
				t.Errorf("patch (-want +got):\n%s", diff)
			}
		})
	}
}

// overlay is what an overlay file system without opaque marks makes of its lowers.
type overlay map[string]string

// look is an entry as it can be told apart in a mount.
func look(e tree.Entry) string {
	return fmt.Sprintf("%d %o %v", e.Kind, e.Mode, e.Xattrs)
}

func (o overlay) add(entries []tree.Entry) {
	for _, e := range entries {
		old, there := o[e.Path]
		dirs := e.Kind == tree.Dir && there && strings.HasPrefix(old, fmt.Sprintf("%d ", tree.Dir))
		if !dirs {
			maps.DeleteFunc(o, func(p, _ string) bool { return tree.Within(p, e.Path) })
		}
		switch e.Kind {
		case tree.Whiteout:
		case tree.Hardlink:
			o[e.Path] = o[e.Linkname]
		default:
			o[e.Path] = look(e)
		}
	}
}

// imageEntries is what an EROFS image holds of a layer: nothing with extended attributes but plain directories.
func imageEntries(ix *layer.Index) []tree.Entry {
	var out []tree.Entry
	left := map[string]bool{}
	for _, ie := range ix.Entries {
		e := ie.Entry
		e.Opaque = false
		if e.Kind != tree.Dir && len(e.Xattrs) > 0 || e.Kind == tree.Hardlink && left[e.Linkname] {
			left[e.Path] = true
			continue
		}
		e.Xattrs = nil
		out = append(out, e)
	}
	return out
}

// FuzzLowers compares what a sandbox sees, the images with their patches one above the other, with the merged tree.
func FuzzLowers(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // a test
		var s *rootfs.Stack
		for i := range 1 + r.IntN(6) {
			im := &layer.Image{Index: randomIndex(r)}
			for j := range im.Index.Entries {
				if e := &im.Index.Entries[j]; e.Kind != tree.Whiteout && e.Kind != tree.Hardlink && !e.Implied && r.IntN(3) == 0 {
					e.Xattrs = map[string]string{"user.n": fmt.Sprint(i)}
				}
			}
			s = s.Push(rootfs.Source{DiffID: digest.FromString(fmt.Sprint(i)), Open: func(context.Context) (*layer.Image, error) { return im, nil }})
		}
		seen := overlay{".": look(tree.Entry{Kind: tree.Dir, Mode: 0o755})}
		for _, l := range s.Lowers() {
			m, err := l.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			seen.add(imageEntries(m.Image.Index))
			seen.add(checkPatch(t, &m.Patch))
		}
		tr, err := s.Tree(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(looks(t, tr), map[string]string(seen)); diff != "" {
			t.Errorf("the sandbox sees (-tree +sandbox):\n%s", diff)
		}
	})
}

// checkPatch verifies that a patch is in tree order and has all parents, and returns its entries.
func checkPatch(t *testing.T, p *rootfs.Patch) []tree.Entry {
	t.Helper()
	var out []tree.Entry
	dirs := map[string]bool{}
	for i := range p.Entries {
		e := p.Entries[i].Entry
		if i > 0 && tree.Compare(p.Entries[i-1].Path, e.Path) >= 0 {
			t.Errorf("patch: %s comes after %s", e.Path, p.Entries[i-1].Path)
		}
		if e.Path != "." && !dirs[path.Dir(e.Path)] {
			t.Errorf("patch: %s has no parent", e.Path)
		}
		dirs[e.Path] = e.Kind == tree.Dir
		out = append(out, e)
	}
	return out
}

func looks(t *testing.T, tr *rootfs.Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	for p := range paths(t, tr) {
		e, err := tr.Lstat(p)
		if err != nil {
			t.Fatal(err)
		}
		out[p] = look(e)
	}
	return out
}
