package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func systemApplets() map[string]applet {
	return map[string]applet{
		"stat": stat, "ls": ls, "find": find, "id": id, "whoami": whoami, "groups": groups, "sleep": sleep, "env": env,
		"printenv": printenv, "date": date, "uname": uname, "hostname": hostname, "xargs": xargs, "kill": kill,
		"which": which, "nproc": nproc, "su": su, "chroot": chroot, "mount": mount, "umount": umount, "sync": syncAll,
		"getent": getent, "wget": wget, "nc": nc, "timeout": timeout, "nohup": nohup, "tty": tty, "yes": yes,
	}
}

// execute runs a command with w's streams; its exit code comes back as an exitCode.
func execute(w *world, args []string) error {
	return start(w, exec.Command(args[0], args[1:]...))
}

func start(w *world, cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = w.in, unbuffered(w), w.err
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if st, ok := exit.Sys().(syscall.WaitStatus); ok && st.Signaled() {
			return exitCode(128 + int(st.Signal()))
		}
		return exitCode(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintf(w.err, "%s: %v\n", w.name, err)
		return exitCode(127)
	}
	return nil
}

// replace turns the process into another program.
func replace(w *world, args, environ []string) error {
	path, err := exec.LookPath(args[0])
	if err != nil {
		fmt.Fprintf(w.err, "%s: %v\n", w.name, err)
		return exitCode(127)
	}
	w.flush()
	return fmt.Errorf("%s: %w", path, syscall.Exec(path, args, environ))
}

func id(w *world, args []string) error {
	o, rest, err := getopt(args, "u g G n r")
	if err != nil {
		return err
	}
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	gids, err := os.Getgroups()
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		u, err := user.Lookup(rest[0])
		if err != nil {
			return err
		}
		ids, err := u.GroupIds()
		if err != nil {
			return err
		}
		uid, gid, gids = atou(u.Uid), atou(u.Gid), nil
		for _, g := range ids {
			gids = append(gids, int(atou(g)))
		}
	} else if o.has("r") {
		uid, gid = uint32(os.Getuid()), uint32(os.Getgid())
	}
	groups := groupList(gid, gids)
	name := func(fn func(uint32) string, n uint32) string {
		if o.has("n") {
			return fn(n)
		}
		return fmt.Sprint(n)
	}
	switch {
	case o.has("u"):
		fmt.Fprintln(w.out, name(userName, uid))
	case o.has("g"):
		fmt.Fprintln(w.out, name(groupName, gid))
	case o.has("G"):
		var words []string
		for _, g := range groups {
			words = append(words, name(groupName, g))
		}
		fmt.Fprintln(w.out, strings.Join(words, " "))
	default:
		var words []string
		for _, g := range groups {
			words = append(words, named(g, groupName))
		}
		fmt.Fprintf(w.out, "uid=%s gid=%s groups=%s\n", named(uid, userName), named(gid, groupName), strings.Join(words, ","))
	}
	return nil
}

func atou(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32) // os/user has checked it
	return uint32(n)
}

// groupList is gid followed by the others, sorted, each once.
func groupList(gid uint32, others []int) []uint32 {
	list := []uint32{gid}
	sort.Ints(others)
	for i, g := range others {
		if uint32(g) != gid && (i == 0 || g != others[i-1]) {
			list = append(list, uint32(g))
		}
	}
	return list
}

func named(n uint32, fn func(uint32) string) string {
	if name := fn(n); name != "UNKNOWN" {
		return fmt.Sprintf("%d(%s)", n, name)
	}
	return fmt.Sprint(n)
}

func whoami(w *world, args []string) error {
	name := userName(uint32(os.Geteuid()))
	if name == "UNKNOWN" {
		return fmt.Errorf("unknown uid %d", os.Geteuid())
	}
	_, err := fmt.Fprintln(w.out, name)
	return err
}

func groups(w *world, args []string) error { return id(w, append([]string{"-Gn"}, args...)) }

func sleep(w *world, args []string) error {
	for _, a := range args {
		unit := time.Second
		if n := strings.TrimRight(a, "smh"); n != a {
			unit = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[a[len(n):]]
			a = n
		}
		f, err := strconv.ParseFloat(a, 64)
		if err != nil {
			return err
		}
		time.Sleep(time.Duration(f * float64(unit)))
	}
	return nil
}

