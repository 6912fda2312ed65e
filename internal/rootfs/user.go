package rootfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"syscall"

	"hako/internal/tree"
)

// User is who a step runs as.
type User struct {
	UID, GID uint32
	// Groups are the supplementary groups, as /etc/group lists the user; GID is not repeated.
	Groups []uint32
	// Home is the user's directory in /etc/passwd, "/" where there is none.
	Home string
}

// A name that an image does not know.
var (
	ErrNoUser  = errors.New("no matching entries in passwd file")
	ErrNoGroup = errors.New("no matching entries in group file")
)

var errIDRange = fmt.Errorf("ids must be in the range 0 to %d", math.MaxInt32)

// LookupUser finds the user that the text of USER names: "user", "user:group", each a name or a number; empty means
// root. The rules are those of runc, which runs BuildKit's steps: a number is never taken as a name and need not be
// in /etc/passwd; supplementary groups are those that list the user's name, if no group is given; with both as numbers
// no file is looked at for them. Only Home is always looked up, by number.
// A nil t has no files.
func LookupUser(t tree.Tree, spec string) (User, error) {
	u, err := findUser(t, spec)
	if err == nil {
		u.Home, err = homeOf(t, u.UID)
	}
	if err != nil && spec == "" {
		return User{Home: "/"}, nil // root needs no files
	}
	if err != nil {
		return User{}, err
	}
	return u, nil
}

func homeOf(t tree.Tree, uid uint32) (string, error) {
	a, err := lookup(t, passwdPath, func(a *account) bool { return a.uid == int(uid) })
	if err != nil || a == nil || a.home == "" {
		return "/", err
	}
	return a.home, nil
}

// LookupOwner finds the owner that --chown or the USER of a WORKDIR names: "user[:group]", each a name or a number.
// Without a group, a number stands for both, and a name has its group in /etc/passwd. Without a user it is root.
// A nil t has no files.
func LookupOwner(t tree.Tree, spec string) (uid, gid uint32, err error) {
	user, group, _ := strings.Cut(spec, ":")
	id, numeric, err := ownerID(user)
	if err != nil {
		return 0, 0, fmt.Errorf("user %q: %w", user, err)
	}
	uid, gid = id, id
	if !numeric {
		a, err := lookup(t, passwdPath, func(a *account) bool { return a.name == user })
		if err != nil {
			return 0, 0, err
		}
		if a == nil {
			return 0, 0, fmt.Errorf("unable to find user %s: %w", printable(user), ErrNoUser)
		}
		uid, gid = uint32(a.uid), uint32(a.gid) //nolint:gosec // parseAccount checks the range
	}
	if group == "" {
		return uid, gid, nil
	}
	if id, numeric, err = ownerID(group); err != nil {
		return 0, 0, fmt.Errorf("group %q: %w", group, err)
	}
	if numeric {
		return uid, id, nil
	}
	g, err := lookup(t, groupPath, func(a *account) bool { return a.name == group })
	if err != nil {
		return 0, 0, err
	}
	if g == nil {
		return 0, 0, fmt.Errorf("unable to find group %s: %w", printable(group), ErrNoGroup)
	}
	return uid, uint32(g.gid), nil //nolint:gosec // parseAccount checks the range
}

// ownerID reads a number of --chown. What does not fit into 32 bits is a name, as for BuildKit.
func ownerID(s string) (id uint32, numeric bool, err error) {
	if s == "root" || s == "" {
		return 0, true, nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return 0, false, nil //nolint:nilerr // not a number: a name
	}
	if n < 0 {
		return 0, false, errIDRange
	}
	return uint32(n), true, nil
}

const (
	passwdPath = "/etc/passwd"
	groupPath  = "/etc/group"
	// maxAccounts is the size of passwd and group files that BuildKit reads at most.
	maxAccounts = 10 << 20
	// maxAccountLine is the longest line of such a file: groups may have many members.
	maxAccountLine = 1 << 20
)

// account is a line of /etc/passwd or /etc/group; the latter have no uid and home, the former no members.
type account struct {
	name     string
	uid, gid int
	home     string
	members  string // separated by commas
}

// lookup returns the first account in the file that matches, or nil.
func lookup(t tree.Tree, file string, match func(*account) bool) (*account, error) {
	var found *account
	err := eachAccount(t, file, func(a *account) bool {
		if match(a) {
			first := *a
			found = &first
		}
		return found == nil
	})
	return found, err
}

