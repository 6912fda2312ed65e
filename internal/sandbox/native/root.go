package native

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox"
	"hako/internal/sandbox/remote"
	"hako/internal/tree"
)

// What a step sees is the overlay of its lowers and an empty upper, and on it the mounts that every step has, in the order
// and with the flags of runc. Where /proc, /sys and /dev are missing, runc makes them and BuildKit leaves them in the layer;
// so do we. Other mount points that are missing (/etc/hosts, heredoc scripts) are made in the overlay, too, so that the kernel
// copies the directories on the way up with all they have; the times of those are put back at once. When the step is over,
// the mount points are taken out of the upper, and again the times of their directories stay what they were: then the upper
// holds what the step did and nothing else.

// root is the root of a step while it is built. The calling thread is in its mount namespace.
type root struct {
	step    *step
	sources []*source
	// old is the child's root, fresh that of the step.
	old, fresh int
}

// newRoot mounts the step's overlay and makes it the root of the calling thread, with the child's root still in reach.
func (s *step) newRoot() (_ *root, err error) {
	target := dirRoots + "/" + s.name
	if err := unix.Mkdir(target, 0o755); err != nil {
		return nil, fmt.Errorf("make a directory of the step: %w", err)
	}
	upper, work, err := s.box.newUpper(s.name, s.lowers[0])
	if err != nil {
		return nil, err
	}
	s.upper = upper
	s.places = append(s.places, target, work)
	if err := s.box.overlay.mount(target, s.lowers, upper, work); err != nil {
		return nil, err
	}
	r := &root{step: s, old: -1, fresh: -1}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.sources, err = s.sources(); err != nil {
		return nil, err
	}
	if r.old, err = unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the child's root: %w", err)
	}
	if err := unix.Chdir(target); err != nil {
		return nil, fmt.Errorf("enter the step's root: %w", err)
	}
	if _, err := changeRoot(func() {}); err != nil {
		return nil, err
	}
	if r.fresh, err = unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open the step's root: %w", err)
	}
	return r, nil
}

func (r *root) close() {
	closeSources(r.sources)
	for _, fd := range []int{r.old, r.fresh} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// removePlaces removes what was made for the step besides its upper. The mounts are gone by then.
func (s *step) removePlaces() error {
	var errs []error
	for _, p := range s.places {
		errs = append(errs, removeTree(p))
	}
	s.places = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up after %s: %w", s.req.Name, err)
	}
	return nil
}

// furnish mounts all that a step sees but /proc, and enters the step's directory.
func (r *root) furnish() error {
	req := r.step.req
	if err := r.stubs(); err != nil {
		return err
	}
	if err := makeDirs(req.Dir); err != nil { // as BuildKit; it stays in the layer
		return &remote.StartError{Reason: fmt.Sprintf("make working directory: %v", err)}
	}
	var before unix.Stat_t
	if err := unix.Stat("/", &before); err != nil {
		return fmt.Errorf("look at the root: %w", err)
	}
	for _, do := range []func() error{r.mountAll, r.showOwnFiles, r.showSources, r.showFiles} {
		if err := do(); err != nil {
			return err
		}
	}
	if err := setTimes(unix.AT_FDCWD, "/", &before); err != nil {
		return err
	}
	if err := unix.Chdir(req.Dir); err != nil {
		return &remote.StartError{Reason: fmt.Sprintf("chdir to cwd (%q): %v", req.Dir, err)}
	}
	return nil
}

// mountAll mounts what is the same for all steps. /proc is for the step's own process to mount.
func (r *root) mountAll() error {
	for _, dir := range []string{"/proc", "/dev", "/sys"} {
		if err := makeDirs(dir); err != nil {
			return fmt.Errorf("mount %s: %w", dir, err)
		}
	}
	m, err := newMount("tmpfs", attrNoSUID|attrNoDev, option{"mode", "0755"}, option{"size", "65536k"})
	if err != nil {
		return err
	}
	if err := fillDev(m); err != nil {
		return err
	}
	if err := place(m, unix.AT_FDCWD, "/dev"); err != nil {
		return err
	}
	for _, d := range devices() {
		m, err := cloneTree(r.old, "dev/"+d.name, attrNoSUID|attrNoExec)
		if err != nil {
			return err
		}
		if err := place(m, unix.AT_FDCWD, "/dev/"+d.name); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		fs, target string
		attrs      int
		options    []option
	}{
		{"devpts", "/dev/pts", attrNoSUID | attrNoExec, []option{{"newinstance", ""}, {"ptmxmode", "0666"}, {"mode", "0620"}, {"gid", "5"}}},
		{"tmpfs", "/dev/shm", attrInert, []option{{"mode", "1777"}, {"size", strconv.FormatInt(r.step.req.ShmSize, 10)}}},
		{"mqueue", "/dev/mqueue", attrInert, nil},
	} {
		m, err := newMount(f.fs, f.attrs, f.options...)
		if err != nil {
			return err
		}
		if err := place(m, unix.AT_FDCWD, f.target); err != nil {
			return err
		}
	}
	if m, err = cloneTrees(r.old, "sys", attrReadOnly); err != nil {
		return err
	}
	return place(m, unix.AT_FDCWD, "/sys")
}

