package rootfs

import (
	"path"
	"slices"

	"hako/internal/layer"
	"hako/internal/tree"
)

// What a layer needs besides its image.
const (
	patchNone  = iota // nothing
	patchAlone        // a patch that its index is enough for
	patchBelow        // a patch that depends on the layers below
)

// needs tells what kind of patch the layer with this index needs.
func needs(ix *layer.Index) int {
	need := patchNone
	for i := range ix.Entries {
		e := &ix.Entries[i]
		if e.Opaque || e.Implied && e.Path != "." || e.Kind == tree.Whiteout {
			return patchBelow
		}
		if inPatch(&e.Entry) || e.Path == "." && !plain(e) {
			need = patchAlone
		}
	}
	return need
}

// patcher collects the entries of a patch.
type patcher struct {
	below, merged *Tree
	image         *layer.Image
	found         map[string]PatchEntry
}

// newPatch makes the patch of a layer that lies on below and shows merged:
//
//   - a directory that the layer only implies gets the metadata of the one below;
//   - an opaque directory gets a whiteout for each name below that the layer does not have itself,
//     in all directories that both have;
//   - what has extended attributes, and what is no file, directory or link, is repeated, under all its names;
//   - a directory that is not below but has whiteouts is repeated;
//   - the root directory gets back the metadata that it always has;
//   - the directories on the way to all that are repeated, because a patch's directories hide the image's metadata.
func newPatch(below, merged *Tree, im *layer.Image) Patch {
	p := &patcher{below: below, merged: merged, image: im, found: map[string]PatchEntry{}}
	p.restore()
	p.root()
	p.repeat()
	p.hide()
	p.stray()
	for name := range p.found {
		for dir := path.Dir(name); ; dir = path.Dir(dir) {
			if _, ok := p.found[dir]; !ok {
				p.found[dir] = PatchEntry{Entry: p.merged.find(dir).describe(dir), Offset: -1}
			}
			if dir == "." {
				break
			}
		}
	}
	out := make([]PatchEntry, 0, len(p.found))
	for _, e := range p.found {
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b PatchEntry) int { return tree.Compare(a.Path, b.Path) })
	return Patch{Entries: out}
}

// restore gives implied directories the metadata of the directory below.
func (p *patcher) restore() {
	for i := range p.image.Index.Entries {
		e := &p.image.Index.Entries[i]
		if !e.Implied || e.Path == "." {
			continue
		}
		if n := p.merged.find(e.Path); !n.entry.Implied {
			p.found[e.Path] = PatchEntry{Entry: n.describe(e.Path), Offset: -1}
		}
	}
}

// root takes back what the layer says about its root directory, see Tree.Add.
func (p *patcher) root() {
	if entries := p.image.Index.Entries; len(entries) > 0 && !plain(&entries[0]) {
		p.found["."] = PatchEntry{Entry: p.merged.root.describe("."), Offset: -1}
	}
}

// plain tells whether a root directory looks as an image without one has it. Its time does not matter:
// no layer ever records it.
func plain(e *layer.IndexEntry) bool {
	return e.Mode == 0o755 && e.UID == 0 && e.GID == 0 && len(e.Xattrs) == 0
}

// inPatch tells whether a sandbox cannot take an entry from the image: gVisor's EROFS refuses extended attributes
// and does not open devices and pipes.
func inPatch(e *tree.Entry) bool {
	switch e.Kind {
	case tree.CharDevice, tree.BlockDevice, tree.Fifo, tree.Socket:
		return true
	}
	return len(e.Xattrs) > 0
}

// repeat takes over what has to be in the patch, and all further names of it.
func (p *patcher) repeat() {
	marked := map[string]bool{}
	for i := range p.image.Index.Entries {
		e := &p.image.Index.Entries[i]
		switch {
		case e.Implied || e.Kind == tree.Whiteout || e.Path == ".":
			continue
		case e.Kind == tree.Hardlink:
			if !marked[e.Linkname] {
				continue
			}
		case !inPatch(&e.Entry):
			continue
		default:
			marked[e.Path] = true
		}
		out := PatchEntry{Entry: e.Entry, Offset: -1}
		if e.Kind == tree.Regular {
			out.Offset = e.Offset
		}
		out.Opaque = false
		p.found[e.Path] = out
	}
}

// hide finds what opaque directories hide. A directory inside an opaque one hides likewise.
func (p *patcher) hide() {
	entries := p.image.Index.Entries
	opaque := ""
	for i := range entries {
		e := &entries[i]
		if e.Kind != tree.Dir {
			continue
		}
		if opaque == "" || !tree.Within(e.Path, opaque) {
			opaque = ""
			if !e.Opaque {
				continue
			}
			opaque = e.Path
		}
		n := p.below.find(e.Path)
		if n == nil || n.dir == nil {
			continue
		}
		own := names(entries[i:])
		for j := range n.dir.nodes {
			name := n.dir.nodes[j].name
			if _, ok := slices.BinarySearch(own, name); ok {
				continue
			}
			at := path.Join(e.Path, name)
			p.found[at] = PatchEntry{
				Entry:  tree.Entry{Path: at, Kind: tree.Whiteout},
				Offset: -1,
			}
		}
	}
}

// stray finds whiteouts of what is not below, in directories that are not below either. Linux's overlay shows them as devices
// unless something else is merged with their directory.
func (p *patcher) stray() {
	for i := range p.image.Index.Entries {
		e := &p.image.Index.Entries[i]
		dir := path.Dir(e.Path)
		if e.Kind != tree.Whiteout || dir == "." {
			continue
		}
		if _, ok := p.found[dir]; ok {
			continue
		}
		if n := p.below.find(dir); n == nil || n.dir == nil {
			p.found[dir] = PatchEntry{Entry: p.merged.find(dir).describe(dir), Offset: -1}
		}
	}
}

// names returns what is directly in the directory entries[0], sorted.
func names(entries []layer.IndexEntry) []string {
	var out []string
	dir := entries[0].Path
	for i := 1; i < len(entries) && tree.Within(entries[i].Path, dir); i++ {
		if inside(entries[i].Path, dir) {
			out = append(out, base(entries[i].Path))
		}
	}
	return out
}
