package buildcontext_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"hako/internal/buildcontext"
	"hako/internal/diag"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// write makes files from lines of "path = content", "path -> target" or "path/". All times are @5.
func write(t *testing.T, dir, text string) {
	t.Helper()
	var made []string
	for line := range strings.SplitSeq(text, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, content, err := treetest.ParseLine(line)
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, e.Path)
		must(t, os.MkdirAll(filepath.Dir(p), 0o755))
		switch e.Kind {
		case tree.Dir:
			must(t, os.MkdirAll(p, 0o755))
			must(t, unix.Chmod(p, e.Mode))
		case tree.Symlink:
			must(t, os.Symlink(e.Linkname, p))
		case tree.Hardlink:
			must(t, os.Link(filepath.Join(dir, e.Linkname), p))
		case tree.Fifo:
			must(t, unix.Mkfifo(p, e.Mode))
			must(t, unix.Chmod(p, e.Mode))
		case tree.Socket:
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			must(t, err)
			must(t, unix.Bind(fd, &unix.SockaddrUnix{Name: p}))
			must(t, unix.Close(fd))
			must(t, unix.Chmod(p, e.Mode))
		default:
			must(t, os.WriteFile(p, []byte(content), 0o600))
			must(t, unix.Chmod(p, e.Mode))
		}
		for k, v := range e.Xattrs {
			if err := unix.Lsetxattr(p, k, []byte(v), 0); err != nil {
				t.Skipf("needs a temporary directory with extended attributes: %v", err)
			}
		}
		made = append(made, p)
	}
	for d := range strings.SplitSeq(text, "\n") { // directories get their time last
		e, _, err := treetest.ParseLine(strings.TrimSpace(d))
		if err == nil {
			made = append(made, filepath.Dir(filepath.Join(dir, e.Path)))
		}
	}
	for i := len(made) - 1; i >= 0; i-- {
		ts := []unix.Timespec{{Sec: 5}, {Sec: 5}}
		for p := made[i]; len(p) > len(dir); p = filepath.Dir(p) {
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, p, ts, unix.AT_SYMLINK_NOFOLLOW))
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, o buildcontext.Options) *buildcontext.Context {
	t.Helper()
	if o.Cwd == "" {
		o.Cwd = "/nonexistent"
	}
	c, err := buildcontext.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func dump(t *testing.T, tr tree.Tree) string {
	t.Helper()
	s, err := treetest.Dump(tr)
	must(t, err)
	return s
}

func trim(s string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

func TestTree(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, `
		Dockerfile = FROM scratch
		a 04750 = x
		b => a
		d/ 02711
		d/c = y
		d/abs -> /etc/passwd
		d/up -> ../../../../etc/passwd
		p 0620 fifo
		s 0751 socket
	`)
	c := open(t, buildcontext.Options{Source: dir})
	want := trim(`
		Dockerfile 0644 0:0 @5 = FROM scratch
		a 04750 0:0 @5 = x
		b => a
		d/ 02711 0:0 @5
		d/abs 0:0 @5 -> /etc/passwd
		d/c 0644 0:0 @5 = y
		d/up 0:0 @5 -> ../../../../etc/passwd
		p 0620 0:0 @5 fifo
		s 0751 0:0 @5
	`)
	if diff := cmp.Diff(want, dump(t, c.Tree())); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if c.DockerfileName != "Dockerfile" || string(c.Dockerfile) != "FROM scratch" || c.IgnoreName != "" {
		t.Errorf("Dockerfile is %q %q, ignore file %q", c.DockerfileName, c.Dockerfile, c.IgnoreName)
	}
}

func TestUserXattrs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile\n a x:user.note=hi = x\n d/ x:user.dir=1")
	c := open(t, buildcontext.Options{Source: dir})
	want := trim(`
		Dockerfile 0644 0:0 @5
		a 0644 0:0 @5 x:user.note=hi = x
		d/ 0755 0:0 @5 x:user.dir=1
	`)
	if diff := cmp.Diff(want, dump(t, c.Tree())); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestRootEntry(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile")
	must(t, os.Chmod(dir, 0o700)) //nolint:gosec // a directory
	c := open(t, buildcontext.Options{Source: dir, Now: time.Unix(9, 0)})
	got, err := c.Tree().Lstat(".")
	must(t, err)
	want := tree.Entry{Path: ".", Kind: tree.Dir, Mode: 0o755, ModTime: time.Unix(9, 0)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("root (-want +got):\n%s", diff)
	}
}

// TestNamesAreBytes is about names that are no UTF-8, which the file system does not mind.
func TestNamesAreBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile\n")
	for _, name := range []string{"\xff\xfe", "caf\xe9", "line\nend", `back\slash`} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Skip(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		tr := open(t, buildcontext.Options{Source: dir}).Tree()
		names, err := tr.ReadDir(name)
		if err != nil || len(names) != 1 || names[0] != name {
			t.Fatalf("%q: read %q, %v", name, names, err)
		}
		if e, err := tr.Lstat(name + "/" + name); err != nil || e.Size != int64(len(name)) {
			t.Errorf("%q: %+v, %v", name, e, err)
		}
		f, err := tr.Open(name + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(f); string(got) != name {
			t.Errorf("%q: content %q, %v", name, got, err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLookupsDoNotFollowLinks(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	write(t, outer, "secret/key = k\n ctx/Dockerfile\n ctx/up -> ..\n ctx/abs -> /\n ctx/key -> ../secret/key\n ctx/pipe fifo\n ctx/d/f = f")
	tr := open(t, buildcontext.Options{Source: filepath.Join(outer, "ctx")}).Tree()
	for _, p := range []string{
		"up/secret/key", "abs/etc", "key/x", "../secret/key", "/etc/passwd", "d/../d/f", "d//f", "", "d/f/x", "none",
	} {
		if _, err := tr.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Lstat(%q) = %v, want not exist", p, err)
		}
		if _, err := tr.ReadDir(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("ReadDir(%q) = %v, want not exist", p, err)
		}
		if _, err := tr.Open(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("Open(%q) = %v, want not exist", p, err)
		}
	}
	for _, p := range []string{"key", "pipe", "up", "d"} {
		if f, err := tr.Open(p); err == nil {
			t.Errorf("Open(%q) succeeded: %v", p, f)
		}
	}
	if _, err := tr.ReadDir("up"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadDir of a link: %v", err)
	}
}

// The directory on the way is replaced by a link out of the context while its descriptor is kept.
func TestDirectoryBecomesLink(t *testing.T) {
	t.Parallel()
	outer := t.TempDir()
	write(t, outer, "secret/f = s\n ctx/Dockerfile\n ctx/d/f = mine\n ctx/e/f = mine")
	ctx := filepath.Join(outer, "ctx")
	tr := open(t, buildcontext.Options{Source: ctx}).Tree()
	if _, err := tr.Lstat("d/f"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"d", "e"} {
		must(t, os.RemoveAll(filepath.Join(ctx, d)))
		must(t, os.Symlink("../secret", filepath.Join(ctx, d)))
		if b, err := treetest.ReadAll(tr, d+"/f"); err == nil {
			t.Errorf("read %q through %s", b, d)
		}
	}
}

func TestManyDirectories(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile")
	for i := range 300 {
		p := filepath.Join(dir, "d", strings.Repeat("x", 1+i%17), strings.Repeat("y", 1+i/17))
		must(t, os.MkdirAll(p, 0o755))
		must(t, os.WriteFile(filepath.Join(p, "f"), []byte(p), 0o600))
	}
	tr := open(t, buildcontext.Options{Source: dir}).Tree()
	done := make(chan error)
	for range 4 {
		go func() {
			_, err := treetest.Dump(tr)
			done <- err
		}()
	}
	for range 4 {
		must(t, <-done)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err == nil && len(fds) > 200 {
		t.Errorf("%d descriptors are open", len(fds))
	}
}

func TestExclude(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile\n work/x\n work2\n d/work/x\n l -> work")
	for _, exclude := range []string{filepath.Join(dir, "work"), filepath.Join(dir, "l")} {
		tr := open(t, buildcontext.Options{Source: dir, Exclude: []string{exclude, "/elsewhere", dir}}).Tree()
		want := trim(`
			Dockerfile 0644 0:0 @5
			d/ 0755 0:0 @5
			d/work/ 0755 0:0 @5
			d/work/x 0644 0:0 @5
			l 0:0 @5 -> work
			work2 0644 0:0 @5
		`)
		if diff := cmp.Diff(want, dump(t, tr)); diff != "" {
			t.Errorf("tree (-want +got):\n%s", diff)
		}
		if _, err := tr.Lstat("work/x"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("an excluded file is there: %v", err)
		}
	}
}

func TestContextIsUnchanged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile\n d/f = x\n d/ 0555")
	before := stat(t, filepath.Join(dir, "d"))
	c := open(t, buildcontext.Options{Source: dir})
	dump(t, c.Tree())
	after := stat(t, filepath.Join(dir, "d"))
	before.Atim, after.Atim = syscall.Timespec{}, syscall.Timespec{}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("directory (-before +after):\n%s", diff)
	}
	must(t, os.Chmod(filepath.Join(dir, "d"), 0o755)) //nolint:gosec // a directory
}

func stat(t *testing.T, p string) syscall.Stat_t {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Lstat(p, &st))
	return st
}

func TestDockerfileLookup(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	write(t, top, `
		cwd/Dockerfile = cwd
		cwd/other = cwd other
		cwd/other.dockerignore = from-cwd
		cwd/only = only
		ctx/Dockerfile = ctx
		ctx/other = ctx other
		ctx/sub/Dockerfile = sub
		ctx/sub/Dockerfile.dockerignore = x
		ctx/.dockerignore = y
		ctx/link -> sub/Dockerfile
		ctx/evil -> ../secret
		ctx/evildir -> ..
		lower/dockerfile = lower
		secret = secret
		empty/x
	`)
	cwd, ctx := filepath.Join(top, "cwd"), filepath.Join(top, "ctx")
	tests := []struct {
		name, context, file, cwd    string
		want, wantName, wantIgnored string
	}{
		{name: "default is the context's", context: ctx, cwd: cwd, want: "ctx", wantName: "Dockerfile", wantIgnored: ".dockerignore"},
		{name: "default in the current directory", context: filepath.Join(top, "empty"), cwd: cwd, want: "cwd", wantName: "Dockerfile"},
		{name: "given: current directory first", context: ctx, file: "other", cwd: cwd, want: "cwd other", wantName: "other", wantIgnored: "other.dockerignore"},
		{name: "given: only in the current directory", context: ctx, file: "only", cwd: cwd, want: "only", wantName: "only", wantIgnored: ".dockerignore"},
		{name: "given: then the context", context: ctx, file: "sub/Dockerfile", cwd: cwd, want: "sub", wantName: "sub/Dockerfile", wantIgnored: "sub/Dockerfile.dockerignore"},
		{name: "absolute", context: ctx, file: filepath.Join(ctx, "other"), cwd: cwd, want: "ctx other", wantName: filepath.Join(ctx, "other"), wantIgnored: ".dockerignore"},
		{name: "link inside", context: ctx, file: "link", cwd: cwd, want: "sub", wantName: "link", wantIgnored: ".dockerignore"},
		{name: "lower case", context: filepath.Join(top, "lower"), cwd: "/nonexistent", want: "lower", wantName: "dockerfile"},
		{name: "outside both", context: ctx, file: "../secret", cwd: cwd, want: "secret", wantName: "../secret", wantIgnored: ".dockerignore"},
		{name: "link out of the context", context: ctx, file: "evil", cwd: cwd,
			want: "Dockerfile evil not found in CWD or in the build context CTX"},
		{name: "link out of the context, from inside", context: ctx, file: "evil", cwd: ctx,
			want: "Dockerfile evil not found in CTX or in the build context CTX"},
		{name: "through a link out of the context", context: ctx, file: "evildir/secret", cwd: ctx,
			want: "Dockerfile evildir/secret not found in CTX or in the build context CTX"},
		{name: "a directory", context: ctx, file: "sub", cwd: "/nonexistent", want: "read Dockerfile sub: it is not a regular file"},
		{name: "missing", context: ctx, file: "none", cwd: "/nonexistent",
			want: "Dockerfile none not found in /nonexistent or in the build context CTX"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			type result struct{ text, name, ignore string }
			var got result
			c, err := buildcontext.Open(t.Context(), buildcontext.Options{Source: tt.context, Dockerfile: tt.file, Cwd: tt.cwd})
			if err != nil {
				var d *diag.Error
				if !errors.As(err, &d) || d.Hint == "" {
					t.Errorf("no hint: %v", err)
				}
				got.text = strings.NewReplacer(ctx, "CTX", cwd, "CWD").Replace(err.Error())
			} else {
				got = result{string(c.Dockerfile), c.DockerfileName, c.IgnoreName}
				must(t, c.Close())
			}
			if want := (result{tt.want, tt.wantName, tt.wantIgnored}); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	write(t, top, "ctx/Dockerfile = top\n ctx/sub/Dockerfile = sub\n ctx/in -> sub\n ctx/out -> ../other\n other/Dockerfile = other\n file = x")
	tests := []struct{ name, source, sub, want string }{
		{name: "path", source: filepath.Join(top, "ctx"), want: "top"},
		{name: "relative", source: "ctx", want: "top"},
		{name: "dir scheme", source: "dir://" + filepath.Join(top, "ctx"), want: "top"},
		{name: "dir scheme, relative", source: "dir://ctx", want: "top"},
		{name: "dir scheme, relative to the root", source: "dir://" + strings.TrimPrefix(filepath.Join(top, "ctx"), "/"), want: "top"},
		{name: "sub path", source: "ctx", sub: "sub", want: "sub"},
		{name: "sub path with slashes", source: "ctx", sub: "/sub/", want: "sub"},
		{name: "sub path through a link", source: "ctx", sub: "in", want: "sub"},
		{name: "sub path outside", source: "ctx", sub: "../other", want: "--context-sub-path ../other leaves the build context"},
		{name: "sub path through a link outside", source: "ctx", sub: "out", want: "--context-sub-path out: file does not exist"},
		{name: "sub path is a file", source: "ctx", sub: "Dockerfile", want: "--context-sub-path Dockerfile: not a directory"},
		{name: "missing", source: "none", want: "open build context none: no such file or directory"},
		{name: "a file", source: "file", want: "open build context file: not a directory"},
		{name: "none", want: "there is no build context"},
		{name: "other scheme", source: "git://user:password@host/repo", want: "build context git://…: there is no such kind of context"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, err := buildcontext.Open(t.Context(), buildcontext.Options{Source: tt.source, SubPath: tt.sub, Cwd: top})
			got := ""
			if err != nil {
				got = err.Error()
				var d *diag.Error
				if !errors.As(err, &d) || d.Hint == "" {
					t.Errorf("no hint: %v", err)
				}
			} else {
				got = string(c.Dockerfile)
				must(t, c.Close())
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestUnreadable(t *testing.T) {
	t.Parallel()
	dropReading(t)
	dir := t.TempDir()
	write(t, dir, "Dockerfile\n f 0200 = x\n d/ 0300")
	tr := open(t, buildcontext.Options{Source: dir}).Tree()
	if _, err := tr.Open("f"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Open: %v", err)
	}
	if _, err := tr.ReadDir("d"); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("ReadDir: %v", err)
	}
}

// dropReading takes from root what lets it read everything: from this test's thread alone, which ends with the test.
func dropReading(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if os.Geteuid() != 0 {
		return
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
	sets[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
	if err := unix.Capset(&header, &sets[0]); err != nil {
		t.Fatal(err)
	}
}
