package sentry

import (
	"errors"
	"fmt"
	"hako/internal/sandbox"
	"hako/internal/sandbox/remote"
	"path"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/dev"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/devpts"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/mqfs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/overlay"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/proc"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/sys"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"
)

// What a step sees is, from the top: the mounts (/proc, /sys, /dev, single read-only files), the upper, the stubs,
// and the lowers. The stubs are a tree that lives as long as the step: they give the read-only files
// (/etc/hosts, /etc/resolv.conf, heredoc scripts) something to be mounted on where the image has nothing there.
// As a lower they never get into the upper, so nothing has to be cleaned up afterwards, and no directory's time moves.
// The snapshot compares the upper with the lowers without the stubs, so a file made next to a stub brings its directory
// into the layer, as it would with BuildKit, which removes its mount points at the end of the step.
//
// /proc, /sys and /dev are different: runc makes them where they are missing and BuildKit leaves them in the layer. So do we.

var errMountPoint = errors.New("not a directory")

// stepRoot is the file tree of one step.
type stepRoot struct {
	upper  vfs.VirtualDentry
	lowers []vfs.VirtualDentry // top first, without the stubs
	mounts *vfs.MountNamespace
	// started is when the step was about to start, in ns of the kernel's clock.
	started int64
	// pipes and sockets are those of the upper, once its changes were read.
	pipes, sockets []string
}

// newRoot makes the root of a step and everything that is mounted in it. ctx is that of the process to be.
func (b *box) newRoot(ctx context.Context, req *remote.Run) (_ *stepRoot, err error) {
	lowers, err := b.stack(req.Lowers)
	if err != nil {
		return nil, err
	}
	r := &stepRoot{lowers: lowers}
	defer func() {
		if err != nil {
			b.dropRoot(r)
		}
	}()
	files := b.stepFiles(req)
	below, stubs, err := b.stubs(lowers, files)
	if err != nil {
		return nil, err
	}
	defer b.unmount(below)
	defer b.unmount(stubs)
	stacked := lowers
	if stubs.Ok() {
		stacked = append([]vfs.VirtualDentry{stubs}, lowers...)
	}
	if err := b.stackUpper(r, below, stacked, b.pipesOf(req.Lowers)); err != nil {
		return nil, err
	}
	r.started = b.kernel.RealtimeClock().Now().Nanoseconds()
	if err := b.mountAll(ctx, r, req, files); err != nil {
		return nil, err
	}
	return r, nil
}

// stackUpper makes the upper with the owner, mode and time of the root below, and the mount namespace over both.
func (b *box) stackUpper(r *stepRoot, below vfs.VirtualDentry, stacked []vfs.VirtualDentry, pipes []string) error {
	var err error
	if r.upper, err = b.tmpfs(); err != nil {
		return err
	}
	if err := b.copyMetadata(below, r.upper, ""); err != nil {
		return err
	}
	if err := b.lift(below, r.upper, pipes); err != nil {
		return err
	}
	if len(stacked) == 0 {
		stacked = []vfs.VirtualDentry{below}
	}
	m, err := b.mount(overlay.Name, false, "", overlay.FilesystemOptions{UpperRoot: r.upper, LowerRoots: stacked})
	if err != nil {
		return fmt.Errorf("stack %d lowers: %w", len(stacked), err)
	}
	defer m.DecRef(b.ctx)
	v := b.kernel.VFS()
	r.mounts, err = v.NewMountNamespace(b.ctx, b.creds, "none", tmpfs.Name, &vfs.MountOptions{ReadOnly: true, Locked: true}, b.kernel)
	if err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	bare := r.mounts.Root(b.ctx)
	defer bare.DecRef(b.ctx)
	if err := v.ConnectMountAt(b.ctx, b.creds, m, at(bare, "")); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	return nil
}

// dropMounts releases what only a running step needs.
func (b *box) dropMounts(r *stepRoot) {
	if r.mounts != nil {
		r.mounts.DecRef(b.ctx)
		r.mounts = nil
	}
}

// dropRoot releases what newRoot made; the upper stays if it was taken out.
func (b *box) dropRoot(r *stepRoot) {
	b.dropMounts(r)
	b.unmount(r.upper)
	r.upper = vfs.VirtualDentry{}
}

// mountPoint is one of the file systems that every step has.
type mountPoint struct {
	path, name string
	data       string
	internal   any
	readOnly   bool
	flags      vfs.MountFlags
}

