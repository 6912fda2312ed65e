package sentry

import (
	"fmt"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/fspath"
	"gvisor.dev/gvisor/pkg/sentry/vfs"
)

// Linux's overlay puts a directory's time back when it copies something in it up; gVisor's does not. Without care
// the mode of a file could not be changed, nor a directory be renamed, without moving times that nobody touched.
//
// A directory of an upper gets the time of its original back if nothing happened in it but copying up. That can only be
// concluded: its time is not later than the last change of an entry, and all entries are copies of what the original has.
// A copy of a file has the access time of its original, which uppers never move, where a file that was made anew has
// one of its own. In doubt the time stays.
//
// The original is the directory below, or where that is hidden, the one that was renamed: it is gone now, and its
// access time is that of its copy. So that this works for lowers that were uppers, too, the last thing done to an upper
// here is to set the access time of each directory to its time of modification, as images have it.

// timeKeeper restores the times of one upper.
type timeKeeper struct {
	box          *box
	upper, below vfs.VirtualDentry
	// started is when the step was about to start, in ns.
	started int64
	// gone are the directories below that the upper hides; hiding are old directories that hide what is below.
	gone, hiding []string
}

// entry is a name in a directory of the upper.
type entry struct {
	path string
	kind uint8 // DT_…
}

// run does all there is to do.
func (k *timeKeeper) run() error {
	if err := k.restore("", "", true); err != nil {
		return err
	}
	for len(k.hiding) > 0 { // only now all of gone is known
		dir := k.hiding[0]
		k.hiding = k.hiding[1:]
		original, found, err := k.origin(dir)
		if err != nil {
			return err
		}
		if err := k.restore(dir, original, found); err != nil {
			return err
		}
	}
	return nil
}

// origin finds the directory below that dir was before it was renamed.
func (k *timeKeeper) origin(dir string) (string, bool, error) {
	st, err := k.stat(k.upper, dir)
	if err != nil {
		return "", false, fmt.Errorf("look at /%s: %w", dir, err)
	}
	for _, p := range k.gone {
		if low, err := k.stat(k.below, p); err == nil && low.Atime.ToNsec() == st.Atime.ToNsec() {
			return p, true, nil
		}
	}
	return "", false, nil
}

// restore handles dir and what is in it. Its original is the directory low below, if that is known.
func (k *timeKeeper) restore(dir, low string, known bool) error {
	up, err := k.stat(k.upper, dir)
	if err != nil {
		return fmt.Errorf("look at /%s: %w", dir, err)
	}
	entries, err := k.entries(dir)
	if err != nil {
		return fmt.Errorf("read /%s: %w", dir, err)
	}
	if known {
		if err := k.compare(&up, low, entries); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := k.inside(e, dir, low, known); err != nil {
			return err
		}
	}
	st := vfs.SetStatOptions{Stat: linux.Statx{Mask: linux.STATX_MTIME | linux.STATX_ATIME, Mtime: up.Mtime, Atime: up.Mtime}}
	if err := k.box.kernel.VFS().SetStatAt(k.box.ctx, k.box.creds, at(k.upper, dir), &st); err != nil {
		return fmt.Errorf("set the time of /%s: %w", dir, err)
	}
	return nil
}

// inside handles an entry of dir.
func (k *timeKeeper) inside(e entry, dir, low string, known bool) error {
	p := under(low, strings.TrimPrefix(e.path, dir))
	wasDir := known && k.isDir(p)
	if e.kind == linux.DT_DIR && !k.opaque(e.path) {
		return k.restore(e.path, p, wasDir)
	}
	if wasDir {
		k.gone = append(k.gone, p)
	}
	if e.kind != linux.DT_DIR {
		return nil
	}
	st, err := k.stat(k.upper, e.path)
	if err != nil {
		return fmt.Errorf("look at /%s: %w", e.path, err)
	}
	if st.Atime.ToNsec() < k.started {
		k.hiding = append(k.hiding, e.path)
		return nil
	}
	return k.restore(e.path, "", false)
}

// compare sets the time of up to that of its original low, if nothing but copying up moved it.
func (k *timeKeeper) compare(up *linux.Statx, low string, entries []entry) error {
	old, err := k.stat(k.below, low)
	if err != nil {
		return fmt.Errorf("look at /%s below: %w", low, err)
	}
	if up.Mtime.ToNsec() < k.started || old.Mtime.ToNsec() >= k.started {
		return nil
	}
	var last int64
	for _, e := range entries {
		st, err := k.stat(k.upper, e.path)
		if err != nil {
			return fmt.Errorf("look at /%s: %w", e.path, err)
		}
		if !k.isCopy(e, &st, under(low, e.path[strings.LastIndexByte(e.path, '/')+1:])) {
			return nil
		}
		last = max(last, st.Ctime.ToNsec())
	}
	if up.Mtime.ToNsec() <= last {
		up.Mtime = old.Mtime
	}
	return nil
}

// isCopy tells whether e, which st describes, is a copy of low.
func (k *timeKeeper) isCopy(e entry, st *linux.Statx, low string) bool {
	old, err := k.stat(k.below, low)
	if err != nil || old.Mode&linux.S_IFMT != st.Mode&linux.S_IFMT {
		return false
	}
	if e.kind == linux.DT_DIR {
		return !k.opaque(e.path)
	}
	return old.Atime.ToNsec() == st.Atime.ToNsec()
}

func under(dir, name string) string {
	return strings.TrimPrefix(dir+"/"+strings.TrimPrefix(name, "/"), "/")
}

func (k *timeKeeper) isDir(low string) bool {
	st, err := k.stat(k.below, low)
	return err == nil && st.Mode&linux.S_IFMT == linux.S_IFDIR
}

func (k *timeKeeper) opaque(dir string) bool {
	_, err := k.box.kernel.VFS().GetXattrAt(k.box.ctx, k.box.creds, at(k.upper, dir), &vfs.GetXattrOptions{Name: opaqueXattr})
	return err == nil
}

func (k *timeKeeper) stat(root vfs.VirtualDentry, p string) (linux.Statx, error) {
	return k.box.kernel.VFS().StatAt(k.box.ctx, k.box.creds, at(root, p), &vfs.StatOptions{Mask: linux.STATX_BASIC_STATS})
}

// entries lists dir of the upper.
func (k *timeKeeper) entries(dir string) ([]entry, error) {
	pop := &vfs.PathOperation{Root: k.upper, Start: k.upper, Path: fspath.Parse(dir)}
	d, err := k.box.kernel.VFS().OpenAt(k.box.ctx, k.box.creds, pop, &vfs.OpenOptions{Flags: linux.O_RDONLY | linux.O_DIRECTORY})
	if err != nil {
		return nil, err
	}
	defer d.DecRef(k.box.ctx)
	var list []entry
	err = d.IterDirents(k.box.ctx, vfs.IterDirentsCallbackFunc(func(e vfs.Dirent) error {
		if e.Name != "." && e.Name != ".." {
			list = append(list, entry{under(dir, e.Name), e.Type})
		}
		return nil
	}))
	return list, err
}
