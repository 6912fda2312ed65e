package build_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"hako/internal/build"
	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/gittree/gittest"
)

// pin pins the context of req, in the world of w.
func (w *gitWorld) pin(t *testing.T, req build.Request) (string, bool, error) {
	t.Helper()
	req.WorkDir = t.TempDir()
	return build.PinContext(t.Context(), build.Env{
		Now: time.Now, Getenv: func(k string) string { return map[string]string{"HOME": w.home}[k] }, Cwd: t.TempDir(), Stdout: io.Discard, Events: w.logged,
		Sources: w.web.Client().Transport,
	}, req)
}

// TestPinnedContext is about a branch that moves after its context was pinned: what is built is what the branch was, or nothing
// if the branch is a part of the context.
func TestPinnedContext(t *testing.T) {
	t.Parallel()
	w := newGitWorld(t)
	host := w.web.Listener.Addr().String()
	want := w.local(t, nil)
	keep := contextsource.Git{KeepDir: ptr(true)}
	type pinned struct {
		place string
		git   contextsource.Git
	}
	var places []pinned
	for place, test := range map[string]struct {
		git  contextsource.Git
		want string
	}{
		"git://HOST/r.git":                         {contextsource.Git{KeepDir: ptr(false)}, "git://HOST/r.git?checksum=COMMIT&fetch-by-commit=true"},
		"git://HOST/r#main":                        {contextsource.Git{KeepDir: ptr(false)}, "git://HOST/r?checksum=COMMIT&fetch-by-commit=true#main"},
		"https://HOST/r.git?submodules=false#main": {contextsource.Git{}, "https://HOST/r.git?submodules=false&checksum=COMMIT&fetch-by-commit=true#main"},
		"https://u:p@HOST/private/r.git":           {contextsource.Git{Branch: "main"}, "https://u:p@HOST/private/r.git?checksum=COMMIT&fetch-by-commit=true"},
		"https://HOST/r.git#main":                  {keep, "https://HOST/r.git?checksum=COMMIT#main"},
		"https://HOST/r.git#COMMIT":                {contextsource.Git{}, "https://HOST/r.git#COMMIT"},
		"https://HOST/r.git?checksum=SHORT":        {keep, "https://HOST/r.git?checksum=SHORT"},
	} {
		fill := strings.NewReplacer("HOST", host, "COMMIT", w.commit, "SHORT", w.commit[:7]).Replace
		got, ok, err := w.pin(t, build.Request{Context: fill(place), Git: test.git})
		if err != nil || !ok || got != fill(test.want) {
			t.Errorf("%s: %s, %v, %v; want %s", place, got, ok, err, fill(test.want))
			continue
		}
		places = append(places, pinned{got, test.git})
	}
	gittest.Git(t, w.dir, "r.git", "update-ref", "refs/heads/main", "refs/heads/with-module")
	for _, p := range places {
		d, err := w.build(t, build.Request{Context: p.place, Git: p.git})
		switch kept := p.git.KeepDir != nil && *p.git.KeepDir; {
		case kept && (err == nil || !strings.Contains(err.Error(), ", not "+w.commit[:7])):
			t.Errorf("%s: %s, %v", p.place, d, err)
		case !kept && (err != nil || d != want):
			t.Errorf("%s: %s, want %s: %v", p.place, d, want, err)
		}
	}
}

func TestPinnedContextThatCannotBe(t *testing.T) {
	t.Parallel()
	w := newGitWorld(t)
	host := w.web.Listener.Addr().String()
	for place, want := range map[string]string{
		"https://" + host + "/r.git#none":    `it has no branch or tag "none"`,
		"https://" + host + "/none.git":      "git repository https://" + host + "/none.git",
		"https://" + host + "/context.tgz":   "",
		"s3://bucket/context.tgz":            "",
		"oci://127.0.0.1:1/context:1":        "127.0.0.1:1",
		"https://" + host + "/private/r.git": "GIT_TOKEN",
	} {
		got, ok, err := w.pin(t, build.Request{Context: place})
		text := ""
		if err != nil {
			text = diag.Format(err)
		}
		if ok || (want == "") != (err == nil) || !strings.Contains(text, want) || err == nil && got != place {
			t.Errorf("%s: %s, %v, %q; want %q", place, got, ok, text, want)
		}
	}
}
