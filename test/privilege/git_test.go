package privilege

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"hako/internal/gittree/gittest"
	"hako/test/lab"
)

// testGit builds from a repository that wants a token, with a submodule that wants it too, and wants the tree of the same
// files in a directory each time.
func testGit(t *testing.T, f *fixture) {
	const dockerfile = "FROM %s\nCOPY . /src/\nRUN cat /src/a /src/mod/in > /out\n"
	content := map[string]string{"Dockerfile": fmt.Sprintf(dockerfile, must[string](t)(f.busybox())), ".dockerignore": ".git*\n**/.git\n", "a": "a\n", "bin/run.sh": "#!/bin/sh\n"}
	dir := f.newDir(t)
	gittest.Configure(t, dir)
	git := func(at string, args ...string) { gittest.Git(t, dir, at, args...) }
	sub := f.writeContext(t, map[string]string{"in": "in the module\n"})
	work := f.writeContext(t, content)
	for _, at := range []string{sub, work} {
		git("", "-C", at, "init", "-q")
		if at == work {
			git("", "-C", at, "submodule", "--quiet", "add", sub, "mod")
			git("", "-C", at, "config", "-f", ".gitmodules", "submodule.mod.url", "../mod.git")
		}
		git("", "-C", at, "add", "-A")
		git("", "-C", at, "commit", "-qm", "one")
	}
	git("", "clone", "-q", "--mirror", sub, "mod.git")
	git("", "clone", "-q", "--mirror", work, "r.git")
	if err := os.RemoveAll(work + "/.git"); err != nil {
		t.Fatal(err)
	}
	backend := gittest.Handler(dir)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, _, _ := r.BasicAuth(); user != "a-secret-token" {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	local := f.registry.Addr + "/git:local"
	f.mustBuild(t, volumeLevel(), job{context: work, destination: local})
	want := must[lab.Tree](t)(f.registry.ImageTree(t.Context(), local))
	empty := f.newDir(t)
	for _, l := range append(restrictedLevels(), defaultLevel()) {
		t.Run(l.name, func(t *testing.T) {
			ref := f.registry.Addr + "/git:" + l.name
			out := f.mustBuild(t, l, job{
				context: empty, destination: ref, docker: []string{"-e", "GIT_TOKEN=a-secret-token", "-e", "GIT_PULL_METHOD=http"},
				args: []string{"--context", "git://" + strings.TrimPrefix(s.URL, "http://") + "/r.git#main", "--git", "recurse-submodules=true", "--git", "keep-git-dir=false"},
			})
			if strings.Contains(out.Output, "a-secret-token") {
				t.Error("the token is in the log")
			}
			for _, d := range lab.Compare(want, must[lab.Tree](t)(f.registry.ImageTree(t.Context(), ref)), nil) {
				t.Error(d)
			}
		})
	}
}
