// Package layer turns changes into image layers and layers back into files, in one pass over the bytes.
//
// Three forms of a layer meet here:
//
//   - Changes: what a step did to the tree below it, engine-neutral and in normal form (see Diff);
//   - the blob: the compressed tar that a registry holds, with its digest, diffID and per-path Index;
//   - Image: the layer as an uncompressed EROFS file that a sandbox maps and that we read files from.
package layer

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// Changes is what one step did to the tree below it, in normal form:
//
//   - entries come in path order, a directory before what is in it ("a" < "a/b" < "a.b": compared component by component);
//   - each changed or new path comes once; an entry equal to the tree below in kind, mode, owner, device, xattrs,
//     size, mtime (whole seconds) and content does not come at all;
//   - an unchanged directory comes only if something inside it comes, so that no consumer has to invent metadata for it
//     (Docker's overlay2 would make it 0755 root:root);
//   - a directory of which only the mtime changed counts as unchanged, and the root never comes from Diff, as in BuildKit;
//   - a Whiteout comes only for a path that exists below, and nothing comes inside it;
//   - sockets do not come;
//   - the first name of a hard-linked file carries the data, later names are Hardlink entries, whose metadata is
//     that of the first name whatever they say.
//
// It is read once.
type Changes interface {
	// Each calls fn for every entry in order and stops at the first error, which it returns.
	// content is valid only during the call; it is nil except for regular files, where it yields exactly Size bytes.
	// Each may be called once. It returns ctx's cause if ctx ends first.
	Each(ctx context.Context, fn func(e tree.Entry, content io.Reader) error) error
}

// Descriptor identifies a layer as a registry and an image config name it.
type Descriptor struct {
	MediaType string
	// Digest and Size are those of the compressed blob; DiffID is the digest of the tar.
	Digest digest.Digest
	Size   int64
	DiffID digest.Digest
}
