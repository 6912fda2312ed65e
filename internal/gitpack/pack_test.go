package gitpack_test

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"hako/internal/gitpack"
)

func options(t testing.TB) gitpack.Options {
	dir := t.TempDir()
	return gitpack.Options{Workers: 2, File: func(name string) (*os.File, error) {
		f, err := os.CreateTemp(dir, name)
		if err == nil {
			err = os.Remove(f.Name())
		}
		return f, err
	}}
}

// maker makes packs by hand.
type maker struct {
	body  bytes.Buffer
	count uint32
}

// object adds an object of a pack's type, with what stands between its header and its data; it returns its offset.
func (m *maker) object(kind byte, between, data []byte) int64 {
	return m.sized(kind, between, data, len(data))
}

// sized is object with any size in the header.
func (m *maker) sized(kind byte, between, data []byte, size int) int64 {
	at := int64(12 + m.body.Len())
	b := kind<<4 | byte(size&15)
	for size >>= 4; size > 0; size >>= 7 {
		m.body.WriteByte(b | 0x80)
		b = byte(size & 0x7f)
	}
	m.body.WriteByte(b)
	m.body.Write(between)
	z := zlib.NewWriter(&m.body)
	_, _ = z.Write(data)
	_ = z.Close()
	m.count++
	return at
}

func (m *maker) blob(data string) int64 { return m.object(3, nil, []byte(data)) }

// ofs adds a delta on the object that lies at base.
func (m *maker) ofs(base int64, delta []byte) int64 {
	back := int64(12+m.body.Len()) - base
	b := []byte{byte(back & 0x7f)}
	for back >>= 7; back > 0; back >>= 7 {
		back--
		b = append([]byte{0x80 | byte(back&0x7f)}, b...)
	}
	return m.object(6, b, delta)
}

// ref adds a delta on the object with the id.
func (m *maker) ref(id gitpack.ID, delta []byte) int64 { return m.object(7, id.Bytes(), delta) }

func (m *maker) pack() []byte {
	out := append([]byte("PACK\x00\x00\x00\x02"), binary.BigEndian.AppendUint32(nil, m.count)...)
	out = append(out, m.body.Bytes()...)
	sum := sha1.Sum(out)
	return append(out, sum[:]...)
}

func number(n int) []byte {
	var out []byte
	for ; n >= 0x80; n >>= 7 {
		out = append(out, byte(n)|0x80)
	}
	return append(out, byte(n))
}

// delta is a delta of instructions.
func delta(from, to int, ops ...[]byte) []byte {
	return append(append(number(from), number(to)...), bytes.Join(ops, nil)...)
}

func insert(s string) []byte { return append([]byte{byte(len(s))}, s...) }

func copyOp(at, n int) []byte {
	return []byte{0xff, byte(at), byte(at >> 8), byte(at >> 16), byte(at >> 24), byte(n), byte(n >> 8), byte(n >> 16)}
}

func blobID(s string) gitpack.ID {
	sum := sha1.Sum([]byte(fmt.Sprintf("blob %d\x00%s", len(s), s)))
	return gitpack.NewID(sum[:])
}

