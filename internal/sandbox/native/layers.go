package native

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"hako/internal/rootfs"
)

// Mount implements [remote.Kernel].
func (b *box) Mount(id string, image *os.File, patch *rootfs.Patch) (err error) {
	defer func() { _ = image.Close() }() // a mount has its own
	made := &lower{}
	n := b.next()
	mounted := dirImages + "/" + n
	merr := b.mountImage(image, mounted)
	if merr == nil {
		made.paths = []string{mounted}
		if len(patch.Entries) == 0 {
			b.lowers.add(id, made)
			return nil
		}
	}
	dir := dirData + "/l" + n
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("make a directory for a layer: %w", err)
	}
	if merr == nil {
		err = b.writeLayer(image, patch, dir, patchOnly)
	} else {
		err = b.writeLayer(image, patch, dir, wholeLayer)
	}
	if err != nil {
		return errors.Join(err, removeTree(dir))
	}
	made.paths = append([]string{dir}, made.paths...)
	b.lowers.add(id, made)
	return nil
}

func (b *box) mountImage(image *os.File, dir string) error {
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(int(image.Fd())), dir, "erofs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		_ = unix.Rmdir(dir)
		return fmt.Errorf("mount image: %w", err)
	}
	return nil
}