// env prints or changes the environment: env [-i] [-u NAME] [NAME=VALUE…] [COMMAND…].
func env(w *world, args []string) error {
	o, rest, err := getoptPrefix(args, "i/ignore-environment u:/unset 0")
	if err != nil {
		return err
	}
	environ := os.Environ()
	if o.has("i") {
		environ = nil
	}
	drop := func(name string) {
		kept := environ[:0]
		for _, kv := range environ {
			if k, _, _ := strings.Cut(kv, "="); k != name {
				kept = append(kept, kv)
			}
		}
		environ = kept
	}
	for _, name := range o["u"] {
		drop(name)
	}
	for len(rest) > 0 && strings.Contains(rest[0], "=") {
		k, _, _ := strings.Cut(rest[0], "=")
		drop(k)
		environ = append(environ, rest[0])
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return w.writeLines(environ)
	}
	return replace(w, rest, environ)
}

func printenv(w *world, args []string) error {
	if len(args) == 0 {
		return w.writeLines(os.Environ())
	}
	for _, name := range args {
		v, ok := os.LookupEnv(name)
		if !ok {
			return exitCode(1)
		}
		fmt.Fprintln(w.out, v)
	}
	return nil
}

// date prints a time: date [-u] [-d WHEN] [-r FILE] [+FORMAT]. The zone is always UTC.
func date(w *world, args []string) error {
	o, rest, err := getopt(args, "u/utc d:/date r:/reference I R")
	if err != nil {
		return err
	}
	t := time.Now()
	if o.has("d") {
		if t, err = parseDate(o.last("d", "")); err != nil {
			return err
		}
	}
	if o.has("r") {
		fi, err := os.Stat(o.last("r", ""))
		if err != nil {
			return err
		}
		t = fi.ModTime()
	}
	format := "+%a %b %e %H:%M:%S UTC %Y"
	if len(rest) > 0 {
		format = rest[0]
	}
	_, err = fmt.Fprintln(w.out, strftime(strings.TrimPrefix(format, "+"), t.UTC()))
	return err
}

func strftime(format string, t time.Time) string {
	r := strings.NewReplacer("%Y", t.Format("2006"), "%m", t.Format("01"), "%d", t.Format("02"), "%H", t.Format("15"),
		"%M", t.Format("04"), "%S", t.Format("05"), "%s", fmt.Sprint(t.Unix()), "%N", t.Format(".000000000")[1:],
		"%F", t.Format("2006-01-02"), "%T", t.Format("15:04:05"), "%a", t.Format("Mon"), "%b", t.Format("Jan"),
		"%e", t.Format("_2"), "%y", t.Format("06"), "%j", t.Format("002"), "%Z", "UTC", "%z", "+0000", "%%", "%", "%n", "\n")
	return r.Replace(format)
}

func uname(w *world, args []string) error {
	o, _, err := getopt(args, "a s n r v m p")
	if err != nil {
		return err
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	var words []string
	for _, f := range []struct {
		name string
		text []byte
	}{{"s", u.Sysname[:]}, {"n", u.Nodename[:]}, {"r", u.Release[:]}, {"v", u.Version[:]}, {"m", u.Machine[:]}} {
		if o.has(f.name, "a") || len(o) == 0 && f.name == "s" {
			words = append(words, unix.ByteSliceToString(f.text))
		}
	}
	_, err = fmt.Fprintln(w.out, strings.Join(words, " "))
	return err
}

func hostname(w *world, args []string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w.out, name)
	return err
}

func xargs(w *world, args []string) error {
	o, rest, err := getoptPrefix(args, "0 n: I: r t")
	if err != nil {
		return err
	}
	data, err := io.ReadAll(w.in)
	if err != nil {
		return err
	}
	items := strings.Fields(string(data))
	switch {
	case o.has("0"):
		items = strings.FieldsFunc(string(data), func(r rune) bool { return r == 0 })
	case o.has("I"):
		items = strings.FieldsFunc(string(data), func(r rune) bool { return r == '\n' })
	}
	if len(rest) == 0 {
		rest = []string{"echo"}
	}
	if len(items) == 0 && o.has("r") {
		return nil
	}
	size, err := o.number("n", int64(max(1, len(items))))
	if err != nil {
		return err
	}
	inner := &world{in: strings.NewReader(""), out: w.out, err: w.err, name: w.name}
	if w.in == os.Stdin {
		inner.in = nil
		w.flush()
		inner.out = os.Stdout
	}
	if mark := o.last("I", ""); mark != "" {
		return w.xargsEach(inner, items, rest, mark)
	}
	var code error
	for i := 0; i == 0 || i < len(items); i += int(size) {
		if execute(inner, append(append([]string{}, rest...), items[i:min(len(items), i+int(size))]...)) != nil {
			code = exitCode(123)
		}
	}
	return code
}

func (w *world) xargsEach(inner *world, items, command []string, mark string) error {
	var code error
	for _, item := range items {
		args := make([]string, len(command))
		for i, a := range command {
			args[i] = strings.ReplaceAll(a, mark, item)
		}
		if execute(inner, args) != nil {
			code = exitCode(123)
		}
	}
	return code
}

