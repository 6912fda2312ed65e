package rootfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
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
	accounts, err := readAccounts(t)
	if err != nil && spec == "" {
		return User{Home: "/"}, nil // root needs no files
	}
	if err != nil {
		return User{}, err
	}
	u, err := accounts.user(spec)
	if err != nil {
		return User{}, err
	}
	u.Home = "/"
	if a := find(accounts.users, func(a *account) bool { return a.uid == int(u.UID) }); a != nil && a.home != "" {
		u.Home = a.home
	}
	return u, nil
}

// LookupOwner finds the owner that --chown or the USER of a WORKDIR names: "user[:group]", each a name or a number.
// Without a group, a number stands for both, and a name has its group in /etc/passwd.
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
			return 0, 0, fmt.Errorf("unable to find user %s: %w", user, ErrNoUser)
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
		return 0, 0, fmt.Errorf("unable to find group %s: %w", group, ErrNoGroup)
	}
	return uid, uint32(g.gid), nil //nolint:gosec // parseAccount checks the range
}

// ownerID reads a number of --chown. What does not fit into 32 bits is a name, as for BuildKit.
func ownerID(s string) (id uint32, numeric bool, err error) {
	if s == "root" {
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
	members  []string
}

// accounts are the users and groups of an image.
type accounts struct {
	users, groups []account
}

func readAccounts(t tree.Tree) (*accounts, error) {
	users, err := readFile(t, passwdPath)
	if err != nil {
		return nil, err
	}
	groups, err := readFile(t, groupPath)
	if err != nil {
		return nil, err
	}
	return &accounts{users: users, groups: groups}, nil
}

// lookup returns the first account in the file that matches, or nil.
func lookup(t tree.Tree, file string, match func(*account) bool) (*account, error) {
	all, err := readFile(t, file)
	if err != nil {
		return nil, err
	}
	return find(all, match), nil
}

func find(all []account, match func(*account) bool) *account {
	for i := range all {
		if match(&all[i]) {
			return &all[i]
		}
	}
	return nil
}

// readFile reads /etc/passwd or /etc/group inside t, through symbolic links. A missing file is empty.
func readFile(t tree.Tree, file string) ([]account, error) {
	if t == nil {
		return nil, nil
	}
	r, err := openFile(t, file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of the image: %w", file, err)
	}
	defer r.Close() //nolint:errcheck // nothing was written
	var out []account
	limited := &io.LimitedReader{R: r, N: maxAccounts + 1}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, maxAccountLine)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || file == groupPath && line[0] == '#' {
			continue
		}
		out = append(out, parseAccount(file, line))
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read %s of the image: %w", file, err)
	}
	if limited.N == 0 {
		return nil, fmt.Errorf("read %s of the image: it is larger than %d bytes", file, maxAccounts)
	}
	return out, nil
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
	f := append(strings.Split(line, ":"), "", "", "", "", "", "")
	if file == groupPath {
		a := account{name: f[0], gid: fileID(f[2])}
		if f[3] != "" {
			a.members = strings.Split(f[3], ",")
		}
		return a
	}
	return account{name: f[0], uid: fileID(f[2]), gid: fileID(f[3]), home: f[5]}
}

func fileID(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > math.MaxUint32 {
		return 0
	}
	return n
}

// user finds the user of a USER text, without Home.
func (a *accounts) user(spec string) (User, error) {
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
	found := find(a.users, func(u *account) bool {
		if isUID || user == "" {
			return u.uid == uid
		}
		return u.name == user
	})
	u, name := User{UID: uint32(uid)}, "" //nolint:gosec // userID checks the range
	switch {
	case found != nil:
		u.UID, u.GID, name = uint32(found.uid), uint32(found.gid), found.name //nolint:gosec // fileID checks the range
	case !isUID && user != "":
		return User{}, fmt.Errorf("unable to find user %s: %w", user, ErrNoUser)
	}
	if group == "" {
		u.Groups = a.memberships(name, u.GID)
		return u, nil
	}
	u.GID, err = a.group(group)
	return u, err
}

// group finds the group part of a USER text.
func (a *accounts) group(s string) (uint32, error) {
	gid, isGID, err := userID(s)
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", s, err)
	}
	if isGID {
		return uint32(gid), nil //nolint:gosec // userID checks the range
	}
	g := find(a.groups, func(g *account) bool { return g.name == s })
	if g == nil {
		return 0, fmt.Errorf("unable to find group %s: %w", s, ErrNoGroup)
	}
	return uint32(g.gid), nil //nolint:gosec // fileID checks the range
}

// memberships lists the groups that have the user as a member, but for its own group.
func (a *accounts) memberships(user string, gid uint32) []uint32 {
	if user == "" {
		return nil
	}
	var out []uint32
	for i := range a.groups {
		g := uint32(a.groups[i].gid) //nolint:gosec // fileID checks the range
		if slices.Contains(a.groups[i].members, user) && g != gid && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
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
