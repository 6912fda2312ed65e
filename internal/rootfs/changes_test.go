package rootfs_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/tree"
)

// layerOf makes a layer of the changes between two trees, without contents.
func layerOf(t *testing.T, from, to *rootfs.Tree) *layer.Image {
	t.Helper()
	ix := &layer.Index{Entries: []layer.IndexEntry{{Entry: tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755}, Offset: -1, Implied: true}}}
	err := rootfs.Changes(from, to).Each(t.Context(), func(e tree.Entry, content io.Reader) error {
		if content != nil {
			if _, err := io.Copy(io.Discard, content); err != nil {
				return err
			}
		}
		ix.Entries = append(ix.Entries, layer.IndexEntry{Entry: e, Offset: -1})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &layer.Image{Index: ix}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		base  string
		above []string
		want  string
	}{
		{"nothing", "a = x \n d/ 0700 \n d/b", nil, ""},
		{"the last of several", "a = x", []string{"a = y", "a = z \n b", "b whiteout"}, "a"},
		{"parents come along", "d/ 0711 \n d/e/ 0700 \n d/e/f", []string{"d/e/g"}, "d/ 711, d/e/ 700, d/e/g"},
		{"gone", "d/a \n d/b \n e", []string{"d/a whiteout \n e whiteout"}, "d/ 755, d/a gone, e gone"},
		{"gone and back", "d/ \n d/a \n d/b", []string{"d whiteout", "d/ \n d/a = new"}, "d/ 755, d/a, d/b gone"},
		{"made and gone", "a", []string{"b", "b whiteout"}, ""},
		{"the same again", "d/ 0700 \n d/a = x", []string{"d/ 0700 @5 \n d/a = x"}, ""},
		{"mode of a directory", "d/ 0700 \n d/a", []string{"d/ 0711"}, "d/ 711"},
		{"links", "a", []string{"b = x \n c => b"}, "b, c => b"},
	} {
		base := merged(t, tt.base)
		top := base
		for _, l := range tt.above {
			var err error
			if top, err = top.Add(image(t, l)); err != nil {
				t.Fatal(err)
			}
		}
		var got []string
		for _, e := range layerOf(t, base, top).Index.Entries[1:] {
			got = append(got, short(&e.Entry))
		}
		if diff := cmp.Diff(tt.want, strings.Join(got, ", ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func short(e *tree.Entry) string {
	switch e.Kind {
	case tree.Dir:
		return fmt.Sprintf("%s/ %o", e.Path, e.Mode)
	case tree.Whiteout:
		return e.Path + " gone"
	case tree.Hardlink:
		return e.Path + " => " + e.Linkname
	}
	return e.Path
}

// FuzzChanges puts the changes between two trees onto the first, which must give the second.
func FuzzChanges(f *testing.F) {
	for seed := range uint64(64) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // a test
		add := func(tr *rootfs.Tree, most int) *rootfs.Tree {
			for range r.IntN(most) {
				next, err := tr.Add(&layer.Image{Index: randomIndex(r)})
				if err != nil {
					t.Fatal(err)
				}
				tr = next
			}
			return tr
		}
		base := add(rootfs.NewTree(), 4)
		top := add(base, 5)
		for _, from := range []*rootfs.Tree{base, rootfs.NewTree()} {
			got, err := from.Add(layerOf(t, from, top))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(modeless(paths(t, top)), modeless(paths(t, got))); diff != "" {
				t.Fatalf("-want +got:\n%s", diff)
			}
		}
	})
}

// modeless drops the modes of symbolic links, which mean nothing.
func modeless(paths map[string]string) map[string]string {
	link := fmt.Sprintf("%d ", tree.Symlink)
	for p, text := range paths {
		if strings.HasPrefix(text, link) {
			paths[p] = link
		}
	}
	return paths
}
