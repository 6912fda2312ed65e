package sentry

import (
	"errors"
	"fmt"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/dev"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/devpts"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/mqfs"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/proc"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/sys"
	"gvisor.dev/gvisor/pkg/sentry/fsimpl/tmpfs"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
	"gvisor.dev/gvisor/pkg/usermem"

	"hako/internal/sandbox"
	"hako/internal/sandbox/remote"
	"hako/internal/tree"
)

// What a step sees is, from the top: the mounts (/proc, /sys, /dev, those of the step, single read-only files), the upper,
// the stubs, and the lowers. The stubs are a tree that lives as long as the step: they give the step's mounts and the
// read-only files (/etc/hosts, /etc/resolv.conf, secrets) something to be mounted on where the image has nothing there.
// As a lower they never get into the upper, so no directory's time moves.
// The snapshot compares the upper with the lowers without the stubs, so a file made next to a stub brings its directory
// into the layer, as it would with BuildKit, which removes its mount points at the end of the step. Like BuildKit, we
// remove those that the step brought into the upper, by changing their mode for one, and left empty (see prune).
//
// A mount point below another mount is made in that mount's file system when it is needed, as runc does.
//
// /proc, /sys and /dev are different: runc makes them where they are missing and BuildKit leaves them in the layer. So do we.

var errMountPoint = errors.New("not a directory")

// stepRoot is the file tree of one step.
type stepRoot struct {
	upper  vfs.VirtualDentry
	lowers []vfs.VirtualDentry // top first, without the stubs
	// stubs are the paths of mount points and their parents that no lower has, parents first.
	stubs  []string
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
	sources, err := b.sources(req)
	if err != nil {
		return nil, err
	}
	defer b.dropSources(sources)
	below, stubs, err := b.stubs(r, stubPoints(req, sources))
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
	if err := b.mountAll(ctx, r, req, sources); err != nil {
		return nil, err
	}
	return r, nil
}

// stackUpper makes the upper, and the mount namespace over it and what is below.
func (b *box) stackUpper(r *stepRoot, below vfs.VirtualDentry, stacked []vfs.VirtualDentry, pipes []string) error {
	var m *vfs.Mount
	var err error
	if r.upper, m, err = b.writable(below, stacked, pipes); err != nil {
		return err
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

func (b *box) mountAll(ctx context.Context, r *stepRoot, req *remote.Run, sources []*source) error {
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
	// What gVisor's /dev lacks compared with runc's.
	if err := b.kernel.VFS().SymlinkAt(b.ctx, b.creds, at(root, "/dev/core"), "/proc/kcore"); err != nil {
		return fmt.Errorf("link /dev/core: %w", err)
	}
	for _, f := range ownFiles(req) {
		if err := b.mountFile(root, f); err != nil {
			return fmt.Errorf("show %s to the step: %w", f.Path, err)
		}
	}
	for _, s := range sources {
		if err := b.connect(root, s, r.stubs); err != nil {
			return &remote.StartError{Reason: fmt.Sprintf("mount %s: %v", s.Target, err)}
		}
	}
	for _, f := range req.Files {
		if err := b.mountFile(root, f); err != nil {
			return &remote.StartError{Reason: fmt.Sprintf("mount %s: %v", f.Path, err)}
		}
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

// ownFiles are the read-only files that every step has.
func ownFiles(req *remote.Run) []sandbox.File {
	return []sandbox.File{
		{Path: "/etc/resolv.conf", Mode: 0o644, Data: req.ResolvConf},
		{Path: "/etc/hosts", Mode: 0o644, Data: req.Hosts},
	}
}

// mountFile shows f, whose data is in memory, whatever the uppers are on.
func (b *box) mountFile(root vfs.VirtualDentry, f sandbox.File) error {
	m, err := b.mount(tmpfs.Name, false, "", tmpfs.FilesystemOpts{RootFileType: linux.S_IFREG})
	if err != nil {
		return err
	}
	defer m.DecRef(b.ctx)
	if err := b.fill(rootOf(m), f); err != nil {
		return err
	}
	if err := b.kernel.VFS().SetMountReadOnly(m, true); err != nil {
		return err
	}
	p, _, err := b.resolve(root, f.Path)
	if err == nil && (p == "" || tree.Within(p, "proc")) {
		err = errTarget
	}
	if err != nil {
		return err
	}
	return b.connectAt(root, m, point{path: p})
}

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
