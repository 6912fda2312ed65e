package main

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func archiveApplets() map[string]applet {
	return map[string]applet{"tar": tarTool, "gzip": gzipTool, "gunzip": gzipTool, "zcat": gzipTool}
}

// tarTool creates, lists and extracts archives: tar c|x|t [zvpf] [-f FILE] [-C DIR] [NAME…].
func tarTool(w *world, args []string) error {
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		args[0] = "-" + args[0] // the old form: tar xzf
	}
	o, rest, err := getopt(args, "c x t z v p f: C: O n/numeric-owner")
	if err != nil {
		return err
	}
	dir := o.last("C", ".")
	switch {
	case o.has("c"):
		return tarCreate(w, o, dir, rest)
	case o.has("x", "t"):
		return tarRead(w, o, dir, rest)
	}
	return errors.New("needs one of -c, -x, -t")
}

func tarCreate(w *world, o options, dir string, names []string) (err error) {
	out := w.out
	if name := o.last("f", "-"); name != "-" {
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	if o.has("z") {
		zw := gzip.NewWriter(out)
		defer func() { err = errors.Join(err, zw.Close()) }()
		out = zw
	}
	tw := tar.NewWriter(out)
	first := map[uint64]string{}
	for _, name := range names {
		err := filepath.WalkDir(filepath.Join(dir, name), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil {
				return err
			}
			if o.has("v") {
				fmt.Fprintln(w.err, rel)
			}
			return tarAdd(tw, path, rel, first)
		})
		if err != nil {
			return err
		}
	}
	return tw.Close()
}

func tarAdd(tw *tar.Writer, path, name string, first map[uint64]string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	link, _ := os.Readlink(path) // empty for what is no link
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return err
	}
	h.Name = name
	if fi.IsDir() {
		h.Name += "/"
	}
	h.Format, h.Uname, h.Gname = tar.FormatPAX, "", ""
	st := fi.Sys().(*syscall.Stat_t)
	if st.Nlink > 1 && fi.Mode().IsRegular() {
		if old, ok := first[st.Ino]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, old, 0
			return tw.WriteHeader(h)
		}
		first[st.Ino] = name
	}
	attrs, err := readXattrs(path)
	if err != nil {
		return err
	}
	for k, v := range attrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["SCHILY.xattr."+k] = v
	}
	if err := tw.WriteHeader(h); err != nil || !fi.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(tw, f)
	return err
}

func tarRead(w *world, o options, dir string, names []string) error {
	in := w.in
	if name := o.last("f", "-"); name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	br := bufio.NewReader(in)
	in = br
	if magic, err := br.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		zr, err := gzip.NewReader(br)
		if err != nil {
			return err
		}
		in = zr
	}
	tr := tar.NewReader(in)
	for {
		h, err := tr.Next()
		if err != nil {
			return ignoreEOF(err)
		}
		if !wanted(h.Name, names) {
			continue
		}
		switch {
		case o.has("t") || o.has("v"):
			fmt.Fprintln(w.out, h.Name)
			if o.has("t") {
				continue
			}
		case o.has("O"):
			if _, err := io.Copy(w.out, tr); err != nil {
				return err
			}
			continue
		}
		if err := tarExtract(tr, h, dir); err != nil {
			return err
		}
	}
}

func wanted(name string, names []string) bool {
	name = strings.Trim(strings.TrimPrefix(name, "./"), "/")
	for _, n := range names {
		n = strings.Trim(strings.TrimPrefix(n, "./"), "/")
		if name == n || strings.HasPrefix(name, n+"/") {
			return true
		}
	}
	return len(names) == 0
}

func tarExtract(tr *tar.Reader, h *tar.Header, dir string) error {
	if !filepath.IsLocal(strings.TrimPrefix(h.Name, "/")) && strings.Trim(h.Name, "./") != "" {
		return fmt.Errorf("%s leads out of the directory", h.Name)
	}
	path := filepath.Join(dir, h.Name)
	if h.Typeflag != tar.TypeDir {
		_ = os.Remove(path) // creating says what is wrong
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := tarNode(tr, h, dir, path); err != nil {
		return err
	}
	if h.Typeflag == tar.TypeLink {
		return nil
	}
	return tarMeta(h, path)
}

func tarNode(tr *tar.Reader, h *tar.Header, dir, path string) error {
	dev := int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor)))
	switch h.Typeflag {
	case tar.TypeDir:
		return os.MkdirAll(path, 0o755)
	case tar.TypeReg:
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, tr)
		return errors.Join(err, f.Close())
	case tar.TypeSymlink:
		return os.Symlink(h.Linkname, path)
	case tar.TypeLink:
		return os.Link(filepath.Join(dir, h.Linkname), path)
	case tar.TypeChar:
		return nodeError(path, unix.Mknod(path, unix.S_IFCHR|0o600, dev))
	case tar.TypeBlock:
		return nodeError(path, unix.Mknod(path, unix.S_IFBLK|0o600, dev))
	case tar.TypeFifo:
		return nodeError(path, unix.Mkfifo(path, 0o600))
	}
	return fmt.Errorf("%s has the unknown type %q", h.Name, h.Typeflag)
}

func tarMeta(h *tar.Header, path string) error {
	if os.Geteuid() == 0 {
		if err := os.Lchown(path, h.Uid, h.Gid); err != nil {
			return err
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Chmod(path, uint32(h.Mode)&0o7777); err != nil {
			return pathError("chmod", path, err)
		}
	}
	for k, v := range h.PAXRecords {
		if name, ok := strings.CutPrefix(k, "SCHILY.xattr."); ok {
			if err := unix.Lsetxattr(path, name, []byte(v), 0); err != nil {
				return pathError("setxattr", path, err)
			}
		}
	}
	ts := unix.NsecToTimespec(h.ModTime.UnixNano())
	return pathError("utimes", path, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// gzipTool compresses or expands files in place, or standard input.
func gzipTool(w *world, args []string) error {
	o, rest, err := getopt(args, "d c k f n 1 9")
	if err != nil {
		return err
	}
	expand := o.has("d") || w.name != "gzip"
	if len(rest) == 0 {
		return gzipStream(w.out, w.in, expand)
	}
	return w.each(rest, func(name string) error {
		in, err := os.Open(name)
		if err != nil {
			return err
		}
		defer in.Close()
		if o.has("c") || w.name == "zcat" {
			return gzipStream(w.out, in, expand)
		}
		outName := name + ".gz"
		if expand {
			outName = strings.TrimSuffix(name, ".gz")
		}
		out, err := os.OpenFile(outName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err != nil {
			return err
		}
		if err := errors.Join(gzipStream(out, in, expand), out.Close()); err != nil || o.has("k") {
			return err
		}
		return os.Remove(name)
	})
}

func gzipStream(out io.Writer, in io.Reader, expand bool) error {
	if expand {
		zr, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, zr)
		return err
	}
	zw := gzip.NewWriter(out)
	_, err := io.Copy(zw, in)
	return errors.Join(err, zw.Close())
}
