package sentry

import (
	"errors"
	"fmt"
	"path"
	"slices"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/overlay"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"hako/internal/sandbox/remote"
	"hako/internal/tree"
)

var errTarget = errors.New("nothing can be mounted there")

// freshTmpfsMode is that of an empty directory where the image has none, tmpfs(5).
const freshTmpfsMode = 0o1777

// source is what a mount shows, before it is connected to its target.
type source struct {
	remote.StepMount
	mount *vfs.Mount // nil for a tmpfs, which depends on its target
	isDir bool
}

// sources opens what a step mounts. The caller drops it.
func (b *box) sources(req *remote.Run) (_ []*source, err error) {
	var out []*source
	defer func() {
		if err != nil {
			b.dropSources(out)
		}
	}()
	for i, m := range req.Mounts {
		s := &source{StepMount: m, isDir: true}
		out = append(out, s)
		switch {
		case s.Bind != nil:
			err = b.openBind(s)
		case s.Cache != nil:
			err = b.openCache(s)
		case s.Socket != nil:
			err = b.openSocket(s, req, i)
		}
		if err != nil {
			return nil, fmt.Errorf("open what is mounted on %s: %w", s.Target, err)
		}
	}
	return out, nil
}

func (b *box) dropSources(list []*source) {
	for _, s := range list {
		if s.mount != nil {
			s.mount.DecRef(b.ctx)
		}
	}
}

// openBind makes the merged tree of a stack, with an upper of its own if the step may write.
func (b *box) openBind(s *source) error {
	roots, err := b.stack(s.Bind.Lowers)
	if err != nil {
		return err
	}
	files, err := b.merged(roots)
	if err != nil {
		return err
	}
	defer func() { b.unmount(files) }()
	if !s.ReadOnly {
		upper, m, err := b.writable(files, roots, b.pipesOf(s.Bind.Lowers))
		if err != nil {
			return err
		}
		b.unmount(upper) // the overlay has its own reference
		b.unmount(files)
		files = rootOf(m)
	}
	return b.openPart(s, files, s.Bind.Path)
}

// openPart makes s show what is at the literal path p of files.
func (b *box) openPart(s *source, files vfs.VirtualDentry, p string) error {
	pop := (&vfsTree{box: b, root: files}).pop(p)
	st, err := b.kernel.VFS().StatAt(b.ctx, b.creds, pop, &vfs.StatOptions{Mask: linux.STATX_TYPE})
	if err != nil {
		return pathError("look at", p, err)
	}
	s.isDir = st.Mode&linux.S_IFMT == linux.S_IFDIR
	d, err := b.kernel.VFS().GetDentryAt(b.ctx, b.creds, pop, &vfs.GetDentryOptions{})
	if err != nil {
		return pathError("open", p, err)
	}
	defer d.DecRef(b.ctx)
	s.mount = b.kernel.VFS().NewDisconnectedMount(files.Mount().Filesystem(), d.Dentry(), &vfs.MountOptions{ReadOnly: s.ReadOnly})
	return nil
}

// writable stacks an upper, with the owner, mode and time of the root below, on stacked, top first. The caller drops both.
func (b *box) writable(below vfs.VirtualDentry, stacked []vfs.VirtualDentry, pipes []string) (upper vfs.VirtualDentry, m *vfs.Mount, err error) {
	if upper, err = b.tmpfs(); err != nil {
		return upper, nil, err
	}
	defer func() {
		if err != nil {
			b.unmount(upper)
			upper = vfs.VirtualDentry{}
		}
	}()
	if err := b.copyMetadata(below, upper, ""); err != nil {
		return upper, nil, err
	}
	if err := b.lift(below, upper, pipes); err != nil {
		return upper, nil, err
	}
	if len(stacked) == 0 {
		stacked = []vfs.VirtualDentry{below}
	}
	m, err = b.mount(overlay.Name, false, "", overlay.FilesystemOptions{UpperRoot: upper, LowerRoots: stacked})
	if err != nil {
		return upper, nil, fmt.Errorf("stack %d lowers: %w", len(stacked), err)
	}
	return upper, m, nil
}

// connect shows s at its target in the root of a step.
func (b *box) connect(root vfs.VirtualDentry, s *source, stubs []string) error {
	p, found, err := b.resolve(root, s.Target)
	if err != nil {
		return err
	}
	if p == "" || tree.Within(p, "proc") {
		return errTarget // runc says no, too, but for a tmpfs
	}
	if s.Tmpfs != nil {
		mode := uint32(freshTmpfsMode)
		if found && !slices.Contains(stubs, p) {
			e, err := (&vfsTree{box: b, root: root}).Lstat(p)
			if err != nil {
				return err
			}
			mode = e.Mode
		}
		if err := b.openTmpfs(s, mode); err != nil {
			return err
		}
	}
	return b.connectAt(root, s.mount, point{path: p, isDir: s.isDir})
}

// point is a place for a mount: a literal path, and whether what is mounted is a directory.
type point struct {
	path  string
	isDir bool
}

// connectAt mounts m at a point, which it makes if it is missing.
func (b *box) connectAt(root vfs.VirtualDentry, m *vfs.Mount, p point) error {
	v := b.kernel.VFS()
	st, err := v.StatAt(b.ctx, b.creds, at(root, p.path), &vfs.StatOptions{Mask: linux.STATX_TYPE})
	isDir := st.Mode&linux.S_IFMT == linux.S_IFDIR
	switch {
	case linuxerr.Equals(linuxerr.ENOENT, err):
		err = b.makePoint(root, p)
	case err == nil && p.isDir && !isDir:
		err = linuxerr.ENOTDIR
	case err == nil && !p.isDir && isDir:
		err = linuxerr.EISDIR
	}
	if err != nil {
		return err
	}
	return v.ConnectMountAt(b.ctx, b.creds, m, at(root, p.path))
}

// makePoint makes the directory or the empty file p, as runc does.
func (b *box) makePoint(root vfs.VirtualDentry, p point) error {
	if p.isDir {
		return b.makeDirs(root, p.path)
	}
	if dir := path.Dir(p.path); dir != "." {
		if err := b.makeDirs(root, dir); err != nil {
			return err
		}
	}
	return b.kernel.VFS().MknodAt(b.ctx, b.creds, at(root, p.path), &vfs.MknodOptions{Mode: linux.S_IFREG | 0o755})
}

// openTmpfs makes an empty directory. Its data is in memory, whatever the uppers are on.
func (b *box) openTmpfs(s *source, mode uint32) error {
	data := fmt.Sprintf("mode=%o", mode)
	if s.Tmpfs.Size > 0 {
		data += fmt.Sprintf(",size=%d", s.Tmpfs.Size)
	}
	m, err := b.kernel.VFS().MountDisconnected(b.ctx, b.creds, tmpfs.Name, tmpfs.Name, &vfs.MountOptions{
		Flags: vfs.MountFlags{NoSUID: true}, ReadOnly: s.ReadOnly,
		GetFilesystemOptions: vfs.GetFilesystemOptions{
			InternalMount: true, Data: data, InternalData: tmpfs.FilesystemOpts{DisableDefaultSizeLimit: s.Tmpfs.Size == 0},
		},
	})
	s.mount = m
	return err
}
