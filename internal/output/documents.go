package output

import (
	"bytes"
	"context"
	"io"
	"path"
	"slices"
	"strings"

	"hako/internal/tree"
)

// documented is t with the image's documents in its root; named says that the platform is to be part of their names.
func (im *Image) documented(ctx context.Context, t tree.Tree, named bool) (tree.Tree, error) {
	if im.Documents == nil {
		return t, nil
	}
	docs, err := im.Documents(ctx, t)
	if err != nil {
		return nil, err
	}
	out := &documents{Tree: t, docs: map[string]Document{}}
	for _, d := range docs {
		if named { // "provenance.linux_arm64.json", as in BuildKit
			ext := path.Ext(d.Name)
			d.Name = strings.TrimSuffix(d.Name, ext) + "." + platformDir(im.Manifest.Platform) + ext
		}
		out.docs[d.Name] = d
	}
	return out, nil
}

// documents is a tree with more files in its root. They hide those of their names.
type documents struct {
	tree.Tree
	docs map[string]Document
}

// Lstat describes the entry at path.
func (d *documents) Lstat(p string) (tree.Entry, error) {
	doc, ok := d.docs[p]
	if !ok {
		return d.Tree.Lstat(p)
	}
	return tree.Entry{Path: p, Kind: tree.Regular, Mode: 0o600, Size: int64(len(doc.Data)), ModTime: doc.Time}, nil
}

// ReadDir returns the names in the directory at path.
func (d *documents) ReadDir(p string) ([]string, error) {
	names, err := d.Tree.ReadDir(p)
	if err != nil || p != "." {
		return names, err
	}
	names = slices.Clone(names)
	for name := range d.docs {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// Open reads the regular file at path.
func (d *documents) Open(p string) (io.ReadCloser, error) {
	doc, ok := d.docs[p]
	if !ok {
		return d.Tree.Open(p)
	}
	return io.NopCloser(bytes.NewReader(doc.Data)), nil
}
