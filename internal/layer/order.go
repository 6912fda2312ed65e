package layer

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"hako/internal/tree"
)

// orderCheck verifies that entries are in the normal form of Changes, as far as that can be told without the tree below.
// It is the gate for everything that a step's sandbox says.
type orderCheck struct {
	last string
	dirs []string // the directories that the last entry lies in, outermost first
	// files are the names that a hard link may refer to.
	files map[string]struct{}
	count int
}

func newOrderCheck() *orderCheck { return &orderCheck{files: map[string]struct{}{}} }

var (
	errNotClean = errors.New("path is not clean and relative")
	errRoot     = errors.New("the root must be a directory")
)

// check accepts e, whose meaningless fields it clears, or says what is wrong with it.
func (o *orderCheck) check(e *tree.Entry) error {
	canonical(e)
	if err := o.checkPath(e); err != nil {
		return fmt.Errorf("change %q: %w", shorten(e.Path), err)
	}
	if err := o.checkKind(e); err != nil {
		return fmt.Errorf("change %q: %w", shorten(e.Path), err)
	}
	if o.count++; o.count > defaultEntries {
		return fmt.Errorf("more than %d changes", defaultEntries)
	}
	o.last = e.Path
	switch e.Kind {
	case tree.Dir:
		if e.Path != "." {
			o.dirs = append(o.dirs, e.Path)
		}
	case tree.Whiteout:
	default:
		o.files[e.Path] = struct{}{}
	}
	return nil
}

// canonical clears what an entry of its kind does not have, so that equal files give equal entries.
func canonical(e *tree.Entry) {
	if e.Kind == tree.Whiteout {
		*e = tree.Entry{Path: e.Path, Kind: e.Kind, ModTime: e.ModTime}
		return
	}
	if e.Kind != tree.CharDevice && e.Kind != tree.BlockDevice {
		e.Major, e.Minor = 0, 0
	}
	if e.Kind != tree.Symlink && e.Kind != tree.Hardlink {
		e.Linkname = ""
	}
	if e.Kind == tree.Symlink {
		e.Mode = 0o777
	}
	if e.Xattrs = imageXattrs(e); len(e.Xattrs) == 0 {
		e.Xattrs = nil
	}
}

func (o *orderCheck) checkPath(e *tree.Entry) error {
	p := e.Path
	if err := checkName(p); err != nil {
		return err
	}
	if o.last != "" && tree.Compare(o.last, p) >= 0 {
		return fmt.Errorf("comes after %q", shorten(o.last))
	}
	dir, _ := splitPath(p)
	for len(o.dirs) > 0 && !tree.Within(p, o.dirs[len(o.dirs)-1]) {
		o.dirs = o.dirs[:len(o.dirs)-1]
	}
	if dir == "." {
		return nil
	}
	if len(o.dirs) == 0 || o.dirs[len(o.dirs)-1] != dir {
		return errors.New("its directory does not come before it")
	}
	return nil
}

// checkName says whether p can be a path of a layer that we write.
func checkName(p string) error {
	if p == "" || p[0] == '/' || path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../") {
		return errNotClean
	}
	if len(p) > maxPath {
		return fmt.Errorf("path is longer than %d bytes", maxPath)
	}
	for rest := p; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if len(name) > maxName {
			return fmt.Errorf("name is longer than %d bytes", maxName)
		}
		if strings.HasPrefix(name, whiteoutPrefix) {
			return fmt.Errorf("an image cannot hold names that start with %q: they mark deleted files", whiteoutPrefix)
		}
	}
	if strings.IndexByte(p, 0) >= 0 {
		return errNUL
	}
	return nil
}

func (o *orderCheck) checkKind(e *tree.Entry) error {
	if e.Path == "." && e.Kind != tree.Dir {
		return errRoot
	}
	if e.Opaque {
		return errors.New("changes cannot be opaque")
	}
	if e.Mode > 0o7777 {
		return fmt.Errorf("mode %#o is out of range", e.Mode)
	}
	if isOverlayWhiteout(e) {
		return errors.New("an image cannot hold the character device 0:0: it marks deleted files")
	}
	if e.Major > maxMajor || e.Minor > maxMinor {
		return fmt.Errorf("device number %d:%d is out of range", e.Major, e.Minor)
	}
	if e.Size < 0 || e.Size > 0 && e.Kind != tree.Regular {
		return fmt.Errorf("size %d is impossible", e.Size)
	}
	switch e.Kind {
	case tree.Dir, tree.Regular, tree.CharDevice, tree.BlockDevice, tree.Fifo, tree.Whiteout:
		return nil
	case tree.Symlink:
		_, err := linkTarget(e.Linkname)
		return err
	case tree.Hardlink:
		if _, ok := o.files[e.Linkname]; !ok {
			return fmt.Errorf("hard link to %q, which does not come before it", shorten(e.Linkname))
		}
		return nil
	}
	return fmt.Errorf("kind %d cannot be changed", e.Kind)
}