// mountPoints are those of runc's default, in its order and with its flags.
func mountPoints(shmSize int64) []mountPoint {
	inert := vfs.MountFlags{NoExec: true, NoSUID: true, NoDev: true}
	return []mountPoint{
		{path: "/proc", name: proc.Name, internal: &proc.InternalData{}, flags: inert},
		{path: "/dev", name: dev.Name, flags: vfs.MountFlags{NoSUID: true}},
		{path: "/dev/pts", name: devpts.Name, flags: vfs.MountFlags{NoSUID: true, NoExec: true}},
		{path: "/dev/shm", name: tmpfs.Name, data: fmt.Sprintf("mode=1777,size=%d", shmSize), flags: inert},
		{path: "/dev/mqueue", name: mqfs.Name, flags: inert},
		{path: "/sys", name: sys.Name, internal: &sys.InternalData{}, readOnly: true, flags: inert},
	}
}

func (b *box) mountAll(ctx context.Context, r *stepRoot, req *remote.Run, files []sandbox.File) error {
	root := r.mounts.Root(b.ctx)
	defer root.DecRef(b.ctx)
	if err := b.makeDirs(root, req.Dir); err != nil { // as BuildKit; it stays in the layer
		return &remote.StartError{Reason: fmt.Sprintf("make working directory: %v", err)}
	}
	before, err := (&vfsTree{box: b, root: root}).Lstat(".")
	if err != nil {
		return err
	}
	for _, p := range mountPoints(req.ShmSize) {
		if err := b.mountIn(ctx, root, p); err != nil {
			return fmt.Errorf("mount %s: %w", p.path, err)
		}
	}
	for _, f := range files {
		if err := b.mountFile(root, f); err != nil {
			return fmt.Errorf("show %s to the step: %w", f.Path, err)
		}
	}
	// What gVisor's /dev lacks compared with runc's.
	if err := b.kernel.VFS().SymlinkAt(b.ctx, b.creds, at(root, "/dev/core"), "/proc/kcore"); err != nil {
		return fmt.Errorf("link /dev/core: %w", err)
	}
	return b.setTime(at(root, ""), &before)
}

func (b *box) mountIn(ctx context.Context, root vfs.VirtualDentry, p mountPoint) error {
	v := b.kernel.VFS()
	m, err := v.MountDisconnected(ctx, b.creds, p.name, p.name, &vfs.MountOptions{
		ReadOnly:             p.readOnly,
		Flags:                p.flags,
		GetFilesystemOptions: vfs.GetFilesystemOptions{InternalMount: true, Data: p.data, InternalData: p.internal},
	})
	if err != nil {
		return err
	}
	defer m.DecRef(b.ctx)
	if err := b.makeDirs(root, p.path); err != nil {
		return err
	}
	target := at(root, p.path)
	target.FollowFinalSymlink = true
	return v.ConnectMountAt(b.ctx, b.creds, m, target)
}

