package contextsource

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/gittree"
)

// warnings collects them.
type warnings []string

func (w *warnings) Emit(e event.Event) {
	if e, ok := e.(event.Warning); ok {
		*w = append(*w, e.Message)
	}
}

// gitOpener opens a place without reaching anything.
func gitOpener(place, method string, g Git) (*opener, *warnings) {
	w := &warnings{}
	o := &opener{req: Request{Place: place, Title: "build context", Flag: "--context", Git: g}}
	o.Cwd, o.Events = "/nonexistent", w
	o.Getenv = func(name string) string {
		if name == pullMethod {
			return method
		}
		return ""
	}
	return o, w
}

func ptr[T any](v T) *T { return &v }

func TestGitSpecs(t *testing.T) {
	t.Parallel()
	commit := strings.Repeat("ab", 20)
	kaniko := func(remote, ref string) gittree.Spec {
		return gittree.Spec{Remote: remote, Ref: ref, SkipSubmodules: true, LFS: true, KeepGitDir: true}
	}
	docker := func(remote, ref, dir string) gittree.Spec {
		return gittree.Spec{Remote: remote, Ref: ref, Subdir: dir, LFS: true}
	}
	with := func(s gittree.Spec, change func(*gittree.Spec)) gittree.Spec {
		change(&s)
		return s
	}
	for _, tc := range []struct {
		place, method string
		git           Git
		want          gittree.Spec
		warning       string
	}{
		{place: "git://h/r.git", want: kaniko("https://h/r.git", "")},
		{place: "git://h/r", want: kaniko("https://h/r", "")},
		{place: "git://h:8443/r.git", want: kaniko("https://h:8443/r.git", "")},
		{place: "git://tok@h/r.git#main", want: kaniko("https://tok@h/r.git", "main")},
		{place: "git://u:p@h/r.git#refs/heads/x", want: kaniko("https://u:p@h/r.git", "refs/heads/x")},
		{place: "git://h/r.git#refs/heads/x#" + commit, want: kaniko("https://h/r.git", commit)},
		{place: "git://h/r.git##" + commit, want: kaniko("https://h/r.git", commit)},
		{place: "git://h/r.git#" + commit, want: kaniko("https://h/r.git", commit)},
		{place: "git://h/r.git#x:dir", want: with(kaniko("https://h/r.git", "x"), func(s *gittree.Spec) { s.Subdir, s.KeepGitDir = "dir", false })},
		{place: "git://h/r.git?keep-git-dir=false", want: with(kaniko("https://h/r.git", ""), func(s *gittree.Spec) { s.KeepGitDir = false })},
		{place: "git://h/r.git?keep-git-dir=true", git: Git{KeepDir: ptr(false)}, want: with(kaniko("https://h/r.git", ""), func(s *gittree.Spec) { s.KeepGitDir = false })},
		{place: "git://h/r.git?submodules=true", want: with(kaniko("https://h/r.git", ""), func(s *gittree.Spec) { s.SkipSubmodules = false })},
		{place: "git://h/r.git", method: "http", want: kaniko("http://h/r.git", "")},
		{place: "git://h/r.git", method: "HTTPS", want: kaniko("https://h/r.git", "")},
		{place: "git://h/r.git", method: "git", want: kaniko("git://h/r.git", "")},
		{place: "git://h/o/r.git", method: "ssh", want: kaniko("ssh://git@h/o/r.git", "")},
		{place: "git://me@h/o/r.git", method: "ssh", want: kaniko("ssh://me@h/o/r.git", "")},
		{place: "git://h/r.git", method: "ftp", want: kaniko("https://h/r.git", ""), warning: "GIT_PULL_METHOD=ftp has no meaning"},
		{place: "git://h/r.git", git: Git{Branch: "b"}, want: kaniko("https://h/r.git", "b")},
		{place: "git://h/r.git#b", git: Git{Branch: "b"}, want: kaniko("https://h/r.git", "b")},
		{place: "git://h/r.git#refs/heads/b", git: Git{Branch: "b"}, want: kaniko("https://h/r.git", "b")},
		{place: "git://h/r.git#a", git: Git{Branch: "b"}, want: kaniko("https://h/r.git", "b"), warning: "two references; b is taken"},
		{place: "git://h/r.git#" + commit, git: Git{Branch: "b"}, want: kaniko("https://h/r.git", commit), warning: commit + " is taken"},
		{place: "git://h/r.git#a#" + commit[:8], git: Git{Branch: "b"}, want: kaniko("https://h/r.git", commit[:8]), warning: commit[:8] + " is taken"},
		{place: "git://h/r.git", git: Git{Submodules: ptr(true)}, want: with(kaniko("https://h/r.git", ""), func(s *gittree.Spec) { s.SkipSubmodules = false })},
		{place: "https://h/r.git", want: docker("https://h/r.git", "", "")},
		{place: "https://h/r.git#x:a/../b", want: docker("https://h/r.git", "x", "b")},
		{place: "https://h/r.git#:d", want: docker("https://h/r.git", "", "d")},
		{place: "https://h/r.git?ref=x&subdir=d&submodules=false&mtime=commit&keep-git-dir=true", want: with(docker("https://h/r.git", "x", "d"), func(s *gittree.Spec) {
			s.SkipSubmodules, s.CommitTimes, s.KeepGitDir = true, true, true
		})},
		{place: "https://h/r.git?subdir=../../d/", want: docker("https://h/r.git", "", "d")},
		{place: "https://h/r.git?tag=v1", want: docker("https://h/r.git", "refs/tags/v1", "")},
		{place: "https://h/r.git?branch=b&commit=" + commit, want: with(docker("https://h/r.git", "refs/heads/b", ""), func(s *gittree.Spec) { s.Checksum = commit })},
		{place: "https://h/r.git", git: Git{Submodules: ptr(false), KeepDir: ptr(true), KeepPointers: true, CommitTimes: true}, want: gittree.Spec{
			Remote: "https://h/r.git", SkipSubmodules: true, KeepGitDir: true, CommitTimes: true,
		}},
		{place: "http://h/r.git", method: "ssh", want: docker("http://h/r.git", "", "")},
		{place: "git@h:o/r.git#x:d", want: docker("git@h:o/r.git", "x", "d")},
		{place: "ssh://git@h/o/r.git#x", want: docker("ssh://git@h/o/r.git", "x", "")},
		{place: "github.com/o/r", want: docker("https://github.com/o/r.git", "", "")},
		{place: "github.com/o/r#x:d", want: docker("https://github.com/o/r.git", "x", "d")},
		{place: "github.com/o/r.git#x", want: docker("https://github.com/o/r.git", "x", "")},
	} {
		o, w := gitOpener(tc.place, tc.method, tc.git)
		got, err := o.gitSpec()
		if err != nil || !o.isGit() {
			t.Errorf("%s: %v, is git: %v", tc.place, err, o.isGit())
			continue
		}
		if diff := cmp.Diff(tc.want, *got); diff != "" {
			t.Errorf("%s: -want +got\n%s", tc.place, diff)
		}
		if said := strings.Join(*w, "\n"); (tc.warning == "") != (said == "") || !strings.Contains(said, tc.warning) {
			t.Errorf("%s: warning %q, want %q", tc.place, said, tc.warning)
		}
	}
}