// eachAccount reads /etc/passwd or /etc/group inside t, through symbolic links, as long as visit wants more; the account is visit's until it returns.
// A missing file is empty. Nothing is kept: the image may be hostile, and the file large.
func eachAccount(t tree.Tree, file string, visit func(*account) bool) error {
	if t == nil {
		return nil
	}
	r, err := openFile(t, file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s of the image: %w", file, err)
	}
	defer r.Close() //nolint:errcheck // nothing was written
	limited := &io.LimitedReader{R: r, N: maxAccounts + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, maxAccountLine)
	var a account
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || file == groupPath && line[0] == '#' {
			continue
		}
		if a = parseAccount(file, line); !visit(&a) {
			return nil
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("read %s of the image: %w", file, err)
	}
	if limited.N == 0 {
		return fmt.Errorf("read %s of the image: it is larger than %d bytes", file, maxAccounts)
	}
	return nil
}

func openFile(t tree.Tree, file string) (io.ReadCloser, error) {
	p, err := tree.Resolve(t, file, true)
	if err != nil {
		return nil, err
	}
	e, err := t.Lstat(p)
	if err != nil {
		return nil, err
	}
	if e.Kind != tree.Regular {
		return nil, errNotRegular
	}
	return t.Open(p)
}

// parseAccount reads one line; fields that are missing or no numbers are zero, as for everybody who reads these files.
func parseAccount(file, line string) account {
	var f [6]string
	for i := range f {
		f[i], line, _ = strings.Cut(line, ":")
	}
	if file == groupPath {
		return account{name: f[0], gid: fileID(f[2]), members: f[3]}
	}
	return account{name: f[0], uid: fileID(f[2]), gid: fileID(f[3]), home: f[5]}
}

func fileID(s string) int {
	if s == "" {
		return 0
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > math.MaxUint32 {
		return 0
	}
	return n
}

// findUser finds the user of a USER text, without Home.
func findUser(t tree.Tree, spec string) (User, error) {
	if spec == "" {
		spec = "0"
	}
	if uid, gid, ok := idPair(spec); ok {
		return User{UID: uid, GID: gid}, nil
	}
	fields := append(strings.Split(spec, ":"), "")
	user, group := fields[0], fields[1]
	uid, isUID, err := userID(user)
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", user, err)
	}
	found, err := lookup(t, passwdPath, func(u *account) bool {
		if isUID || user == "" {
			return u.uid == uid
		}
		return u.name == user
	})
	if err != nil {
		return User{}, err
	}
	u, name := User{UID: uint32(uid)}, "" //nolint:gosec // userID checks the range
	switch {
	case found != nil:
		u.UID, u.GID, name = uint32(found.uid), uint32(found.gid), found.name //nolint:gosec // fileID checks the range
	case !isUID && user != "":
		return User{}, fmt.Errorf("unable to find user %s: %w", printable(user), ErrNoUser)
	}
	if group == "" {
		u.Groups, err = memberships(t, name, u.GID)
		return u, err
	}
	u.GID, err = findGroup(t, group)
	return u, err
}

// findGroup finds the group part of a USER text.
func findGroup(t tree.Tree, s string) (uint32, error) {
	gid, isGID, err := userID(s)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", s, err)
	}
	if isGID {
		return uint32(gid), nil //nolint:gosec // userID checks the range
	}
	g, err := lookup(t, groupPath, func(g *account) bool { return g.name == s })
	if err != nil {
		return 0, err
	}
	if g == nil {
		return 0, fmt.Errorf("unable to find group %s: %w", printable(s), ErrNoGroup)
	}
	return uint32(g.gid), nil //nolint:gosec // fileID checks the range
}

// printable quotes what could confuse a terminal: the name may come from the configuration of a foreign image.
func printable(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}

// memberships lists the groups that have the user as a member, but for its own group.
func memberships(t tree.Tree, user string, gid uint32) ([]uint32, error) {
	if user == "" {
		return nil, nil
	}
	seen := map[uint32]bool{gid: true}
	var out []uint32
	err := eachAccount(t, groupPath, func(a *account) bool {
		g := uint32(a.gid) //nolint:gosec // fileID checks the range
		if !seen[g] && a.has(user) {
			seen[g] = true
			out = append(out, g)
		}
		return true
	})
	return out, err
}

// has tells whether the user is a member of the group.
func (a *account) has(user string) bool {
	for m := range strings.SplitSeq(a.members, ",") {
		if m == user {
			return true
		}
	}
	return false
}

// idPair reads "uid:gid" where both are numbers or "root".
func idPair(spec string) (uid, gid uint32, ok bool) {
	u, g, found := strings.Cut(spec, ":")
	if !found {
		return 0, 0, false
	}
	var ids [2]uint32
	for i, s := range []string{u, g} {
		if s == "root" {
			continue
		}
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			return 0, 0, false
		}
		ids[i] = uint32(n)
	}
	return ids[0], ids[1], true
}

// userID reads a number of USER. What is no number is a name.
func userID(s string) (id int, numeric bool, err error) {
	n, err := strconv.Atoi(s)
	switch {
	case err == nil && n >= 0 && n <= math.MaxInt32:
		return n, true, nil
	case err == nil || errors.Is(err, strconv.ErrRange):
		return 0, true, errIDRange
	}
	return 0, false, nil
}
