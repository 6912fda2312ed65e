package main

import (
	"fmt"
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

// modeString is the mode as ls prints it.
func modeString(mode uint32) string {
	kinds := map[uint32]byte{unix.S_IFDIR: 'd', unix.S_IFLNK: 'l', unix.S_IFCHR: 'c', unix.S_IFBLK: 'b', unix.S_IFIFO: 'p', unix.S_IFSOCK: 's'}
	b := []byte("-rwxrwxrwx")
	if k, ok := kinds[mode&unix.S_IFMT]; ok {
		b[0] = k
	}
	for i := range 9 {
		if mode&(1<<(8-i)) == 0 {
			b[i+1] = '-'
		}
	}
	special := func(bit uint32, at int, c byte) {
		if mode&bit == 0 {
			return
		}
		if b[at] == '-' {
			c -= 'a' - 'A'
		}
		b[at] = c
	}
	special(0o4000, 3, 's')
	special(0o2000, 6, 's')
	special(0o1000, 9, 't')
	return string(b)
}

func kindName(st *syscall.Stat_t) string {
	names := map[uint32]string{unix.S_IFDIR: "directory", unix.S_IFLNK: "symbolic link", unix.S_IFCHR: "character special file", unix.S_IFBLK: "block special file", unix.S_IFIFO: "fifo", unix.S_IFSOCK: "socket"}
	if n, ok := names[st.Mode&unix.S_IFMT]; ok {
		return n
	}
	if st.Size == 0 {
		return "regular empty file"
	}
	return "regular file"
}

func userName(id uint32) string {
	if u, err := user.LookupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return u.Username
	}
	return "UNKNOWN"
}

func groupName(id uint32) string {
	if g, err := user.LookupGroupId(strconv.FormatUint(uint64(id), 10)); err == nil {
		return g.Name
	}
	return "UNKNOWN"
}

// statField is the value of one letter of stat's -c format.
func statField(c byte, name string, st *syscall.Stat_t) (string, bool) {
	when := func(t syscall.Timespec) string {
		return time.Unix(t.Sec, t.Nsec).UTC().Format("2006-01-02 15:04:05.000000000 -0700")
	}
	switch c {
	case 'n':
		return name, true
	case 'N':
		if link, err := os.Readlink(name); err == nil {
			return "'" + name + "' -> '" + link + "'", true
		}
		return "'" + name + "'", true
	case 'a':
		return strconv.FormatUint(uint64(st.Mode&0o7777), 8), true
	case 'A':
		return modeString(st.Mode), true
	case 'f':
		return strconv.FormatUint(uint64(st.Mode), 16), true
	case 'F':
		return kindName(st), true
	case 'u':
		return fmt.Sprint(st.Uid), true
	case 'g':
		return fmt.Sprint(st.Gid), true
	case 'U':
		return userName(st.Uid), true
	case 'G':
		return groupName(st.Gid), true
	case 's':
		return fmt.Sprint(st.Size), true
	case 'h':
		return fmt.Sprint(st.Nlink), true
	case 'i':
		return fmt.Sprint(st.Ino), true
	case 'd':
		return fmt.Sprint(st.Dev), true
	case 'b':
		return fmt.Sprint(st.Blocks), true
	case 't':
		return strconv.FormatUint(uint64(unix.Major(st.Rdev)), 16), true
	case 'T':
		return strconv.FormatUint(uint64(unix.Minor(st.Rdev)), 16), true
	case 'X':
		return fmt.Sprint(st.Atim.Sec), true
	case 'Y':
		return fmt.Sprint(st.Mtim.Sec), true
	case 'Z':
		return fmt.Sprint(st.Ctim.Sec), true
	case 'x':
		return when(st.Atim), true
	case 'y':
		return when(st.Mtim), true
	case 'z':
		return when(st.Ctim), true
	case '%':
		return "%", true
	}
	return "", false
}

func stat(w *world, args []string) error {
	o, rest, err := getopt(args, "c:/format L/dereference t f")
	if err != nil {
		return err
	}
	format := o.last("c", "%n %s %f %u %g %h %A %Y")
	return w.each(rest, func(name string) error {
		st, err := statOf(name, o.has("L"))
		if err != nil {
			return err
		}
		var b strings.Builder
		for i := 0; i < len(format); i++ {
			if format[i] != '%' || i+1 == len(format) {
				b.WriteByte(format[i])
				continue
			}
			i++
			text, ok := statField(format[i], name, st)
			if !ok {
				return fmt.Errorf("unknown format %%%c", format[i])
			}
			b.WriteString(text)
		}
		_, err = fmt.Fprintln(w.out, b.String())
		return err
	})
}

func ls(w *world, args []string) error {
	o, rest, err := getopt(args, "l a A 1 d n i R h F p t r S s C/color")
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		rest = []string{"."}
	}
	sort.Strings(rest)
	var files, dirs []string
	code := w.each(rest, func(name string) error {
		fi, err := os.Stat(name)
		if err != nil || o.has("l", "d") {
			fi, err = os.Lstat(name)
		}
		switch {
		case err != nil:
			return err
		case fi.IsDir() && !o.has("d"):
			dirs = append(dirs, name)
		default:
			files = append(files, name)
		}
		return nil
	})
	l := &lister{w: w, o: o, titles: len(rest) > 1 || o.has("R"), printed: len(files) > 0}
	for _, f := range files {
		lsLine(w, o, f, f)
	}
	for _, d := range dirs {
		if err := l.dir(d); err != nil {
			return err
		}
	}
	return code
}

// lister is one call of ls.
type lister struct {
	w *world
	o options
	// titles says to name each directory; printed, that a directory needs an empty line before it.
	titles, printed bool
}

func (l *lister) dir(dir string) error {
	w, o := l.w, l.o
	if l.printed {
		fmt.Fprintln(w.out)
	}
	l.printed = true
	if l.titles {
		fmt.Fprintf(w.out, "%s:\n", dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var names []string
	if o.has("a") {
		names = []string{".", ".."}
	}
	for _, e := range entries {
		if o.has("a", "A") || !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	for _, n := range names {
		lsLine(w, o, filepath.Join(dir, n), n)
	}
	if !o.has("R") {
		return nil
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") && !o.has("a", "A") {
			continue
		}
		if err := l.dir(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func lsLine(w *world, o options, path, name string) {
	st, err := statOf(path, false)
	if err != nil {
		fmt.Fprintf(w.err, "ls: %v\n", err)
		return
	}
	if (o.has("p") || o.has("F")) && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		name += "/"
	}
	if o.has("i") {
		fmt.Fprintf(w.out, "%d ", st.Ino)
	}
	if !o.has("l", "n") {
		fmt.Fprintln(w.out, name)
		return
	}
	owner, group := userName(st.Uid), groupName(st.Gid)
	if o.has("n") || owner == "UNKNOWN" {
		owner = fmt.Sprint(st.Uid)
	}
	if o.has("n") || group == "UNKNOWN" {
		group = fmt.Sprint(st.Gid)
	}
	size := fmt.Sprint(st.Size)
	if k := st.Mode & unix.S_IFMT; k == unix.S_IFCHR || k == unix.S_IFBLK {
		size = fmt.Sprintf("%d, %d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	if link, err := os.Readlink(path); err == nil {
		name += " -> " + link
	}
	when := time.Unix(st.Mtim.Sec, 0).UTC().Format("2006-01-02 15:04")
	fmt.Fprintf(w.out, "%s %d %s %s %s %s %s\n", modeString(st.Mode), st.Nlink, owner, group, size, when, name)
}
