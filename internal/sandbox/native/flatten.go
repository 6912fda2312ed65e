package native

import (
	"errors"
	"fmt"
	"path"

	"golang.org/x/sys/unix"

	"hako/internal/tree"
)

// An overlay takes at most 500 lowers (OVL_MAX_STACK), and their names have to fit into a page. Of a higher stack the
// bottom is merged into one lower: by an overlay of its own where the kernel lets overlays stand on one another that high
// (FILESYSTEM_MAX_STACK_DEPTH is 2, and an image mounted from a file may count for one), and by a copy elsewhere.

// maxLowers leaves room for longer names than there will ever be.
const maxLowers = 400

// flatten merges dirs, top first, into one lower and returns its directory.
func (b *box) flatten(dirs []string) (string, error) {
	n := b.next()
	view := dirViews + "/f" + n
	if err := unix.Mkdir(view, 0o755); err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	if err := b.overlay.mount(view, dirs, "", ""); err != nil {
		return "", errors.Join(err, unix.Rmdir(view))
	}
	// Steps put an overlay with an upper on it, which is as high as one without.
	if above, err := b.view([]string{view}); err == nil {
		_ = above.Close() // only read
		return view, nil
	}
	dir := dirData + "/l" + n
	err := unix.Mkdir(dir, 0o755)
	if err == nil {
		err = b.copyTree(view, dir)
	}
	return dir, errors.Join(err, unix.Unmount(view, unix.MNT_DETACH), unix.Rmdir(view))
}

// treeCopy copies a directory with everything that an image can hold of it.
type treeCopy struct {
	from  *dirTree
	to    int               // the new directory
	nodes *nodes            // makes devices; may be nil
	links map[uint64]string // the first name of files with several
}

func (b *box) copyTree(from, to string) error {
	src, err := openDirTree(from)
	if err != nil {
		return err
	}
	defer src.close()
	fd, err := unix.Open(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", to, err)
	}
	defer func() { _ = unix.Close(fd) }()
	c := treeCopy{from: src, to: fd, nodes: b.nodes, links: map[uint64]string{}}
	return c.dir(".", fd)
}

// dir copies what is in the directory p to fd, and then its metadata.
func (c *treeCopy) dir(p string, fd int) error {
	names, err := c.from.ReadDir(p)
	if err != nil {
		return err
	}
	for _, name := range names {
		e, err := c.from.Lstat(path.Join(p, name))
		if err == nil {
			err = c.entry(fd, name, &e)
		}
		if err != nil {
			return fmt.Errorf("copy /%s: %w", path.Join(p, name), err)
		}
	}
	e, err := c.from.Lstat(p)
	if err != nil {
		return err
	}
	return describeOpen(fd, &e)
}

func (c *treeCopy) entry(parent int, name string, e *tree.Entry) error {
	if e.Kind != tree.Dir && e.Links > 1 {
		if first, ok := c.links[e.Inode]; ok {
			return unix.Linkat(c.to, first, parent, name, 0)
		}
		c.links[e.Inode] = e.Path
	}
	switch e.Kind {
	case tree.Dir:
		if err := unix.Mkdirat(parent, name, 0o700); err != nil {
			return err
		}
		fd, err := unix.Openat(parent, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return c.dir(e.Path, fd)
	case tree.Regular:
		return c.regular(parent, name, e)
	case tree.Socket:
		return nil // no image can hold it
	default:
		return c.nodes.special(parent, name, e)
	}
}

func (c *treeCopy) regular(parent int, name string, e *tree.Entry) error {
	from, err := c.from.openFile(e.Path)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(from) }()
	fd, err := unix.Openat(parent, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, e.Mode&0o777)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := copyRange(from, 0, fd, e.Size); err != nil {
		return err
	}
	return describeFile(fd, e)
}