func read(t *testing.T, p *gitpack.Pack, id gitpack.ID) string {
	t.Helper()
	r, err := p.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDeltas(t *testing.T) {
	t.Parallel()
	m := &maker{}
	one := "0123456789"
	two := "01234xyz"
	three := "xyz01234"
	// A delta by id comes before what it stands on.
	m.ref(blobID(two), delta(len(two), len(three), copyOp(5, 3), copyOp(0, 5)))
	at := m.blob(one)
	at = m.ofs(at, delta(len(one), len(two), copyOp(0, 5), insert("xyz")))
	m.ofs(at, delta(len(two), 0))
	p, err := gitpack.Read(t.Context(), bytes.NewReader(m.pack()), options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, want := range []string{one, two, three, ""} {
		if got := read(t, p, blobID(want)); got != want {
			t.Errorf("%q: %q", want, got)
		}
		if k, n, err := p.Stat(blobID(want)); k != gitpack.Blob || n != int64(len(want)) || err != nil {
			t.Errorf("%q: %s of %d bytes, %v", want, k, n, err)
		}
	}
	if _, err := p.Open(t.Context(), blobID("none")); !errors.Is(err, gitpack.ErrMissing) {
		t.Error(err)
	}
	if _, err := p.Bytes(t.Context(), blobID(one), gitpack.Tree, 100); err == nil || !strings.Contains(err.Error(), "is a blob, not a tree") {
		t.Error(err)
	}
	if _, err := p.Bytes(t.Context(), blobID(one), gitpack.Blob, 9); err == nil || !strings.Contains(err.Error(), "it has 10 bytes, more than 9") {
		t.Error(err)
	}
}

// TestLargeObjects goes through files instead of memory.
func TestLargeObjects(t *testing.T) {
	t.Parallel()
	m := &maker{}
	big := strings.Repeat("0123456789abcdef", 5<<20/16)
	two := big[1<<20:] + "end" + big[:1<<20]
	at := m.blob(big)
	at = m.ofs(at, delta(len(big), len(two), copyOp(1<<20, len(big)-1<<20), insert("end"), copyOp(0, 1<<20)))
	m.ofs(at, delta(len(two), 3, copyOp(len(big)-1<<20, 3)))
	p, err := gitpack.Read(t.Context(), bytes.NewReader(m.pack()), options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for _, want := range []string{big, two, "end"} {
		if read(t, p, blobID(want)) != want {
			t.Errorf("%d bytes differ", len(want))
		}
	}
}

func TestLongChainsAndWideBranches(t *testing.T) {
	t.Parallel()
	m := &maker{}
	text := strings.Repeat("x", 1000)
	at := m.blob(text)
	want := []string{text}
	for i := range 3000 {
		last := want[len(want)-1]
		tail := fmt.Sprintf("%04d", i)
		next := last[:900] + tail
		m.ofs(at, delta(len(last), 5, insert(tail+"!"))) // a side branch
		at = m.ofs(at, delta(len(last), len(next), copyOp(0, 900), insert(tail)))
		want = append(want, next)
	}
	p, err := gitpack.Read(t.Context(), bytes.NewReader(m.pack()), options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if got := read(t, p, blobID(want[len(want)-1])); got != want[len(want)-1] {
		t.Errorf("%q", got[900:])
	}
	if read(t, p, blobID("2999!")) != "2999!" {
		t.Error("a branch is wrong")
	}
}

func TestDamagedPacks(t *testing.T) {
	t.Parallel()
	good := func() *maker {
		m := &maker{}
		m.blob("hello")
		return m
	}
	limits := gitpack.Limits{Objects: 10, ObjectBytes: 1 << 20, TotalBytes: 1 << 21, PackBytes: 1 << 20, Chain: 3}
	for name, tc := range map[string]struct {
		pack func() []byte
		want string
	}{
		"empty":          {func() []byte { return nil }, "header: unexpected EOF"},
		"no pack":        {func() []byte { return []byte("PUCK\x00\x00\x00\x02\x00\x00\x00\x01") }, "does not begin like one"},
		"version":        {func() []byte { return []byte("PACK\x00\x00\x00\x09\x00\x00\x00\x01") }, "unknown version 9"},
		"many":           {func() []byte { return []byte("PACK\x00\x00\x00\x02\xff\xff\xff\xff") }, "4294967295 objects, more than 10"},
		"fewer objects":  {func() []byte { m := good(); m.count = 3; return m.pack() }, "object 2 of 3"},
		"cut":            {func() []byte { return good().pack()[:16] }, "unexpected EOF"},
		"no checksum":    {func() []byte { b := good().pack(); return b[:len(b)-1] }, "checksum: unexpected EOF"},
		"wrong checksum": {func() []byte { b := good().pack(); b[len(b)-1] ^= 1; return b }, "checksum is wrong"},
		"more":           {func() []byte { return append(good().pack(), 'x') }, "after its end"},
		"damaged data":   {func() []byte { b := good().pack(); b[15] ^= 0xff; return b }, "object 1 of 1"},
		"type 0":         {func() []byte { m := good(); m.object(0, nil, nil); return m.pack() }, "unknown type 0"},
		"type 5":         {func() []byte { m := good(); m.object(5, nil, nil); return m.pack() }, "unknown type 5"},
		"too long":       {func() []byte { m := good(); m.sized(3, nil, []byte("hello"), 4); return m.pack() }, "longer than its header says"},
		"too short":      {func() []byte { m := good(); m.sized(3, nil, []byte("hello"), 6); return m.pack() }, "shorter than its header says"},
		"huge size":      {func() []byte { m := good(); m.sized(3, nil, nil, 1<<40); return m.pack() }, "1099511627776 bytes in one object"},
		"zlib bomb": {func() []byte {
			m := good()
			m.object(3, nil, make([]byte, 1<<20))
			m.object(3, nil, make([]byte, 1<<20))
			return m.pack()
		}, "unpacks to more than is allowed"},
		"delta bomb": {func() []byte {
			m := &maker{}
			at := m.object(3, nil, make([]byte, 1<<20))
			m.ofs(at, delta(1<<20, 1<<20, copyOp(0, 1<<20)))
			m.ofs(at, delta(1<<20, 1<<20, copyOp(0, 1<<20-1), insert("x")))
			return m.pack()
		}, "unpacks to more than is allowed"},
		"delta claims much":   {func() []byte { m := good(); m.ofs(12, delta(5, 1<<40)); return m.pack() }, "1099511627776 bytes in one object"},
		"base outside":        {func() []byte { m := good(); m.ofs(-5, delta(5, 0)); return m.pack() }, "its base is not there"},
		"base in the middle":  {func() []byte { m := good(); m.ofs(13, delta(5, 0)); return m.pack() }, "its base is not there"},
		"base is itself":      {func() []byte { m := good(); m.object(6, []byte{0}, delta(5, 0)); return m.pack() }, "its base is not there"},
		"base missing":        {func() []byte { m := good(); m.ref(blobID("none"), delta(5, 0)); return m.pack() }, "or on objects that are not in it"},
		"wrong base size":     {func() []byte { m := good(); m.ofs(12, delta(6, 0)); return m.pack() }, "it stands on 6 bytes, not on 5"},
		"wrong result size":   {func() []byte { m := good(); m.ofs(12, delta(5, 9, insert("x"))); return m.pack() }, "it gives 1 bytes, not 9"},
		"result too long":     {func() []byte { m := good(); m.ofs(12, delta(5, 1, insert("xy"))); return m.pack() }, "its delta is damaged"},
		"copy outside":        {func() []byte { m := good(); m.ofs(12, delta(5, 9, copyOp(3, 3))); return m.pack() }, "its delta is damaged"},
		"instruction 0":       {func() []byte { m := good(); m.ofs(12, delta(5, 9, []byte{0})); return m.pack() }, "its delta is damaged"},
		"instruction cut":     {func() []byte { m := good(); m.ofs(12, delta(5, 9, []byte{5, 'x'})); return m.pack() }, "unexpected EOF"},
		"copy cut":            {func() []byte { m := good(); m.ofs(12, delta(5, 9, []byte{0xff, 0})); return m.pack() }, "unexpected EOF"},
		"empty delta":         {func() []byte { m := good(); m.ofs(12, nil); return m.pack() }, "unexpected EOF"},
		"endless number":      {func() []byte { m := good(); m.ofs(12, bytes.Repeat([]byte{0xff}, 20)); return m.pack() }, "its delta is damaged"},
		"chain":               {func() []byte { return chain(6) }, "more than 3 deltas stand on each other"},
		"longer than allowed": {func() []byte { return append(good().pack(), make([]byte, 2<<20)...) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.Limits = limits
			p, err := gitpack.Read(t.Context(), bytes.NewReader(tc.pack()), o)
			if err == nil {
				p.Close()
				t.Fatal("it was taken")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func chain(n int) []byte {
	m := &maker{}
	at := m.blob("0")
	for range n {
		at = m.ofs(at, delta(1, 1, copyOp(0, 1)))
	}
	return m.pack()
}

func git(t *testing.T, dir string, stdin io.Reader, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, stdin
	cmd.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=A", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=C", "GIT_COMMITTER_EMAIL=c@d"}
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v: %s", args, err, errs.String())
	}
	return out
}

// TestPacksOfGit compares every object of packs that git made with what git says, and our index with git's.
func TestPacksOfGit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	for _, format := range []gitpack.Format{gitpack.SHA1, gitpack.SHA256} {
		for _, flag := range []string{"--delta-base-offset", "--no-reuse-delta"} {
			t.Run(format.String()+flag, func(t *testing.T) {
				t.Parallel()
				packOfGit(t, format, flag)
			})
		}
	}
}

func packOfGit(t *testing.T, format gitpack.Format, flag string) {
	dir := t.TempDir()
	git(t, dir, nil, "init", "-q", "--object-format="+format.String(), ".")
	for i := range 12 {
		text := strings.Repeat(fmt.Sprintf("line %d\n", i%7), 50+i) + strings.Repeat("common\n", 300)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i%4)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		git(t, dir, nil, "add", "-A")
		git(t, dir, nil, "commit", "-q", "-m", fmt.Sprint(i))
	}
	git(t, dir, nil, "tag", "-a", "-m", "x", "v1")
	all := git(t, dir, nil, "rev-list", "--objects", "--all")
	name := strings.TrimSpace(string(git(t, dir, bytes.NewReader(all), "pack-objects", "-q", "--window=20", flag, filepath.Join(dir, "p"))))
	raw, err := os.ReadFile(filepath.Join(dir, "p-"+name+".pack"))
	if err != nil {
		t.Fatal(err)
	}
	o := options(t)
	o.Format = format
	p, err := gitpack.Read(t.Context(), bytes.NewReader(raw), o)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	n := 0
	for line := range strings.Lines(string(all)) {
		text, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		id, err := gitpack.ParseID(format, text)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, err := p.Stat(id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Bytes(t.Context(), id, kind, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if want := git(t, dir, nil, "cat-file", kind.String(), text); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d", text, len(got), len(want))
		}
		n++
	}
	if n != p.Len() {
		t.Errorf("%d objects, want %d", p.Len(), n)
	}
	index, err := os.ReadFile(filepath.Join(dir, "p-"+name+".idx"))
	if err != nil {
		t.Fatal(err)
	}
	var ours bytes.Buffer
	if err := p.WriteIndex(&ours); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(index, ours.Bytes()) {
		t.Errorf("the index has %d bytes and differs from git's of %d", ours.Len(), len(index))
	}
	var again bytes.Buffer
	if _, err := again.ReadFrom(p.Reader()); err != nil || !bytes.Equal(again.Bytes(), raw) {
		t.Error("the pack itself differs", err)
	}
}

func TestWithPrefix(t *testing.T) {
	t.Parallel()
	m := &maker{}
	for i := range 100 {
		m.blob(fmt.Sprint(i))
	}
	p, err := gitpack.Read(t.Context(), bytes.NewReader(m.pack()), options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	id := blobID("42")
	if got := p.WithPrefix(gitpack.Blob, id.String()[:12]); len(got) != 1 || got[0] != id {
		t.Error(got)
	}
	if got := p.WithPrefix(gitpack.Commit, id.String()[:12]); len(got) != 0 {
		t.Error(got)
	}
	if got := p.WithPrefix(gitpack.Blob, ""); len(got) != 2 {
		t.Error(got)
	}
	if got := p.WithPrefix(gitpack.Blob, id.String()+"00"); len(got) != 0 {
		t.Error(got)
	}
}

func FuzzRead(f *testing.F) {
	m := &maker{}
	at := m.blob("0123456789")
	m.ofs(at, delta(10, 8, copyOp(0, 5), insert("xyz")))
	m.ref(blobID("0123456789"), delta(10, 3, insert("abc")))
	f.Add(m.body.Bytes(), uint32(3))
	f.Add([]byte{}, uint32(0))
	f.Fuzz(func(t *testing.T, body []byte, count uint32) {
		m := &maker{count: count}
		m.body.Write(body)
		o := options(t)
		o.Limits = gitpack.Limits{Objects: 1000, ObjectBytes: 1 << 20, TotalBytes: 1 << 22}
		p, err := gitpack.Read(t.Context(), bytes.NewReader(m.pack()), o)
		if err != nil {
			return
		}
		if err := p.WriteIndex(io.Discard); err != nil {
			t.Error(err)
		}
		for _, id := range p.WithPrefix(gitpack.Blob, "") {
			_, n, err := p.Stat(id)
			if err != nil {
				t.Fatal(err)
			}
			if got := read(t, p, id); int64(len(got)) != n || blobID(got) != id {
				t.Errorf("%s: %d bytes that are not it", id, len(got))
			}
		}
		p.Close()
	})
}
