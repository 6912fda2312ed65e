package sentry

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"hako/internal/tree"
)

// gVisor's overlay cannot copy a pipe or a socket up: to change the owner of one that a lower has, or to rename a directory
// with one in it, fails with EPERM. A pipe is therefore put into the upper before a step starts, with the directories
// on the way to it, all as they are below; what the step leaves as it was is not among its changes.
// A socket that a step left behind is taken out of its upper before that becomes a lower: no image can hold it.

// upperTree is an upper that is read for its changes. It notes what needs care once the upper is a lower.
type upperTree struct {
	vfsTree
	pipes, sockets []string
}

var _ tree.Tree = (*upperTree)(nil)

// Lstat implements [tree.Tree].
func (t *upperTree) Lstat(p string) (tree.Entry, error) {
	e, err := t.vfsTree.Lstat(p)
	switch {
	case err != nil:
	case e.Kind == tree.Fifo:
		t.pipes = append(t.pipes, p)
	case e.Kind == tree.Socket:
		t.sockets = append(t.sockets, p)
	}
	return e, err
}

// removeSockets takes the sockets out of an upper whose step is over.
func (b *box) removeSockets(upper vfs.VirtualDentry, sockets []string) error {
	v := b.kernel.VFS()
	for _, p := range sockets {
		dir, err := (&vfsTree{box: b, root: upper}).Lstat(path.Dir(p))
		if err != nil {
			return err
		}
		if err := v.UnlinkAt(b.ctx, b.creds, at(upper, p)); err != nil {
			return fmt.Errorf("remove socket /%s: %w", p, err)
		}
		if err := b.setTime(at(upper, strings.TrimPrefix(dir.Path, ".")), &dir); err != nil {
			return err
		}
	}
	return nil
}

// pipesOf returns where the lowers with these IDs have pipes, or had some before another lower hid them.
func (b *box) pipesOf(ids []string) []string {
	b.lowers.mu.Lock()
	defer b.lowers.mu.Unlock()
	var pipes []string
	for _, id := range ids {
		if l := b.lowers.byID[id]; l != nil {
			pipes = append(pipes, l.pipes...)
		}
	}
	return pipes
}

// lift puts the pipes of below into the upper.
func (b *box) lift(below, upper vfs.VirtualDentry, pipes []string) error {
	from := &vfsTree{box: b, root: below}
	w := treeWriter{box: b, root: upper}
	done := map[string]bool{".": true}
	for _, p := range pipes {
		e, err := from.Lstat(p)
		if errors.Is(err, fs.ErrNotExist) || err == nil && e.Kind != tree.Fifo || done[p] {
			continue
		}
		if err != nil {
			return err
		}
		for i, c := range p {
			if c != '/' || done[p[:i]] {
				continue
			}
			done[p[:i]] = true
			dir, err := from.Lstat(p[:i])
			if err != nil {
				return err
			}
			if err := w.add(&dir, nil); err != nil {
				return fmt.Errorf("copy /%s up: %w", p[:i], err)
			}
		}
		done[p] = true
		if err := w.add(&e, nil); err != nil {
			return fmt.Errorf("copy /%s up: %w", p, err)
		}
	}
	if len(done) == 1 {
		return nil
	}
	if err := w.finish(); err != nil {
		return err
	}
	return b.copyMetadata(below, upper, "")
}
