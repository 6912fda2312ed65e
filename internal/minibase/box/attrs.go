package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func attrApplets() map[string]applet {
	return map[string]applet{
		"chmod": chmod, "chown": chown, "chgrp": chgrp, "touch": touch, "setfattr": setfattr, "getfattr": getfattr,
		"setcap": setcap, "getcap": getcap,
	}
}

// walkArgs calls fn for each name, and with recursive for everything below it.
func walkArgs(w *world, names []string, recursive bool, fn func(name string) error) error {
	return w.each(names, func(name string) error {
		if !recursive {
			return fn(name)
		}
		return filepath.WalkDir(name, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return fn(path)
		})
	})
}

func chmod(w *world, args []string) error {
	// A mode such as "-x" looks like an option.
	recursive := false
	var rest []string
	for _, a := range args {
		switch a {
		case "-R", "--recursive":
			recursive = true
		case "-f", "-v", "--":
		default:
			rest = append(rest, a)
		}
	}
	if len(rest) < 2 {
		return errors.New("needs a mode and a file")
	}
	return walkArgs(w, rest[1:], recursive, func(name string) error {
		if fi, err := os.Lstat(name); recursive && err == nil && fi.Mode()&fs.ModeSymlink != 0 {
			return nil
		}
		return chmodOne(name, rest[0])
	})
}

func chmodOne(name, mode string) error {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	m, err := applyMode(st.Mode, mode)
	if err != nil {
		return err
	}
	if err := unix.Chmod(name, m); err != nil {
		return &fs.PathError{Op: "chmod", Path: name, Err: err}
	}
	return nil
}

// applyMode changes the mode old, type included, as the octal or symbolic text says.
func applyMode(old uint32, text string) (uint32, error) {
	if n, err := strconv.ParseUint(text, 8, 12); err == nil {
		return uint32(n), nil
	}
	mode := old & 0o7777
	for _, clause := range strings.Split(text, ",") {
		i := strings.IndexAny(clause, "+-=")
		if i < 0 {
			return 0, fmt.Errorf("invalid mode %q", text)
		}
		who := whoMask(clause[:i])
		for rest := clause[i:]; rest != ""; {
			op := rest[0]
			end := 1 + len(rest[1:]) - len(strings.TrimLeft(rest[1:], "rwxXstugo"))
			bits := permBits(rest[1:end], mode, old)
			rest = rest[end:]
			if rest != "" && !strings.ContainsRune("+-=", rune(rest[0])) {
				return 0, fmt.Errorf("invalid mode %q", text)
			}
			switch op {
			case '+':
				mode |= bits & who
			case '-':
				mode &^= bits & who
			case '=':
				mode = mode&^(who&0o777) | bits&who
			}
		}
	}
	return mode, nil
}

func whoMask(who string) uint32 {
	if who == "" {
		who = "a"
	}
	var m uint32
	for _, c := range who {
		m |= map[rune]uint32{'u': 0o4700, 'g': 0o2070, 'o': 0o1007, 'a': 0o7777}[c]
	}
	return m
}

func permBits(letters string, mode, old uint32) uint32 {
	var b uint32
	for _, c := range letters {
		switch c {
		case 'r':
			b |= 0o444
		case 'w':
			b |= 0o222
		case 'x':
			b |= 0o111
		case 'X':
			if old&0o111 != 0 || old&unix.S_IFMT == unix.S_IFDIR {
				b |= 0o111
			}
		case 's':
			b |= 0o6000
		case 't':
			b |= 0o1000
		case 'u':
			b |= mode >> 6 & 7 * 0o111
		case 'g':
			b |= mode >> 3 & 7 * 0o111
		case 'o':
			b |= mode & 7 * 0o111
		}
	}
	return b
}

func chown(w *world, args []string) error {
	o, rest, err := getopt(args, "R/recursive h/no-dereference f v P")
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return errors.New("needs an owner and a file")
	}
	return walkArgs(w, rest[1:], o.has("R"), func(name string) error {
		return chownOne(name, rest[0], !o.has("h", "R"))
	})
}

func chgrp(w *world, args []string) error {
	for i, a := range args {
		if !strings.HasPrefix(a, "-") {
			args[i] = ":" + a
			break
		}
	}
	return chown(w, args)
}

func chownOne(name, owner string, follow bool) error {
	owner = strings.Replace(owner, ".", ":", btoi(!strings.Contains(owner, ":")))
	u, g, _ := strings.Cut(owner, ":")
	uid, err := lookupID(u, true)
	if err != nil {
		return err
	}
	gid, err := lookupID(g, false)
	if err != nil {
		return err
	}
	if follow {
		return os.Chown(name, uid, gid)
	}
	return os.Lchown(name, uid, gid)
}

