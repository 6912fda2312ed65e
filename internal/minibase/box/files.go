package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func fileApplets() map[string]applet {
	return map[string]applet{
		"cp": cp, "mv": mv, "rm": rm, "mkdir": mkdir, "rmdir": rmdir, "ln": ln, "mknod": mknod, "mkfifo": mkfifo,
		"mktemp": mktemp, "truncate": truncate, "dd": dd, "readlink": readlink, "realpath": realpath,
		"basename": basename, "dirname": dirname, "pwd": pwd, "install": install,
	}
}

// target is where src goes if dst may be a directory.
func target(src, dst string, single bool) string {
	if fi, err := os.Stat(dst); err == nil && fi.IsDir() && !single {
		return filepath.Join(dst, filepath.Base(src))
	}
	return dst
}

func operands(args []string) (sources []string, dest string, err error) {
	if len(args) < 2 {
		return nil, "", errors.New("needs a source and a destination")
	}
	dest = args[len(args)-1]
	sources = args[:len(args)-1]
	if fi, err := os.Stat(dest); len(sources) > 1 && (err != nil || !fi.IsDir()) {
		return nil, "", fmt.Errorf("%s is not a directory", dest)
	}
	return sources, dest, nil
}

// copier copies trees the way cp was asked to.
type copier struct {
	recursive, preserve, follow bool
	// first maps the inode of a file with several links to its first copy.
	first map[[2]uint64]string
}

func cp(w *world, args []string) error {
	o, rest, err := getopt(args, "a/archive r/recursive R p d P L f/force T v n")
	if err != nil {
		return err
	}
	sources, dest, err := operands(rest)
	if err != nil {
		return err
	}
	c := &copier{recursive: o.has("a", "r", "R"), preserve: o.has("a", "p"), first: map[[2]uint64]string{}}
	c.follow = o.has("L") || !c.recursive && !o.has("d", "P")
	return w.each(sources, func(src string) error { return c.copy(src, target(src, dest, o.has("T"))) })
}

func (c *copier) copy(src, dst string) error {
	stat := os.Lstat
	if c.follow {
		stat = os.Stat
	}
	fi, err := stat(src)
	if err != nil {
		return err
	}
	st := fi.Sys().(*syscall.Stat_t)
	key := [2]uint64{st.Dev, st.Ino}
	if first, ok := c.first[key]; ok && c.preserve {
		_ = os.Remove(dst) // Link says what is wrong
		return os.Link(first, dst)
	}
	if err := c.create(src, dst, fi); err != nil {
		return err
	}
	if st.Nlink > 1 && !fi.IsDir() {
		c.first[key] = dst
	}
	if c.preserve {
		return preserve(src, dst, fi)
	}
	return nil
}

func (c *copier) create(src, dst string, fi fs.FileInfo) error {
	switch mode := fi.Mode(); {
	case mode.IsDir():
		return c.copyDir(src, dst, mode)
	case mode.IsRegular():
		return copyFile(src, dst, mode)
	case mode&fs.ModeSymlink != 0:
		link, err := os.Readlink(src)
		if err != nil {
			return err
		}
		_ = os.Remove(dst) // Symlink says what is wrong
		return os.Symlink(link, dst)
	default:
		st := fi.Sys().(*syscall.Stat_t)
		return nodeError(dst, unix.Mknod(dst, st.Mode, int(st.Rdev)))
	}
}

