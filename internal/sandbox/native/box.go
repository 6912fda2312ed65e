package native

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"hako/internal/cgroup"
	"hako/internal/sandbox/child"
	"hako/internal/sandbox/remote"
)

const (
	childName = "hako-native" // argv[0] of the child
	// childGC trades a little time for memory: the heap may grow by half between two collections.
	childGC = 50
	// childShare of the memory limit is what the heap may have before it is collected at any cost, in percent.
	childShare = 50

	exitProtocol = 3 // the builder's end of the socket broke in the middle of a message
)

// IsChild says whether a process with these arguments (os.Args) serves native steps and must call [ChildMain] and nothing else.
func IsChild(args []string) bool { return child.Is(args, childName) }

// ChildMain serves the builder that started this process until it closes the connection. It returns the exit code.
func ChildMain() int {
	if len(os.Args) > 1 && os.Args[1] == argAwaitMap {
		fmt.Fprintln(os.Stderr, awaitMap())
		return exitProtocol
	}
	debug.SetGCPercent(childGC)
	debug.SetMemoryLimit(cgroup.SoftLimit(childShare))
	// The builder has asked for this already, but gaining capabilities by execve takes it back.
	err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
	if err == nil {
		err = remote.Serve(boot)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return exitProtocol
	}
	return 0
}

// bootRequest is what the engine tells its child first.
type bootRequest struct {
	// Dir is an empty directory for uppers and extracted layers.
	Dir string
	// UserNamespace says that the child is in a user namespace of its own.
	UserNamespace bool
}

// The child's own root is a small tmpfs, which holds
//
//	d      the directory for uppers and layers
//	m/N    mounted images
//	r/N    where the root of a step is mounted until it becomes one
//	f/N    the read-only files of a step
//	v/N    views: lowers merged for reading, and caches
//	dev    the devices that steps have
//	sys    the /sys of steps, read-only and masked
//	proc   of the child's own PID namespace
//	empty  an empty directory, and bare another
//
// It is also the working directory, so that the names in mount options are short.
const (
	dirData   = "d"
	dirImages = "m"
	dirRoots  = "r"
	dirFiles  = "f"
	dirViews  = "v"
	dirEmpty  = "empty"
	dirBare   = "bare"
)

// box is what outlives a single step in the child. It implements [remote.Kernel].
type box struct {
	options bootRequest
	overlay overlayOptions
	lowers  lowers
	caches  caches
	masks   masks
	filter  []unix.SockFilter
	nodes   *nodes // nil if the builder makes none for us
	// covers says that new roots cover old ones, see changeRoot.
	covers bool
	// mounts is the child's own mount namespace.
	mounts int
	// numbers names directories.
	numbers atomic.Uint64

	mu      sync.Mutex // guards the rest
	stopped bool
	steps   map[*step]struct{} // those that run
	ended   sync.WaitGroup     // counts steps
}

var _ remote.Kernel = (*box)(nil)

var errBadRequest = errors.New("request makes no sense")

// boot readies the child: from then on it sees nothing of the host but its data directory.
func boot(options []byte, files []*os.File) (remote.Kernel, error) {
	b := &box{lowers: lowers{byID: map[string]*lower{}}, caches: caches{byID: map[string]*cache{}}, steps: map[*step]struct{}{}}
	if err := json.Unmarshal(options, &b.options); err != nil || len(files) > 1 {
		child.CloseAll(files)
		return nil, fmt.Errorf("boot: %w", errors.Join(err, errBadRequest))
	}
	if len(files) == 1 {
		b.nodes = newNodes(files[0])
	}
	if err := child.Hide(); err != nil {
		return nil, err
	}
	if set, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err != nil || set != 0 {
		return nil, errors.Join(errNoPrivs, err)
	}
	unix.Umask(0)
	// What is in the data directory was left by a child before this one.
	for _, do := range []func() error{b.enterRoot, emptyData, b.probeOverlay, setLimits} {
		if err := do(); err != nil {
			return nil, err
		}
	}
	b.masks = findMasks()
	var err error
	b.filter = stepFilter(b.options.UserNamespace)
	b.mounts, err = unix.Open("/proc/self/ns/mnt", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open the mount namespace: %w", err)
	}
	return b, nil
}

