package native

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// File systems are mounted by descriptor where that is possible: a mount exists before it has a place, gets its flags
// there, and is moved to its target in one step. Nothing is ever half mounted where a step, or anything else, sees it.

// Flags of the mounts that a step sees, as mount_setattr(2) names them.
const (
	attrReadOnly = unix.MOUNT_ATTR_RDONLY
	attrNoSUID   = unix.MOUNT_ATTR_NOSUID
	attrNoDev    = unix.MOUNT_ATTR_NODEV
	attrNoExec   = unix.MOUNT_ATTR_NOEXEC
	attrInert    = attrNoSUID | attrNoDev | attrNoExec
)

// option is one option of a file system; without a value it is a flag.
type option struct{ key, value string }

// newMount makes a file system that is mounted nowhere yet. The caller closes the descriptor.
func newMount(fstype string, attrs int, options ...option) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("fsopen %s: %w", fstype, err)
	}
	defer func() { _ = unix.Close(fs) }()
	for _, o := range options {
		if o.value == "" {
			err = unix.FsconfigSetFlag(fs, o.key)
		} else {
			err = unix.FsconfigSetString(fs, o.key, o.value)
		}
		if err != nil {
			return -1, fmt.Errorf("set option %s of %s: %w", o.key, fstype, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("create %s: %w", fstype, err)
	}
	m, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attrs)
	if err != nil {
		return -1, fmt.Errorf("fsmount %s: %w", fstype, err)
	}
	return m, nil
}

// cloneTree makes a mount of what path below dir is, with these flags in addition. The caller closes the descriptor.
func cloneTree(dir int, path string, attrs uint64) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_NO_AUTOMOUNT | unix.AT_SYMLINK_NOFOLLOW)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	m, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return -1, fmt.Errorf("open_tree %s: %w", path, err)
	}
	if attrs == 0 {
		return m, nil
	}
	if err := setAttrs(m, attrs, 0); err != nil {
		_ = unix.Close(m)
		return -1, err
	}
	return m, nil
}

// cloneTrees is like cloneTree, but takes along what is mounted below.
func cloneTrees(dir int, path string, attrs uint64) (int, error) {
	m, err := unix.OpenTree(dir, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_NO_AUTOMOUNT)
	if err != nil {
		return -1, fmt.Errorf("open_tree %s: %w", path, err)
	}
	if err := setAttrs(m, attrs, unix.AT_RECURSIVE); err != nil {
		_ = unix.Close(m)
		return -1, err
	}
	return m, nil
}

// setAttrs adds flags to the mount m, or with AT_RECURSIVE to all mounts of its tree.
func setAttrs(m int, attrs uint64, flags uint) error {
	err := unix.MountSetattr(m, "", unix.AT_EMPTY_PATH|flags, &unix.MountAttr{Attr_set: attrs})
	if err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return nil
}

// place moves the mount m to target, relative to dir, and closes it. Symbolic links in target are followed.
func place(m, dir int, target string) error {
	defer func() { _ = unix.Close(m) }()
	flags := unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_SYMLINKS
	if err := unix.MoveMount(m, "", dir, target, flags); err != nil {
		return fmt.Errorf("move_mount to %s: %w", target, err)
	}
	return nil
}
