package sandboxtest

import (
	"testing"

	"hako/internal/rootfs"
	"hako/internal/sandbox"
	"hako/internal/tree"
)

// bind is a mount of what s has at path.
func (b *bed) bind(s *rootfs.Stack, path string) *sandbox.Bind {
	return &sandbox.Bind{Lowers: s.Lowers(), Path: path}
}

// other is a stack of two layers that has nothing in common with the base.
func (b *bed) other(t *testing.T) *rootfs.Stack {
	t.Helper()
	owned := regular("src/owned", "owned\n", 0o640)
	owned.UID, owned.GID = 7, 8
	marked := regular("src/marked", "marked\n", 0o755)
	marked.Xattrs = map[string]string{"security.capability": capability}
	link := made(tree.Symlink, "src/link", 0o777)
	link.Linkname = "one"
	pipe := made(tree.Fifo, "src/pipe", 0o640)
	return b.stack(t,
		list{dir("src", 0o750), regular("src/gone", "gone\n", 0o644), link, marked, regular("src/one", "one\n", 0o644), owned, pipe, dir("src/sub", 0o700)},
		list{dir("src", 0o750), gone("src/gone"), dir("src/sub", 0o700), regular("src/sub/two", "two\n", 0o600)},
	)
}

// mounted runs args over the base with mounts.
func (b *bed) mounted(t *testing.T, mounts []sandbox.Mount, args ...string) *result {
	t.Helper()
	step := b.command(args...)
	step.Mounts = mounts
	return b.run(t, b.base, step)
}

// one is a list of one mount.
func one(target string, src sandbox.MountSource) []sandbox.Mount {
	return []sandbox.Mount{{Target: target, Source: src}}
}

func readOnly(target string, src sandbox.MountSource) []sandbox.Mount {
	return []sandbox.Mount{{Target: target, Source: src, ReadOnly: true}}
}

// succeeds fails the test unless the step did.
func (r *result) succeeds(t *testing.T) *result {
	t.Helper()
	if r.Exit != nil {
		t.Fatalf("%v\n%s%s", r.Exit, r.Out, r.Err)
	}
	return r
}

// refused fails the test unless the step could not be started because of its mounts.
func (r *result) refused(t *testing.T, why string) {
	t.Helper()
	wantExit(t, r, &sandbox.ExitError{Code: 1})
	wantContains(t, r.Err, "unable to start container process: ")
	wantContains(t, r.Err, why)
}

