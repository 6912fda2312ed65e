package layer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
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
//
// The contents of the files are read for it, which is why it is not made while a layer is read or written: few layers
// are ever asked for it, and most of those for a small part; digests that the index has already are taken as they are.
func (im *Image) Digest(ctx context.Context, path string) (digest.Digest, error) {
	h := &keyHash{h: sha256.New(), content: sha256.New(), image: im}
	h.string("hako layer content 1")
	part := im.Index.Below(path)
	for i := range part {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		if err := h.entry(&part[i]); err != nil {
			return "", fmt.Errorf("hash /%s of the layer: %w", part[i].Path, err)
		}
	}
	return digest.NewDigest(digest.SHA256, h.h), nil
}

// keyHash hashes values so that different sequences of values never give the same bytes.
type keyHash struct {
	h       hash.Hash
	content hash.Hash // of one file at a time
	image   *Image
	buf     []byte
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

func (k *keyHash) entry(e *IndexEntry) error {
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
		return nil // the rest is not the layer's
	}
	k.string(e.Linkname)
	if e.Kind == tree.Hardlink {
		// The first name may lie outside the part that is hashed.
		e = k.image.Index.Target(e)
		k.uint(uint64(e.Kind))
		k.string(e.Linkname)
	}
	for _, v := range []uint32{e.Mode, e.UID, e.GID, e.Major, e.Minor} {
		k.uint(uint64(v))
	}
	k.uint(uint64(e.Size)) //nolint:gosec // never negative
	if err := k.file(e); err != nil {
		return err
	}
	k.uint(uint64(len(e.Xattrs)))
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		k.string(name)
		k.string(e.Xattrs[name])
	}
	return nil
}

// file hashes the digest of the bytes of e, which is empty for what is no regular file.
func (k *keyHash) file(e *IndexEntry) error {
	if e.Kind != tree.Regular {
		k.string("")
		return nil
	}
	if e.Content != "" {
		k.string(string(e.Content))
		return nil
	}
	k.content.Reset()
	if _, err := io.Copy(k.content, k.image.Content(e)); err != nil {
		return err
	}
	k.string(string(digest.NewDigest(digest.SHA256, k.content)))
	return nil
}