func TestBadGitSpecs(t *testing.T) {
	t.Parallel()
	for place, want := range map[string]string{
		"git://h/r.git#a#b#c":                             "third #",
		"git://u:secret@h/r.git#a#b#c":                    "third #",
		"https://h/r.git#-x":                              `"-x" cannot be a reference`,
		"https://h/r.git#a..b~1":                          "cannot be a reference",
		"https://h/r.git?ref=a&ref=b":                     "multiple values",
		"https://u:secret@h/r.git?x=y":                    `unexpected query "x"`,
		"https://h/r.git?commit=main":                     "is no commit",
		"https://h/r.git?commit=abc&fetch-by-commit=true": "whole commit",
		"https://u:secret@h/%zz.git":                      "git repository",
		"git://h/r.git?submodules=maybe":                  "invalid submodules value",
	} {
		o, _ := gitOpener(place, "", Git{})
		_, err := o.gitSpec()
		if err == nil || !strings.Contains(diag.Format(err), want) || strings.Contains(diag.Format(err), "secret") {
			t.Errorf("%s: %v, want %s", place, err, want)
		}
	}
}

func TestWhatIsNoGit(t *testing.T) {
	t.Parallel()
	cwd := t.TempDir()
	for _, dir := range []string{"git@host:dir", "github.com/o/r"} {
		if err := os.MkdirAll(filepath.Join(cwd, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for place, want := range map[string]bool{
		"git@host:dir": false, "github.com/o/r": false, "git@other:dir": true, "deploy@host:o/r": true, "/git@host:x": false, "dir/a@b:c": false, ".": false,
		"https://h/x.tar.gz": false, "https://h/r.git": true, "https://h/r.git/x.tar": false, "https://h/x?y=.git": false, "https://h/r.git?ref=x#y": true,
		"dir://r.git": false, "tar://r.git": false, "s3://b/r.git": false, "git://": true, "@host:x": false, "a@:b": false, "a@b:": false,
	} {
		o, _ := gitOpener(place, "", Git{})
		o.Cwd = cwd
		if got := o.isGit(); got != want {
			t.Errorf("%s: %v", place, got)
		}
	}
}

func FuzzGitSpec(f *testing.F) {
	for _, s := range []string{"git://h/r.git#a#b", "https://u:p@h/r.git?ref=x#y:z", "git@h:o/r#x", "github.com/o/r#x:y", "ssh://h/~u/r"} {
		f.Add(s, "")
	}
	f.Add("git://h/r", "ssh")
	f.Fuzz(func(t *testing.T, place, method string) {
		o, _ := gitOpener(place, method, Git{})
		if !o.isGit() {
			return
		}
		s, err := o.gitSpec()
		if err != nil {
			return
		}
		if strings.HasPrefix(s.Ref, "-") || strings.ContainsAny(s.Ref, " \n\x00") || strings.HasPrefix(s.Subdir, "../") {
			t.Errorf("%q: %+v", place, s)
		}
		if uri := gitURI(s); strings.Contains(uri, "\n") {
			t.Errorf("%q: %q", place, uri)
		}
	})
}
