// Package minibase makes hako's small base image from Go source: one static binary (see box) that is
// the shell and the everyday tools, and the few files that a Linux userland expects.
// The same source gives the same image, bit for bit.
package minibase

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Path is the PATH of the image.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// epoch is the time of every file and of the image: 2024-01-01 00:00:00 UTC.
const epoch = 1704067200

// Compile builds the box binary for linux on arch ("amd64") into dir and returns its path.
// It needs the go command and must run inside hako's module.
func Compile(ctx context.Context, arch, dir string) (string, error) {
	out := filepath.Join(dir, "box-"+arch)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out, "hako/internal/minibase/box")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compile box: %w\n%s", err, text)
	}
	return out, nil
}

// Image is the image made of the box binary at path.
func Image(path, arch string) (v1.Image, error) {
	var root bytes.Buffer
	if err := WriteRootFS(&root, path); err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(root.Bytes())), nil
	}, tarball.WithMediaType(types.DockerLayer))
	if err != nil {
		return nil, fmt.Errorf("make layer: %w", err)
	}
	created := v1.Time{Time: time.Unix(epoch, 0).UTC()}
	im, err := mutate.Append(empty.Image, mutate.Addendum{
		Layer:   l,
		History: v1.History{Created: created, CreatedBy: "minibase", Comment: "hako"},
	})
	if err != nil {
		return nil, fmt.Errorf("add layer: %w", err)
	}
	return mutate.ConfigFile(im, &v1.ConfigFile{
		Architecture: arch, OS: "linux", Created: created,
		Config:  v1.Config{Env: []string{"PATH=" + Path}, Cmd: []string{"/bin/sh"}},
		RootFS:  must(im.ConfigFile()).RootFS,
		History: must(im.ConfigFile()).History,
	})
}

// must is for the configuration of an image that was just made in memory.
func must(c *v1.ConfigFile, err error) *v1.ConfigFile {
	if err != nil {
		panic("an image in memory has a configuration: " + err.Error())
	}
	return c
}

// WriteRootFS writes the image's file tree as a tar, with the box binary at path.
func WriteRootFS(w io.Writer, path string) error {
	box, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read box: %w", err)
	}
	tw := tar.NewWriter(w)
	for _, f := range append(files(), file{name: "bin/box", mode: 0o755, data: string(box)}).sorted() {
		h := f.header()
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("write %s: %w", h.Name, err)
		}
		if _, err := io.WriteString(tw, f.data); err != nil {
			return fmt.Errorf("write %s: %w", h.Name, err)
		}
	}
	return tw.Close()
}

// file is one entry: a directory if its name ends in "/", a link if link is set, else a regular file.
type file struct {
	name     string
	mode     int64
	uid, gid int
	link     string
	data     string
}

type fileList []file

func (l fileList) sorted() fileList {
	sort.Slice(l, func(i, j int) bool { return l[i].name < l[j].name })
	return l
}

func (f file) header() *tar.Header {
	h := &tar.Header{
		Name: f.name, Mode: f.mode, Uid: f.uid, Gid: f.gid, Size: int64(len(f.data)),
		ModTime: time.Unix(epoch, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR,
	}
	switch {
	case f.link != "":
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.link, 0o777
	case strings.HasSuffix(f.name, "/"):
		h.Typeflag = tar.TypeDir
	}
	return h
}

// files lists everything but the binary.
func files() fileList {
	l := fileList{
		{name: "tmp/", mode: 0o1777}, {name: "var/tmp/", mode: 0o1777}, {name: "root/", mode: 0o700},
		{name: "home/app/", mode: 0o755, uid: 1000, gid: 1000},
		{name: "home/app/.profile", mode: 0o644, uid: 1000, gid: 1000, data: "# app's own\n"},
		{name: "etc/passwd", mode: 0o644, data: passwd}, {name: "etc/group", mode: 0o644, data: group},
		{name: "etc/shadow", mode: 0o640, gid: 42, data: "root:*:19723:0:99999:7:::\n"},
		{name: "etc/os-release", link: "../usr/lib/os-release"},
		{name: "usr/lib/os-release", mode: 0o644, data: osRelease},
		{name: "etc/nsswitch.conf", mode: 0o644, data: "passwd: files\ngroup: files\nhosts: files dns\n"},
		{name: "usr/bin/env", link: "/bin/box"},
		{name: "var/run", link: "/run"},
	}
	for _, d := range []string{
		"bin/", "dev/", "etc/", "home/", "opt/", "proc/", "run/", "sbin/", "srv/", "sys/", "usr/", "usr/bin/", "usr/lib/",
		"usr/local/", "usr/local/bin/", "usr/sbin/", "usr/share/", "var/", "var/cache/", "var/lib/", "var/log/",
	} {
		l = append(l, file{name: d, mode: 0o755})
	}
	for _, name := range strings.Fields(tools) {
		l = append(l, file{name: "bin/" + name, link: "box"})
	}
	return l
}

// tools are the names that the box binary is linked to; a test holds them equal to what it knows.
const tools = `[ base64 basename bash cat chgrp chmod chown chroot cmp cp cut date dd diff dirname echo egrep env expr false fgrep find
getcap getent getfattr grep groups gunzip gzip head hostname id install kill ln ls md5sum mkdir mkfifo mknod mktemp mount mv
nc nohup nproc printenv printf pwd readlink realpath rev rm rmdir sed seq setcap setfattr sh sha256sum sleep sort stat su sync
tail tar tee test timeout touch tr true truncate tty umount uname uniq wc wget which whoami xargs xxd yes zcat`

const passwd = `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
mail:x:8:8:mail:/var/mail:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
app:x:1000:1000:app:/home/app:/bin/sh
other:x:1001:100:other:/home/other:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/bin/false
`

const group = `root:x:0:
daemon:x:1:
bin:x:2:
adm:x:4:daemon
mail:x:8:app
staff:x:50:app,other
users:x:100:
www-data:x:33:app
shadow:x:42:
app:x:1000:
nogroup:x:65534:
`

const osRelease = `NAME="hako minibase"
ID=minibase
PRETTY_NAME="hako minibase"
VERSION_ID=1
`