// lookupID is the number of a user or group; -1 for "".
func lookupID(name string, isUser bool) (int, error) {
	if name == "" {
		return -1, nil
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return int(n), nil
	}
	id := ""
	if isUser {
		u, err := user.Lookup(name)
		if err != nil {
			return 0, err
		}
		id = u.Uid
	} else {
		g, err := user.LookupGroup(name)
		if err != nil {
			return 0, err
		}
		id = g.Gid
	}
	return strconv.Atoi(id)
}

func touch(w *world, args []string) error {
	o, rest, err := getopt(args, "a m c/no-create h/no-dereference d:/date t: r:/reference")
	if err != nil {
		return err
	}
	atime, mtime, err := touchTimes(o)
	if err != nil {
		return err
	}
	if o.has("a") && !o.has("m") {
		mtime.Nsec = unix.UTIME_OMIT
	}
	if o.has("m") && !o.has("a") {
		atime.Nsec = unix.UTIME_OMIT
	}
	flags := unix.AT_SYMLINK_NOFOLLOW * btoi(o.has("h"))
	return w.each(rest, func(name string) error {
		err := unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{atime, mtime}, flags)
		if !errors.Is(err, unix.ENOENT) || o.has("h") {
			return pathError("touch", name, err)
		}
		if o.has("c") {
			return nil
		}
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil || !o.has("d", "t", "r", "a", "m") {
			return err
		}
		return pathError("touch", name, unix.UtimesNanoAt(unix.AT_FDCWD, name, []unix.Timespec{atime, mtime}, 0))
	})
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func touchTimes(o options) (atime, mtime unix.Timespec, err error) {
	switch {
	case o.has("r"):
		var st unix.Stat_t
		err := unix.Stat(o.last("r", ""), &st)
		return st.Atim, st.Mtim, pathError("touch", o.last("r", ""), err)
	case o.has("d"):
		atime, err = timespec(parseDate(o.last("d", "")))
	case o.has("t"):
		atime, err = timespec(parseStamp(o.last("t", "")))
	default:
		atime = unix.Timespec{Nsec: unix.UTIME_NOW}
	}
	return atime, atime, err
}

func timespec(t time.Time, err error) (unix.Timespec, error) {
	return unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}, err
}

// parseDate reads "@SECONDS[.FRACTION]" and the usual ISO forms; a time without zone is UTC.
func parseDate(s string) (time.Time, error) {
	if sec, ok := strings.CutPrefix(s, "@"); ok {
		whole, frac, _ := strings.Cut(sec, ".")
		n, err1 := strconv.ParseInt(whole, 10, 64)
		nsec, err2 := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
		return time.Unix(n, nsec), errors.Join(err1, err2)
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999 -0700", "2006-01-02T15:04:05", "2006-01-02 15:04:05.999999999 MST", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04", "2006-01-02", time.RFC1123Z, time.RFC1123} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid date %q", s)
}

