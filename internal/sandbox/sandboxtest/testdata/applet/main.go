// Command applet is what the steps of the sandbox tests run: a handful of file and process operations,
// given as arguments and separated by ";". The first that fails ends it with code 1 and a line on stderr.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	for len(args) > 0 {
		n := 0
		for n < len(args) && args[n] != ";" {
			n++
		}
		if n > 0 {
			if err := run(args[0], args[1:n]); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", strings.Join(args[:n], " "), err)
				os.Exit(1)
			}
		}
		args = args[min(n+1, len(args)):]
	}
}

func num(s string) int {
	n, err := strconv.ParseInt(s, 0, 64)
	if err != nil {
		panic(err)
	}
	return int(n)
}

func run(name string, a []string) error {
	if f, ok := files()[name]; ok {
		return f(a)
	}
	if f, ok := processes()[name]; ok {
		return f(a)
	}
	return errors.New("no such applet")
}

type applets map[string]func(a []string) error

func files() applets {
	return applets{
		"write":   func(a []string) error { return os.WriteFile(a[0], []byte(a[1]), 0o644) },
		"append":  appendTo,
		"mkdir":   func(a []string) error { return os.Mkdir(a[0], 0o755) },
		"rm":      func(a []string) error { return os.Remove(a[0]) },
		"rmall":   func(a []string) error { return os.RemoveAll(a[0]) },
		"mv":      func(a []string) error { return os.Rename(a[0], a[1]) },
		"ln":      func(a []string) error { return os.Link(a[0], a[1]) },
		"symlink": func(a []string) error { return os.Symlink(a[0], a[1]) },
		"chmod":   func(a []string) error { return syscall.Chmod(a[0], uint32(num(a[1]))) },
		"chown":   func(a []string) error { return os.Lchown(a[0], num(a[1]), num(a[2])) },
		"mknod": func(a []string) error {
			return syscall.Mknod(a[0], uint32(num(a[1])), num(a[2])<<8|num(a[3]))
		},
		"mkfifo":   func(a []string) error { return syscall.Mkfifo(a[0], uint32(num(a[1]))) },
		"setxattr": func(a []string) error { return setxattr(a[0], a[1], a[2]) },
		"touch": func(a []string) error {
			t := time.Unix(int64(num(a[1])), 0)
			return os.Chtimes(a[0], t, t)
		},
		"move": func(a []string) error { return move(a[0], a[1]) },
		"cat":  cat,
		"ls":   ls,
		"same": func(a []string) error {
			x, err := os.Lstat(a[0])
			if err != nil {
				return err
			}
			y, err := os.Lstat(a[1])
			fmt.Println(os.SameFile(x, y))
			return err
		},
		"stat":     stat,
		"times":    times,
		"big":      func(a []string) error { return big(a[0], num(a[1])) },
		"many":     func(a []string) error { return many(a[0], num(a[1])) },
		"statfs":   statfs,
		"unixsock": func(a []string) error { return unixSocket(a[0]) },
		"mount": func(a []string) error {
			return syscall.Mount("none", a[0], "tmpfs", 0, "")
		},
		"await": func(a []string) error { // await PATH: until it is there
			for {
				if _, err := os.Lstat(a[0]); err == nil {
					return nil
				}
				time.Sleep(time.Millisecond)
			}
		},
		"copyself": func(a []string) error { return copyFile("/proc/self/exe", a[0]) },
	}
}

func processes() applets {
	return applets{
		"exit":  func(a []string) error { os.Exit(num(a[0])); return nil },
		"raise": func(a []string) error { return raise(num(a[0])) },
		"sleep": func(a []string) error { d, err := time.ParseDuration(a[0]); time.Sleep(d); return err },
		"echo":  func(a []string) error { fmt.Println(strings.Join(a, " ")); return nil },
		"warn":  func(a []string) error { fmt.Fprintln(os.Stderr, strings.Join(a, " ")); return nil },
		"env": func([]string) error {
			e := os.Environ()
			sort.Strings(e)
			fmt.Println(strings.Join(e, "\n"))
			return nil
		},
		"pwd":    func([]string) error { d, err := os.Getwd(); fmt.Println(d); return err },
		"id":     id,
		"status": status,
		"umask":  func([]string) error { fmt.Printf("%04o\n", syscall.Umask(0)); return nil },
		"hostname": func([]string) error {
			h, err := os.Hostname()
			fmt.Println(h)
			return err
		},
		"lines": lines,
		"fds":   fds,
		"procs": procs,
		"child": func(a []string) error { return exec.Command("/proc/self/exe", a...).Run() },
		"crash": func([]string) error { return crash() },
		"spin": func([]string) error {
			for {
				syscall.Getppid()
			}
		},
		"spawn": func(a []string) error { return exec.Command("/proc/self/exe", a...).Start() },
		"exec":  func(a []string) error { return syscall.Exec(a[0], a, os.Environ()) },
		"dial": func(a []string) error {
			c, err := net.Dial("tcp", a[0])
			if err != nil {
				return err
			}
			_, err = io.Copy(os.Stdout, c)
			return err
		},
		"ask":        func(a []string) error { return ask(a[0], a[1]) },
		"loopback":   loopback,
		"interfaces": interfaces,
		"datagram": func(a []string) error {
			_, err := net.Dial("unixgram", a[0])
			return err
		},
		"fails": func(a []string) error { // fails ERRNO APPLET…: the applet must fail with that text
			err := run(a[1], a[2:])
			if err == nil || !strings.Contains(err.Error(), a[0]) {
				return fmt.Errorf("got %v, want %s", err, a[0])
			}
			return nil
		},
	}
}
