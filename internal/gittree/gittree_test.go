package gittree_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
	"hako/internal/gittree"
	"hako/internal/gitwire"
	"hako/internal/web"
	"hako/internal/web/webtest"
)

// history is a repository with branches, tags and other references.
func history() []string {
	return []string{
		"write a one", "write dir/x run", "exec dir/x", "link ../a dir/l", "commit", "tag light", "tag -a -m t v1",
		"write a two", "write z.txt z", "write z/y y", "commit", "checkout -q -b side", "write a three", "commit",
		"update-ref refs/pull/7/head side", "tag side-tag", "checkout -q main", "tag both", "branch both light",
	}
}

func TestRefs(t *testing.T) {
	t.Parallel()
	for _, v0 := range []bool{false, true} {
		w := newWorld(t, func(w *world) { w.v0 = v0 })
		w.repository(t, "r", history()...)
		for ref, commit := range map[string]string{
			"": "main", "main": "main", "refs/heads/main": "main", "heads/main": "main", "side": "side", "light": "light", "v1": "v1^{}",
			"refs/tags/v1": "v1^{}", "tags/v1": "v1^{}", "refs/pull/7/head": "side", "pull/7/head": "side", "HEAD": "main",
			"both": "light", "refs/tags/both": "main",
		} {
			tr := w.fetch(t, gittree.Spec{Remote: w.remote("r"), Ref: ref})
			if got, want := tr.Commit(), w.head(t, "r", commit); got != want {
				t.Errorf("%q: %s, want %s", ref, got, want)
			}
			if got, want := w.resolve(t, gittree.Spec{Remote: w.remote("r"), Ref: ref}), w.head(t, "r", strings.TrimSuffix(commit, "^{}")); got != want {
				t.Errorf("%q stands for %s, want %s", ref, got, want)
			}
			w.git(t, "r", "checkout", "-q", "--detach", commit)
			if d := cmp.Diff(listDir(t, filepath.Join(w.dir, "r")), list(t, tr)); d != "" {
				t.Errorf("%q: git (-) and ours (+):\n%s", ref, d)
			}
		}
	}
}

func TestTimes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "r", "write a x", "commit")
	tr := w.fetch(t, gittree.Spec{Remote: w.remote("r")})
	if e, err := tr.Lstat("a"); err != nil || !e.ModTime.Equal(now()) {
		t.Error(e, err)
	}
	made := time.Date(2005, 6, 7, 8, 9, 10, 0, time.UTC)
	tr = w.fetch(t, gittree.Spec{Remote: w.remote("r"), CommitTimes: true})
	if e, err := tr.Lstat("a"); err != nil || !e.ModTime.Equal(made) || !tr.Time().Equal(made) {
		t.Error(e, err)
	}
}

func TestCommits(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		v0     bool
		config string
	}{
		{name: "version 2"},
		{name: "version 0", v0: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(w *world) { w.v0 = tc.v0 })
			w.repository(t, "r", history()...)
			if tc.config != "" {
				w.git(t, "r.git", "config", tc.config, "true")
			}
			first := w.head(t, "r", "light")
			tr := w.fetch(t, gittree.Spec{Remote: w.remote("r"), Ref: first, Checksum: first[:10]})
			if tr.Commit() != first {
				t.Error(tr.Commit())
			}
			// The first commit has a tag, so it is given out in any case. One in the middle is not.
			w.repository(t, "s", "write a 1", "commit", "write a 2", "commit", "write a 3", "commit")
			if tc.config != "" {
				w.git(t, "s.git", "config", tc.config, "true")
			}
			middle := w.head(t, "s", "main~1")
			tr = w.fetch(t, gittree.Spec{Remote: w.remote("s"), Ref: middle})
			if got := list(t, tr); got != "./ 0755\na 0644 \"2\"\n" {
				t.Error(got)
			}
			if strings.Contains(w.log.String(), "the whole history is fetched") {
				t.Errorf("more than a commit was fetched:\n%s", w.log)
			}
			for _, short := range []string{middle[:7], middle[:12], strings.ToUpper(middle[:12]), w.head(t, "s", "main")[:9]} {
				tr = w.fetch(t, gittree.Spec{Remote: w.remote("s"), Ref: short})
				if !strings.HasPrefix(tr.Commit(), strings.ToLower(short)) {
					t.Errorf("%s is %s", short, tr.Commit())
				}
			}
		})
	}
}

