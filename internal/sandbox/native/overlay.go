package native

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// overlayOptions is how overlays are mounted here.
type overlayOptions struct {
	// common are the options of all mounts, upper those of mounts with an upper; both end with a comma if they are not empty.
	common, upper string
	// opaque is the extended attribute that marks a directory which hides those below.
	opaque string
}

// maxOptions is how long mount options may be: a page less its last byte.
var errOptions = errors.New("too many lowers for one mount")

const maxOptions = 4095

// mount mounts an overlay of lowers, top first, at target. All names are relative to the child's root.
// Without an upper it is read-only.
func (o *overlayOptions) mount(target string, lowers []string, upper, work string) error {
	var data strings.Builder
	data.WriteString(o.common)
	flags := uintptr(unix.MS_NODEV)
	if upper != "" {
		data.WriteString(o.upper)
		data.WriteString("upperdir=" + upper + ",workdir=" + work + ",")
	} else {
		flags = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID
		lowers = append(slices.Clip(lowers), dirBare) // two at least
	}
	data.WriteString("lowerdir=" + strings.Join(lowers, ":"))
	if data.Len() > maxOptions {
		return errOptions
	}
	if err := unix.Mount("overlay", target, "overlay", flags, data.String()); err != nil {
		return fmt.Errorf("mount an overlay of %d lowers: %w", len(lowers), err)
	}
	return nil
}

// whatOverlay is what probeOverlay attempts.
const whatOverlay = "overlay in the work directory"

// probeOverlay finds the options that work here, by a mount with an upper and what steps do to it.
func (b *box) probeOverlay() error {
	// What BuildKit's overlays do not do, ours do not either, whatever the defaults of the kernel: the upper must say
	// everything by itself.
	const plain = "index=off,metacopy=off,redirect_dir=nofollow,"
	failure := errors.New(whatOverlay)
	for _, o := range []overlayOptions{
		{common: plain, upper: "volatile,", opaque: "trusted.overlay.opaque"},
		{common: "index=off,userxattr,", upper: "volatile,", opaque: "user.overlay.opaque"},
	} {
		err := b.tryOverlay(&o)
		if err == nil {
			b.overlay = o
			return nil
		}
		failure = fmt.Errorf("%w: %w", failure, err)
	}
	return failure
}

// tryOverlay removes a directory below and makes it again, which needs whiteouts and extended attributes.
func (b *box) tryOverlay(o *overlayOptions) (err error) {
	n := b.next()
	lower, upper, work, target := dirData+"/l"+n, dirData+"/u"+n, dirData+"/w"+n, dirRoots+"/"+n
	for _, dir := range []string{lower, lower + "/a", lower + "/b", upper, work, target} {
		if err := unix.Mkdir(dir, 0o755); err != nil {
			return fmt.Errorf("make a directory: %w", err)
		}
	}
	defer func() {
		err = errors.Join(err, unix.Rmdir(target), removeTree(lower), removeTree(upper), removeTree(work))
	}()
	if err := o.mount(target, []string{lower}, upper, work); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(target, unix.MNT_DETACH)) }()
	for what, do := range map[string]func() error{
		"remove a directory": func() error { return unix.Rmdir(target + "/a") },
		"replace a directory": func() error {
			return errors.Join(unix.Rmdir(target+"/b"), unix.Mkdir(target+"/b", 0o755))
		},
	} {
		if err := do(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(upper+"/a", &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		return fmt.Errorf("a whiteout is missing: %w", errors.Join(err, unix.EINVAL))
	}
	if n, err := unix.Lgetxattr(upper+"/b", o.opaque, make([]byte, 1)); err != nil || n != 1 {
		return fmt.Errorf("a mark is missing: %w", errors.Join(err, unix.EINVAL))
	}
	return nil
}

// lowers is the table of what steps can stand on, by chain ID.
type lowers struct {
	mu   sync.Mutex // guards byID
	byID map[string]*lower
}

// lower is one layer in its place.
type lower struct {
	// paths are the directories of the layer, top first: the patch if there is one, then the image; or one alone.
	paths []string
	// flat is this layer merged with all below it, see flatten.go; empty until a stack on top of it is too high.
	flat string
}

var errNotMounted = errors.New("lower is not mounted")

// stack returns the directories of ids, given bottom first, top first.
func (b *box) stack(ids []string) ([]string, error) {
	b.lowers.mu.Lock()
	defer b.lowers.mu.Unlock()
	var paths []string
	for i, id := range ids {
		l, ok := b.lowers.byID[id]
		if !ok {
			return nil, fmt.Errorf("%s: %w", id, errNotMounted)
		}
		paths = append(slices.Clip(l.paths), paths...)
		if len(paths) < maxLowers || i+1 == len(ids) {
			continue
		}
		// The chain ID of l says what is below it, so this is right for every stack that has l at all.
		if l.flat == "" {
			var err error
			if l.flat, err = b.flatten(paths); err != nil {
				return nil, fmt.Errorf("merge %d lowers: %w", len(paths), err)
			}
		}
		paths = []string{l.flat}
	}
	if len(paths) == 0 {
		paths = []string{dirEmpty}
	}
	return paths, nil
}

// add records l. It returns false if the lower is there already; then that one stays.
func (l *lowers) add(id string, made *lower) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, there := l.byID[id]; there {
		return false
	}
	l.byID[id] = made
	return true
}

// view opens a merged, read-only view of directories, top first. The caller closes it.
func (b *box) view(dirs []string) (*os.File, error) {
	target := dirViews + "/" + b.next()
	if err := unix.Mkdir(target, 0o755); err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	defer func() { _ = unix.Rmdir(target) }()
	if err := b.overlay.mount(target, dirs, "", ""); err != nil {
		return nil, err
	}
	// The descriptor keeps the mount alive.
	defer func() { _ = unix.Unmount(target, unix.MNT_DETACH) }()
	fd, err := unix.Open(target, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a view: %w", err)
	}
	return os.NewFile(uintptr(fd), "view"), nil
}
