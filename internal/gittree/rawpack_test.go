package gittree_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"hako/internal/gittree"
	"hako/internal/gitwire"
)

// rawPack is a pack made by hand, of what git itself would not survive.
type rawPack struct {
	body  bytes.Buffer
	zlib  *zlib.Writer
	count uint32
}

// add adds an object and returns its id.
func (p *rawPack) add(t *testing.T, kind byte, data []byte) []byte {
	t.Helper()
	name := map[byte]string{1: "commit", 2: "tree", 3: "blob"}[kind]
	n := len(data)
	b := kind<<4 | byte(n&15)
	for n >>= 4; n > 0; n >>= 7 {
		p.body.WriteByte(b | 0x80)
		b = byte(n & 0x7f)
	}
	p.body.WriteByte(b)
	if p.zlib == nil {
		p.zlib = zlib.NewWriter(nil)
	}
	p.zlib.Reset(&p.body)
	if _, err := p.zlib.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := p.zlib.Close(); err != nil {
		t.Fatal(err)
	}
	p.count++
	sum := sha1.Sum(append(fmt.Appendf(nil, "%s %d\x00", name, len(data)), data...))
	return sum[:]
}

// bytes is the whole pack.
func (p *rawPack) bytes() []byte {
	out := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), p.count)
	out = append(out, p.body.Bytes()...)
	sum := sha1.Sum(out)
	return append(out, sum[:]...)
}

// serve answers every fetch with the pack.
func (p *rawPack) serve(t *testing.T, commit []byte) *world {
	t.Helper()
	id := hex.EncodeToString(commit)
	var answer strings.Builder
	answer.WriteString(packet("packfile\n"))
	for pack := p.bytes(); len(pack) > 0; {
		n := min(len(pack), 65000)
		answer.WriteString(packet("\x01" + string(pack[:n])))
		pack = pack[n:]
	}
	answer.WriteString("0000")
	return newWorld(t, func(w *world) {
		w.wrap = func(http.Handler) http.Handler {
			return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet {
					rw.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
					_, _ = io.WriteString(rw, packet("version 2\n")+packet("fetch=shallow filter\n")+packet("ls-refs\n")+"0000")
					return
				}
				rw.Header().Set("Content-Type", "application/x-git-upload-pack-result")
				if body, err := io.ReadAll(r.Body); err == nil && bytes.Contains(body, []byte("command=ls-refs")) {
					_, _ = io.WriteString(rw, packet(id+" HEAD\n")+"0000")
					return
				}
				_, _ = io.WriteString(rw, answer.String())
			})
		}
	})
}

// TestVeryDeepTrees: a hundred thousand directories in each other end with an error, wherever they are.
func TestVeryDeepTrees(t *testing.T) {
	t.Parallel()
	p := &rawPack{}
	id := p.add(t, 3, []byte("x"))
	tree := append([]byte("100644 f\x00"), id...)
	for range 100_000 {
		id = p.add(t, 2, tree)
		tree = append([]byte("40000 d\x00"), id...)
	}
	tree = append(tree, append([]byte("160000 m\x00"), make([]byte, 20)...)...)
	top := p.add(t, 2, tree)
	w := p.serve(t, p.add(t, 1, fmt.Appendf(nil, "tree %x\ncommitter A <a@b> 1 +0000\n\nx", top)))
	for sub, want := range map[string]string{"": "more than 2048 deep", "d": "more than 2048 deep"} {
		_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), gittree.Spec{Remote: w.remote("r"), Subdir: sub})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %.300v, want %s", sub, err, want)
		}
	}
}

// TestMissingObjects: what the server leaves out is found before a step reads it.
func TestMissingObjects(t *testing.T) {
	t.Parallel()
	absent := bytes.Repeat([]byte{7}, 20)
	for name, entry := range map[string]string{"file": "100644 f", "link": "120000 f", "directory": "40000 f"} {
		p := &rawPack{}
		top := p.add(t, 2, append([]byte(entry+"\x00"), absent...))
		sub := p.add(t, 2, append([]byte("40000 d\x00"), top...))
		w := p.serve(t, p.add(t, 1, fmt.Appendf(nil, "tree %x\ncommitter A <a@b> 1 +0000\n\nx", sub)))
		for _, dir := range []string{"", "d"} {
			_, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), gittree.Spec{Remote: w.remote("r"), Subdir: dir})
			if err == nil || !strings.Contains(err.Error(), "the server's pack is incomplete") {
				t.Errorf("%s in %q: %v", name, dir, err)
			}
		}
	}
	p := &rawPack{}
	w := p.serve(t, p.add(t, 1, fmt.Appendf(nil, "tree %x\ncommitter A <a@b> 1 +0000\n\nx", absent)))
	if _, err := gittree.Fetch(t.Context(), w.options(t, gitwire.Options{}), gittree.Spec{Remote: w.remote("r")}); err == nil || !strings.Contains(err.Error(), "incomplete") {
		t.Error(err)
	}
}
