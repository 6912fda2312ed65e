package filecopy_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
	"hako/internal/filecopy"
	"hako/internal/layer"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// now is the clock of all tests: it prints as @1000.
func now() time.Time { return time.Unix(1000, 0) }

// dump reads changes to their end.
func dump(t *testing.T, c layer.Changes) string {
	t.Helper()
	var b strings.Builder
	err := c.Each(t.Context(), func(e tree.Entry, content io.Reader) error {
		var data []byte
		if e.Kind == tree.Regular {
			var err error
			if data, err = io.ReadAll(content); err != nil {
				return err
			}
		} else if content != nil {
			t.Errorf("%s has content", e.Path)
		}
		b.WriteString(treetest.Line(e, data) + "\n")
		return nil
	})
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	return b.String()
}

// trim takes the indentation out of a text.
func trim(s string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(s, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// copied carries out req and returns what changed, or the error.
func copied(t *testing.T, req *filecopy.Request) string {
	t.Helper()
	req.Now = now()
	if req.FromName == "" {
		req.FromName = "the build context"
	}
	req.Spool = func() (*os.File, error) { return os.Create(filepath.Join(t.TempDir(), "spool")) }
	c, err := filecopy.Copy(t.Context(), req)
	if err != nil {
		var d *diag.Error
		if errors.As(err, &d) && d.Hint != "" {
			return "error: " + err.Error() + "\nhint: " + d.Hint + "\n"
		}
		return "error: " + err.Error() + "\n"
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	return dump(t, c)
}

// copyTest is one COPY: "context" is From, "stage" is Below, empty for FROM scratch.
type copyTest struct {
	name         string
	from, below  string
	paths        string // separated by blanks
	dest         string
	chown, chmod string
	inline       []filecopy.Inline
	add          bool
	want         string
}

func runCopyTests(t *testing.T, tests []copyTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := &filecopy.Request{
				From: treetest.New(t, tt.from), Paths: strings.Fields(tt.paths), Inline: tt.inline,
				Dest: tt.dest, Chown: tt.chown, Chmod: tt.chmod, Add: tt.add, Unpack: tt.add,
			}
			if tt.below != "" {
				req.Below = treetest.New(t, tt.below)
			}
			if diff := cmp.Diff(trim(tt.want), copied(t, req)); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}

const passwd = `
	etc/passwd = root:x:0:0:root:/root:/bin/sh\napp:x:101:102::/home/app:/bin/sh\n
	etc/group = root:x:0:\ndata:x:55:app\n
`

func TestCopyFiles(t *testing.T) {
	t.Parallel()
	runCopyTests(t, []copyTest{{
		name: "file to file", from: "a 0640 @7 = x", paths: "a", dest: "/b",
		want: "b 0640 0:0 @7 = x",
	}, {
		name: "file to missing directory", from: "a @7 = x", paths: "a", dest: "/d/e/",
		want: `d/ 0755 0:0 @1000
			d/e/ 0755 0:0 @1000
			d/e/a 0644 0:0 @7 = x`,
	}, {
		name: "file into existing directory without slash", from: "a @7 = x", below: "d/ 0700 1:2 @5", paths: "a", dest: "/d",
		want: `d/ 0700 1:2 @1000
			d/a 0644 0:0 @7 = x`,
	}, {
		name: "parents of a file", from: "a @7 = x", paths: "a", dest: "/d/e/f",
		want: `d/ 0755 0:0 @1000
			d/e/ 0755 0:0 @1000
			d/e/f 0644 0:0 @7 = x`,
	}, {
		name: "slash and dot makes a directory", from: "a @7 = x", paths: "a", dest: "/d/.",
		want: `d/ 0755 0:0 @1000
			d/a 0644 0:0 @7 = x`,
	}, {
		name: "destination through a link", from: "a @7 = x", below: "usr/bin/ \n bin -> usr/bin", paths: "a", dest: "/bin/",
		want: `usr/ 0755 0:0 @0
			usr/bin/ 0755 0:0 @1000
			usr/bin/a 0644 0:0 @7 = x`,
	}, {
		name: "destination is a link to a directory", from: "a @7 = x", below: "usr/bin/ \n bin -> usr/bin", paths: "a", dest: "/bin",
		want: `usr/ 0755 0:0 @0
			usr/bin/ 0755 0:0 @1000
			usr/bin/a 0644 0:0 @7 = x`,
	}, {
		name: "destination is a link to a file", from: "a @7 = x", below: "e/f = old \n l -> /e/f", paths: "a", dest: "/l",
		want: `e/ 0755 0:0 @1000
			e/f 0644 0:0 @7 = x`,
	}, {
		name: "destination is a link to nothing", from: "a @7 = x", below: "l -> /e/f", paths: "a", dest: "/l/",
		want: `e/ 0755 0:0 @1000
			e/f/ 0755 0:0 @1000
			e/f/a 0644 0:0 @7 = x`,
	}, {
		name: "a link in the directory is replaced", from: "a @7 = x", below: "d/a -> /etc/passwd", paths: "a", dest: "/d/",
		want: `d/ 0755 0:0 @1000
			d/a 0644 0:0 @7 = x`,
	}, {
		name: "link loop", from: "a", below: "l -> m \n m -> l", paths: "a", dest: "/l/x",
		want: `error: COPY to /l/x: resolve /l: too many levels of symbolic links
			hint: Choose a destination without a loop of symbolic links.`,
	}, {
		name: "destination directory is a file", from: "a", below: "f", paths: "a", dest: "/f/",
		want: `error: COPY to /f/: /f exists in the stage and is not a directory
			hint: Choose a destination with nothing but directories on the way.`,
	}, {
		name: "destination below a file", from: "a", below: "f", paths: "a", dest: "/f/g/h",
		want: `error: COPY to /f/g/h: resolve f: not a directory
			hint: Choose a destination with nothing but directories on the way.`,
	}, {
		name: "a source that is a link is followed", from: "a @7 = x \n l @8 -> a", paths: "l", dest: "/d/",
		want: `d/ 0755 0:0 @1000
			d/l 0644 0:0 @7 = x`,
	}, {
		name: "a source link stays inside", from: "etc/hostname @7 = x \n l -> ../../../etc/hostname", paths: "l", dest: "/l",
		want: "l 0644 0:0 @7 = x",
	}, {
		name: "many sources", from: "a @7 = x \n b @8 = y", paths: "a b", dest: "/d/",
		want: `d/ 0755 0:0 @1000
			d/a 0644 0:0 @7 = x
			d/b 0644 0:0 @8 = y`,
	}, {
		name: "many sources to one file: the last wins", from: "a @7 = x \n b @8 = y", paths: "a b", dest: "/f",
		want: `f 0644 0:0 @8 = y`,
	}, {
		name: "missing", from: "main.go \n go.mod", paths: "mian.go", dest: "/",
		want: `error: COPY: "mian.go" not found in the build context
			hint: Did you mean "main.go"?`,
	}, {
		name: "missing in a directory", from: "src/a \n src/b", paths: "src/zzzzzz", dest: "/",
		want: `error: COPY: "src/zzzzzz" not found in the build context
			hint: Check the path; the directory "src" has a, b.`,
	}, {
		name: "missing through a link to nothing", from: "l -> nowhere", paths: "l", dest: "/",
		want: `error: COPY: "l" not found in the build context
			hint: It is a symbolic link to "nowhere", which is not there.`,
	}, {
		name: "special files", from: "f 0600 @7 fifo \n c 0620 3:4 @7 c5:1 \n s 0755 @7 socket", paths: ".", dest: "/d/",
		want: `d/ 0755 0:0 @1000
			d/c 0620 3:4 @7 c5:1
			d/f 0600 0:0 @7 fifo
			d/s 0755 0:0 @7`,
	}, {
		name: "attributes and set-user-ID", from: `p 04755 @7 x:security.capability=\x01\x02 x:user.a=b = x`, paths: "p", dest: "/p", chown: "5:6",
		want: `p 04755 5:6 @7 x:security.capability=\x01\x02 x:user.a=b = x`,
	}, {
		name: "marker of deleted files", from: ".wh.a", paths: ".", dest: "/d",
		want: `error: COPY: /d/.wh.a cannot be part of an image: names with ".wh." mark deleted files`,
	}})
}

func TestCopyDirectories(t *testing.T) {
	t.Parallel()
	runCopyTests(t, []copyTest{{
		name: "contents to a new directory", from: "d/ 0700 3:4 @9 \n d/a @7 = x \n d/e/ 0711 3:4 @8", paths: "d", dest: "/n",
		want: `n/ 0755 0:0 @9
			n/a 0644 0:0 @7 = x
			n/e/ 0711 3:4 @8`,
	}, {
		name: "contents to an existing directory", from: "d/ 0700 3:4 @9 \n d/a @7 = x", below: "n/ 0711 1:2 @5", paths: "d", dest: "/n/",
		want: `n/ 0711 1:2 @9
			n/a 0644 0:0 @7 = x`,
	}, {
		name: "directories inside get the source's metadata", from: "d/e/ 0711 3:4 @8 x:user.new=1", below: "n/e/ 0700 1:2 @5 x:user.old=1 \n n/e/k = k", paths: "d", dest: "/n/",
		want: `n/ 0755 0:0 @0
			n/e/ 0711 3:4 @8 x:user.new=1 x:user.old=1`,
	}, {
		name: "an equal directory does not come", from: "d/e/ 0711 @8", below: "n/e/ 0711 @5", paths: "d", dest: "/n/",
		want: "",
	}, {
		name: "everything to the root", from: "a @7 \n d/b @7", below: "d/ 0755 @3", paths: ".", dest: "/",
		want: `a 0644 0:0 @7
			d/ 0755 0:0 @0
			d/b 0644 0:0 @7`,
	}, {
		name: "links are copied as links", from: "d/a @7 = x \n d/l @8 -> a \n d/abs -> /etc", paths: "d", dest: "/n",
		want: `n/ 0755 0:0 @0
			n/a 0644 0:0 @7 = x
			n/abs 0:0 @0 -> /etc
			n/l 0:0 @8 -> a`,
	}, {
		name: "hard links", from: "d/a @7 = x \n d/b => d/a \n d/e/c => d/a", paths: "d", dest: "/n",
		want: `n/ 0755 0:0 @0
			n/a 0644 0:0 @7 = x
			n/b => n/a
			n/e/ 0755 0:0 @0
			n/e/c => n/a`,
	}, {
		name: "hard links of different sources are files", from: "a @7 = x \n b => a", paths: "a b", dest: "/n/",
		want: `n/ 0755 0:0 @1000
			n/a 0644 0:0 @7 = x
			n/b 0644 0:0 @7 = x`,
	}, {
		name: "a directory over a file", from: "d/a/b", below: "n/a", paths: "d", dest: "/n",
		want: `error: COPY: cannot copy a directory to /n/a, which is not a directory
			hint: If it is a symbolic link, copy to the directory that it points to.`,
	}, {
		name: "a directory over a link to a directory", from: "bin/a", below: "bin -> usr/bin \n usr/bin/", paths: ".", dest: "/",
		want: `error: COPY: cannot copy a directory to /bin, which is not a directory
			hint: If it is a symbolic link, copy to the directory that it points to.`,
	}, {
		name: "a directory onto a file", from: "d/a", below: "n", paths: "d", dest: "/n",
		want: `error: COPY: cannot copy a directory to /n, which is not a directory
			hint: If it is a symbolic link, copy to the directory that it points to.`,
	}, {
		name: "a file over a directory", from: "d/a", below: "n/a/b", paths: "d", dest: "/n",
		want: `error: COPY: cannot replace the directory /n/a with the file /d/a
			hint: Remove the directory in an earlier RUN, or choose another destination.`,
	}, {
		name: "a link to a directory as source", from: "d/ @9 \n d/a @7 \n l -> d", paths: "l", dest: "/n",
		want: `n/ 0755 0:0 @9
			n/a 0644 0:0 @7`,
	}, {
		name: "new directories in a set-group-ID directory", from: "a @7", below: "g/ 02775 0:8", paths: "a", dest: "/g/n/a",
		want: `g/ 02775 0:8 @1000
			g/n/ 02755 0:8 @1000
			g/n/a 0644 0:0 @7`,
	}})
}

func TestCopyUnchanged(t *testing.T) {
	t.Parallel()
	runCopyTests(t, []copyTest{{
		name: "equal file", from: "a @7 = x", below: "d/a @7 = x", paths: "a", dest: "/d/", want: "",
	}, {
		name: "other content", from: "a @7 = y", below: "d/a @7 = x", paths: "a", dest: "/d/",
		want: "d/ 0755 0:0 @1000 \n d/a 0644 0:0 @7 = y",
	}, {
		name: "other time", from: "a @8 = x", below: "d/a @7 = x", paths: "a", dest: "/d/",
		want: "d/ 0755 0:0 @1000 \n d/a 0644 0:0 @8 = x",
	}, {
		name: "other attribute", from: "a @7 x:user.a=1 = x", below: "d/a @7 = x", paths: "a", dest: "/d/",
		want: "d/ 0755 0:0 @1000 \n d/a 0644 0:0 @7 x:user.a=1 = x",
	}, {
		name: "equal link", from: "d/l @7 -> x", below: "d/l @7 -> x", paths: "d", dest: "/d", want: "",
	}, {
		name: "equal hard links", from: "d/a @7 = x \n d/b => d/a", below: "d/a @7 = x \n d/b => d/a", paths: "d", dest: "/d", want: "",
	}, {
		name: "equal files become hard links", from: "d/a @7 = x \n d/b => d/a", below: "d/a @7 = x \n d/b @7 = x", paths: "d", dest: "/d", want: "",
	}, {
		name: "the first hard link is equal", from: "d/a @7 = x \n d/b => d/a \n d/c => d/a", below: "d/a @7 = x \n d/b @8 = x", paths: "d", dest: "/d",
		want: "d/ 0755 0:0 @0 \n d/b 0644 0:0 @7 = x \n d/c => d/b",
	}})
}

func TestCopyOwnersAndModes(t *testing.T) {
	t.Parallel()
	runCopyTests(t, []copyTest{{
		name: "owner of a stage's files is kept", from: "d/a 0600 3:4 @7", paths: "d/a", dest: "/x/a",
		want: "x/ 0755 0:0 @1000 \n x/a 0600 3:4 @7",
	}, {
		name: "chown by numbers, parents too", from: "a 0600 3:4 @7", paths: "a", dest: "/x/a", chown: "5:6",
		want: "x/ 0755 5:6 @1000 \n x/a 0600 5:6 @7",
	}, {
		name: "one number is user and group", from: "a @7", paths: "a", dest: "/a", chown: "5",
		want: "a 0644 5:5 @7",
	}, {
		name: "chown by name", from: "a @7", below: passwd, paths: "a", dest: "/a", chown: "app",
		want: "a 0644 101:102 @7",
	}, {
		name: "chown by names", from: "a @7", below: passwd, paths: "a", dest: "/a", chown: "app:data",
		want: "a 0644 101:55 @7",
	}, {
		name: "unknown user", from: "a @7", below: passwd, paths: "a", dest: "/a", chown: "nobody",
		want: `error: COPY --chown=nobody: unable to find user nobody: no matching entries in passwd file
			hint: Create the user and group in an earlier RUN, or give their numbers.`,
	}, {
		name: "unknown group on scratch", from: "a @7", paths: "a", dest: "/a", chown: "0:staff",
		want: `error: COPY --chown=0:staff: unable to find group staff: no matching entries in group file
			hint: Create the user and group in an earlier RUN, or give their numbers.`,
	}, {
		name: "octal mode for all but links, parents too", from: "d/a @7 \n d/e/ @7 \n d/l @7 -> a", paths: "d", dest: "/x/d", chmod: "1750",
		want: `x/ 0750 0:0 @1000
			x/d/ 0750 0:0 @0
			x/d/a 01750 0:0 @7
			x/d/e/ 01750 0:0 @7
			x/d/l 0:0 @7 -> a`,
	}, {
		name: "symbolic mode", from: "d/a 0600 @7 \n d/b 0700 @7 \n d/e/ 0700 @7", paths: "d", dest: "/x", chmod: "u=rwX,go=rX",
		want: `x/ 0755 0:0 @0
			x/a 0644 0:0 @7
			x/b 0755 0:0 @7
			x/e/ 0755 0:0 @7`,
	}, {
		name: "symbolic set-user-ID", from: "a 0700 @7", paths: "a", dest: "/x", chmod: "u+s,go+x",
		want: `x 04711 0:0 @7`,
	}, {
		name: "bad mode", from: "a", paths: "a", dest: "/a", chmod: "899",
		want: `error: COPY --chmod=899: not a mode
			hint: Give an octal mode up to 07777 ("755") or a symbolic one ("u=rwX,go=rX").`,
	}, {
		name: "large mode", from: "a", paths: "a", dest: "/a", chmod: "10000",
		want: `error: COPY --chmod=10000: not a mode
			hint: Give an octal mode up to 07777 ("755") or a symbolic one ("u=rwX,go=rX").`,
	}})
}

func TestCopyWildcards(t *testing.T) {
	t.Parallel()
	from := "a.go @7 \n b.go @7 \n c.txt @7 \n d.go/x @7 \n s/t/u.go @7 \n s/v/u.go @7 \n l -> s \n [x] @7"
	runCopyTests(t, []copyTest{{
		name: "star", from: from, paths: "*.go", dest: "/n/",
		want: "n/ 0755 0:0 @0 \n n/a.go 0644 0:0 @7 \n n/b.go 0644 0:0 @7 \n n/x 0644 0:0 @7",
	}, {
		name: "in the middle", from: from, paths: "s/*/u.go", dest: "/n/",
		want: "n/ 0755 0:0 @1000 \n n/u.go 0644 0:0 @7",
	}, {
		name: "prefix through a link", from: from, paths: "l/?/u.go", dest: "/n/",
		want: "n/ 0755 0:0 @1000 \n n/u.go 0644 0:0 @7",
	}, {
		name: "no link is followed where wildcards are", from: from, paths: "l*/t/u.go", dest: "/n/", want: "",
	}, {
		name: "nothing", from: from, paths: "*.js", dest: "/n/", want: "",
	}, {
		name: "something and nothing", from: from, paths: "c.txt *.js", dest: "/n/",
		want: "n/ 0755 0:0 @1000 \n n/c.txt 0644 0:0 @7",
	}, {
		name: "missing directory before it", from: from, paths: "q/*.js", dest: "/n/",
		want: `error: COPY: "q" not found in the build context
			hint: Check the path; it is relative to the root of the source.`,
	}, {
		name: "class", from: from, paths: "[bc].*", dest: "/n/",
		want: "n/ 0755 0:0 @1000 \n n/b.go 0644 0:0 @7 \n n/c.txt 0644 0:0 @7",
	}, {
		name: "escaped bracket", from: from, paths: "[[]x]", dest: "/n/",
		want: "n/ 0755 0:0 @1000 \n n/[x] 0644 0:0 @7",
	}, {
		name: "bad", from: from, paths: "a[", dest: "/n/",
		want: `error: COPY: bad pattern "a[": syntax error in pattern
			hint: Write a "[" that is meant literally as "[[]".`,
	}, {
		name: "contents of a directory", from: "d/.x @7 \n d/e/y @7", paths: "d/*", dest: "/n/",
		want: "n/ 0755 0:0 @0 \n n/.x 0644 0:0 @7 \n n/y 0644 0:0 @7",
	}})
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	c, err := filecopy.Copy(t.Context(), &filecopy.Request{
		From: treetest.New(t, "a.go"), FromName: "the build context", Paths: []string{"*.go", "dist/../*.js"}, Dest: "/", Now: now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{`COPY: no file matches "dist/../*.js" in the build context`}
	if diff := cmp.Diff(want, c.Warnings()); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
}

func TestInline(t *testing.T) {
	t.Parallel()
	file := func(name, data string) filecopy.Inline { return filecopy.Inline{Name: name, Data: []byte(data)} }
	runCopyTests(t, []copyTest{{
		name: "to a file", inline: []filecopy.Inline{file("EOF", "hi\n")}, dest: "/f",
		want: `f 0644 0:0 @1000 = hi\n`,
	}, {
		name: "into a directory after files", from: "a @7", paths: "a", inline: []filecopy.Inline{file("x", "1"), file("y", "")}, dest: "/d/", chown: "1:2", chmod: "600",
		want: `d/ 0600 1:2 @1000
			d/a 0600 1:2 @7
			d/x 0600 1:2 @1000 = 1
			d/y 0600 1:2 @1000`,
	}, {
		name: "over a directory", inline: []filecopy.Inline{file("x", "1")}, below: "d/x/", dest: "/d/",
		want: `error: COPY: cannot replace the directory /d/x with the file the heredoc x
			hint: Remove the directory in an earlier RUN, or choose another destination.`,
	}})
}

func TestMkdir(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, below, path, user, want string
	}{
		{name: "new", path: "/a/b", want: "a/ 0755 0:0 @1000 \n a/b/ 0755 0:0 @1000"},
		{name: "existing", below: "a/ 0700 1:2", path: "/a", want: ""},
		{name: "below existing", below: "a/ 0700 1:2", path: "/a/b", user: "5", want: "a/ 0700 1:2 @1000 \n a/b/ 0755 5:5 @1000"},
		{name: "user owns parents", below: passwd, path: "/x/y", user: "app", want: "x/ 0755 101:102 @1000 \n x/y/ 0755 101:102 @1000"},
		{name: "user and group", below: passwd, path: "/x", user: "app:data", want: "x/ 0755 101:55 @1000"},
		{name: "through a link", below: "l -> /r", path: "/l/x", want: "r/ 0755 0:0 @1000 \n r/x/ 0755 0:0 @1000"},
		{name: "unknown user", below: "a", path: "/x", user: "who", want: "x/ 0755 0:0 @1000"},
		{name: "unknown user on scratch", path: "/x", user: "who", want: "error: WORKDIR /x: unable to find user who: no matching entries in passwd file"},
		{name: "a file", below: "a", path: "/a", want: "error: WORKDIR /a: /a exists in the stage and is not a directory"},
		{name: "below a file", below: "a", path: "/a/b", want: "error: WORKDIR /a/b: resolve a: not a directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			req := &filecopy.MkdirRequest{Path: tt.path, User: tt.user, Now: now()}
			if tt.below != "" {
				req.Below = treetest.New(t, tt.below)
			}
			var got string
			c, err := filecopy.Mkdir(t.Context(), req)
			if err != nil {
				got = "error: " + err.Error() + "\n"
			} else {
				got = dump(t, c)
			}
			if diff := cmp.Diff(trim(tt.want), got); diff != "" {
				t.Errorf("changes (-want +got):\n%s", diff)
			}
		})
	}
}
