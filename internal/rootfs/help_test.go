package rootfs_test

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// image makes a layer from lines of treetest. What a path needs and has no line is implied, as in a foreign tar.
func image(t testing.TB, text string) *layer.Image {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) //nolint:errcheck // a test's file
	byPath := map[string]layer.IndexEntry{}
	offset := int64(0)
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, content, err := treetest.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		ie := layer.IndexEntry{Entry: e, Offset: -1}
		if e.Kind == tree.Regular {
			ie.Offset = offset
			n, err := f.WriteString(content)
			if err != nil {
				t.Fatal(err)
			}
			offset += int64(n)
		}
		byPath[e.Path] = ie
	}
	return &layer.Image{File: f, Index: index(byPath)}
}

// index completes and sorts entries.
func index(byPath map[string]layer.IndexEntry) *layer.Index {
	ix := &layer.Index{}
	if len(byPath) == 0 {
		return ix
	}
	for _, e := range byPath {
		for p := e.Path; p != "."; {
			p = path.Dir(p)
			if _, ok := byPath[p]; !ok {
				byPath[p] = layer.IndexEntry{
					Entry: tree.Entry{Path: p, Kind: tree.Dir, Mode: 0o755, ModTime: time.Unix(0, 0)}, Offset: -1, Implied: true,
				}
			}
		}
	}
	for _, e := range byPath {
		ix.Entries = append(ix.Entries, e)
	}
	slices.SortFunc(ix.Entries, func(a, b layer.IndexEntry) int { return tree.Compare(a.Path, b.Path) })
	return ix
}

// source makes a layer of a stack.
func source(t testing.TB, text string) rootfs.Source {
	t.Helper()
	im := image(t, text)
	return rootfs.Source{
		DiffID: digest.FromString(text),
		Open:   func(context.Context) (*layer.Image, error) { return im, nil },
	}
}

// merged is the tree of layers.
func merged(t testing.TB, layers ...string) *rootfs.Tree {
	t.Helper()
	tr := rootfs.NewTree()
	for _, l := range layers {
		var err error
		if tr, err = tr.Add(image(t, l)); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func trim(s string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func dump(t testing.TB, tr tree.Tree) string {
	t.Helper()
	s, err := treetest.Dump(tr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