func kill(w *world, args []string) error {
	sig := syscall.SIGTERM
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		name := args[0][1:]
		args = args[1:]
		if name == "s" && len(args) > 0 {
			name, args = args[0], args[1:]
		}
		if n, err := strconv.Atoi(name); err == nil {
			sig = syscall.Signal(n)
		} else if sig = unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG")); sig == 0 {
			return fmt.Errorf("unknown signal %q", name)
		}
	}
	return w.each(args, func(a string) error {
		pid, err := strconv.Atoi(a)
		if err != nil {
			return fmt.Errorf("invalid process id %q", a)
		}
		return pathError("kill", a, syscall.Kill(pid, sig))
	})
}

func which(w *world, args []string) error {
	return w.each(args, func(name string) error {
		path, err := exec.LookPath(name)
		if err != nil {
			return exitCode(1)
		}
		_, err = fmt.Fprintln(w.out, path)
		return err
	})
}

func nproc(w *world, args []string) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w.out, set.Count())
	return err
}

// su runs a shell or a command as another user: su [-] USER [-c COMMAND].
func su(w *world, args []string) error {
	o, rest, err := getopt(args, "c: s: l p")
	if err != nil {
		return err
	}
	name := "root"
	for _, a := range rest {
		if a != "-" {
			name = a
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		return err
	}
	gids, err := u.GroupIds()
	if err != nil {
		return err
	}
	cred := &syscall.Credential{Uid: atou(u.Uid), Gid: atou(u.Gid)}
	for _, g := range gids {
		cred.Groups = append(cred.Groups, atou(g))
	}
	command := []string{o.last("s", "/bin/sh")}
	if o.has("c") {
		command = append(command, "-c", o.last("c", ""))
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "HOME="+u.HomeDir, "USER="+name, "LOGNAME="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred}
	return start(w, cmd)
}

func chroot(w *world, args []string) error {
	if len(args) == 0 {
		return errors.New("needs a directory")
	}
	if len(args) == 1 {
		args = append(args, "/bin/sh")
	}
	if err := syscall.Chroot(args[0]); err != nil {
		return pathError("chroot", args[0], err)
	}
	if err := syscall.Chdir("/"); err != nil {
		return pathError("chdir", "/", err)
	}
	return replace(w, args[1:], os.Environ())
}

// mount mounts, or prints what is mounted.
func mount(w *world, args []string) error {
	o, rest, err := getopt(args, "t: o: b/bind")
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return cat(w, []string{"/proc/self/mounts"})
	}
	if len(rest) != 2 {
		return errors.New("usage: mount [-t TYPE] [-o OPTIONS] [--bind] SOURCE TARGET")
	}
	var flags uintptr
	var data []string
	for _, opt := range strings.Split(o.last("o", ""), ",") {
		switch opt {
		case "", "rw":
		case "ro":
			flags |= unix.MS_RDONLY
		case "bind":
			flags |= unix.MS_BIND
		default:
			data = append(data, opt)
		}
	}
	if o.has("b") {
		flags |= unix.MS_BIND
	}
	return pathError("mount", rest[1], unix.Mount(rest[0], rest[1], o.last("t", ""), flags, strings.Join(data, ",")))
}

func umount(w *world, args []string) error {
	return w.each(args, func(name string) error { return pathError("umount", name, unix.Unmount(name, 0)) })
}

func syncAll(w *world, args []string) error {
	unix.Sync()
	return nil
}

// timeout runs a command for at most so many seconds.
func timeout(w *world, args []string) error {
	_, rest, err := getoptPrefix(args, "s: k:")
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return errors.New("needs seconds and a command")
	}
	sec, err := strconv.ParseFloat(strings.TrimSuffix(rest[0], "s"), 64)
	if err != nil {
		return err
	}
	cmd := exec.Command(rest[1], rest[2:]...)
	timer := time.AfterFunc(time.Duration(sec*float64(time.Second)), func() {
		_ = cmd.Process.Kill() // it may just have ended
	})
	err = start(w, cmd)
	if !timer.Stop() {
		return exitCode(124)
	}
	return err
}

func nohup(w *world, args []string) error { return execute(w, args) }

func tty(w *world, args []string) error {
	if _, err := unix.IoctlGetTermios(0, unix.TCGETS); err != nil {
		fmt.Fprintln(w.out, "not a tty")
		return exitCode(1)
	}
	fmt.Fprintln(w.out, "/dev/tty")
	return nil
}

func yes(w *world, args []string) error {
	word := "y"
	if len(args) > 0 {
		word = strings.Join(args, " ")
	}
	for {
		if _, err := fmt.Fprintln(w.out, word); err != nil {
			return exitCode(1)
		}
	}
}
