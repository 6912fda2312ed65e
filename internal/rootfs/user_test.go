package rootfs_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/rootfs"
	"hako/internal/tree/treetest"
)

const accounts = `
	etc/passwd = root:x:0:0:root:/root:/bin/sh\n# not a comment here\n  app:x:101:102:App:/home/app:/bin/sh  \n\nweird:x:abc\n1001:x:7:8::/odd:\nhomeless:x:9:9\nbig:x:4000000000:1\ntwice:x:11:11::/first\ntwice:x:12:12::/second\n
	etc/group = root:x:0:root\n# nobody:x:66:app\ndata:x:55:app,other\n app2:x:102:app\nwheel:x:10:root,app\nagain:x:55:app\n1234:x:77:\n
`

func TestLookupUser(t *testing.T) {
	t.Parallel()
	tests := []struct {
		spec string
		want rootfs.User
		err  string
	}{
		{spec: "", want: rootfs.User{Groups: []uint32{10}, Home: "/root"}},
		{spec: "root", want: rootfs.User{Groups: []uint32{10}, Home: "/root"}},
		{spec: "0", want: rootfs.User{Groups: []uint32{10}, Home: "/root"}},
		{spec: "0:0", want: rootfs.User{Home: "/root"}},
		{spec: "root:root", want: rootfs.User{Home: "/root"}},
		{spec: "app", want: rootfs.User{UID: 101, GID: 102, Groups: []uint32{55, 10}, Home: "/home/app"}},
		{spec: "101", want: rootfs.User{UID: 101, GID: 102, Groups: []uint32{55, 10}, Home: "/home/app"}},
		{spec: "app:", want: rootfs.User{UID: 101, GID: 102, Groups: []uint32{55, 10}, Home: "/home/app"}},
		{spec: "app:data", want: rootfs.User{UID: 101, GID: 55, Home: "/home/app"}},
		{spec: "app:77", want: rootfs.User{UID: 101, GID: 77, Home: "/home/app"}},
		{spec: "app:1234", want: rootfs.User{UID: 101, GID: 1234, Home: "/home/app"}},
		{spec: "101:102", want: rootfs.User{UID: 101, GID: 102, Home: "/home/app"}},
		{spec: "500", want: rootfs.User{UID: 500, Home: "/"}},
		{spec: "500:600", want: rootfs.User{UID: 500, GID: 600, Home: "/"}},
		{spec: "1001", want: rootfs.User{UID: 1001, Home: "/"}},
		{spec: ":data", want: rootfs.User{GID: 55, Home: "/root"}},
		{spec: "weird", want: rootfs.User{Home: "/root"}},
		{spec: "homeless", want: rootfs.User{UID: 9, GID: 9, Home: "/"}},
		{spec: "twice", want: rootfs.User{UID: 11, GID: 11, Home: "/first"}},
		{spec: "big", want: rootfs.User{UID: 4000000000, GID: 1, Home: "/"}},
		{spec: "4000000000:5", want: rootfs.User{UID: 4000000000, GID: 5, Home: "/"}},
		{spec: "nosuch", err: "unable to find user nosuch: no matching entries in passwd file"},
		{spec: "app:nosuch", err: "unable to find group nosuch: no matching entries in group file"},
		{spec: "-1", err: `user "-1": ids must be in the range 0 to 2147483647`},
		{spec: "4000000000", err: `user "4000000000": ids must be in the range 0 to 2147483647`},
		{spec: "app:99999999999999999999", err: `group "99999999999999999999": ids must be in the range 0 to 2147483647`},
	}
	tr := merged(t, accounts)
	for _, tt := range tests {
		got, err := rootfs.LookupUser(tr, tt.spec)
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" || msg != tt.err {
			t.Errorf("%q: error %q, want %q; user (-want +got):\n%s", tt.spec, msg, tt.err, diff)
		}
	}
}

