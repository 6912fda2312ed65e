package tree

import (
	"errors"
	"io/fs"
	"path"
	"strings"
	"syscall"
)

// maxSymlinks is Linux's limit for one look-up, path_resolution(7).
const maxSymlinks = 40

// Lstater describes entries by their literal path, as a Tree does.
type Lstater interface {
	Lstat(path string) (Entry, error)
}

// Resolve follows the symbolic links of p inside t as Linux would with t's root as "/", and returns a literal path.
// p and the targets of links are relative to the root, however they are written; ".." at the root stays there.
// A link in the last component is followed only if last is set. What comes after the first missing component is kept
// as it is: a path that does not exist is no error, and may be created under the name that is returned.
// It fails with syscall.ELOOP after 40 links and with syscall.ENOTDIR if a component that is not the last is neither
// a directory nor a link to one.
func Resolve(t Lstater, p string, last bool) (string, error) {
	cur, links, missing := ".", 0, false
	for rest := p; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			cur, missing = path.Dir(cur), false
			continue
		}
		next := path.Join(cur, name)
		if missing {
			cur = next
			continue
		}
		e, err := t.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			cur, missing = next, true
			continue
		}
		if err != nil {
			return "", err
		}
		tail := strings.Trim(rest, "/") != ""
		switch {
		case e.Kind == Symlink && (tail || last):
			if links++; links > maxSymlinks {
				return "", &fs.PathError{Op: "resolve", Path: p, Err: syscall.ELOOP}
			}
			if strings.HasPrefix(e.Linkname, "/") {
				cur = "."
			}
			rest = e.Linkname + "/" + rest
		case e.Kind != Dir && tail:
			return "", &fs.PathError{Op: "resolve", Path: next, Err: syscall.ENOTDIR}
		default:
			cur = next
		}
	}
	return cur, nil
}
