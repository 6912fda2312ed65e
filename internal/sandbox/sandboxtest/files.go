package sandboxtest

import (
	"archive/tar"
	"errors"
	"testing"
	"time"

	"hako/internal/sandbox"
	"hako/internal/tree"
)

// mounted are the directories that a step leaves where the image has none, as runc makes them and BuildKit keeps them.
func mounted() []file { return []file{dirAt("dev"), dirAt("proc"), dirAt("sys")} }

// made is an entry whose time is not compared.
func made(kind tree.Kind, path string, mode uint32) file {
	return file{Entry: tree.Entry{Path: path, Kind: kind, Mode: mode}}
}

func dirAt(path string) file { return made(tree.Dir, path, 0o755) }

func written(path, content string) file {
	f := made(tree.Regular, path, 0o644)
	f.Size, f.Content = int64(len(content)), content
	return f
}

func gone(path string) file {
	return made(tree.Whiteout, path, 0)
}

// with puts the directories that every first step over the base makes between what sorts before and after all three.
func with(before []file, after ...file) []file {
	m := mounted()
	out := append([]file{}, before...)
	out = append(out, m...)
	return append(out, after...)
}

func fileCases() cases {
	return cases{
		"no change": func(t *testing.T, b *bed) {
			r := b.ok(t, "echo")
			r.want(t, mounted()...)
			b.okOn(t, r.Stack, "echo").want(t)
		},
		"new files": func(t *testing.T, b *bed) {
			r := b.ok(t, "mkdir", "/a", ";", "write", "/a/b", "bee", ";", "symlink", "../nowhere", "/a/link", ";", "chmod", "/a/b", "04711")
			bee, link := written("a/b", "bee"), made(tree.Symlink, "a/link", 0o777)
			bee.Mode, link.Linkname = 0o4711, "../nowhere"
			r.want(t, with([]file{dirAt("a"), bee, link})...)
		},
		"changed files": func(t *testing.T, b *bed) {
			r := b.ok(t, "append", "/data/a", "more\n", ";", "chown", "/data/b", "12", "34", ";", "chmod", "/data/sub/c", "0444")
			changed := written("data/b", "b\n")
			changed.Mode, changed.UID, changed.GID, changed.ModTime = 0o600, 12, 34, time.Unix(baseTime, 0)
			mode := written("data/sub/c", "c\n")
			mode.Mode, mode.ModTime = 0o444, time.Unix(baseTime, 0)
			r.want(t, with([]file{dirAt("data"), written("data/a", "a\nmore\n"), changed, dirAt("data/sub"), mode})...)
		},
		"times": func(t *testing.T, b *bed) {
			r := b.ok(t, "touch", "/data/a", "1234567890")
			f := written("data/a", "a\n")
			f.ModTime = time.Unix(1234567890, 0)
			r.want(t, with([]file{dirAt("data"), f})...)
		},
		"time of a directory": func(t *testing.T, b *bed) {
			d := dirAt("data")
			d.ModTime = time.Unix(baseTime, 0)
			mode := written("data/a", "a\n")
			mode.Mode = 0o755
			b.ok(t, "chmod", "/data/a", "0755").want(t, with([]file{d, mode})...)
		},
		"rewritten with the same content and time": func(t *testing.T, b *bed) {
			r := b.ok(t, "write", "/data/a", "a\n", ";", "touch", "/data/a", "1600000000")
			r.want(t, mounted()...)
		},
	}
}

func specialFileCases() cases {
	return cases{
		"devices and fifos": func(t *testing.T, b *bed) {
			if b.traits.NoNodes {
				step := on(b.base, b.command("mknod", "/c", "0020640", "1", "3", ";", "exit", "3"))
				step.Stdout, step.Stderr = &lockedBuffer{}, &lockedBuffer{}
				_, err := b.engine.Run(t.Context(), step)
				var unsupported *sandbox.UnsupportedError
				if !errors.As(err, &unsupported) {
					t.Errorf("got %v, want an UnsupportedError", err)
				}
				return
			}
			r := b.ok(t, "mkdir", "/d", ";", "mknod", "/d/c", "0020640", "1", "3", ";", "mknod", "/d/b", "0060600", "8", "1",
				";", "mkfifo", "/d/f", "0622", ";", "chmod", "/d/f", "0622", ";", "chmod", "/d/c", "0640", ";", "chmod", "/d/b", "0600")
			char, block := made(tree.CharDevice, "d/c", 0o640), made(tree.BlockDevice, "d/b", 0o600)
			char.Major, char.Minor, block.Major, block.Minor = 1, 3, 8, 1
			r.want(t, with([]file{dirAt("d"), block, char, made(tree.Fifo, "d/f", 0o622)})...)
		},
		"hard links": func(t *testing.T, b *bed) {
			r := b.ok(t, "write", "/data/z", "linked", ";", "ln", "/data/z", "/data/y", ";", "ln", "/data/z", "/top")
			y, z, top := written("data/y", "linked"), made(tree.Hardlink, "data/z", 0o644), made(tree.Hardlink, "top", 0o644)
			z.Linkname, top.Linkname = "data/y", "data/y"
			r.want(t, with([]file{dirAt("data"), y, z}, top)...)
			// The links are the same file for the next step, whether it stands on the upper or on the blob.
			wantOut(t, b.okOn(t, r.Stack, "same", "/top", "/data/y", ";", "cat", "/data/z"), "true\nlinked")
			wantOut(t, b.okOn(t, b.stack(t, base(b.applet), r.Changes), "same", "/top", "/data/y", ";", "cat", "/data/z"), "true\nlinked")
		},
		"xattrs": func(t *testing.T, b *bed) {
			r := b.ok(t, "write", "/data/n", "n", ";", "setxattr", "/data/n", "user.x", "y", ";", "setxattr", "/data/a", "security.capability", quoted(capability),
				";", "chmod", "/data/xattr", "0600")
			n, a, x := written("data/n", "n"), written("data/a", "a\n"), written("data/xattr", "marked\n")
			n.Xattrs = map[string]string{"user.x": "y"}
			a.Xattrs = map[string]string{"security.capability": capability}
			x.Xattrs = map[string]string{"security.capability": capability, "user.note": "a\x00\xff"}
			x.Mode = 0o600
			r.want(t, with([]file{dirAt("data"), a, n, x})...)
		},
		"sockets stay out": func(t *testing.T, b *bed) {
			b.ok(t, "unixsock", "/data/socket").want(t, mounted()...)
		},
		"root directory": func(t *testing.T, b *bed) {
			wantOut(t, b.ok(t, "stat", "/", "/tmp", "/data/owned"), "/ 040755 0:0 0,0\n/tmp 041777 0:0 0,0\n/data/owned 100640 7:8 0,0\n")
		},
		"mounts of a step leave nothing": func(t *testing.T, b *bed) {
			r := b.ok(t, "write", "/dev/shm/x", "1", ";", "write", "/dev/x", "1", ";", "fails", "read-only", "mkdir", "/sys/x")
			r.want(t, mounted()...)
		},
	}
}