// next is a name that no other directory has.
func (b *box) next() string { return strconv.FormatUint(b.numbers.Add(1), 10) }

// secret is a name that nobody can guess.
func (b *box) secret() string { return rand.Text() }

// enterRoot builds the child's root and makes everything else disappear.
func (b *box) enterRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	data, err := cloneTree(unix.AT_FDCWD, b.options.Dir, attrNoDev|attrNoSUID)
	if err != nil {
		return fmt.Errorf("use %s: %w", b.options.Dir, err)
	}
	root, err := newMount("tmpfs", attrNoSUID|attrNoExec, option{"mode", "0755"})
	if err != nil {
		return errors.Join(fmt.Errorf("make a root: %w", err), unix.Close(data))
	}
	for _, name := range []string{dirData, dirImages, dirRoots, dirFiles, dirViews, dirEmpty, dirBare, "dev", "sys", "proc"} {
		if err := unix.Mkdirat(root, name, 0o755); err != nil {
			return fmt.Errorf("make /%s: %w", name, err)
		}
	}
	// Attached where the data directory is; that is the one place that is surely there.
	if err := place(root, unix.AT_FDCWD, b.options.Dir); err != nil {
		return err
	}
	if err := unix.Chdir(b.options.Dir); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := place(data, unix.AT_FDCWD, dirData); err != nil {
		return err
	}
	for _, do := range []func() error{mountProc, b.mountSys, b.makeDevices} {
		if err := do(); err != nil {
			return err
		}
	}
	if b.covers, err = changeRoot(func() { unmountOthers(b.options.Dir) }); err != nil {
		return err
	}
	if !b.covers {
		if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
			return fmt.Errorf("leave the host's files: %w", err)
		}
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	return nil
}

// changeRoot makes the working directory, which must be the root of a mount, that of the mount namespace. The old root lies
// over it then, for whoever knows it, and can be unmounted.
//
// Docker's seccomp profile forbids pivot_root(2) even to containers that may mount. There the new root covers the old one
// instead: who is in it finds no way out, not even from below a chroot, because ".." at the root of a mount that covers
// another one's root stays where it is. What it covers can be uncovered only by unmounting, which no step may.
//
// before is called before a root is covered.
func changeRoot(before func()) (covers bool, err error) {
	err = unix.PivotRoot(".", ".")
	if err == nil {
		return false, nil
	}
	if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) { // EINVAL: the root is that of an initramfs
		return false, fmt.Errorf("pivot_root: %w", err)
	}
	before()
	if merr := unix.Mount(".", "/", "", unix.MS_MOVE, ""); merr != nil {
		return false, fmt.Errorf("pivot_root: %w; cover the root: %w", err, merr)
	}
	if err := unix.Chroot("."); err != nil {
		return false, fmt.Errorf("enter the root: %w", err)
	}
	return true, nil
}

// unmountOthers unmounts everything but the root and keep, as far as that can be.
func unmountOthers(keep string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		// proc_pid_mountinfo(5): the fifth field, with blanks and the like as octal numbers.
		if f := strings.Fields(line); len(f) > 4 {
			points = append(points, unescapeMount(f[4]))
		}
	}
	for _, p := range slices.Backward(points) {
		if p == "/" || p == keep || strings.HasPrefix(p, keep+"/") || strings.HasPrefix(keep, p+"/") {
			continue
		}
		_ = unix.Unmount(p, unix.MNT_DETACH) // fails for one that is locked, or gone with another that it was on
	}
}

