package gittree_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"hako/internal/diag"
	"hako/internal/gittree"
	"hako/internal/gitwire"
)

// object writes an object that git itself would refuse to make.
func (w *world) object(t *testing.T, name, kind string, data []byte) string {
	t.Helper()
	return w.gitIn(t, name, bytes.NewReader(data), "hash-object", "-t", kind, "-w", "--stdin", "--literally")
}

// rawTree writes a tree object of entries "MODE NAME" with ids.
func (w *world) rawTree(t *testing.T, name string, entries ...[2]string) string {
	t.Helper()
	var b bytes.Buffer
	for _, e := range entries {
		var id []byte
		if _, err := fmt.Sscanf(e[1], "%x", &id); err != nil {
			t.Fatal(err)
		}
		b.WriteString(e[0] + "\x00")
		b.Write(id)
	}
	return w.object(t, name, "tree", b.Bytes())
}

// commitTree makes a commit of a tree the head of a bare repository.
func (w *world) commitTree(t *testing.T, name, tree string) {
	t.Helper()
	id := w.object(t, name, "commit", []byte("tree "+tree+"\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n"))
	w.git(t, name, "update-ref", "refs/heads/main", id)
	w.git(t, name, "symbolic-ref", "HEAD", "refs/heads/main")
}

func TestHostileTrees(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	for name, tc := range map[string]struct {
		make func(name, blob string) string
		want string
	}{
		"dotdot":   {func(n, b string) string { return w.rawTree(t, n, [2]string{"100644 ..", b}) }, `the name ".." is not allowed`},
		"dot":      {func(n, b string) string { return w.rawTree(t, n, [2]string{"100644 .", b}) }, `the name "." is not allowed`},
		"slash":    {func(n, b string) string { return w.rawTree(t, n, [2]string{"100644 ../../etc/x", b}) }, "is not allowed"},
		"absolute": {func(n, b string) string { return w.rawTree(t, n, [2]string{"100644 /etc/x", b}) }, "is not allowed"},
		"git":      {func(n, b string) string { return w.rawTree(t, n, [2]string{"100644 .GiT", b}) }, `the name ".GiT" is not allowed`},
		"long":     {func(n, b string) string { return w.rawTree(t, n, [2]string{"100644 " + strings.Repeat("x", 256), b}) }, "longer than Linux allows"},
		"twice":    {func(n, b string) string { return w.rawTree(t, n, [2]string{"100644 a", b}, [2]string{"120000 a", b}) }, `it has "a" twice`},
		"device":   {func(n, b string) string { return w.rawTree(t, n, [2]string{"20644 a", b}) }, "an entry has the mode 20644"},
		"below": {func(n, b string) string {
			return w.rawTree(t, n, [2]string{"40000 a", w.rawTree(t, n, [2]string{"100644 ..", b})})
		}, `: a: the name ".." is not allowed`},
		"link": {func(n, b string) string {
			return w.rawTree(t, n, [2]string{"120000 a", w.object(t, n, "blob", bytes.Repeat([]byte("x"), 5000))})
		}, "target of the symbolic link is too long"},
		"deep":     {func(n, b string) string { return w.deep(t, n, b, 3000) }, "directories are more than 2048 deep"},
		"git bomb": {func(n, b string) string { return w.wide(t, n, b, 12) }, "it holds more than 1000000 files"},
		"big bomb": {func(n, b string) string { return w.wide(t, n, w.object(t, n, "blob", make([]byte, 1<<20)), 4) }, "or 1073741824 bytes"},
		"attributes": {func(n, b string) string {
			return w.rawTree(t, n, [2]string{"100644 .gitattributes", w.object(t, n, "blob", []byte("* working-tree-encoding=NONE\n"))}, [2]string{"100644 a", b})
		}, ""},
	} {
		n := strings.ReplaceAll(name, " ", "-") + ".git"
		w.git(t, "", "init", "-q", "--bare", n)
		blob := w.object(t, n, "blob", []byte("x"))
		w.commitTree(t, n, tc.make(n, blob))
		o := w.options(t, gitwire.Options{})
		o.Limits = gittree.Limits{Entries: 1_000_000, Bytes: 1 << 30}
		tr, err := gittree.Fetch(t.Context(), o, gittree.Spec{Remote: w.url + "/" + n})
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if _, err := tr.Lstat("a"); err == nil || !strings.Contains(err.Error(), "is not supported") {
				t.Errorf("%s: %v", name, err)
			}
			tr.Close()
			continue
		}
		if !errors.As(err, new(*diag.Error)) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	left, err := filepath.Glob(w.spool + "/*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// deep is a tree of nothing but directories in each other.
func (w *world) deep(t *testing.T, name, blob string, n int) string {
	t.Helper()
	// One process for all of it: an archive for git fast-import, whose paths may be that deep.
	script := fmt.Sprintf("commit refs/heads/deep\ncommitter A <a@b> 1 +0000\ndata 1\nx\nM 100644 %s %sx\n\n", blob, strings.Repeat("d/", n))
	w.gitIn(t, name, strings.NewReader(script), "fast-import", "--quiet")
	return w.git(t, name, "rev-parse", "refs/heads/deep^{tree}")
}

// wide is a tree of n levels with ten times the same directory in each.
func (w *world) wide(t *testing.T, name, blob string, n int) string {
	t.Helper()
	mode, id := "100644", blob
	for range n {
		var entries [][2]string
		for i := range 10 {
			entries = append(entries, [2]string{fmt.Sprintf("%s %d", mode, i), id})
		}
		mode, id = "40000", w.rawTree(t, name, entries...)
	}
	return id
}

// TestServersThatLie answer with something else than what was asked for.
func TestServersThatLie(t *testing.T) {
	t.Parallel()
	const id = "1111111111111111111111111111111111111111"
	v0 := "001e# service=git-upload-pack\n0000" + packet(id+" HEAD\x00side-band-64k ofs-delta symref=HEAD:refs/heads/main\n") + packet(id+" refs/heads/main\n") + "0000"
	v2 := "001e# service=git-upload-pack\n0000" + packet("version 2\n") + packet("fetch=shallow\n") + packet("ls-refs\n") + "0000"
	refs := packet(id+" HEAD symref-target:refs/heads/main\n") + "0000"
	for name, tc := range map[string]struct {
		first  string
		others []string
		want   string
	}{
		"nothing":          {"", nil, "the answer ends at once"},
		"no packets":       {"hello world", nil, "does not speak git's protocol"},
		"short packet":     {"0003", nil, "does not speak git's protocol"},
		"cut packet":       {"00ff", nil, "the answer ends at once"},
		"bad reference":    {"001e# service=git-upload-pack\n0000" + packet("zzz refs/heads/main\x00\n") + "0000", nil, "a reference"},
		"error":            {packet("ERR go away\x1b[31m\n"), nil, "the server says: go away [31m"},
		"format":           {"001e# service=git-upload-pack\n0000" + packet(id+" HEAD\x00object-format=md5\n") + "0000", nil, "unknown object format"},
		"no pack":          {v0, []string{packet("shallow "+id+"\n") + "0000" + packet("NAK\n") + "0000"}, "header: unexpected EOF"},
		"bad shallow":      {v0, []string{packet("shallow xyz\n")}, "does not speak git's protocol"},
		"no NAK":           {v0, []string{"0000" + packet("HELLO\n")}, `"HELLO" instead of NAK`},
		"band 3":           {v0, []string{"0000" + packet("NAK\n") + packet("\x03no memory\n")}, "the server says: no memory"},
		"band 9":           {v0, []string{"0000" + packet("NAK\n") + packet("\x09x")}, "unknown band 9"},
		"empty band":       {v0, []string{"0000" + packet("NAK\n") + packet("")}, "does not speak git's protocol"},
		"empty pack":       {v0, []string{"0000" + packet("NAK\n") + packet("\x01"+emptyPack()) + "0000"}, "the server's pack is incomplete"},
		"v2 ends":          {v2, []string{refs, "0000"}, "does not speak git's protocol"},
		"v2 bad refs":      {v2, []string{packet("nonsense\n")}, `a reference "nonsense"`},
		"v2 bad peeled":    {v2, []string{packet(id + " HEAD peeled:x\n")}, "a reference"},
		"v2 refused":       {v2, []string{refs, packet("ERR upload-pack: not our ref " + id + "\n"), refs, packet("ERR no\n")}, "the server says: no"},
		"v2 without end":   {v2, []string{refs, packet("shallow-info\n")}, "the answer ends at once"},
		"v2 no references": {v2, []string{"0000", "0000"}, "it has no default branch"},
	} {
		n := 0
		answers := append([]string{tc.first}, tc.others...)
		w := newWorld(t, func(w *world) {
			w.wrap = func(http.Handler) http.Handler {
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					rw.Header().Set("Content-Type", "application/x-git-upload-pack-result")
					if r.Method == http.MethodGet {
						rw.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
						if n > 0 && tc.first == v2 { // another session
							_, _ = rw.Write([]byte(v2))
							return
						}
						n = 0
					}
					if n < len(answers) {
						_, _ = rw.Write([]byte(answers[n]))
						n++
					}
				})
			}
		})
		_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), gittree.Spec{Remote: w.remote("x")})
		if !errors.As(err, new(*diag.Error)) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			t.Error(err)
		}
	}
}

func packet(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

func emptyPack() string {
	return "PACK\x00\x00\x00\x02\x00\x00\x00\x00\x02\x9d\x08\x82\x3b\xd8\xa8\xea\xb5\x10\xad\x6a\xc7\x5c\x82\x3c\xfd\x3e\xd3\x1e"
}
