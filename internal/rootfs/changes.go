package rootfs

import (
	"io"
	"io/fs"
	"slices"
	"strings"

	"hako/internal/layer"
	"hako/internal/tree"
)

// Changes returns, in normal form, what leads from one tree to another that has more layers on top of it.
// What both take from the same entry of the same layer is not looked at.
func Changes(from, to *Tree) layer.Changes { return layer.Diff(&difference{from: from, to: to}, from) }

// difference shows of a tree what is not in another, as the upper directory of an overlay would.
type difference struct{ from, to *Tree }

var _ tree.Tree = (*difference)(nil)

// Lstat describes the entry at path; a whiteout if it is gone.
func (d *difference) Lstat(path string) (tree.Entry, error) {
	e, err := d.to.Lstat(path)
	if err != nil && d.from.find(path) != nil {
		return tree.Entry{Path: path, Kind: tree.Whiteout}, nil
	}
	return e, err
}

// ReadDir returns the names in the directory at path that are not the same in both trees.
func (d *difference) ReadDir(path string) ([]string, error) {
	to := d.to.find(path)
	if to == nil || to.dir == nil {
		return d.to.ReadDir(path) // for its error
	}
	var old []node
	if from := d.from.find(path); from != nil && from.dir != nil {
		old = from.dir.nodes
	}
	var names []string
	for i := range to.dir.nodes {
		n := &to.dir.nodes[i]
		at, found := slices.BinarySearchFunc(old, n.name, func(o node, name string) int { return strings.Compare(o.name, name) })
		for _, gone := range old[:at] {
			names = append(names, gone.name)
		}
		old = old[at:]
		if found {
			if old[0].entry != n.entry || old[0].dir != n.dir {
				names = append(names, n.name)
			}
			old = old[1:]
			continue
		}
		names = append(names, n.name)
	}
	for _, gone := range old {
		names = append(names, gone.name)
	}
	return names, nil
}

// Open reads the content of the regular file at path.
func (d *difference) Open(path string) (io.ReadCloser, error) {
	if d.to.find(path) == nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return d.to.Open(path)
}