// parseStamp reads [[CC]YY]MMDDhhmm[.ss], in UTC.
func parseStamp(s string) (time.Time, error) {
	if !strings.Contains(s, ".") {
		s += ".00"
	}
	for _, layout := range []string{"200601021504.05", "0601021504.05"} {
		if t, err := time.Parse(layout, s); err == nil && len(s) == len(layout) {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("invalid time %q", s)
}

func setfattr(w *world, args []string) error {
	o, rest, err := getopt(args, "n:/name v:/value x:/remove h/no-dereference")
	if err != nil {
		return err
	}
	value, err := xattrValue(o.last("v", ""))
	if err != nil {
		return err
	}
	return w.each(rest, func(name string) error {
		if o.has("x") {
			return pathError("setfattr", name, unix.Lremovexattr(name, o.last("x", "")))
		}
		set := unix.Setxattr
		if o.has("h") {
			set = unix.Lsetxattr
		}
		return pathError("setfattr", name, set(name, o.last("n", ""), value, 0))
	})
}

// xattrValue reads text, "text", 0xhex or 0sbase64.
func xattrValue(s string) ([]byte, error) {
	switch {
	case strings.HasPrefix(s, "0x"), strings.HasPrefix(s, "0X"):
		return hex.DecodeString(s[2:])
	case strings.HasPrefix(s, "0s"), strings.HasPrefix(s, "0S"):
		return base64.StdEncoding.DecodeString(s[2:])
	case len(s) > 1 && s[0] == '"' && s[len(s)-1] == '"':
		return []byte(s[1 : len(s)-1]), nil
	}
	return []byte(s), nil
}

// getfattr prints "name=0xHEX" for each attribute, or the raw value with --only-values.
func getfattr(w *world, args []string) error {
	o, rest, err := getopt(args, "n:/name d/dump m:/match e:/encoding o/only-values h/no-dereference a/absolute-names")
	if err != nil {
		return err
	}
	return w.each(rest, func(file string) error {
		attrs, err := readXattrs(file)
		if err != nil {
			return err
		}
		if want := o.last("n", ""); want != "" {
			v, ok := attrs[want]
			if !ok {
				return pathError("getfattr", file, unix.ENODATA)
			}
			attrs = map[string]string{want: v}
		}
		if o.has("o") {
			for _, v := range attrs {
				fmt.Fprint(w.out, v)
			}
			return nil
		}
		if len(attrs) > 0 {
			fmt.Fprintf(w.out, "# file: %s\n", file)
		}
		for _, k := range sortedKeys(attrs) {
			fmt.Fprintf(w.out, "%s=0x%x\n", k, attrs[k])
		}
		return nil
	})
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func readXattrs(file string) (map[string]string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(file, names)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, pathError("listxattr", file, err)
	}
	attrs := map[string]string{}
	value := make([]byte, 64<<10)
	for _, name := range strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		v, err := unix.Lgetxattr(file, name, value)
		if err != nil {
			return nil, pathError("getxattr", file, err)
		}
		attrs[name] = string(value[:v])
	}
	return attrs, nil
}

func copyXattrs(src, dst string) error {
	attrs, err := readXattrs(src)
	if err != nil {
		return err
	}
	for name, value := range attrs {
		if strings.HasPrefix(name, "system.") || name == "security.selinux" {
			continue
		}
		if err := unix.Setxattr(dst, name, []byte(value), 0); err != nil {
			return pathError("setxattr", dst, err)
		}
	}
	return nil
}

const capAttr = "security.capability"

// capNumbers are the capabilities that people give to files, from linux/capability.h.
func capNumbers() map[string]uint {
	return map[string]uint{
		"cap_chown": 0, "cap_dac_override": 1, "cap_fowner": 3, "cap_kill": 5, "cap_setgid": 6, "cap_setuid": 7,
		"cap_net_bind_service": 10, "cap_net_admin": 12, "cap_net_raw": 13, "cap_ipc_lock": 14, "cap_sys_chroot": 18,
		"cap_sys_ptrace": 19, "cap_sys_admin": 21, "cap_sys_nice": 23, "cap_sys_time": 25, "cap_mknod": 27,
	}
}

// setcap writes version 2 file capabilities: setcap cap_x,cap_y+ep FILE… or setcap -r FILE….
func setcap(w *world, args []string) error {
	o, rest, err := getopt(args, "r")
	if err != nil {
		return err
	}
	if o.has("r") {
		return w.each(rest, func(name string) error {
			return pathError("setcap", name, unix.Removexattr(name, capAttr))
		})
	}
	if len(rest) < 2 {
		return errors.New("needs capabilities and a file")
	}
	value, err := capValue(rest[0])
	if err != nil {
		return err
	}
	return w.each(rest[1:], func(name string) error {
		return pathError("setcap", name, unix.Setxattr(name, capAttr, value, 0))
	})
}

func capValue(text string) ([]byte, error) {
	i := strings.IndexAny(text, "+=")
	if i < 0 {
		return nil, fmt.Errorf("invalid capabilities %q", text)
	}
	var set uint64
	for _, name := range strings.Split(text[:i], ",") {
		bit, ok := capNumbers()[strings.ToLower(name)]
		if !ok {
			return nil, fmt.Errorf("unknown capability %q", name)
		}
		set |= 1 << bit
	}
	var permitted, inheritable uint64
	magic := uint32(0x02000000) // VFS_CAP_REVISION_2
	for _, c := range text[i+1:] {
		switch c {
		case 'e':
			magic |= 1 // VFS_CAP_FLAGS_EFFECTIVE
		case 'p':
			permitted = set
		case 'i':
			inheritable = set
		default:
			return nil, fmt.Errorf("invalid capabilities %q", text)
		}
	}
	var b []byte
	for _, word := range []uint32{magic, uint32(permitted), uint32(inheritable), uint32(permitted >> 32), uint32(inheritable >> 32)} {
		b = binary.LittleEndian.AppendUint32(b, word)
	}
	return b, nil
}

func getcap(w *world, args []string) error {
	return w.each(args, func(name string) error {
		attrs, err := readXattrs(name)
		if v, ok := attrs[capAttr]; ok {
			fmt.Fprintf(w.out, "%s 0x%x\n", name, v)
		}
		return err
	})
}

// statOf is the raw result of lstat, or stat if follow.
func statOf(name string, follow bool) (*syscall.Stat_t, error) {
	fi, err := os.Lstat(name)
	if follow && err == nil {
		fi, err = os.Stat(name)
	}
	if err != nil {
		return nil, err
	}
	return fi.Sys().(*syscall.Stat_t), nil
}
