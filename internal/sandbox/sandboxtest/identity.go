package sandboxtest

import (
	"strings"
	"testing"

	"hako/internal/sandbox"
	"hako/internal/tree"
)

func identityCases() cases {
	as := func(b *bed, u sandbox.User, args ...string) *sandbox.Step {
		step := b.command(args...)
		step.User = u
		return step
	}
	return cases{
		"root": func(t *testing.T, b *bed) {
			// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD,
			// AUDIT_WRITE, SETFCAP: what BuildKit gives.
			r := b.ok(t, "id", ";", "status", "CapPrm", "CapEff", "CapBnd", "CapInh", "NoNewPrivs", ";", "umask")
			wantOut(t, r, "0 0 0 0 []\nCapInh: 0000000000000000\nCapPrm: 00000000a80425fb\nCapEff: 00000000a80425fb\n"+
				"CapBnd: 00000000a80425fb\nNoNewPrivs: 0\n0022\n")
		},
		"user": func(t *testing.T, b *bed) {
			r := b.run(t, b.base, as(b, sandbox.User{UID: 1234, GID: 99, Groups: []uint32{5, 6}},
				"id", ";", "status", "CapPrm", "CapEff", "CapBnd", ";", "write", "/tmp/mine", "x",
				";", "fails", "permission denied", "write", "/data/a", "x", ";", "fails", "permission denied", "cat", "/data/b"))
			wantExit(t, r, nil)
			wantOut(t, r, "1234 1234 99 99 [5 6]\nCapPrm: 0000000000000000\nCapEff: 0000000000000000\nCapBnd: 00000000a80425fb\n")
			mine := written("tmp/mine", "x")
			mine.UID, mine.GID = 1234, 99
			tmp := dirAt("tmp")
			tmp.Mode = 0o1777
			r.want(t, with(nil, tmp, mine)...)
		},
		"group access": func(t *testing.T, b *bed) {
			r := b.run(t, b.base, as(b, sandbox.User{UID: 1234, GID: 1, Groups: []uint32{8}}, "cat", "/data/owned"))
			wantOut(t, r, "owned\n")
		},
		"setuid": func(t *testing.T, b *bed) {
			r := b.ok(t, "copyself", "/tmp/su", ";", "chmod", "/tmp/su", "04755")
			step := as(b, sandbox.User{UID: 1234, GID: 99}, "id")
			step.Args[0] = "/tmp/su"
			wantOut(t, b.run(t, r.Stack, step), "1234 0 99 99 []\n")
		},
		"file capability": func(t *testing.T, b *bed) {
			r := b.ok(t, "copyself", "/tmp/cap", ";", "setxattr", "/tmp/cap", "security.capability", quoted(capability))
			step := as(b, sandbox.User{UID: 1234, GID: 99}, "status", "CapEff")
			step.Args[0] = "/tmp/cap"
			wantOut(t, b.run(t, r.Stack, step), "CapEff: 0000000000002080\n")
		},
		"environment": func(t *testing.T, b *bed) {
			step := b.command("env")
			step.Env = []string{"PATH=/bin", "A=1", "B=x y"}
			wantOut(t, b.run(t, b.base, step), "A=1\nB=x y\nPATH=/bin\n")
		},
		"working directory of nobody": func(t *testing.T, b *bed) {
			step := as(b, sandbox.User{UID: 1234, GID: 99}, "pwd")
			step.Dir = "/data/sub"
			wantOut(t, b.run(t, b.base, step), "/data/sub\n")
		},
	}
}