func TestChecksums(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "r", history()...)
	main, tag, peeled := w.head(t, "r", "main"), w.head(t, "r", "v1"), w.head(t, "r", "v1^{}")
	for _, s := range []gittree.Spec{
		{Checksum: main}, {Checksum: main[:8]}, {Ref: "v1", Checksum: tag}, {Ref: "v1", Checksum: peeled[:7]}, {Ref: main, Checksum: main},
		{Ref: "main", Checksum: peeled, FetchByCommit: true}, {Checksum: main, FetchByCommit: true},
	} {
		s.Remote = w.remote("r")
		w.fetch(t, s)
	}
	for _, s := range []gittree.Spec{{Checksum: tag}, {Ref: "v1", Checksum: main}, {Ref: main, Checksum: peeled}, {Checksum: main[1:]}} {
		s.Remote = w.remote("r")
		_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), s)
		if err == nil || !strings.Contains(err.Error(), ", not "+s.Checksum) || !strings.Contains(diag.Format(err), "look at it before") {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func TestSubdir(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "sub", "write d/s sub", "commit")
	w.repository(t, "r", "write a/b/c x", "link a l", "write f x", "sub sub mod", "commit")
	for dir, want := range map[string]string{
		"a": "./ 0755\nb/ 0755\nb/c 0644 \"x\"\n", "/a//b/": "./ 0755\nc 0644 \"x\"\n", "mod/d": "./ 0755\ns 0644 \"sub\"\n", "a/../a/b/.": "./ 0755\nc 0644 \"x\"\n",
	} {
		if got := list(t, w.fetch(t, gittree.Spec{Remote: w.remote("r"), Subdir: dir, KeepGitDir: true})); got != want {
			t.Errorf("%s: %s", dir, got)
		}
	}
	for _, dir := range []string{"none", "l", "f", "l/b", "mod/none", ".git"} {
		_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), gittree.Spec{Remote: w.remote("r"), Subdir: dir})
		if !errors.As(err, new(*diag.Error)) || !strings.Contains(err.Error(), ": directory "+dir+": ") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestSubmodules(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "inner", "write i inner", "commit")
	w.repository(t, "sub", "write s sub", "sub inner deep/in", "commit", "write s later", "commit", "checkout -q HEAD~1")
	w.repository(t, "r", "write a x", "sub sub mod", "commit")
	clone := filepath.Join(w.dir, "clone")
	w.git(t, "", "clone", "-q", "--recurse-submodules", w.remote("r"), clone)
	tr := w.fetch(t, gittree.Spec{Remote: w.remote("r")})
	if d := cmp.Diff(listDir(t, clone), list(t, tr)); d != "" {
		t.Errorf("git (-) and ours (+):\n%s", d)
	}
	got := list(t, w.fetch(t, gittree.Spec{Remote: w.remote("r"), SkipSubmodules: true}))
	if !strings.Contains(got, "mod/ 0755\n") || strings.Contains(got, "mod/s") {
		t.Error(got)
	}
}

func TestBadSubmodules(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "sub", "write s sub", "commit")
	id := w.head(t, "sub", "main")
	link := "update-index --add --cacheinfo 160000," + id + ",mod"
	modules := func(url string) string {
		return "write .gitmodules [submodule \"m\"]\n\tpath = mod\n\turl = " + url + "\n"
	}
	for name, tc := range map[string]struct {
		commands []string
		want     string
	}{
		"none":    {[]string{"write a x", link, "commit -q -m x"}, "the submodule mod has no URL in .gitmodules"},
		"file":    {[]string{modules("file:///etc"), "add .gitmodules", link, "commit -q -m x"}, `scheme "file"`},
		"path":    {[]string{modules("/etc"), "add .gitmodules", link, "commit -q -m x"}, "a path of a machine that is not this one"},
		"ext":     {[]string{modules("ext::sh -c id"), "add .gitmodules", link, "commit -q -m x"}, "is not supported"},
		"option":  {[]string{modules("--upload-pack=id"), "add .gitmodules", link, "commit -q -m x"}, "is not supported"},
		"out":     {[]string{modules("../../../../x"), "add .gitmodules", link, "commit -q -m x"}, "leads out of the server"},
		"damaged": {[]string{"write .gitmodules [submodule", "add .gitmodules", link, "commit -q -m x"}, ".gitmodules: line 1"},
		"missing": {[]string{modules("../none.git"), "add .gitmodules", link, "commit -q -m x"}, "submodule mod of http"},
	} {
		w.repository(t, name, tc.commands...)
		_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), gittree.Spec{Remote: w.remote(name)})
		if !errors.As(err, new(*diag.Error)) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	w.repository(t, "skipped", "write .gitmodules [submodule \"m\"]\n\tpath = mod\n\turl = ../none.git\n\tupdate = none\n", "add .gitmodules", link, "commit -q -m x")
	if got := list(t, w.fetch(t, gittree.Spec{Remote: w.remote("skipped")})); !strings.Contains(got, "mod/ 0755\n") {
		t.Error(got)
	}
}

