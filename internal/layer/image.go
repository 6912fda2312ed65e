package layer

import (
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// Image is one layer in readable form: an uncompressed EROFS file and the list of what the layer says.
//
// The file cannot say everything, since gVisor's reader refuses inodes with xattrs: files with xattrs are not in it,
// under none of their names (but their bytes are, at Offset), and directories are there without their xattrs.
// Whiteouts are character devices 0:0. Opaque marks are in the Index only.
//
// It is independent of what lies below; whatever depends on that is rootfs's business.
// It is immutable and may be used from many goroutines.
type Image struct {
	// File is the EROFS image, mapped executable by sandboxes; it may be a memfd. Owned by whoever made the Image.
	File *os.File
	// Index lists every path of the layer in tree order.
	Index *Index

	absent *absent // set if File is nil, see Late
}

// Index lists the paths of one layer in the order of Changes. Whiteouts and opaque marks are included.
// Every parent of an entry has an entry, the root "." included; a layer that says nothing has no entries at all.
// Inode and Links are not set: names of one file are Hardlink entries of its first name in tree order.
type Index struct {
	Entries []IndexEntry
}

// IndexEntry is one path of a layer.
type IndexEntry struct {
	tree.Entry // a Hardlink has its first name's metadata, but a Size of zero; see Index.Target

	// Content is the digest of a regular file's bytes where it is known: only WriteOptions.Digests and a cache make it so.
	// A Hardlink has its first name's.
	Content digest.Digest
	// Offset is where a regular file's bytes start in Image.File, in bytes; -1 without a file.
	Offset int64
	// Implied marks a directory that the layer has no entry for but has entries inside.
	// Its metadata is that of the tree below, or 0755 root:root where there is none. It may be Opaque.
	Implied bool
}

// Content is what can be read of a file: from its start, and at any place.
type Content interface {
	io.Reader
	io.ReaderAt
}

// Content reads the bytes of the regular file e, which must be an entry of im.Index and no Hardlink.
func (im *Image) Content(e *IndexEntry) Content {
	if im.File == nil && im.absent != nil {
		return im.absent.content(e)
	}
	return io.NewSectionReader(im.File, e.Offset, e.Size)
}
