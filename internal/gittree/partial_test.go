package gittree_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"hako/internal/diag"
	"hako/internal/gittree"
	"hako/internal/gitwire"
)

// countingWriter counts the bytes of answers.
type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c countingWriter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// TestPartial: of a directory, only its own files are fetched, and the tree is the same.
func TestPartial(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		deny  bool // the server does not say that it can filter
		lie   bool // it says so, but refuses
		small bool // few bytes are sent
	}{"filter": {small: true}, "no filter": {deny: true}, "refused": {lie: true}} {
		var sent atomic.Int64
		w := newWorld(t, func(w *world) {
			w.wrap = func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					body, err := io.ReadAll(r.Body)
					if err != nil {
						t.Error(err)
					}
					if tc.lie && bytes.Contains(body, []byte("want ")) && !bytes.Contains(body, []byte("deepen")) {
						rw.Header().Set("Content-Type", "application/x-git-upload-pack-result")
						_, _ = io.WriteString(rw, packet("ERR upload-pack: not our ref"))
						return
					}
					r.Body = io.NopCloser(bytes.NewReader(body))
					next.ServeHTTP(countingWriter{rw, &sent}, r)
				})
			}
		})
		w.repository(t, "m", "write in-module x", "commit")
		w.repository(t, "r", "write .gitattributes *.txt text eol=crlf", "write big "+random(200_000), "write a/.gitattributes *.id ident", "write a/big "+random(200_000),
			"write a/b/t.txt one\ntwo\n", "write a/b/x.id $Id$", "write a/b/c/d deep", "link ../big a/b/l", "write a/e/f other", "commit", "sub m a/b/mod", "commit", "sub m other-mod", "commit")
		if !tc.deny { // git offers it only then
			w.git(t, "r.git", "config", "uploadpack.allowFilter", "true")
		}
		whole := w.fetch(t, gittree.Spec{Remote: w.remote("r")})
		_ = list(t, whole)
		sent.Store(0)
		tr := w.fetch(t, gittree.Spec{Remote: w.remote("r"), Subdir: "a/b"})
		got := list(t, tr)
		for _, want := range []string{"t.txt 0644 \"one\\r\\ntwo\\r\\n\"", "x.id 0644 \"$Id: ", "c/d 0644 \"deep\"", "l -> ../big", "mod/in-module 0644 \"x\""} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s is missing in\n%s", name, want, got)
			}
		}
		if n := sent.Load(); tc.small != (n < 100_000) {
			t.Errorf("%s: %d bytes were sent", name, n)
		}
		w.fetch(t, gittree.Spec{Remote: w.remote("r"), Subdir: "a/b/mod"})
		for dir, want := range map[string]string{"none": "directory none", "a/b/l": "directory a/b/l", "a/b/c/d": "directory a/b/c/d"} {
			_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), gittree.Spec{Remote: w.remote("r"), Subdir: dir})
			if err == nil || !strings.Contains(diag.Format(err), want) {
				t.Errorf("%s: %s: %v", name, dir, err)
			}
		}
	}
}

// random is text that does not compress well.
func random(n int) string {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = 'a' + byte(x>>24)%26
	}
	return string(b)
}

// TestPartialHostileTrees: what is wrong below the directory is found, and what is elsewhere is not even looked at.
func TestPartialHostileTrees(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.git(t, "", "init", "-q", "--bare", "h.git")
	w.git(t, "h.git", "config", "uploadpack.allowFilter", "true")
	blob := w.object(t, "h.git", "blob", []byte("x"))
	dir := func(entries ...[2]string) string { return w.rawTree(t, "h.git", entries...) }
	good := dir([2]string{"100644 f", blob})
	bad := dir([2]string{"100644 ..", blob})
	absent := "1111111111111111111111111111111111111111"
	w.commitTree(t, "h.git", dir(
		[2]string{"40000 bad", dir([2]string{"40000 below", bad})}, [2]string{"40000 deep", w.deep(t, "h.git", blob, 3000)}, [2]string{"40000 good", good},
		[2]string{"40000 link", dir([2]string{"120000 l", w.object(t, "h.git", "blob", bytes.Repeat([]byte("x"), 5000))})},
		[2]string{"160000 sub", absent}, [2]string{"40000 wide", w.wide(t, "h.git", blob, 12)},
	))
	o := w.options(t, gitwire.Options{})
	o.Limits = gittree.Limits{Entries: 1_000_000}
	for sub, want := range map[string]string{
		"good": "", "bad": `the name ".." is not allowed`, "bad/below": `the name ".." is not allowed`, "deep": "directories are more than 2048 deep", "deep/d/d": "more than 2048 deep",
		"link": "target of the symbolic link is too long", "wide": "more than 1000000 files", "sub": "has no URL in .gitmodules", "good/f": "directory good/f", "../../good": "",
	} {
		tr, err := gittree.Fetch(t.Context(), o, gittree.Spec{Remote: w.url + "/h.git", Subdir: sub})
		switch {
		case want == "" && err == nil:
			if got := list(t, tr); !strings.Contains(got, "f 0644 \"x\"") {
				t.Errorf("%s: %s", sub, got)
			}
			if err := tr.Close(); err != nil {
				t.Error(err)
			}
		case err == nil || !strings.Contains(err.Error(), want) || want == "":
			t.Errorf("%s: %v, want %q", sub, err, want)
		}
	}
}