// makeDirs makes the directories of p that are missing, 0755 root:root, following links inside the root.
func (b *box) makeDirs(root vfs.VirtualDentry, p string) error {
	v, dir := b.kernel.VFS(), ""
	for _, name := range strings.Split(strings.Trim(p, "/"), "/") {
		dir += "/" + name
		pop := at(root, dir)
		pop.FollowFinalSymlink = true
		st, err := v.StatAt(b.ctx, b.creds, pop, &vfs.StatOptions{Mask: linux.STATX_TYPE})
		switch {
		case err == nil && st.Mode&linux.S_IFMT != linux.S_IFDIR:
			return fmt.Errorf("%s: %w", dir, errMountPoint)
		case err == nil:
			continue
		case !linuxerr.Equals(linuxerr.ENOENT, err):
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		if err := v.MkdirAt(b.ctx, b.creds, at(root, dir), &vfs.MkdirOptions{Mode: 0o755}); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	return nil
}

// stepFiles are the read-only files of a step.
func (b *box) stepFiles(req *remote.Run) []sandbox.File {
	files := []sandbox.File{
		{Path: "/etc/resolv.conf", Mode: 0o644, Data: req.ResolvConf},
		{Path: "/etc/hosts", Mode: 0o644, Data: req.Hosts},
	}
	return append(files, req.Files...)
}

// mountFile shows f, which exists as a stub, in the image, or belongs into /dev, where it is made.
func (b *box) mountFile(root vfs.VirtualDentry, f sandbox.File) error {
	v := b.kernel.VFS()
	m, err := b.mount(tmpfs.Name, false, "", tmpfs.FilesystemOpts{RootFileType: linux.S_IFREG})
	if err != nil {
		return err
	}
	defer m.DecRef(b.ctx)
	if err := b.fill(rootOf(m), f); err != nil {
		return err
	}
	if err := v.SetMountReadOnly(m, true); err != nil {
		return err
	}
	if inDev(f.Path) {
		if err := b.makeDirs(root, path.Dir(f.Path)); err != nil {
			return err
		}
		if err := v.MknodAt(b.ctx, b.creds, at(root, f.Path), &vfs.MknodOptions{Mode: linux.S_IFREG | 0o644}); err != nil {
			return err
		}
	}
	target := at(root, f.Path)
	target.FollowFinalSymlink = true
	return v.ConnectMountAt(b.ctx, b.creds, m, target)
}

func inDev(p string) bool { return strings.HasPrefix(path.Clean(p), "/dev/") }

func (b *box) fill(file vfs.VirtualDentry, f sandbox.File) error {
	v := b.kernel.VFS()
	o, err := v.OpenAt(b.ctx, b.creds, at(file, ""), &vfs.OpenOptions{Flags: linux.O_WRONLY})
	if err != nil {
		return err
	}
	defer o.DecRef(b.ctx)
	for rest := f.Data; len(rest) > 0; {
		n, err := o.Write(b.ctx, usermem.BytesIOSequence(rest), vfs.WriteOptions{})
		if err != nil {
			return err
		}
		rest = rest[n:]
	}
	return v.SetStatAt(b.ctx, b.creds, at(file, ""), &vfs.SetStatOptions{Stat: linux.Statx{
		Mask: linux.STATX_MODE | linux.STATX_UID | linux.STATX_GID, UID: f.UID, GID: f.GID,
		Mode: uint16(f.Mode & 0o7777), //nolint:gosec // masked
	}})
}

// stubs returns the merged view of lowers, and the tree of mount points for those files that have none in it;
// the latter is not Ok if none is missing. The caller drops both.
func (b *box) stubs(lowers []vfs.VirtualDentry, files []sandbox.File) (below, stubs vfs.VirtualDentry, err error) {
	if below, err = b.merged(lowers); err != nil {
		return below, stubs, err
	}
	defer func() {
		if err != nil {
			b.unmount(stubs)
			b.unmount(below)
		}
	}()
	for _, f := range files {
		if inDev(f.Path) {
			continue
		}
		p, found, err := b.resolve(below, f.Path)
		if err != nil {
			return below, stubs, fmt.Errorf("find %s: %w", f.Path, err)
		}
		if found {
			continue
		}
		if !stubs.Ok() {
			if stubs, err = b.tmpfs(); err != nil {
				return below, stubs, err
			}
			if err := b.copyMetadata(below, stubs, ""); err != nil {
				return below, stubs, err
			}
		}
		if err := b.stub(below, stubs, p); err != nil {
			return below, stubs, fmt.Errorf("make a mount point for %s: %w", f.Path, err)
		}
	}
	return below, stubs, nil
}

// stub makes the empty file p, which has no link in it, and its parents, which look like those below.
func (b *box) stub(below, stubs vfs.VirtualDentry, p string) error {
	v := b.kernel.VFS()
	names := strings.Split(p, "/")
	for i := range names[:len(names)-1] {
		dir := strings.Join(names[:i+1], "/")
		err := v.MkdirAt(b.ctx, b.creds, at(stubs, dir), &vfs.MkdirOptions{Mode: 0o755})
		if linuxerr.Equals(linuxerr.EEXIST, err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
	}
	if err := v.MknodAt(b.ctx, b.creds, at(stubs, p), &vfs.MknodOptions{Mode: linux.S_IFREG | 0o755}); err != nil && !linuxerr.Equals(linuxerr.EEXIST, err) {
		return err
	}
	// Deepest first: giving a directory its metadata must be the last thing that happens in it.
	for i := len(names) - 1; i >= 0; i-- {
		err := b.copyMetadata(below, stubs, strings.Join(names[:i], "/"))
		if err != nil && !isNotExist(err) {
			return err
		}
	}
	return nil
}
