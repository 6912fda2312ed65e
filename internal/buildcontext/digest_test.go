package buildcontext

import (
	"testing"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
	"hako/internal/tree/treetest"
)

// knowing is a tree that knows the digest of every file.
type knowing struct{ tree.Tree }

func (knowing) ContentDigest(p string) (digest.Digest, bool) { return digest.FromString(p), true }

// TestKnownDigests: what is known of a file need not be read, but nothing is known of one that is left out.
func TestKnownDigests(t *testing.T) {
	t.Parallel()
	m, err := newMatcher(t.Context(), []string{"out"})
	if err != nil {
		t.Fatal(err)
	}
	under := treetest.New(t, "in = x\nout = y\n")
	f := newFiltered(knowing{under}, m, ".dockerignore")
	if d, ok := f.ContentDigest("in"); !ok || d != digest.FromString("in") {
		t.Error(d, ok)
	}
	if d, ok := f.ContentDigest("out"); ok {
		t.Error(d)
	}
	p := &part{whole: knowing{under}, at: "dir"}
	if d, ok := p.ContentDigest("in"); !ok || d != digest.FromString("dir/in") {
		t.Error(d, ok)
	}
	if d, ok := p.ContentDigest("../in"); ok {
		t.Error(d)
	}
	if d, ok := newFiltered(under, m, ".dockerignore").ContentDigest("in"); ok {
		t.Error(d)
	}
}