func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// emptyData removes everything from the data directory.
func emptyData() error {
	fd, err := unix.Open(dirData, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the data directory: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := removeAll(fd); err != nil {
		return fmt.Errorf("empty the data directory: %w", err)
	}
	return nil
}

// whatProc is what mountProc attempts.
const whatProc = "mount /proc"

// mountProc mounts a fresh /proc, as every step has one.
func mountProc() error {
	m, err := newMount("proc", attrInert)
	if err != nil {
		return fmt.Errorf("%s: %w", whatProc, err)
	}
	return place(m, unix.AT_FDCWD, "proc")
}

// mountSys makes the /sys of steps. Only who may configure the network may mount one; others get a view of ours.
func (b *box) mountSys() error {
	m, err := newMount("sysfs", attrInert|attrReadOnly)
	if err != nil {
		m, err = cloneTrees(unix.AT_FDCWD, "/sys", attrInert|attrReadOnly)
	}
	if err != nil {
		return fmt.Errorf("mount /sys: %w", err)
	}
	if err := place(m, unix.AT_FDCWD, "sys"); err != nil {
		return err
	}
	for _, p := range []string{"sys/firmware", "sys/devices/virtual/powercap"} { // moby: oci/defaults.go
		err := unix.Access(p, unix.F_OK)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		m, err := newMount("tmpfs", attrInert|attrReadOnly, option{"size", "1"})
		if err != nil {
			return fmt.Errorf("mask /%s: %w", p, err)
		}
		if err := place(m, unix.AT_FDCWD, p); err != nil {
			return err
		}
	}
	return nil
}

// device is a character device that every step has.
type device struct {
	name         string
	major, minor uint32
}

// devices are those of runc.
func devices() []device {
	return []device{{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}}
}

// makeDevices makes the device nodes that are shown to steps, or takes those of the host where none can be made.
func (b *box) makeDevices() error {
	for _, d := range devices() {
		name := "dev/" + d.name
		err := unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))) //nolint:gosec // small numbers
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
		fd, err := unix.Open(name, unix.O_CREAT|unix.O_WRONLY|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return fmt.Errorf("make /dev/%s: %w", d.name, err)
		}
		_ = unix.Close(fd)
		m, err := cloneTree(unix.AT_FDCWD, "/dev/"+d.name, 0)
		if err != nil {
			return fmt.Errorf("show /dev/%s: %w", d.name, err)
		}
		if err := place(m, unix.AT_FDCWD, name); err != nil {
			return err
		}
	}
	return nil
}

const (
	// openFiles is the soft limit of descriptors; programs that close every possible one at start set the price of more.
	openFiles    = 1 << 16
	openFilesMax = 1 << 20
)

// setLimits sets the limits that steps inherit, as far as ours allow.
func setLimits() error {
	for what, want := range map[int]unix.Rlimit{
		unix.RLIMIT_NOFILE: {Cur: openFiles, Max: openFilesMax},
		unix.RLIMIT_CORE:   {Cur: 0, Max: unix.RLIM_INFINITY},
	} {
		var have unix.Rlimit
		if err := unix.Getrlimit(what, &have); err != nil {
			return fmt.Errorf("read limits: %w", err)
		}
		if err := unix.Setrlimit(what, &want); err == nil {
			continue
		}
		want.Max = min(want.Max, have.Max) // only the privileged may raise it
		want.Cur = min(want.Cur, want.Max)
		if err := unix.Setrlimit(what, &want); err != nil {
			return fmt.Errorf("set limits: %w", err)
		}
	}
	return nil
}

// begin notes that s runs; end must be called when it is over.
func (b *box) begin(s *step) (end func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stopped {
		return nil, remote.ErrClosed
	}
	b.steps[s] = struct{}{}
	b.ended.Add(1)
	return func() {
		b.mu.Lock()
		delete(b.steps, s)
		b.mu.Unlock()
		b.ended.Done()
	}, nil
}

// Stop implements [remote.Kernel].
func (b *box) Stop() error {
	b.mu.Lock()
	b.stopped = true
	for s := range b.steps {
		s.Kill()
	}
	b.mu.Unlock()
	b.ended.Wait()
	return errors.Join(b.dropCaches(), emptyData())
}

// Check implements [remote.Kernel].
func (b *box) Check() []string { return nil }
