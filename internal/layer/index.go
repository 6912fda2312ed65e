package layer

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"
	"sort"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// Find returns the entry at path, or nil if the layer says nothing about it.
func (ix *Index) Find(path string) *IndexEntry {
	i, ok := ix.search(path)
	if !ok {
		return nil
	}
	return &ix.Entries[i]
}

func (ix *Index) search(path string) (int, bool) {
	return slices.BinarySearchFunc(ix.Entries, path, func(e IndexEntry, p string) int { return tree.Compare(e.Path, p) })
}

// Below returns the entry at path, if there is one, and all entries inside it, in tree order.
// The result shares memory with the index.
func (ix *Index) Below(path string) []IndexEntry {
	from, _ := ix.search(path)
	rest := ix.Entries[from:]
	n := sort.Search(len(rest), func(i int) bool { return !tree.Within(rest[i].Path, path) })
	return rest[:n]
}

// Target returns the entry that holds the type, owner and content of e: for a hard link, its first name.
func (ix *Index) Target(e *IndexEntry) *IndexEntry {
	if e.Kind != tree.Hardlink {
		return e
	}
	return ix.Find(e.Linkname)
}

// Digest identifies what the layer says about path and everything inside it, apart from times and from where
// the bytes lie: paths, types, modes, owners, contents, link targets, device numbers, attributes, whiteouts,
// opaque marks and implied directories. Equal digests mean equal results of any step that does not look at times.
// Its encoding is part of cache keys and does not change.
func (ix *Index) Digest(path string) digest.Digest {
	h := &keyHash{h: sha256.New()}
	h.string("hako layer content 1")
	part := ix.Below(path)
	for i := range part {
		h.entry(ix, &part[i])
	}
	return digest.NewDigest(digest.SHA256, h.h)
}

// keyHash hashes values so that different sequences of values never give the same bytes.
type keyHash struct {
	h   hash.Hash
	buf []byte
}

func (k *keyHash) string(s string) {
	k.uint(uint64(len(s)))
	k.buf = append(k.buf[:0], s...)
	k.h.Write(k.buf)
}

func (k *keyHash) uint(v uint64) {
	k.buf = binary.LittleEndian.AppendUint64(k.buf[:0], v)
	k.h.Write(k.buf)
}

func (k *keyHash) entry(ix *Index, e *IndexEntry) {
	k.string(e.Path)
	k.uint(uint64(e.Kind))
	var marks uint64
	if e.Opaque {
		marks |= 1
	}
	if e.Implied {
		marks |= 2
	}
	k.uint(marks)
	if e.Implied || e.Kind == tree.Whiteout {
		return // the rest is not the layer's
	}
	k.string(e.Linkname)
	if e.Kind == tree.Hardlink {
		// The first name may lie outside the part that is hashed.
		e = ix.Target(e)
		k.uint(uint64(e.Kind))
		k.string(e.Linkname)
	}
	for _, v := range []uint32{e.Mode, e.UID, e.GID, e.Major, e.Minor} {
		k.uint(uint64(v))
	}
	k.uint(uint64(e.Size)) //nolint:gosec // never negative
	k.string(string(e.Content))
	k.uint(uint64(len(e.Xattrs)))
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		k.string(name)
		k.string(e.Xattrs[name])
	}
}