func bindCases() cases {
	return cases{
		"bind": func(t *testing.T, b *bed) {
			r := b.mounted(t, readOnly("/data/sub", b.bind(b.other(t), "src")),
				"ls", "/data/sub", ";", "cat", "/data/sub/one", "/data/sub/sub/two", ";", "stat", "/data/sub", "/data/sub/owned", "/data/sub/pipe").succeeds(t)
			wantOut(t, r, "link\nmarked\none\nowned\npipe\nsub\none\ntwo\n/data/sub 040750 0:0 0,0\n/data/sub/owned 100640 7:8 0,0\n/data/sub/pipe 010640 0:0 0,0\n")
			r.want(t, mounted()...)
		},
		"bind of a whole stack": func(t *testing.T, b *bed) {
			r := b.mounted(t, readOnly("/mnt", b.bind(b.other(t), ".")), "ls", "/mnt", ";", "stat", "/mnt").succeeds(t)
			wantOut(t, r, "src\n/mnt 040755 0:0 0,0\n")
			r.want(t, mounted()...)
		},
		"bind of nothing": func(t *testing.T, b *bed) {
			r := b.mounted(t, readOnly("/mnt", b.bind(nil, ".")), "ls", "/mnt", ";", "stat", "/mnt").succeeds(t)
			wantOut(t, r, "/mnt 040755 0:0 0,0\n")
		},
		"bind is read-only": func(t *testing.T, b *bed) {
			b.mounted(t, readOnly("/mnt", b.bind(b.other(t), "src")),
				"fails", "read-only", "write", "/mnt/new", "x", ";", "fails", "read-only", "append", "/mnt/one", "x",
				";", "fails", "read-only", "rm", "/mnt/one").succeeds(t).want(t, mounted()...)
		},
		"written bind is forgotten": func(t *testing.T, b *bed) {
			src := b.bind(b.other(t), "src")
			r := b.mounted(t, one("/mnt", src), "write", "/mnt/new", "x", ";", "append", "/mnt/one", "more\n", ";", "rm", "/mnt/link",
				";", "chown", "/mnt/pipe", "1", "2", ";", "move", "/mnt/sub", "/mnt/moved", ";", "cat", "/mnt/one", "/mnt/moved/two").succeeds(t)
			wantOut(t, r, "one\nmore\ntwo\n")
			r.want(t, mounted()...)
			r = b.mounted(t, one("/mnt", src), "ls", "/mnt", ";", "cat", "/mnt/one", ";", "stat", "/mnt/pipe").succeeds(t)
			wantOut(t, r, "link\nmarked\none\nowned\npipe\nsub\none\n/mnt/pipe 010640 0:0 0,0\n")
		},
		"bind of a file": func(t *testing.T, b *bed) {
			src := b.bind(b.other(t), "src/one")
			r := b.mounted(t, []sandbox.Mount{
				{Target: "/data/a", Source: src, ReadOnly: true}, {Target: "/new/dir/file", Source: src},
			}, "cat", "/data/a", "/new/dir/file", ";", "append", "/new/dir/file", "x", ";", "cat", "/new/dir/file", ";", "fails", "busy", "rm", "/data/a").succeeds(t)
			wantOut(t, r, "one\none\none\nx")
			r.want(t, mounted()...)
		},
		"program in a bind": func(t *testing.T, b *bed) {
			step := b.command()
			step.Args, step.Mounts = []string{"/tool", "echo", "hello"}, readOnly("/tool", b.bind(b.base, "bin/do"))
			wantOut(t, b.run(t, b.base, step).succeeds(t), "hello\n")
		},
		"bind of the step's own base": func(t *testing.T, b *bed) {
			r := b.mounted(t, one("/mnt", b.bind(b.base, ".")), "rm", "/mnt/data/a", ";", "rm", "/data/b", ";", "cat", "/data/a", "/mnt/data/b").succeeds(t)
			wantOut(t, r, "a\nb\n")
			r.want(t, with([]file{dirAt("data"), gone("data/b")})...)
		},
		"bind of a kept step": func(t *testing.T, b *bed) {
			s := b.ok(t, "write", "/data/new", "kept\n", ";", "rm", "/data/a").Stack
			wantOut(t, b.mounted(t, readOnly("/mnt", b.bind(s, "data")), "ls", "/mnt", ";", "cat", "/mnt/new").succeeds(t), "b\nnew\nowned\nsub\nxattr\nkept\n")
		},
		"two binds of one stack": func(t *testing.T, b *bed) {
			src := b.bind(b.other(t), "src")
			r := b.mounted(t, []sandbox.Mount{{Target: "/m1", Source: src}, {Target: "/m2", Source: src}}, "write", "/m1/new", "x", ";", "fails", "no such file", "cat", "/m2/new").succeeds(t)
			r.want(t, mounted()...)
		},
	}
}

func tmpfsCases() cases {
	return cases{
		"tmpfs": func(t *testing.T, b *bed) {
			r := b.mounted(t, one("/mnt", &sandbox.Tmpfs{}), "ls", "/mnt", ";", "stat", "/mnt", ";", "write", "/mnt/x", "1", ";", "cat", "/mnt/x").succeeds(t)
			wantOut(t, r, "/mnt 041777 0:0 0,0\n1")
			r.want(t, mounted()...)
		},
		"tmpfs over a directory": func(t *testing.T, b *bed) {
			r := b.mounted(t, one("/data", &sandbox.Tmpfs{}), "ls", "/data", ";", "stat", "/data", ";", "write", "/data/x", "1").succeeds(t)
			wantOut(t, r, "/data 040755 0:0 0,0\n")
			r.want(t, mounted()...)
			wantOut(t, b.okOn(t, r.Stack, "ls", "/data"), "a\nb\nowned\nsub\nxattr\n")
		},
		"tmpfs with a size": func(t *testing.T, b *bed) {
			b.mounted(t, one("/mnt", &sandbox.Tmpfs{Size: 1 << 20}), "big", "/mnt/ok", "1000000", ";", "rm", "/mnt/ok",
				";", "fails", "no space", "big", "/mnt/x", "3000000").succeeds(t)
		},
		"read-only tmpfs": func(t *testing.T, b *bed) {
			b.mounted(t, readOnly("/mnt", &sandbox.Tmpfs{}), "fails", "read-only", "write", "/mnt/x", "1").succeeds(t)
		},
	}
}