func surroundingCases() cases {
	return cases{
		"hosts and resolv.conf": func(t *testing.T, b *bed) {
			step := b.command("cat", "/etc/hosts", ";", "fails", "read-only", "write", "/etc/hosts", "x", ";",
				"fails", "read-only", "write", "/etc/resolv.conf", "x", ";", "fails", "busy", "rm", "/etc/hosts")
			step.ExtraHosts = []sandbox.Host{{Name: "db", IP: "10.0.0.1"}}
			r := b.run(t, b.base, step)
			wantExit(t, r, nil)
			wantOut(t, r, "127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.1\tdb\n")
			r.want(t, mounted()...)
		},
		"hosts next to a new file": func(t *testing.T, b *bed) {
			r := b.ok(t, "write", "/etc/new", "n")
			r.want(t, dirAt("dev"), dirAt("etc"), written("etc/new", "n"), dirAt("proc"), dirAt("sys"))
		},
		"no etc": func(t *testing.T, b *bed) {
			s := b.stack(t, list{dir("bin", 0o755), regular("bin/do", string(b.applet), 0o755)})
			r := b.okOn(t, s, "ls", "/etc", ";", "cat", "/etc/resolv.conf")
			wantContains(t, r.Out, "hosts\nresolv.conf\n")
			r.want(t, mounted()...)
		},
		"resolv.conf is a link": func(t *testing.T, b *bed) {
			link := made(tree.Symlink, "etc/resolv.conf", 0o777)
			link.Linkname = "../run/resolve/stub.conf"
			s := b.stack(t, base(b.applet), list{dir("etc", 0o755), link})
			r := b.okOn(t, s, "cat", "/etc/resolv.conf", ";", "cat", "/run/resolve/stub.conf", ";", "stat", "/etc/resolv.conf")
			wantContains(t, r.Out, "/etc/resolv.conf 120777")
			r.want(t, mounted()...)
		},
		"image has its own hosts": func(t *testing.T, b *bed) {
			s := b.stack(t, base(b.applet), list{dir("etc", 0o755), regular("etc/hosts", "mine", 0o600), regular("etc/resolv.conf", "mine", 0o600)})
			r := b.okOn(t, s, "cat", "/etc/hosts", ";", "stat", "/etc/hosts")
			wantContains(t, r.Out, "buildkitsandbox")
			r.want(t, mounted()...)
		},
		"image deleted its hosts": func(t *testing.T, b *bed) {
			s := b.stack(t, base(b.applet), list{dir("etc", 0o755), regular("etc/hosts", "mine", 0o600)}, list{gone("etc")})
			r := b.okOn(t, s, "ls", "/etc", ";", "cat", "/etc/hosts")
			wantContains(t, r.Out, "hosts\nresolv.conf\n127.0.0.1")
			r.want(t, mounted()...)
		},
	}
}

func deviceCases() cases {
	return cases{
		"hostname": func(t *testing.T, b *bed) {
			wantOut(t, b.ok(t, "hostname"), "buildkitsandbox\n")
			step := b.command("hostname", ";", "cat", "/etc/hosts")
			step.Hostname = "elsewhere"
			wantContains(t, b.run(t, b.base, step).Out, "elsewhere\n127.0.0.1\tlocalhost elsewhere\n")
		},
		"step files": func(t *testing.T, b *bed) {
			step := b.command("cat", "/dev/pipes/EOF", "/opt/script/x", ";", "stat", "/dev/pipes/EOF", ";",
				"fails", "read-only", "write", "/dev/pipes/EOF", "x")
			step.Files = []sandbox.File{
				{Path: "/dev/pipes/EOF", Mode: 0o755, Data: []byte("one\n")},
				{Path: "/opt/script/x", Mode: 0o644, Data: []byte(strings.Repeat("two\n", 50_000))},
			}
			r := b.run(t, b.base, step)
			wantExit(t, r, nil)
			wantOut(t, r, "one\n"+strings.Repeat("two\n", 50_000)+"/dev/pipes/EOF 100755 0:0 0,0\n")
			r.want(t, mounted()...)
		},
		"devices": func(t *testing.T, b *bed) {
			r := b.ok(t, "stat", "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/fd", "/dev/stdin",
				"/dev/stdout", "/dev/stderr", "/dev/ptmx", "/dev/pts/ptmx", "/dev/shm", "/dev/core", ";", "ls", "/dev/mqueue")
			if b.traits.ForeignDevices {
				r.Out = strings.ReplaceAll(r.Out, "65534:65534", "0:0")
			}
			wantOut(t, r, strings.Join([]string{
				"/dev/null 020666 0:0 1,3", "/dev/zero 020666 0:0 1,5", "/dev/full 020666 0:0 1,7", "/dev/random 020666 0:0 1,8",
				"/dev/urandom 020666 0:0 1,9", "/dev/tty 020666 0:0 5,0", "/dev/fd 120777 0:0 0,0", "/dev/stdin 120777 0:0 0,0",
				"/dev/stdout 120777 0:0 0,0", "/dev/stderr 120777 0:0 0,0", "/dev/ptmx 120777 0:0 0,0", "/dev/pts/ptmx 020666 0:0 5,2",
				"/dev/shm 041777 0:0 0,0", "/dev/core 120777 0:0 0,0", "",
			}, "\n"))
		},
		"shm size": func(t *testing.T, b *bed) {
			wantOut(t, b.ok(t, "statfs", "/dev/shm"), "67108864\n")
			step := b.command("statfs", "/dev/shm", ";", "fails", "no space", "big", "/dev/shm/x", "2000000")
			step.ShmSize = 1 << 20
			wantOut(t, b.run(t, b.base, step), "1048576\n")
		},
	}
}