// TestLoginOfSubmodules gives the login of a repository to its submodules on the same server only.
func TestLoginOfSubmodules(t *testing.T) {
	t.Parallel()
	other := newWorld(t, func(o *world) {
		o.wrap = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "" {
					t.Error("the login is sent to another server")
				}
				next.ServeHTTP(rw, r)
			})
		}
	})
	other.repository(t, "sub", "write s other", "commit")
	w := newWorld(t, func(w *world) { w.wrap = func(h http.Handler) http.Handler { return basic("u", "p", h) } })
	w.repository(t, "sub", "write s same", "commit")
	w.repository(t, "r", "sub sub rel", "sub sub abs", "sub sub other",
		"config -f .gitmodules submodule.abs.url "+w.remote("sub"), "config -f .gitmodules submodule.other.url "+other.remote("sub"), "add -A")
	w.git(t, "r/other", "fetch", "-q", other.dir+"/sub")
	w.git(t, "r/other", "checkout", "-q", "FETCH_HEAD")
	w.git(t, "r", "commit", "-q", "-a", "-m", "x")
	w.git(t, "r.git", "fetch", "-q", "../r", "+main:main")
	remote := strings.Replace(w.remote("r"), "http://", "http://u:p@", 1)
	got := list(t, w.fetch(t, gittree.Spec{Remote: remote}))
	for _, want := range []string{"rel/s 0644 \"same\"", "abs/s 0644 \"same\"", "other/s 0644 \"other\""} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "r", "config core.autocrlf false", "config core.safecrlf false",
		"write .gitattributes *.crlf eol=crlf\n*.txt text\n*.auto text=auto eol=crlf\n*.id ident\n*.bin binary eol=crlf\n\"q x\" eol=crlf\n"+
			"/top eol=crlf\nd/*.u working-tree-encoding=UTF-16LE\n[attr]win text eol=crlf\n*.win win\n**/deep/x eol=crlf\n*.old crlf=input\n*.n -text eol=crlf\n"+
			"[attr]nested win\n*.nested nested\n*.late late\n[attr]late win\n*.off win\n[attr]loop loop2\n[attr]loop2 loop eol=crlf\n*.loop loop\n",
		"write a.crlf 1\n2\n", "write b.txt 1\n2\n", "write c.auto 1\n2\n", "write d.auto 1\n2\r\n", "write e.auto 1\x00\n", "write e.auto2 x\n",
		"write f.id $Id$ and $Id: old $\nand $Idx$ $Id: a b c $\n", "write g.bin 1\n", "write top 1\n", "write sub/top 1\n", "write h.win 1\n",
		"write sub/deep/x 1\n", "write i.old 1\n", "write j.n 1\n", "write sub/.gitattributes *.crlf -text\n*.below win\n*.off -win\n[attr]own win\n*.own own\n", "write sub/k.crlf 1\n2\n",
		"write n.nested 1\n", "write n.late 1\n", "write n.loop 1\n", "write n.off 1\n", "write sub/n.off 1\n", "write sub/n.below 1\n", "write sub/n.own 1\n", "commit")
	// Git would take UTF-16 for what is in the working copy: put UTF-8 into the repository.
	blob := w.gitIn(t, "r", strings.NewReader("häko\n"), "hash-object", "-w", "--stdin", "--no-filters")
	w.git(t, "r", "update-index", "--add", "--cacheinfo", "100644,"+blob+",d/m.u")
	w.git(t, "r", "commit", "-q", "-m", "u")
	w.git(t, "r.git", "fetch", "-q", "../r", "+main:main")
	clone := filepath.Join(w.dir, "clone")
	w.git(t, "", "clone", "-q", w.remote("r"), clone)
	if d := cmp.Diff(listDir(t, clone), list(t, w.fetch(t, gittree.Spec{Remote: w.remote("r")}))); d != "" {
		t.Errorf("git (-) and ours (+):\n%s", d)
	}
	if d := cmp.Diff(listDir(t, clone+"/sub"), list(t, w.fetch(t, gittree.Spec{Remote: w.remote("r"), Subdir: "sub"}))); d != "" {
		t.Errorf("git (-) and ours (+):\n%s", d)
	}
}