func (c *copier) copyDir(src, dst string, mode fs.FileMode) error {
	if !c.recursive {
		return fmt.Errorf("%s is a directory; use -r", src)
	}
	if err := os.Mkdir(dst, mode.Perm()|0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	entries, err := os.ReadDir(src)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := c.copy(filepath.Join(src, e.Name()), filepath.Join(dst, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(src, dst string, mode fs.FileMode) (err error) {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	if fi, err := os.Lstat(dst); err == nil && fi.Mode()&fs.ModeSymlink != 0 {
		if _, err := os.Stat(dst); err != nil {
			return fmt.Errorf("%s is a dangling symbolic link", dst)
		}
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode.Perm())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// preserve gives dst the owner, mode, xattrs and times of src.
func preserve(src, dst string, fi fs.FileInfo) error {
	st := fi.Sys().(*syscall.Stat_t)
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil && os.Geteuid() == 0 {
		return err
	}
	link := fi.Mode()&fs.ModeSymlink != 0
	if !link {
		if err := syscall.Chmod(dst, st.Mode&0o7777); err != nil {
			return err
		}
		if err := copyXattrs(src, dst); err != nil {
			return err
		}
	}
	times := []unix.Timespec{{Sec: st.Atim.Sec, Nsec: st.Atim.Nsec}, {Sec: st.Mtim.Sec, Nsec: st.Mtim.Nsec}}
	return unix.UtimesNanoAt(unix.AT_FDCWD, dst, times, unix.AT_SYMLINK_NOFOLLOW)
}

func mv(w *world, args []string) error {
	o, rest, err := getopt(args, "f/force T v n")
	if err != nil {
		return err
	}
	sources, dest, err := operands(rest)
	if err != nil {
		return err
	}
	return w.each(sources, func(src string) error {
		dst := target(src, dest, o.has("T"))
		err := os.Rename(src, dst)
		if !errors.Is(err, syscall.EXDEV) {
			return err
		}
		c := &copier{recursive: true, preserve: true, first: map[[2]uint64]string{}}
		if err := c.copy(src, dst); err != nil {
			return err
		}
		return os.RemoveAll(src)
	})
}

func rm(w *world, args []string) error {
	o, rest, err := getopt(args, "r/recursive R f/force v d")
	if err != nil {
		return err
	}
	return w.each(rest, func(name string) error {
		fi, err := os.Lstat(name)
		switch {
		case errors.Is(err, fs.ErrNotExist) && o.has("f"):
			return nil
		case err != nil:
			return err
		case o.has("r", "R"):
			return os.RemoveAll(name)
		case fi.IsDir() && !o.has("d"):
			return fmt.Errorf("%s is a directory", name)
		}
		return os.Remove(name)
	})
}

func mkdir(w *world, args []string) error {
	o, rest, err := getopt(args, "p/parents m:/mode v")
	if err != nil {
		return err
	}
	return w.each(rest, func(name string) error {
		make := os.Mkdir
		if o.has("p") {
			make = os.MkdirAll
		}
		if err := make(name, 0o777); err != nil || !o.has("m") {
			return err
		}
		return chmodOne(name, o.last("m", ""))
	})
}

func rmdir(w *world, args []string) error {
	o, rest, err := getopt(args, "p/parents")
	if err != nil {
		return err
	}
	return w.each(rest, func(name string) error {
		for {
			if err := unix.Rmdir(name); err != nil {
				return &fs.PathError{Op: "rmdir", Path: name, Err: err}
			}
			name = filepath.Dir(name)
			if !o.has("p") || name == "." || name == "/" {
				return nil
			}
		}
	})
}

func ln(w *world, args []string) error {
	o, rest, err := getopt(args, "s/symbolic f/force n T v r/relative")
	if err != nil {
		return err
	}
	if len(rest) == 1 {
		rest = append(rest, ".")
	}
	sources, dest, err := operands(rest)
	if err != nil {
		return err
	}
	return w.each(sources, func(src string) error {
		dst := dest
		if fi, err := os.Lstat(dest); err != nil || !o.has("n") || fi.Mode()&fs.ModeSymlink == 0 {
			dst = target(src, dest, o.has("T"))
		}
		if o.has("f") {
			_ = os.Remove(dst) // what cannot be removed cannot be replaced either
		}
		if !o.has("s") {
			return os.Link(src, dst)
		}
		if o.has("r") {
			if src, err = filepath.Rel(filepath.Dir(dst), src); err != nil {
				return err
			}
		}
		return os.Symlink(src, dst)
	})
}

func nodeError(name string, err error) error {
	if err != nil {
		return &fs.PathError{Op: "mknod", Path: name, Err: err}
	}
	return nil
}

func mknod(w *world, args []string) error {
	o, rest, err := getopt(args, "m:/mode")
	if err != nil {
		return err
	}
	if len(rest) != 4 && (len(rest) != 2 || rest[1] != "p") {
		return errors.New("usage: mknod [-m MODE] NAME p | NAME {b|c|u} MAJOR MINOR")
	}
	kind := map[string]uint32{"b": unix.S_IFBLK, "c": unix.S_IFCHR, "u": unix.S_IFCHR, "p": unix.S_IFIFO}[rest[1]]
	if kind == 0 {
		return fmt.Errorf("unknown type %q", rest[1])
	}
	dev := uint64(0)
	if len(rest) == 4 {
		major, err1 := strconv.ParseUint(rest[2], 0, 32)
		minor, err2 := strconv.ParseUint(rest[3], 0, 32)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		dev = unix.Mkdev(uint32(major), uint32(minor))
	}
	if err := nodeError(rest[0], unix.Mknod(rest[0], kind|0o666, int(dev))); err != nil || !o.has("m") {
		return err
	}
	return chmodOne(rest[0], o.last("m", ""))
}

func mkfifo(w *world, args []string) error {
	o, rest, err := getopt(args, "m:/mode")
	if err != nil {
		return err
	}
	return w.each(rest, func(name string) error {
		if err := nodeError(name, unix.Mkfifo(name, 0o666)); err != nil || !o.has("m") {
			return err
		}
		return chmodOne(name, o.last("m", ""))
	})
}

func mktemp(w *world, args []string) error {
	o, rest, err := getopt(args, "d/directory p:/tmpdir u")
	if err != nil {
		return err
	}
	template := "tmp.XXXXXXXXXX"
	dir := o.last("p", os.TempDir())
	if len(rest) > 0 {
		template = filepath.Base(rest[0])
		if !o.has("p") {
			dir = filepath.Dir(rest[0])
		}
	}
	pattern := strings.TrimRight(template, "X") + "*"
	var name string
	if o.has("d") {
		name, err = os.MkdirTemp(dir, pattern)
	} else {
		var f *os.File
		if f, err = os.CreateTemp(dir, pattern); err == nil {
			name = f.Name()
			err = f.Close()
		}
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w.out, name)
	return err
}

func truncate(w *world, args []string) error {
	o, rest, err := getopt(args, "s:/size c")
	if err != nil {
		return err
	}
	size, err := parseSize(o.last("s", ""))
	if err != nil {
		return err
	}
	return w.each(rest, func(name string) error {
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o666)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(size), f.Close())
	})
}

// parseSize reads a number of bytes with one of the suffixes k, M, G.
func parseSize(s string) (int64, error) {
	shift := 0
	if s != "" {
		if i := strings.IndexByte("kMG", s[len(s)-1]); i >= 0 {
			shift = 10 * (i + 1)
			s = s[:len(s)-1]
		} else if s[len(s)-1] == 'K' {
			shift = 10
			s = s[:len(s)-1]
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("invalid size %q", s)
	}
	return n << shift, nil
}

func readlink(w *world, args []string) error {
	o, rest, err := getopt(args, "f/canonicalize n/no-newline e m")
	if err != nil {
		return err
	}
	if o.has("f", "e", "m") {
		return realpath(w, rest)
	}
	end := "\n"
	if o.has("n") {
		end = ""
	}
	for _, name := range rest {
		link, err := os.Readlink(name)
		if err != nil {
			return exitCode(1)
		}
		fmt.Fprint(w.out, link+end)
	}
	return nil
}

func realpath(w *world, args []string) error {
	_, rest, err := getopt(args, "m e")
	if err != nil {
		return err
	}
	return w.each(rest, func(name string) error {
		abs, err := filepath.Abs(name)
		if err != nil {
			return err
		}
		path, err := filepath.EvalSymlinks(abs)
		if errors.Is(err, fs.ErrNotExist) {
			dir, err2 := filepath.EvalSymlinks(filepath.Dir(abs))
			path, err = filepath.Join(dir, filepath.Base(abs)), err2
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w.out, path)
		return err
	})
}

func basename(w *world, args []string) error {
	if len(args) == 0 {
		return errors.New("needs a path")
	}
	name := filepath.Base(args[0])
	if len(args) > 1 && name != args[1] {
		name = strings.TrimSuffix(name, args[1])
	}
	_, err := fmt.Fprintln(w.out, name)
	return err
}

func dirname(w *world, args []string) error {
	return w.each(args, func(name string) error {
		_, err := fmt.Fprintln(w.out, filepath.Dir(strings.TrimRight(name, "/")+strings.Repeat("/", btoi(strings.Trim(name, "/") == ""))))
		return err
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func pwd(w *world, args []string) error {
	dir, err := unix.Getwd()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w.out, dir)
	return err
}

// dd copies blocks: if= of= bs= count= skip= seek= conv=notrunc.
func dd(w *world, args []string) (err error) {
	p := map[string]string{"bs": "512", "count": "-1", "skip": "0", "seek": "0"}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		p[k] = v
	}
	n := map[string]int64{}
	for _, k := range []string{"bs", "count", "skip", "seek"} {
		if n[k], err = parseSize(p[k]); err != nil {
			return err
		}
	}
	in, out := w.in, w.out
	if p["if"] != "" {
		f, err := os.Open(p["if"])
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	if p["of"] != "" {
		f, err := openOutput(p["of"], p["conv"] != "notrunc", n["seek"]*n["bs"])
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	if _, err := io.CopyN(io.Discard, in, n["skip"]*n["bs"]); err != nil && err != io.EOF {
		return err
	}
	return copyBlocks(bufio.NewWriterSize(out, int(n["bs"])), in, n["bs"], n["count"])
}

func openOutput(name string, trunc bool, offset int64) (*os.File, error) {
	flags := os.O_WRONLY | os.O_CREATE
	if trunc {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(name, flags, 0o666)
	if err != nil {
		return nil, err
	}
	_, err = f.Seek(offset, io.SeekStart)
	return f, err
}

func copyBlocks(out *bufio.Writer, in io.Reader, bs, count int64) error {
	if count < 0 {
		_, err := io.Copy(out, in)
		return errors.Join(err, out.Flush())
	}
	_, err := io.CopyN(out, in, bs*count)
	if err == io.EOF {
		err = nil
	}
	return errors.Join(err, out.Flush())
}

// install copies files with a mode, or makes directories with -d.
func install(w *world, args []string) error {
	o, rest, err := getopt(args, "d/directory m:/mode o:/owner g:/group D p")
	if err != nil {
		return err
	}
	finish := func(name string) error {
		if o.has("o", "g") {
			if err := chownOne(name, o.last("o", "")+":"+o.last("g", ""), true); err != nil {
				return err
			}
		}
		return chmodOne(name, o.last("m", "755"))
	}
	if o.has("d") {
		return w.each(rest, func(name string) error {
			return errors.Join(os.MkdirAll(name, 0o755), finish(name))
		})
	}
	sources, dest, err := operands(rest)
	if err != nil {
		return err
	}
	return w.each(sources, func(src string) error {
		if o.has("D") {
			if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
				return err
			}
		}
		dst := target(src, dest, false)
		_ = os.Remove(dst) // copyFile says what is wrong
		return errors.Join(copyFile(src, dst, 0o600), finish(dst))
	})
}
