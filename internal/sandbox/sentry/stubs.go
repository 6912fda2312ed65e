package sentry

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"hako/internal/sandbox/remote"
	"hako/internal/tree"
)

// stubPoint is where something will be mounted, as the request says it.
type stubPoint struct {
	point
	// covers says that what is mounted hides what the image has below; stays, that the place is made by itself and stays
	// in the layer.
	covers, stays bool
}

// stubPoints are all places that something is mounted on, in the order of mounting.
func stubPoints(req *remote.Run, sources []*source) []stubPoint {
	var out []stubPoint
	for _, p := range mountPoints(0) {
		out = append(out, stubPoint{point: point{p.path, true}, covers: true, stays: true})
	}
	for _, f := range ownFiles(req) {
		out = append(out, stubPoint{point: point{path: f.Path}})
	}
	for _, s := range sources {
		out = append(out, stubPoint{point: point{s.Target, s.isDir}, covers: s.isDir})
	}
	for _, f := range req.Files {
		out = append(out, stubPoint{point: point{path: f.Path}})
	}
	return out
}

// stubs returns the merged view of the lowers, and the tree of those mount points that are missing in it;
// the latter is not Ok if none is missing. It notes the stubs in r. The caller drops both.
func (b *box) stubs(r *stepRoot, points []stubPoint) (below, stubs vfs.VirtualDentry, err error) {
	if below, err = b.merged(r.lowers); err != nil {
		return below, stubs, err
	}
	defer func() {
		if err != nil {
			b.unmount(stubs)
			b.unmount(below)
		}
	}()
	var covered []string
	for _, at := range points {
		p, found, err := b.resolve(below, at.path)
		if err != nil {
			return below, stubs, &remote.StartError{Reason: fmt.Sprintf("mount %s: %v", at.path, err)}
		}
		inside := slices.ContainsFunc(covered, func(dir string) bool { return tree.Within(p, dir) })
		if at.covers {
			covered = append(covered, p)
		}
		if found || inside || at.stays {
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
		if err := b.stub(r, treePair{below, stubs}, point{p, at.isDir}); err != nil {
			return below, stubs, &remote.StartError{Reason: fmt.Sprintf("mount %s: %v", at.path, err)}
		}
	}
	return below, stubs, nil
}

// treePair is the merged view of the lowers, and the stubs over it.
type treePair struct{ below, stubs vfs.VirtualDentry }

// stub makes the mount point p, which has no link in it, and its parents, which look like those below.
func (b *box) stub(r *stepRoot, t treePair, p point) error {
	v := b.kernel.VFS()
	names := strings.Split(p.path, "/")
	for i := range names {
		name := strings.Join(names[:i+1], "/")
		isNew, err := b.checkStub(t.below, name)
		if err != nil {
			return err
		}
		if i+1 == len(names) && !p.isDir {
			err = v.MknodAt(b.ctx, b.creds, at(t.stubs, name), &vfs.MknodOptions{Mode: linux.S_IFREG | 0o755})
		} else {
			err = v.MkdirAt(b.ctx, b.creds, at(t.stubs, name), &vfs.MkdirOptions{Mode: 0o755})
		}
		if linuxerr.Equals(linuxerr.EEXIST, err) {
			continue
		}
		if err != nil {
			return fmt.Errorf("make /%s: %w", name, err)
		}
		if isNew {
			r.stubs = append(r.stubs, name)
		}
	}
	// Deepest first: giving a directory its metadata must be the last thing that happens in it.
	for i := len(names) - 1; i >= 0; i-- {
		err := b.copyMetadata(t.below, t.stubs, strings.Join(names[:i], "/"))
		if err != nil && !isNotExist(err) {
			return err
		}
	}
	return nil
}

// checkStub says whether name is new in below. If it is not, it must be a directory: it is on the way to a mount point.
func (b *box) checkStub(below vfs.VirtualDentry, name string) (isNew bool, err error) {
	e, err := (&vfsTree{box: b, root: below}).Lstat(name)
	switch {
	case isNotExist(err):
		return true, nil
	case err == nil && e.Kind != tree.Dir:
		return false, fmt.Errorf("/%s: %w", name, errMountPoint)
	}
	return false, err
}

// prune removes from the upper of a step that is over what it has of stubs and is empty, and leaves times as they are.
// BuildKit does so in the root of the step (executor/stubs.go).
func (b *box) prune(r *stepRoot) error {
	upper := &vfsTree{box: b, root: r.upper}
	for _, p := range slices.Backward(r.stubs) {
		e, err := upper.Lstat(p)
		if isNotExist(err) {
			continue
		}
		if err != nil {
			return err
		}
		empty := e.Kind == tree.Regular && e.Size == 0
		if e.Kind == tree.Dir {
			if empty, err = b.emptied(upper, p); err != nil {
				return err
			}
		}
		if !empty {
			continue
		}
		if err := b.removeQuietly(upper, e); err != nil {
			return fmt.Errorf("remove mount point /%s: %w", p, err)
		}
	}
	return nil
}

// emptied says whether a directory of an upper holds nothing but whiteouts, which it removes then.
func (b *box) emptied(upper *vfsTree, dir string) (bool, error) {
	names, err := upper.ReadDir(dir)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		e, err := upper.Lstat(path.Join(dir, name))
		if err != nil || e.Kind != tree.Whiteout {
			return false, err
		}
	}
	for _, name := range names {
		if err := b.kernel.VFS().UnlinkAt(b.ctx, b.creds, upper.pop(path.Join(dir, name))); err != nil {
			return false, err
		}
	}
	return true, nil
}

// removeQuietly removes the empty directory or the file e, and gives its parent back the time it had.
func (b *box) removeQuietly(upper *vfsTree, e tree.Entry) error {
	parent, err := upper.Lstat(path.Dir(e.Path))
	if err != nil {
		return err
	}
	v := b.kernel.VFS()
	if e.Kind == tree.Dir {
		err = v.RmdirAt(b.ctx, b.creds, upper.pop(e.Path))
	} else {
		err = v.UnlinkAt(b.ctx, b.creds, upper.pop(e.Path))
	}
	if err != nil {
		return err
	}
	return b.setTime(upper.pop(parent.Path), &parent)
}
