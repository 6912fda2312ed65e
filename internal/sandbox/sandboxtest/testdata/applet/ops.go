package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

func appendTo(a []string) error {
	f, err := os.OpenFile(a[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(a[1])
	return err
}

func cat(a []string) error {
	for _, p := range a {
		f := os.Stdin
		if p != "-" {
			var err error
			if f, err = os.Open(p); err != nil {
				return err
			}
		}
		if _, err := io.Copy(os.Stdout, f); err != nil {
			return err
		}
	}
	return nil
}

func ls(a []string) error {
	es, err := os.ReadDir(a[0])
	for _, e := range es {
		fmt.Println(e.Name())
	}
	return err
}

func stat(a []string) error {
	for _, p := range a {
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Printf("%s %06o %d:%d %d,%d\n", p, st.Mode, st.Uid, st.Gid, st.Rdev>>8, st.Rdev&0xff)
	}
	return nil
}

// times prints when files were changed, in seconds.
func times(a []string) error {
	for _, p := range a {
		var st syscall.Stat_t
		if err := syscall.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Println(p, st.Mtim.Sec)
	}
	return nil
}

// big writes n bytes that do not compress to nothing but need no memory.
func big(p string, n int) error {
	f, err := os.Create(p)
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<20)
	for i := range buf {
		buf[i] = byte(i * 7)
	}
	for n > 0 {
		k, err := f.Write(buf[:min(n, len(buf))])
		if err != nil {
			return err
		}
		n -= k
	}
	return f.Close()
}

func many(dir string, n int) error {
	for i := range n {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%06d", i)), []byte("x"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func statfs(a []string) error {
	var st syscall.Statfs_t
	if err := syscall.Statfs(a[0], &st); err != nil {
		return err
	}
	fmt.Println(int64(st.Blocks) * st.Bsize)
	return nil
}

func unixSocket(p string) error {
	_, err := net.Listen("unix", p)
	if err == nil {
		// Leave the file there.
		os.Stdout.Sync()
		os.Exit(0)
	}
	return err
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

func setxattr(p, name, value string) error {
	pp, err := syscall.BytePtrFromString(p)
	if err != nil {
		return err
	}
	np, err := syscall.BytePtrFromString(name)
	if err != nil {
		return err
	}
	value, err = strconv.Unquote(`"` + value + `"`) // arguments cannot have a zero byte
	if err != nil {
		return err
	}
	v := []byte(value)
	_, _, e := syscall.Syscall6(syscall.SYS_LSETXATTR, uintptr(unsafe.Pointer(pp)), uintptr(unsafe.Pointer(np)),
		uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)), 0, 0)
	if e != 0 {
		return e
	}
	return nil
}

func raise(sig int) error {
	// By the thread, so that nothing of the Go runtime comes in between; SIGKILL needs no handler to be reset.
	_, _, e := syscall.RawSyscall(syscall.SYS_KILL, uintptr(os.Getpid()), uintptr(sig), 0)
	if e != 0 {
		return e
	}
	select {}
}

func id([]string) error {
	groups, err := os.Getgroups()
	fmt.Println(os.Getuid(), os.Geteuid(), os.Getgid(), os.Getegid(), groups)
	return err
}

// status prints the lines of /proc/self/status that begin with one of a.
func status(a []string) error {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return err
	}
	s := bufio.NewScanner(f)
	for s.Scan() {
		for _, p := range a {
			if strings.HasPrefix(s.Text(), p+":") {
				fmt.Println(strings.Join(strings.Fields(s.Text()), " "))
			}
		}
	}
	return s.Err()
}

// lines prints n numbered lines to stdout and as many to stderr.
func lines(a []string) error {
	out, errs := bufio.NewWriter(os.Stdout), bufio.NewWriter(os.Stderr)
	for i := range num(a[0]) {
		fmt.Fprintf(out, "out %d\n", i)
		fmt.Fprintf(errs, "err %d\n", i)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return errs.Flush()
}

// ownFD says whether a descriptor is this program's: Go's runtime watches the limits of its cgroup.
func ownFD(target string) bool {
	for _, prefix := range []string{"anon_inode", "/proc/", "/sys/fs/cgroup/"} {
		if strings.HasPrefix(target, prefix) {
			return true
		}
	}
	return false
}

func fds([]string) error {
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range es {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !ownFD(target) {
			fmt.Println(e.Name(), strings.SplitN(target, ":", 2)[0])
		}
	}
	return nil
}

// procs prints how many processes there are.
func procs([]string) error {
	es, err := os.ReadDir("/proc")
	n := 0
	for _, e := range es {
		if e.Name()[0] >= '0' && e.Name()[0] <= '9' {
			n++
		}
	}
	fmt.Println(n)
	return err
}

// crash takes the program's own code away, which the linker puts at 0x400000 for amd64 and at 0x10000 for arm64: it dies by SIGSEGV,
// which the Go runtime would turn into an exit code if it came from Go code.
func crash() error {
	syscall.RawSyscall(syscall.SYS_MUNMAP, 0x10000, 1<<30, 0)
	return nil
}

// move renames a directory, or copies and removes it if it cannot be renamed, as mv does.
func move(from, to string) error {
	err := os.Rename(from, to)
	if !errors.Is(err, syscall.EXDEV) {
		return err
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return err
	}
	return os.RemoveAll(from)
}
