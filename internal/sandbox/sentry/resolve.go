package sentry

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"gvisor.dev/gvisor/pkg/abi/linux"
	"gvisor.dev/gvisor/pkg/sentry/vfs"

	"hako/internal/tree"
)

var errLinks = errors.New("too many symbolic links")

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// resolve follows the symbolic links of p inside root, whether or not what they lead to exists, as runc does before it
// makes a mount point. It returns the path without links, relative to root, and whether it exists.
func (b *box) resolve(root vfs.VirtualDentry, p string) (string, bool, error) {
	t := &vfsTree{box: b, root: root}
	rest := strings.Split(strings.Trim(path.Clean(p), "/"), "/")
	done, found, links := "", true, 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			if done = path.Dir(done); done == "." {
				done = ""
			}
			continue
		}
		if name == "" || name == "." {
			continue
		}
		next := path.Join(done, name)
		e, err := t.Lstat(next)
		if err != nil && !isNotExist(err) {
			return "", false, err
		}
		found = err == nil
		if !found || e.Kind != tree.Symlink {
			done = next
			continue
		}
		if links++; links > linux.MaxSymlinkTraversals {
			return "", false, fmt.Errorf("/%s: %w", next, errLinks)
		}
		if path.IsAbs(e.Linkname) {
			done = ""
		}
		rest = append(strings.Split(e.Linkname, "/"), rest...)
	}
	return done, found, nil
}