func targetCases() cases {
	return cases{
		"mount points leave no trace": func(t *testing.T, b *bed) {
			r := b.mounted(t, []sandbox.Mount{
				{Target: "/data/sub/new", Source: &sandbox.Tmpfs{}}, {Target: "/new/a/b", Source: &sandbox.Tmpfs{}},
				{Target: "/new/a/c", Source: b.bind(b.other(t), "src/one")},
			}, "write", "/new/a/b/x", "1", ";", "chmod", "/new/a", "0700", ";", "write", "/new/tmp", "1", ";", "rm", "/new/tmp", ";", "ls", "/new/a").succeeds(t)
			wantOut(t, r, "b\nc\n")
			r.want(t, mounted()...)
			wantOut(t, b.okOn(t, r.Stack, "ls", "/", ";", "ls", "/data/sub"), "bin\ndata\ndev\netc\nproc\nsys\ntmp\nc\nd\n")
		},
		"file beside a mount point": func(t *testing.T, b *bed) {
			r := b.mounted(t, one("/new/a/b", &sandbox.Tmpfs{}), "write", "/new/x", "1").succeeds(t)
			r.want(t, dirAt("dev"), dirAt("new"), written("new/x", "1"), dirAt("proc"), dirAt("sys"))
		},
		"mount through a link": func(t *testing.T, b *bed) {
			s := b.ok(t, "symlink", "../data/sub", "/tmp/link", ";", "symlink", "/nowhere/yet", "/tmp/dangling").Stack
			step := b.command("write", "/data/sub/x", "1", ";", "write", "/nowhere/yet/y", "1", ";", "ls", "/tmp/link", ";", "ls", "/tmp/dangling")
			step.Mounts = []sandbox.Mount{{Target: "/tmp/dangling", Source: &sandbox.Tmpfs{}}, {Target: "/tmp/link", Source: &sandbox.Tmpfs{}}}
			r := b.run(t, s, step).succeeds(t)
			wantOut(t, r, "x\ny\n")
			r.want(t)
		},
		"mount below a mount": func(t *testing.T, b *bed) {
			r := b.mounted(t, []sandbox.Mount{
				{Target: "/data", Source: b.bind(b.other(t), "src")},
				{Target: "/data/one", Source: b.bind(b.base, "data/a"), ReadOnly: true},
				{Target: "/data/sub/deep/er", Source: &sandbox.Tmpfs{}},
			}, "cat", "/data/one", "/data/sub/two", ";", "write", "/data/sub/deep/er/x", "1", ";", "ls", "/data/sub").succeeds(t)
			wantOut(t, r, "a\ntwo\ndeep\ntwo\n")
			r.want(t, mounted()...)
		},
		"mount below a read-only mount": func(t *testing.T, b *bed) {
			src := b.bind(b.other(t), "src")
			b.mounted(t, []sandbox.Mount{
				{Target: "/mnt", Source: src, ReadOnly: true}, {Target: "/mnt/sub", Source: &sandbox.Tmpfs{}},
			}, "write", "/mnt/sub/x", "1").succeeds(t)
			b.mounted(t, []sandbox.Mount{
				{Target: "/mnt", Source: src, ReadOnly: true}, {Target: "/mnt/missing", Source: &sandbox.Tmpfs{}},
			}, "echo").refused(t, "read-only file system")
		},
		"mount over /etc hides hosts": func(t *testing.T, b *bed) {
			wantOut(t, b.mounted(t, readOnly("/etc", b.bind(b.other(t), "src")), "ls", "/etc").succeeds(t), "link\nmarked\none\nowned\npipe\nsub\n")
		},
		"mount over /dev/shm": func(t *testing.T, b *bed) {
			r := b.mounted(t, one("/dev/shm", b.bind(b.other(t), "src")), "ls", "/dev/shm").succeeds(t)
			wantOut(t, r, "link\nmarked\none\nowned\npipe\nsub\n")
		},
		"mount on the working directory": func(t *testing.T, b *bed) {
			step := b.command("pwd", ";", "ls", ".")
			step.Dir, step.Mounts = "/work/dir", one("/work/dir", b.bind(b.other(t), "src/sub"))
			r := b.run(t, b.base, step).succeeds(t)
			wantOut(t, r, "/work/dir\ntwo\n")
			r.want(t, mounted()...)
		},
	}
}

// badTargetCases are about places where nothing can be mounted.
func badTargetCases() cases {
	return cases{
		"directory on a file": func(t *testing.T, b *bed) {
			b.mounted(t, one("/data/a", &sandbox.Tmpfs{}), "echo").refused(t, "not a directory")
		},
		"file on a directory": func(t *testing.T, b *bed) {
			b.mounted(t, one("/data", b.bind(b.other(t), "src/one")), "echo").refused(t, "is a directory")
		},
		"mount below a file": func(t *testing.T, b *bed) {
			b.mounted(t, one("/data/a/b", &sandbox.Tmpfs{}), "echo").refused(t, "not a directory")
		},
		"mount in /proc": func(t *testing.T, b *bed) {
			b.mounted(t, one("/proc/sys", b.bind(b.other(t), "src")), "echo").refused(t, "/proc/sys")
			b.mounted(t, one("/proc/sys", &sandbox.Tmpfs{}), "echo").refused(t, "/proc/sys")
		},
	}
}
