package sentry

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/erofs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/overlay"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"hako/internal/rootfs"
	"hako/internal/tree"
)

// viewSpan is how many lowers one overlay stacks before the rest is put into a merged view of its own.
// An overlay takes at most 500 (OVL_MAX_STACK), a lower is up to two of them, and a view counts as one.
const viewSpan = 128

var errNotMounted = errors.New("lower is not mounted")

// lowers is the table of what steps can stand on, by chain ID.
type lowers struct {
	mu   sync.Mutex // guards byID, and view of each lower
	byID map[string]*lower
}

// lower is one layer in its place. Its mounts live as long as the child.
type lower struct {
	// roots are the trees of the layer, top first: the patch if there is one, then the image; or a kept upper alone.
	roots []vfs.VirtualDentry
	// view merges this layer with all below it. It is made when a stack on top of it becomes too high.
	view *vfs.VirtualDentry
	// pipes are the paths of the layer's pipes, see lift.
	pipes []string
}

// mount makes a file system that is not attached anywhere.
func (b *box) mount(name string, readOnly bool, data string, internal any) (*vfs.Mount, error) {
	return b.kernel.VFS().MountDisconnected(b.ctx, b.creds, "none", name, &vfs.MountOptions{
		Flags:                vfs.MountFlags{NoATime: name == tmpfs.Name}, // copies keep the access time of the original, see timeKeeper
		ReadOnly:             readOnly,
		GetFilesystemOptions: vfs.GetFilesystemOptions{InternalMount: true, Data: data, InternalData: internal},
	})
}

// tmpfs makes an unlimited tmpfs that takes every xattr and keeps file data where uppers do.
func (b *box) tmpfs() (vfs.VirtualDentry, error) {
	m, err := b.mount(tmpfs.Name, false, "", tmpfs.FilesystemOpts{
		DisableDefaultSizeLimit: true, MemoryFile: b.uppers, AllowXattrPrefix: []string{""},
	})
	if err != nil {
		return vfs.VirtualDentry{}, fmt.Errorf("mount a tmpfs: %w", err)
	}
	return rootOf(m), nil
}

func rootOf(m *vfs.Mount) vfs.VirtualDentry { return vfs.MakeVirtualDentry(m, m.Root()) }

// unmount drops a tree made by mount.
func (b *box) unmount(root vfs.VirtualDentry) {
	if root.Ok() {
		root.Mount().DecRef(b.ctx)
	}
}

// at names path inside root without following a symbolic link at its end.
func at(root vfs.VirtualDentry, path string) *vfs.PathOperation {
	return &vfs.PathOperation{Root: root, Start: root, Path: fspath.Parse(path)}
}

// addLower mounts a layer under id. It takes over image. An id that is there already is left alone.
func (b *box) addLower(id string, image *os.File, patch *rootfs.Patch) error {
	b.lowers.mu.Lock()
	_, there := b.lowers.byID[id]
	b.lowers.mu.Unlock()
	if there {
		return image.Close()
	}
	root, err := b.mountImage(image)
	if err != nil {
		return fmt.Errorf("mount the image of %s: %w", id, err)
	}
	l := &lower{roots: []vfs.VirtualDentry{root}}
	for i := range patch.Entries {
		if e := &patch.Entries[i]; e.Kind == tree.Fifo {
			l.pipes = append(l.pipes, e.Path)
		}
	}
	if len(patch.Entries) > 0 {
		p, err := b.patch(root, image, patch)
		if err != nil {
			b.unmount(root)
			return fmt.Errorf("patch the image of %s: %w", id, err)
		}
		l.roots = []vfs.VirtualDentry{p, root}
	}
	b.keepLower(id, l)
	return nil
}

// mountImage mounts an EROFS image. The file stays open as long as the mount, which owns it.
func (b *box) mountImage(image *os.File) (vfs.VirtualDentry, error) {
	// The mount closes the number it is given, and image closes its own.
	fd, err := unix.FcntlInt(image.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return vfs.VirtualDentry{}, fmt.Errorf("duplicate the descriptor: %w", err)
	}
	m, err := b.mount(erofs.Name, true, fmt.Sprintf("ifd=%d", fd), erofs.InternalFilesystemOptions{})
	if err != nil {
		return vfs.VirtualDentry{}, err
	}
	return rootOf(m), nil
}

// keepLower records l. If another step made the same lower first, that one stays and l is dropped.
func (b *box) keepLower(id string, l *lower) {
	b.lowers.mu.Lock()
	defer b.lowers.mu.Unlock()
	if _, there := b.lowers.byID[id]; !there {
		b.lowers.byID[id] = l
		return
	}
	for _, r := range l.roots {
		b.unmount(r)
	}
}

// stack returns the trees of ids, given bottom first, top first as the overlay wants them.
func (b *box) stack(ids []string) ([]vfs.VirtualDentry, error) {
	b.lowers.mu.Lock()
	defer b.lowers.mu.Unlock()
	var below *lower // the lower whose view stands for everything that is not in roots
	var roots []vfs.VirtualDentry
	for i, id := range ids {
		l, ok := b.lowers.byID[id]
		if !ok {
			return nil, fmt.Errorf("%s: %w", id, errNotMounted)
		}
		roots = append(append([]vfs.VirtualDentry(nil), l.roots...), roots...)
		if (i+1)%viewSpan != 0 || i+1 == len(ids) {
			continue
		}
		if err := b.viewLocked(l, roots, below); err != nil {
			return nil, err
		}
		below, roots = l, nil
	}
	if below != nil {
		roots = append(roots, *below.view)
	}
	return roots, nil
}

// viewLocked makes the view of l, which is the top of roots, over the view of below. The chain ID of l says
// what is below it, so a view is right for every stack that has l at all.
func (b *box) viewLocked(l *lower, roots []vfs.VirtualDentry, below *lower) error {
	if l.view != nil {
		return nil
	}
	if below != nil {
		roots = append(roots, *below.view)
	}
	v, err := b.merged(roots)
	if err != nil {
		return err
	}
	l.view = &v
	return nil
}

// merged returns a read-only view of roots, top first. The caller drops it with unmount.
func (b *box) merged(roots []vfs.VirtualDentry) (vfs.VirtualDentry, error) {
	// Even a single tree goes through an overlay, which hides whiteouts that hide nothing. An overlay wants two,
	// so there is always an empty one at the bottom.
	empty, err := b.emptyTree()
	if err != nil {
		return vfs.VirtualDentry{}, err
	}
	if len(roots) == 0 {
		return empty, nil
	}
	defer b.unmount(empty)
	all := append(append([]vfs.VirtualDentry(nil), roots...), empty)
	m, err := b.mount(overlay.Name, true, "", overlay.FilesystemOptions{LowerRoots: all})
	if err != nil {
		return vfs.VirtualDentry{}, fmt.Errorf("merge %d lowers: %w", len(roots), err)
	}
	return rootOf(m), nil
}

// emptyTree is a root directory and nothing else, as the root of an image without layers is: 0755 root:root.
func (b *box) emptyTree() (vfs.VirtualDentry, error) {
	root, err := b.tmpfs()
	if err != nil {
		return root, err
	}
	err = b.kernel.VFS().SetStatAt(b.ctx, b.creds, at(root, ""), &vfs.SetStatOptions{Stat: linux.Statx{
		Mask: linux.STATX_MODE | linux.STATX_MTIME, Mode: 0o755,
	}})
	if err != nil {
		b.unmount(root)
		return vfs.VirtualDentry{}, fmt.Errorf("set the mode of an empty root: %w", err)
	}
	return root, nil
}
