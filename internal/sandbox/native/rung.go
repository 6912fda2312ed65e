package native

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"hako/internal/sandbox/child"
)

// Rung is a way to get the right to mount file systems.
type Rung uint8

// The rungs, the one that costs least first.
const (
	// Direct needs CAP_SYS_ADMIN where we are. Steps are root as it is there.
	Direct Rung = iota + 1
	// OwnMap makes a user namespace with all the IDs that we have, and needs CAP_SETUID and CAP_SETGID for that.
	OwnMap
	// SetuidMap makes a user namespace with the IDs that /etc/subuid and /etc/subgid give to a plain user.
	SetuidMap
)

// String is a phrase for people.
func (r Rung) String() string {
	switch r {
	case Direct:
		return "with CAP_SYS_ADMIN"
	case OwnMap:
		return "in a user namespace"
	case SetuidMap:
		return "in a user namespace mapped by newuidmap"
	}
	return "not at all"
}

// Report says how steps run here.
type Report struct {
	// Rung is the first that bears; 0 if none does.
	Rung Rung
	// Failures are the rungs that were tried before it and do not bear.
	Failures []Failure
}

// Failure is a rung that does not bear.
type Failure struct {
	Rung Rung
	Err  error
}

// Setting is what to change in the pod or on the node, one sentence, or empty if nothing is known that would help.
func (f Failure) Setting() string {
	text := f.Err.Error() // what the child says comes as text
	switch {
	case errors.Is(f.Err, unix.EPERM) && f.Rung == Direct:
		return "Add the capability SYS_ADMIN (Docker: --cap-add SYS_ADMIN)."
	case errors.Is(f.Err, unix.EPERM):
		return "Use seccompProfile type Unconfined (Docker: --security-opt seccomp=unconfined)."
	case errors.Is(f.Err, errOwnMap):
		return "Add the capabilities SETUID and SETGID; a plain user does without them where newuidmap works."
	case strings.Contains(text, whatOverlay):
		return "Mount a volume (an emptyDir) at /tmp: an upper can lie neither on the container's own overlay nor, before Linux 6.6, in memory."
	case strings.Contains(text, whatProc):
		return "Use procMount Unmasked (Docker: --security-opt systempaths=unconfined)."
	case strings.Contains(text, errNoPrivs.Error()):
		return "Allow privilege escalation."
	case strings.Contains(text, unix.EACCES.Error()), strings.Contains(text, unix.EPERM.Error()):
		return "Use the AppArmor profile Unconfined (Docker: --security-opt apparmor=unconfined), where the node has AppArmor."
	}
	return ""
}

// UnavailableError says that no step can run natively here, and why.
type UnavailableError struct{ Report Report }

// Error names the reason of each rung, all on one line.
func (e *UnavailableError) Error() string {
	var reasons []string
	for _, f := range e.Report.Failures {
		reasons = append(reasons, fmt.Sprintf("%s: %v", f.Rung, f.Err))
	}
	return "steps cannot run natively here: " + strings.Join(reasons, "; ")
}

// Hint says what to do.
func (e *UnavailableError) Hint() string {
	return "Use --sandbox=sentry, or see what hako doctor says about native steps."
}

// Unwrap returns what went wrong on each rung.
func (e *UnavailableError) Unwrap() []error {
	errs := make([]error, len(e.Report.Failures))
	for i, f := range e.Report.Failures {
		errs[i] = f.Err
	}
	return errs
}

// fullMap is how many IDs steps need: those up to nobody's.
const fullMap = 1 << 16

var (
	errMap  = errors.New("there are too few user or group IDs")
	errRung = errors.New("there is no such rung")

	errOwnMap = errors.New("the capabilities SETUID and SETGID are missing")

	errRoot    = errors.New("it is for plain users, and this is root")
	errNoPrivs = errors.New("no_new_privs is set: setuid programs of a step would not work")
)

// command is how a child is started on a rung.
func (r Rung) command(ctx context.Context) (*child.Command, error) {
	const own = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS
	c := &child.Command{Title: "the native sandbox", Args: []string{childName}, Attr: &syscall.SysProcAttr{Cloneflags: own}}
	switch r {
	case Direct:
		return c, nil
	case OwnMap:
		if !mayMap() {
			return nil, errOwnMap
		}
		uids, err := ownIDs("/proc/self/uid_map")
		if err != nil {
			return nil, err
		}
		gids, err := ownIDs("/proc/self/gid_map")
		if err != nil {
			return nil, err
		}
		c.Attr.Cloneflags |= unix.CLONE_NEWUSER
		c.Attr.UidMappings, c.Attr.GidMappings, c.Attr.GidMappingsEnableSetgroups = uids, gids, true
		return c, nil
	case SetuidMap:
		return c, r.mapped(ctx, c)
	}
	return nil, errRung
}

