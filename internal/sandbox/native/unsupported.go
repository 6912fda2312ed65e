package native

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox"
	"hako/internal/tree"
)

// In a user namespace there are things that no step, and no layer, can have. They are not passed over: the step fails before
// anything else happens, so that another engine can run it.

// chownError explains why a file cannot have its owner.
func chownError(e *tree.Entry, err error) error {
	return ownerError(e.UID, e.GID, err)
}

// ownerError explains why something cannot belong to an owner. EINVAL is what the kernel says of an ID that has no map.
func ownerError(uid, gid uint32, err error) error {
	if errors.Is(err, unix.EINVAL) {
		return &sandbox.UnsupportedError{What: fmt.Sprintf("user %d and group %d are not among the IDs that this user namespace has", uid, gid)}
	}
	return fmt.Errorf("set owner: %w", err)
}

// nodeError explains why a device node of a layer cannot be made.
func nodeError(e *tree.Entry, err error) error {
	if errors.Is(err, unix.EPERM) && (e.Kind == tree.CharDevice || e.Kind == tree.BlockDevice) {
		return &sandbox.UnsupportedError{What: "device nodes cannot be made in a user namespace"}
	}
	return err
}

// xattrError explains why an extended attribute of a layer cannot be set.
func xattrError(name string, err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP) {
		return &sandbox.UnsupportedError{What: fmt.Sprintf("the extended attribute %s cannot be set in the work directory", name)}
	}
	return fmt.Errorf("set xattr %s: %w", name, err)
}
