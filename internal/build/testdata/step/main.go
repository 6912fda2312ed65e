// Command step is the only program in the images that the tests of package build make.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	switch os.Args[1] {
	case "write":
		if err := os.WriteFile(os.Args[2], []byte(os.Args[3]), 0o644); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "see": // see LENGTH: the secret in the file and in the variable SECRET is that long
		data, err := os.ReadFile("/run/secrets/s")
		if err != nil || fmt.Sprint(len(data), len(os.Getenv("SECRET"))) != os.Args[2] {
			fmt.Println(len(data), len(os.Getenv("SECRET")), err)
			os.Exit(1)
		}
	case "blind":
		if _, err := os.Lstat("/run"); err == nil || os.Getenv("SECRET") != "" {
			os.Exit(1)
		}
	case "note":
		note(os.Args[2], os.Args[3:])
	case "exit":
		os.Exit(42)
	case "hang":
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("hanging")
		for {
			syscall.Pause()
		}
	default:
		os.Exit(3)
	}
}

// note writes what it sees of the environment and below paths, but for times.
func note(out string, paths []string) {
	var b strings.Builder
	env := os.Environ()
	slices.Sort(env)
	fmt.Fprintln(&b, env)
	for _, root := range paths {
		err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			st, err := d.Info()
			if err != nil {
				return err
			}
			owner := st.Sys().(*syscall.Stat_t)
			fmt.Fprintln(&b, p, st.Mode(), owner.Uid, owner.Gid)
			switch {
			case st.Mode().IsRegular() && st.Size() < 1<<10:
				data, err := os.ReadFile(p)
				fmt.Fprintf(&b, "%q %v\n", data, err)
			case st.Mode()&fs.ModeSymlink != 0:
				to, err := os.Readlink(p)
				fmt.Fprintln(&b, to, err)
			}
			return nil
		})
		if err != nil {
			fmt.Fprintln(&b, root, err)
		}
	}
	if err := os.WriteFile(out, []byte(b.String()), 0o644); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}
