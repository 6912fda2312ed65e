// Package rootfs sees a stack of layers as one merged file tree: look-ups, symbolic links inside the root,
// users and groups; and prepares a stack for a sandbox, where each layer is one read-only image
// plus a patch of what that image cannot say by itself.
package rootfs

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/tree"
)

// Lower is one layer in its place in a stack, as a sandbox mounts it.
type Lower struct {
	// ID is the chain ID: it identifies this layer together with all layers below it.
	// A sandbox that already holds ID (because the step that made it ran there) never calls Open.
	ID digest.Digest
	// Open makes the layer ready to be mounted. It may be called more than once and from many goroutines.
	// The result stays valid as long as the stack that the Lower came from.
	Open func(ctx context.Context) (*Mountable, error)
}

// Mountable is what a sandbox needs to mount one layer.
type Mountable struct {
	Image *layer.Image
	// Patch lies directly above Image and below the next layer. It may be empty.
	Patch Patch
}

// Patch holds what an EROFS image cannot say to gVisor, or can only be known with the layers below:
// entries with xattrs, devices and pipes (all names of their hard links), explicit whiteouts for what an opaque
// directory hides, and directories whose metadata is that of the tree below.
// Entries are in tree order, and every parent of an entry has an entry with its real metadata.
type Patch struct {
	Entries []PatchEntry
}

// PatchEntry is one path of a patch.
type PatchEntry struct {
	tree.Entry
	// Offset is where a regular file's bytes start in the layer's image, in bytes; -1 for everything else.
	Offset int64
}

// Content reads the bytes of a regular file of the patch.
func (m *Mountable) Content(e *PatchEntry) io.Reader {
	return io.NewSectionReader(m.Image.File, e.Offset, e.Size)
}
