// Package tree describes file trees: what an entry is and how a tree is read,
// whoever holds it: a build context, a stack of layers, a sandbox's upper directory.
package tree

import (
	"io"
	"time"
)

// Kind is the type of an entry.
type Kind uint8

// The kinds. Hardlink and Whiteout appear only in change sets, never in a tree that is read.
const (
	Dir Kind = iota + 1
	Regular
	Symlink
	Hardlink // a further name of an earlier entry of the same change set; Linkname is its path
	CharDevice
	BlockDevice
	Fifo
	Socket   // read from trees, dropped from change sets
	Whiteout // the path exists below and is gone now
)

// Entry is one name of a tree with everything an image keeps about it, but its content.
type Entry struct {
	// Path is slash-separated, clean, relative to the root ("etc/passwd"); the root itself is ".".
	Path string
	Kind Kind
	// Mode holds the permission, setuid, setgid and sticky bits as in stat(2): at most 07777.
	Mode     uint32
	UID, GID uint32
	// Size is in bytes; zero for everything but regular files.
	Size    int64
	ModTime time.Time
	// Linkname is the target of a symbolic link, verbatim, or the path of a hard link's first name.
	Linkname string
	// Major and Minor are the device numbers of character and block devices.
	Major, Minor uint32
	// Xattrs maps full names ("user.x", "security.capability") to raw values.
	Xattrs map[string]string
	// Opaque, on a directory, hides everything that lies below it in the layers underneath.
	Opaque bool
	// Inode tells names of the same file apart from equal files; zero if the tree cannot tell.
	// It is meaningful only within one tree, and only if Links > 1.
	Inode uint64
	Links uint32
}

// Tree is a file tree that can be read. Paths are as in Entry.Path and are taken literally:
// no symbolic link is followed, neither in the middle of a path nor at its end.
// Methods may be called from many goroutines. A missing path is an error that Is fs.ErrNotExist;
// a path below something that is not a directory is missing.
type Tree interface {
	// Lstat describes the entry at path.
	Lstat(path string) (Entry, error)
	// ReadDir returns the names in the directory at path, sorted bytewise.
	ReadDir(path string) ([]string, error)
	// Open reads the content of the regular file at path. The caller closes it.
	Open(path string) (io.ReadCloser, error)
}