// fillDev makes what is in a step's /dev besides mounts.
func fillDev(dev int) error {
	for _, name := range []string{"pts", "shm", "mqueue"} {
		if err := unix.Mkdirat(dev, name, 0o755); err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	for _, l := range [][2]string{
		{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"},
		{"pts/ptmx", "ptmx"}, {"/proc/kcore", "core"},
	} {
		if err := unix.Symlinkat(l[0], dev, l[1]); err != nil {
			return fmt.Errorf("link /dev/%s: %w", l[1], err)
		}
	}
	for _, d := range devices() {
		if err := makeFile(dev, d.name); err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
	}
	return nil
}

func makeFile(dir int, name string) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o755)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

var errMountPoint = errors.New("not a directory")

// makeDirs makes the directories of p that are missing, 0755 root:root, following links inside the root.
func makeDirs(p string) error {
	dir := ""
	for _, name := range strings.Split(strings.Trim(p, "/"), "/") {
		dir += "/" + name
		var st unix.Stat_t
		err := unix.Stat(dir, &st)
		switch {
		case err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return fmt.Errorf("%s: %w", dir, errMountPoint)
		case err == nil:
			continue
		case !errors.Is(err, unix.ENOENT):
			return fmt.Errorf("look at %s: %w", dir, err)
		}
		if err := unix.Mkdir(dir, 0o755); err != nil {
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

func (r *root) showOwnFiles() error {
	for _, f := range ownFiles(r.step.req) {
		if err := r.showFile(&f); err != nil {
			return fmt.Errorf("show %s to the step: %w", f.Path, err)
		}
	}
	return nil
}

// showFiles mounts the files that the step asks for.
func (r *root) showFiles() error {
	files := r.step.req.Files
	for i := range files {
		if err := r.showFile(&files[i]); err != nil {
			return &remote.StartError{Reason: fmt.Sprintf("mount %s: %v", files[i].Path, err)}
		}
	}
	return nil
}

// showFile writes f into the child's tmpfs and mounts it at its path.
func (r *root) showFile(f *sandbox.File) error {
	target, err := r.resolve(f.Path)
	if err != nil {
		return err
	}
	if _, err := makePoint(target, false); err != nil {
		return err
	}
	stored := r.step.files() + "/" + r.step.box.next()
	if err := writeFile(r.old, stored, f); err != nil {
		return err
	}
	m, err := cloneTree(r.old, stored, attrReadOnly|attrNoSUID|attrNoDev)
	if err != nil {
		return err
	}
	// Heredoc scripts are run.
	if err := unix.MountSetattr(m, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_clr: attrNoExec}); err != nil {
		_ = unix.Close(m)
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return place(m, unix.AT_FDCWD, target)
}

// showSources mounts what the step asks for.
func (r *root) showSources() error {
	for _, s := range r.sources {
		if err := r.showSource(s); err != nil {
			return &remote.StartError{Reason: fmt.Sprintf("mount %s: %v", s.Target, err)}
		}
	}
	return nil
}

func (r *root) showSource(s *source) error {
	target, err := r.resolve(s.Target)
	if err != nil {
		return err
	}
	if target == "/" || tree.Within(target[1:], "proc") {
		return errTarget // runc says no, too
	}
	found, err := makePoint(target, s.isDir)
	if err != nil {
		return err
	}
	mode := uint32(freshTmpfsMode)
	if found && !r.step.isStub(target) {
		var st unix.Stat_t
		if err := unix.Lstat(target, &st); err != nil {
			return err
		}
		mode = st.Mode & 0o7777
	}
	m, err := s.clone(mode)
	if err != nil {
		return err
	}
	return place(m, unix.AT_FDCWD, target)
}

// resolve returns the path of p without links.
func (r *root) resolve(p string) (string, error) {
	clean, err := tree.Resolve(lookTree{r.fresh}, p, true)
	if err != nil {
		return "", err
	}
	return path.Join("/", clean), nil
}

// makePoint makes the directory or the empty file p, with its parents, unless something of that kind is there already.
func makePoint(p string, isDir bool) (found bool, err error) {
	var st unix.Stat_t
	err = unix.Lstat(p, &st)
	is := st.Mode&unix.S_IFMT == unix.S_IFDIR
	switch {
	case errors.Is(err, unix.ENOENT):
	case err != nil:
		return false, err
	case isDir && !is:
		return true, unix.ENOTDIR
	case !isDir && is:
		return true, unix.EISDIR
	default:
		return true, nil
	}
	if isDir {
		return false, makeDirs(p)
	}
	if err := makeDirs(path.Dir(p)); err != nil {
		return false, err
	}
	return false, makeFile(unix.AT_FDCWD, p)
}

func writeFile(dir int, name string, f *sandbox.File) error {
	fd, err := unix.Openat(dir, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	for rest := f.Data; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		rest = rest[n:]
	}
	if err := unix.Fchown(fd, int(f.UID), int(f.GID)); err != nil {
		return ownerError(f.UID, f.GID, err)
	}
	if err := unix.Fchmod(fd, f.Mode&0o7777); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return nil
}

// stub is a mount point that was made for the step: a name in the upper.
type stub struct {
	path string
	dir  bool
	ino  uint64
}

// stubs makes the mount points that are missing in the overlay, before anything is mounted. Where another mount will be,
// they are made when that is there.
func (r *root) stubs() error {
	var points []stub
	covered := []string{"dev", "proc", "sys"}
	for _, f := range ownFiles(r.step.req) {
		points = append(points, stub{path: f.Path})
	}
	for _, s := range r.sources {
		points = append(points, stub{path: s.Target, dir: s.isDir})
	}
	for _, f := range r.step.req.Files {
		points = append(points, stub{path: f.Path})
	}
	for _, p := range points {
		target, err := r.resolve(p.path)
		if err == nil && !slices.ContainsFunc(covered, func(dir string) bool { return tree.Within(target[1:], dir) }) {
			err = r.stubAll(target, p.dir)
		}
		if err != nil {
			return &remote.StartError{Reason: fmt.Sprintf("mount %s: %v", p.path, err)}
		}
		if p.dir {
			covered = append(covered, strings.TrimPrefix(target, "/"))
		}
	}
	return nil
}

// stubAll makes what is missing of the path p, which has no link in it.
func (r *root) stubAll(p string, isDir bool) error {
	var st unix.Stat_t
	if err := unix.Lstat(p, &st); !errors.Is(err, unix.ENOENT) {
		return err
	}
	for i := 1; i <= len(p); i++ {
		if i < len(p) && p[i] != '/' {
			continue
		}
		if err := r.stub(p[:i], i < len(p) || isDir); err != nil {
			return err
		}
	}
	return nil
}

// stub makes p, whose parent exists, unless it is there. The time of its parent stays.
func (r *root) stub(p string, isDir bool) error {
	var st, parent unix.Stat_t
	if err := unix.Lstat(p, &st); !errors.Is(err, unix.ENOENT) {
		return err
	}
	if err := unix.Lstat(path.Dir(p), &parent); err != nil {
		return err
	}
	var err error
	if isDir {
		err = unix.Mkdir(p, 0o755)
	} else {
		err = makeFile(unix.AT_FDCWD, p)
	}
	if err != nil {
		return fmt.Errorf("make a mount point: %w", err)
	}
	if err := setTimes(unix.AT_FDCWD, path.Dir(p), &parent); err != nil {
		return err
	}
	if err := unix.Fstatat(r.old, r.step.upper+p, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("look at a mount point: %w", err)
	}
	r.step.stubs = append(r.step.stubs, stub{path: p, dir: isDir, ino: st.Ino})
	return nil
}

func (s *step) isStub(p string) bool {
	return slices.ContainsFunc(s.stubs, func(b stub) bool { return b.path == p })
}

// removeStubs takes the mount points out of the upper, the last made first. What the step has put in their place,
// or into directories among them, stays.
func (s *step) removeStubs() error {
	for i := len(s.stubs) - 1; i >= 0; i-- {
		b := s.stubs[i]
		p := s.upper + b.path
		var st, parent unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil || st.Ino != b.ino {
			continue
		}
		if err := unix.Lstat(path.Dir(p), &parent); err != nil {
			return fmt.Errorf("remove a mount point: %w", err)
		}
		var err error
		if b.dir {
			err = unix.Rmdir(p)
		} else {
			err = unix.Unlink(p)
		}
		if errors.Is(err, unix.ENOTEMPTY) {
			continue
		}
		if err != nil {
			return fmt.Errorf("remove a mount point: %w", err)
		}
		if err := setTimes(unix.AT_FDCWD, path.Dir(p), &parent); err != nil {
			return err
		}
	}
	return nil
}

// setTimes gives name the times of st.
func setTimes(dir int, name string, st *unix.Stat_t) error {
	if err := unix.UtimesNanoAt(dir, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set times: %w", err)
	}
	return nil
}