func TestLookupOwner(t *testing.T) {
	t.Parallel()
	tests := []struct {
		spec     string
		uid, gid uint32
		err      string
	}{
		{spec: "5", uid: 5, gid: 5},
		{spec: "5:6", uid: 5, gid: 6},
		{spec: "5:", uid: 5, gid: 5},
		{spec: "app", uid: 101, gid: 102},
		{spec: "app:", uid: 101, gid: 102},
		{spec: "app:0", uid: 101},
		{spec: "app:root", uid: 101},
		{spec: "app:data", uid: 101, gid: 55},
		{spec: "root", uid: 0},
		{spec: "7:data", uid: 7, gid: 55},
		{spec: "1001", uid: 1001, gid: 1001},
		{spec: "nosuch", err: "unable to find user nosuch: no matching entries in passwd file"},
		{spec: "app:nosuch", err: "unable to find group nosuch: no matching entries in group file"},
		{spec: "-1", err: `user "-1": ids must be in the range 0 to 2147483647`},
		{spec: "0:-5", err: `group "-5": ids must be in the range 0 to 2147483647`},
	}
	tr := merged(t, accounts)
	for _, tt := range tests {
		uid, gid, err := rootfs.LookupOwner(tr, tt.spec)
		msg := ""
		if err != nil {
			msg = err.Error()
		}
		if uid != tt.uid || gid != tt.gid || msg != tt.err {
			t.Errorf("%q: %d:%d %q, want %d:%d %q", tt.spec, uid, gid, msg, tt.uid, tt.gid, tt.err)
		}
	}
}

func TestAccountsOfOddImages(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, files, spec string
		want              rootfs.User
		err               string
	}{
		{name: "no files", files: "a", spec: "", want: rootfs.User{Home: "/"}},
		{name: "no files, a number", files: "a", spec: "5", want: rootfs.User{UID: 5, Home: "/"}},
		{name: "no files, a name", files: "a", spec: "app", err: "unable to find user app: no matching entries in passwd file"},
		{name: "etc is a file", files: "etc", spec: "5", want: rootfs.User{UID: 5, Home: "/"}},
		{name: "through links", files: "etc -> /usr/etc \n usr/etc/passwd -> ../../p \n p = app:x:1:2::/h", spec: "app", want: rootfs.User{UID: 1, GID: 2, Home: "/h"}},
		{name: "a directory", files: "etc/passwd/", spec: "app", err: "read /etc/passwd of the image: not a regular file"},
		{name: "a directory, root", files: "etc/passwd/", spec: "", want: rootfs.User{Home: "/"}},
		{name: "a loop", files: "etc/passwd -> passwd", spec: "app", err: "read /etc/passwd of the image: resolve /etc/passwd: too many levels of symbolic links"},
		{name: "control characters", files: "a", spec: "x\x1b[31m", err: `unable to find user "x\x1b[31m": no matching entries in passwd file`},
		{name: "a long line", files: "etc/passwd = " + strings.Repeat("x", 2<<20), spec: "app", err: "read /etc/passwd of the image: bufio.Scanner: token too long"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := rootfs.LookupUser(merged(t, tt.files), tt.spec)
			msg := ""
			if err != nil {
				msg = err.Error()
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || msg != tt.err {
				t.Errorf("error %q, want %q; user (-want +got):\n%s", msg, tt.err, diff)
			}
		})
	}
	if _, _, err := rootfs.LookupOwner(nil, "app"); err == nil {
		t.Error("a name was found without files")
	}
	if uid, gid, err := rootfs.LookupOwner(nil, "5:6"); uid != 5 || gid != 6 || err != nil {
		t.Errorf("numbers without files: %d:%d %v", uid, gid, err)
	}
}

// TestLargeAccountFilesCostNoMemory is about hostile images: five million lines once took a gigabyte.
func TestLargeAccountFilesCostNoMemory(t *testing.T) {
	many := strings.Repeat(`:\n`, 100_000)
	tr := merged(t, "etc/passwd = "+many+"\n etc/group = "+many)
	allocs := testing.AllocsPerRun(1, func() {
		if _, err := rootfs.LookupUser(tr, "7"); err != nil {
			t.Error(err)
		}
	})
	if allocs > 1000 {
		t.Errorf("%v allocations for 100,000 lines", allocs)
	}
}

// FuzzLookupUser looks for panics and endless loops in what images say about users.
func FuzzLookupUser(f *testing.F) {
	f.Add("root:x:0:0:root:/root:/bin/sh\n", "root:x:0:root\n", "root")
	f.Add("::::::\n:", ":::", ":")
	f.Add("a:b:-1:99999999999:", "g:x:5:a,,a", "a:g")
	f.Fuzz(func(t *testing.T, passwd, group, spec string) {
		line := func(name, content string) string {
			q := strconv.QuoteToASCII(content)
			return name + " = " + strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`) + "\n"
		}
		tr, err := treetest.Parse(line("etc/passwd", passwd) + line("etc/group", group))
		if err != nil {
			return // no tree
		}
		u, err := rootfs.LookupUser(tr, spec)
		if err == nil && u.Home == "" {
			t.Error("no home")
		}
		_, _, _ = rootfs.LookupOwner(tr, spec) //nolint:dogsled // only its end matters
	})
}