// TestGitDirWorks writes trees with a .git directory to a disk and asks git what it thinks of them.
func TestGitDirWorks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "inner", "write i inner", "commit")
	w.repository(t, "sub", "write s sub", "sub inner deep/in", "commit")
	w.repository(t, "r", append(history(), "sub sub mod", "write crlf 1\n", "write .gitattributes crlf eol=crlf\n", "commit")...)
	for _, ref := range []string{"", "main", "v1", "light", "refs/pull/7/head", w.head(t, "r", "main~1")} {
		tr := w.fetch(t, gittree.Spec{Remote: strings.Replace(w.remote("r"), "http://", "http://user:pw@", 1), Ref: ref, KeepGitDir: true})
		dir := filepath.Join(w.dir, "out-"+strings.ReplaceAll(ref, "/", "_"))
		write(t, tr, ".", dir)
		for _, c := range []struct{ args, want string }{
			{"status --porcelain", ""},
			{"rev-parse HEAD", tr.Commit()},
			{"log --oneline --format=%H", tr.Commit()},
			{"fsck --full --strict --no-dangling", ""},
			{"remote get-url origin", w.remote("r")},
			{"rev-parse --is-shallow-repository", "true"},
		} {
			if ref == "light" && strings.HasPrefix(c.args, "rev-parse --is-shallow") || ref == "v1" && strings.HasPrefix(c.args, "rev-parse --is-shallow") {
				continue // they have no parents
			}
			if got := w.git(t, filepath.Base(dir), strings.Fields(c.args)...); got != c.want {
				t.Errorf("%q: git %s: %q, want %q", ref, c.args, got, c.want)
			}
		}
	}
	dir := filepath.Base(filepath.Join(w.dir, "out-"))
	err := fs.WalkDir(os.DirFS(w.dir), dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(w.dir, p))
		if bytes.Contains(data, []byte("user:pw")) {
			t.Errorf("the login is in %s", p)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if got := w.git(t, dir, "submodule", "status", "--recursive"); strings.ContainsAny(got, "-+U") && !strings.Contains(got, "mod") {
		t.Error(got)
	}
	if got := w.git(t, dir+"/mod/deep/in", "status", "--porcelain"); got != "" {
		t.Error(got)
	}
	if got := w.git(t, "out-v1", "describe", "--tags"); got != "v1" {
		t.Error(got)
	}
	if got := w.git(t, "out-main", "rev-parse", "main"); got != w.head(t, "r", "main") {
		t.Error(got)
	}
	w.git(t, dir, "fetch", "-q", "--unshallow", w.remote("r"))
	if got := w.git(t, dir, "rev-list", "--count", "HEAD"); got != "3" {
		t.Error(got)
	}
}

func TestSHA256(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.git(t, "", "init", "-q", "--object-format=sha256", "r")
	w.repository(t, "r", history()...)
	for _, ref := range []string{"", "v1", w.head(t, "r", "main~1")} {
		tr := w.fetch(t, gittree.Spec{Remote: w.remote("r"), Ref: ref, KeepGitDir: true})
		if len(tr.Commit()) != 64 {
			t.Error(tr.Commit())
		}
		dir := "out" + ref
		write(t, tr, ".", filepath.Join(w.dir, dir))
		if got := w.git(t, dir, "status", "--porcelain"); got != "" {
			t.Error(got)
		}
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	const secret = "SECRET"
	w := newWorld(t, nil)
	w.repository(t, "r", history()...)
	w.git(t, "", "init", "-q", "--bare", "empty.git")
	blob := w.git(t, "r", "rev-parse", "main:a")
	locked := newWorld(t, func(w *world) { w.wrap = func(h http.Handler) http.Handler { return basic("u", "p", h) } })
	locked.repository(t, "r", "write a x", "commit")
	plain := newWorld(t, func(w *world) {
		w.wrap = func(http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { _, _ = rw.Write([]byte("hello")) })
		}
	})
	for name, tc := range map[string]struct {
		spec       gittree.Spec
		what, hint string
	}{
		"no repository": {gittree.Spec{Remote: w.remote("none")}, "404", "If it is private"},
		"no branch":     {gittree.Spec{Remote: w.remote("r"), Ref: "mian"}, `it has no branch or tag "mian"`, "Did you mean main?"},
		"nothing near":  {gittree.Spec{Remote: w.remote("r"), Ref: "xyzxyz"}, `it has no branch or tag "xyzxyz"`, "It has both, main, side, "},
		"empty":         {gittree.Spec{Remote: w.remote("empty")}, "it has no default branch", ""},
		"empty, branch": {gittree.Spec{Remote: w.remote("empty"), Ref: "x"}, "it has no branch", "The repository is empty."},
		"no commit":     {gittree.Spec{Remote: w.remote("r"), Ref: strings.Repeat("1", 40)}, "it has no commit 1111", "leads to the commit"},
		"no short":      {gittree.Spec{Remote: w.remote("r"), Ref: "1111111"}, "it has no commit 1111111", ""},
		"a blob":        {gittree.Spec{Remote: w.remote("r"), Ref: blob}, "is a blob, not a commit", "Name a branch"},
		"by commit":     {gittree.Spec{Remote: w.remote("r"), Checksum: strings.Repeat("1", 40), FetchByCommit: true}, "not our ref", "fetch-by-commit"},
		"no login":      {gittree.Spec{Remote: locked.remote("r")}, "401 Unauthorized", "give credentials"},
		"wrong login":   {gittree.Spec{Remote: strings.Replace(locked.remote("r"), "//", "//u:"+secret+"@", 1)}, "401 Unauthorized", "Check that the token"},
		"not git":       {gittree.Spec{Remote: plain.remote("r")}, "does not answer like one of git", "git clone takes"},
		"no server":     {gittree.Spec{Remote: "http://u:" + secret + "@127.0.0.1:1/x.git"}, "connection refused", "can be reached"},
		"file":          {gittree.Spec{Remote: "file:///etc"}, "file is not supported", ""},
		"no url":        {gittree.Spec{Remote: "https://u:" + secret + "@h/%zz"}, "it is not a valid URL", ""},
		"no path":       {gittree.Spec{Remote: "https://u:" + secret + "@host"}, "it has no path", ""},
		"strange host":  {gittree.Spec{Remote: "git@-oProxyCommand=x:y"}, "it has no host", ""},
	} {
		_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), tc.spec)
		if !errors.As(err, new(*diag.Error)) {
			t.Errorf("%s: %v is no diag.Error", name, err)
			continue
		}
		text := diag.Format(err)
		if !strings.Contains(text, tc.what) || !strings.Contains(text, tc.hint) {
			t.Errorf("%s: %s", name, text)
		}
		if strings.Contains(text+w.log.String(), secret) {
			t.Errorf("%s: a secret is shown: %s\n%s", name, text, w.log)
		}
	}
}

func TestCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) {
		w.wrap = func(h http.Handler) http.Handler { return basic("x-access-token", "tok", h) }
	})
	w.repository(t, "r", "write a x", "commit")
	o := w.options(t, gitwire.Options{Credentials: credentials(web.Login{User: "x-access-token", Password: "tok"}.Authorization())})
	tr, err := gittree.Fetch(t.Context(), o, gittree.Spec{Remote: w.remote("r")})
	if err != nil {
		t.Fatal(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
}

func TestCutsAndBusyServers(t *testing.T) {
	t.Parallel()
	var n atomic.Int64
	w := newWorld(t, func(w *world) {
		w.wrap = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				switch n.Add(1) {
				case 1, 3:
					rw.Header().Set("Retry-After", "0")
					rw.WriteHeader(503)
					return
				case 5, 8: // the pack, twice
					rw = webtest.Cut(rw, 300)
				}
				next.ServeHTTP(rw, r)
			})
		}
	})
	w.repository(t, "r", "write a "+strings.Repeat("0123456789", 1000), "write b "+strings.Repeat("abc\x01", 1000), "commit")
	tr := w.fetch(t, gittree.Spec{Remote: w.remote("r")})
	if data := content(t, tr, "a"); len(data) != 10000 {
		t.Error(len(data))
	}
	if n.Load() < 8 {
		t.Errorf("%d requests", n.Load())
	}
}

func TestRedirect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *world) {
		w.wrap = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if rest, ok := strings.CutPrefix(r.URL.Path, "/old.git"); ok {
					http.Redirect(rw, r, "/r.git"+rest+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
					return
				}
				next.ServeHTTP(rw, r)
			})
		}
	})
	w.repository(t, "r", "write a x", "commit")
	w.fetch(t, gittree.Spec{Remote: w.remote("old")})
}

func TestMissingPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.repository(t, "r", "write a/b x", "link /etc l", "commit")
	tr := w.fetch(t, gittree.Spec{Remote: w.remote("r"), KeepGitDir: true})
	for _, p := range []string{"", "/", "/a", "a/", "..", "../x", "a/../a", "none", "a/b/c", "l/passwd", "a/none", ".git/none", ".git/HEAD/x"} {
		if _, err := tr.Lstat(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", p, err)
		}
		if _, err := tr.Open(p); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []string{"a", "l", "."} {
		if _, err := tr.Open(p); err == nil {
			t.Errorf("%q was opened", p)
		}
	}
	if _, err := exec.LookPath("git"); err != nil {
		t.Error(err)
	}
}