// mayMap says whether this process may give a user namespace more IDs than its own: user_namespaces(7).
func mayMap() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	const needed = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&needed == needed
}

// ownIDs is a map of all IDs that file, a map of ours, has, to themselves.
func ownIDs(file string) ([]syscall.SysProcIDMap, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the ID map: %w", err)
	}
	var out []syscall.SysProcIDMap
	total := 0
	for line := range strings.Lines(string(b)) {
		var inside, outside, n int
		if _, err := fmt.Sscan(line, &inside, &outside, &n); err != nil {
			return nil, fmt.Errorf("read %s: %w", file, err)
		}
		out = append(out, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: n})
		total += n
	}
	if total < fullMap {
		return nil, fmt.Errorf("%s has %d: %w", file, total, errMap)
	}
	return out, nil
}

// mapped makes c a child whose IDs are mapped by newuidmap and newgidmap once it is there.
//
// The child is a process that has lost all capabilities by executing this program without an ID, so it executes it once more
// when it has become root of its namespace by being mapped; see awaitMap.
func (r Rung) mapped(ctx context.Context, c *child.Command) error {
	if os.Geteuid() == 0 {
		return errRoot
	}
	uids, err := subordinate("newuidmap", "/etc/subuid", os.Geteuid())
	if err != nil {
		return err
	}
	gids, err := subordinate("newgidmap", "/etc/subgid", os.Getegid())
	if err != nil {
		return err
	}
	c.Args = append(c.Args, argAwaitMap)
	c.Attr.Cloneflags |= unix.CLONE_NEWUSER
	c.Started = func(pid int) error {
		for _, args := range [][]string{uids, gids} {
			cmd := exec.CommandContext(ctx, args[0], append([]string{strconv.Itoa(pid)}, args[1:]...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
			}
		}
		return nil
	}
	return nil
}

// subordinate is a command line of program, less its first argument, that maps own to root, and to the IDs after it those
// that file gives to this user.
func subordinate(program, file string, own int) ([]string, error) {
	p, err := exec.LookPath(program)
	if err != nil {
		return nil, fmt.Errorf("find newuidmap and newgidmap (Debian: apt-get install uidmap): %w", err)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read subordinate IDs: %w", err)
	}
	defer func() { _ = f.Close() }()
	uid := strconv.Itoa(os.Getuid())
	names := []string{uid}
	if u, err := user.LookupId(uid); err == nil {
		names = append(names, u.Username)
	}
	ranges, err := parseSubordinate(f, names)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	args := []string{p, "0", strconv.Itoa(own), "1"}
	next := 1
	for _, r := range ranges {
		args = append(args, strconv.Itoa(next), strconv.Itoa(r.first), strconv.Itoa(r.count))
		next += r.count
	}
	if next < fullMap {
		return nil, fmt.Errorf("%s has %d for this user: %w", file, next-1, errMap)
	}
	return args, nil
}

// idRange is a range of IDs.
type idRange struct{ first, count int }

// parseSubordinate reads subuid(5): the ranges of whoever is called one of names.
func parseSubordinate(r io.Reader, names []string) ([]idRange, error) {
	var out []idRange
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(f) != 3 || !slices.Contains(names, f[0]) {
			continue
		}
		first, err := strconv.ParseUint(f[1], 10, 31)
		if err != nil {
			return nil, err
		}
		count, err := strconv.ParseUint(f[2], 10, 31)
		if err != nil {
			return nil, err
		}
		out = append(out, idRange{int(first), int(count)}) //nolint:gosec // 31 bits
	}
	return out, lines.Err()
}

// argAwaitMap is the second argument of a child that has to wait for its IDs.
const argAwaitMap = "await-map"

// awaitMap waits for the builder's first message, which comes when the IDs are mapped, and leaves it where it is; then it
// executes this program once more, which gives root of a user namespace its capabilities.
func awaitMap() error {
	for {
		_, _, err := unix.Recvfrom(child.Socket, make([]byte, 1), unix.MSG_PEEK)
		if !errors.Is(err, unix.EINTR) {
			if err != nil {
				return fmt.Errorf("wait for the builder: %w", err)
			}
			break
		}
	}
	err := unix.Exec(child.Self, []string{childName}, nil)
	return fmt.Errorf("start once more: %w", err)
}