func removalCases() cases {
	return cases{
		"deleted": func(t *testing.T, b *bed) {
			r := b.ok(t, "rm", "/data/a", ";", "rmall", "/data/sub")
			r.want(t, with([]file{dirAt("data"), gone("data/a"), gone("data/sub")})...)
			wantOut(t, b.okOn(t, r.Stack, "ls", "/data"), "b\nowned\nxattr\n")
		},
		"created and deleted": func(t *testing.T, b *bed) {
			r := b.ok(t, "write", "/data/tmp", "x", ";", "rm", "/data/tmp", ";", "mkdir", "/q", ";", "write", "/q/r", "x", ";", "rmall", "/q")
			r.want(t, mounted()...)
		},
		"renamed directory": func(t *testing.T, b *bed) {
			// Overlays of Linux answer EXDEV, so that programs copy; ours must give the same result by either way.
			r := b.ok(t, "move", "/data/sub", "/data/bus")
			d := written("data/bus/d", "d\n")
			c := written("data/bus/c", "c\n")
			r.want(t, with([]file{dirAt("data"), dirAt("data/bus"), c, d, gone("data/sub")})...)
		},
		"replaced directory": func(t *testing.T, b *bed) {
			r := b.ok(t, "rmall", "/data/sub", ";", "mkdir", "/data/sub", ";", "write", "/data/sub/c", "new", ";", "write", "/data/sub/e", "e")
			r.want(t, with([]file{
				dirAt("data"), dirAt("data/sub"), written("data/sub/c", "new"), gone("data/sub/d"), written("data/sub/e", "e"),
			})...)
			wantOut(t, b.okOn(t, r.Stack, "ls", "/data/sub"), "c\ne\n")
		},
		"directory becomes file and back": func(t *testing.T, b *bed) {
			r := b.ok(t, "rmall", "/data/sub", ";", "write", "/data/sub", "file")
			r.want(t, with([]file{dirAt("data"), written("data/sub", "file")})...)
			r = b.okOn(t, r.Stack, "rm", "/data/sub", ";", "mkdir", "/data/sub")
			r.want(t, dirAt("data"), dirAt("data/sub"))
			wantOut(t, b.okOn(t, r.Stack, "ls", "/data/sub"), "")
		},
		"opaque layer": func(t *testing.T, b *bed) {
			s := b.base.Push(tarSource(t, []*tar.Header{
				{Typeflag: tar.TypeDir, Name: "data/", Mode: 0o711},
				{Typeflag: tar.TypeReg, Name: "data/.wh..wh..opq"},
				{Typeflag: tar.TypeReg, Name: "data/only", Mode: 0o644},
			}))
			r := b.okOn(t, s, "ls", "/data", ";", "fails", "no such file", "stat", "/data/a", ";", "stat", "/data")
			wantOut(t, r, "only\n/data 040711 0:0 0,0\n")
		},
		"whiteout of what never was": func(t *testing.T, b *bed) {
			s := b.stack(t, base(b.applet), list{dir("new", 0o755), gone("new/never"), dir("new/sub", 0o755), gone("new/sub/never"), regular("new/x", "x", 0o644)})
			r := b.okOn(t, s, "ls", "/new", ";", "ls", "/new/sub", ";", "fails", "no such file", "stat", "/new/never", ";", "write", "/new/y", "y")
			wantOut(t, r, "sub\nx\n")
			r.want(t, append([]file{dirAt("dev"), dirAt("new"), written("new/y", "y")}, dirAt("proc"), dirAt("sys"))...)
		},
		"whiteout layer": func(t *testing.T, b *bed) {
			s := b.stack(t, base(b.applet), list{dir("data", 0o755), gone("data/sub"), gone("data/xattr")})
			r := b.okOn(t, s, "ls", "/data", ";", "mkdir", "/data/sub", ";", "ls", "/data/sub")
			wantOut(t, r, "a\nb\nowned\n")
			r.want(t, with([]file{dirAt("data"), dirAt("data/sub")})...)
		},
	}
}
