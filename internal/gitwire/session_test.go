package gitwire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"hako/internal/gitpack"
)

// script is a server that says the same whatever it is asked.
type script struct {
	greeting string
	answers  []string
	asked    []string
	open     int // answers that were not closed
}

func (s *script) advertisement(context.Context) (io.ReadCloser, error) { return s.say(s.greeting), nil }

func (s *script) request(_ context.Context, body []byte) (io.ReadCloser, error) {
	s.asked = append(s.asked, string(body))
	if len(s.answers) == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	answer := s.answers[0]
	s.answers = s.answers[1:]
	return s.say(answer), nil
}

func (s *script) say(text string) io.ReadCloser {
	s.open++
	return struct {
		io.Reader
		io.Closer
	}{strings.NewReader(text), closer(func() error { s.open--; return nil })}
}

func (s *script) close() error { return nil }

// begin opens a session with it.
func (s *script) begin(t *testing.T) (*Session, error) {
	t.Helper()
	out := &Session{client: New(Options{UserAgent: "hako test"}), remote: "r", link: s, caps: map[string]string{}}
	return out, out.greet(t.Context())
}

func pkt(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }

func sha(c string) string { return strings.Repeat(c, 40) }

func id(t testing.TB, text string) gitpack.ID {
	t.Helper()
	out, err := gitpack.ParseID(gitpack.SHA1, text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

const httpStart = "001e# service=git-upload-pack\n0000"

func TestGreetings(t *testing.T) {
	t.Parallel()
	a, b, c := sha("a"), sha("b"), sha("c")
	refs := pkt(a+" HEAD\x00side-band-64k symref=HEAD:refs/heads/main object-format=sha1 filter\n") + pkt(a+" refs/heads/main\n") +
		pkt(b+" refs/tags/v1\n") + pkt(c+" refs/tags/v1^{}\n") + pkt("shallow "+a+"\n") + "0000"
	want := []Ref{
		{Name: "HEAD", ID: id(t, a), Target: "refs/heads/main"}, {Name: "refs/heads/main", ID: id(t, a)},
		{Name: "refs/tags/v1", ID: id(t, b), Peeled: id(t, c)},
	}
	for name, tc := range map[string]struct {
		greeting string
		want     []Ref
		v2       bool
		err      string
	}{
		"version 0":          {greeting: httpStart + refs, want: want},
		"version 0, stream":  {greeting: refs, want: want},
		"version 1":          {greeting: pkt("version 1\n") + refs, want: want},
		"version 1, nothing": {greeting: pkt("version 1\n") + "0000"},
		"nothing":            {greeting: httpStart + "0000"},
		"no references":      {greeting: pkt(sha("0")+" capabilities^{}\x00ofs-delta\n") + "0000"},
		"version 2":          {greeting: httpStart + pkt("version 2\n") + pkt("agent=git/2\n") + pkt("fetch=shallow filter\n") + "0000", v2: true},
		"stray peeled":       {greeting: pkt(a+" refs/x^{}\x00\n") + "0000"},
		"no end":             {greeting: strings.TrimSuffix(refs, "0000"), err: "EOF"},
		"bad id":             {greeting: pkt("abc HEAD\x00\n") + "0000", err: `a reference "abc HEAD"`},
		"other hash":         {greeting: pkt(a+" HEAD\x00object-format=md5\n") + "0000", err: "unknown object format"},
		"sha256 of sha1":     {greeting: pkt(a+" HEAD\x00object-format=sha256\n") + "0000", err: "a reference"},
		"html":               {greeting: "<!DOCTYPE html>", err: "does not speak git's protocol"},
		"empty":              {greeting: "", err: "the answer ends at once"},
		"service only":       {greeting: "001e# service=git-upload-pack\n", err: "the answer ends at once"},
		"service twice":      {greeting: "001e# service=git-upload-pack\n" + refs, err: "does not speak git's protocol"},
		"error":              {greeting: pkt("ERR access denied or repository not exported: /x"), err: "access denied"},
	} {
		s, err := (&script{greeting: tc.greeting}).begin(t)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, want %s", name, err, tc.err)
			}
			continue
		}
		if err != nil || s.v2 != tc.v2 {
			t.Errorf("%s: %v, version 2: %v", name, err, s.v2)
			continue
		}
		if diff := cmp.Diff(tc.want, s.refs, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b gitpack.ID) bool { return a == b })); diff != "" {
			t.Errorf("%s: -want +got\n%s", name, diff)
		}
	}
}

func TestManyCapabilities(t *testing.T) {
	t.Parallel()
	_, err := (&script{greeting: pkt("version 2\n") + strings.Repeat(pkt("x=y\n"), 2000) + "0000"}).begin(t)
	if !errors.Is(err, errPacket) {
		t.Error(err)
	}
}

func TestManyReferences(t *testing.T) {
	t.Parallel()
	line := pkt(sha("a") + " refs/" + strings.Repeat("x", 60000) + "\n")
	_, err := (&script{greeting: pkt(sha("a")+" HEAD\x00\n") + strings.Repeat(line, maxRefBytes/60000+1) + "0000"}).begin(t)
	if err == nil || !strings.Contains(err.Error(), "too many references") {
		t.Error(err)
	}
}

const v2Greeting = "000eversion 2\n" + "000bagent=x" + "0012ls-refs=unborn" + "0019fetch=shallow filter\n" + "0000"

func TestRefs(t *testing.T) {
	t.Parallel()
	a, b := sha("a"), sha("b")
	x := &script{greeting: v2Greeting, answers: []string{
		pkt("unborn HEAD symref-target:refs/heads/main\n") + pkt(a+" refs/heads/x symref-target:refs/heads/y later:z\n") + pkt(b+" refs/tags/v peeled:"+a+"\n") + "0000",
	}}
	s, err := x.begin(t)
	if err != nil {
		t.Fatal(err)
	}
	refs, err := s.Refs(t.Context(), "refs/heads/x", "", "a\nb", strings.Repeat("y", maxData))
	if err != nil {
		t.Fatal(err)
	}
	want := []Ref{{Name: "refs/heads/x", ID: id(t, a), Target: "refs/heads/y"}, {Name: "refs/tags/v", ID: id(t, b), Peeled: id(t, a)}}
	if diff := cmp.Diff(want, refs, cmp.Comparer(func(a, b gitpack.ID) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if want := pkt("command=ls-refs\n") + pkt("agent=git/hako-test\n") + "0001" + pkt("peel\n") + pkt("symrefs\n") + pkt("ref-prefix refs/heads/x\n") + "0000"; x.asked[0] != want {
		t.Errorf("asked %q, want %q", x.asked[0], want)
	}
	if x.open != 0 {
		t.Errorf("%d answers are open", x.open)
	}
}

func TestFetchV2(t *testing.T) {
	t.Parallel()
	a := sha("a")
	pack := "0001" + pkt("packfile\n") + pkt("\x01PACK") + pkt("\x02counting\n") + pkt("\x01rest") + "0000"
	for name, tc := range map[string]struct {
		answer  string
		want    string
		shallow int
		err     string
		refused bool
	}{
		"pack":            {answer: pkt("packfile\n") + pkt("\x01PACKrest") + "0000", want: "PACKrest"},
		"shallow":         {answer: pkt("shallow-info\n") + pkt("shallow "+a+"\n") + pkt("unshallow "+a+"\n") + pack, want: "PACKrest", shallow: 1},
		"unknown section": {answer: pkt("wanted-refs\n") + pkt("whatever\n") + pack, want: "PACKrest"},
		"refused":         {answer: pkt("ERR upload-pack: not our ref " + a), refused: true, err: "not our ref"},
		"other error":     {answer: pkt("ERR no memory"), err: "no memory"},
		"no pack":         {answer: pkt("acknowledgments\n") + pkt("NAK\n") + "0000", err: errPacket.Error()},
		"bad shallow":     {answer: pkt("shallow-info\n") + pkt("shallow x\n") + pack, err: errPacket.Error()},
		"many sections":   {answer: strings.Repeat(pkt("x\n")+"0001", 200), err: "does not end"},
		"empty":           {answer: "", err: "the answer ends at once"},
	} {
		x := &script{greeting: v2Greeting, answers: []string{tc.answer}}
		s, err := x.begin(t)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Fetch(t.Context(), Request{Wants: []gitpack.ID{id(t, a)}, Depth: 1, Filter: "blob:none"})
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || errors.Is(err, ErrRefused) != tc.refused || x.open != 0 {
				t.Errorf("%s: %v, want %s; %d open", name, err, tc.err, x.open)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, err := readAll(got)
		if text != tc.want || !errors.Is(err, io.EOF) || len(got.Shallow) != tc.shallow {
			t.Errorf("%s: %q %v, %d shallow", name, text, err, len(got.Shallow))
		}
		if want := "0001" + pkt("ofs-delta\n") + pkt("no-progress\n") + pkt("deepen 1\n") + pkt("filter blob:none\n") + pkt("want "+a+"\n") + pkt("done\n") + "0000"; !strings.HasSuffix(x.asked[0], want) {
			t.Errorf("%s: asked %q", name, x.asked[0])
		}
	}
}

func TestFetchV0(t *testing.T) {
	t.Parallel()
	a, b := sha("a"), sha("b")
	greeting := func(caps string) string { return pkt(a+" HEAD\x00"+caps+"\n") + pkt(a+" refs/heads/main\n") + "0000" }
	for name, tc := range map[string]struct {
		caps, want, answer string
		got, asked         string
		err                string
		refused            bool
	}{
		"sideband": {
			caps: "ofs-delta side-band-64k agent=git/2 filter", want: a, answer: pkt("shallow "+a+"\n") + "0000" + pkt("NAK\n") + pkt("\x01PACK") + "0000", got: "PACK",
			asked: pkt("want "+a+" ofs-delta side-band-64k filter agent=git/hako-test\n") + pkt("deepen 1\n") + pkt("filter x\n") + "0000" + pkt("done\n"),
		},
		"plain":            {caps: "", want: a, answer: "0000" + pkt("NAK\n") + "PACKrest", got: "PACKrest"},
		"acknowledged":     {caps: "", want: a, answer: "0000" + pkt("ACK "+a+"\n") + "PACK", got: "PACK"},
		"hangs up":         {caps: "", want: b, answer: "", err: ErrRefused.Error(), refused: true},
		"hangs up on ours": {caps: "", want: a, answer: "", err: "the answer ends at once"},
		"not ours":         {caps: "", want: b, answer: pkt("ERR upload-pack: not our ref " + b), err: "not our ref", refused: true},
		"not NAK":          {caps: "", want: a, answer: "0000" + pkt("HI\n"), err: `"HI" instead of NAK`},
	} {
		x := &script{greeting: greeting(tc.caps), answers: []string{tc.answer}}
		s, err := x.begin(t)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Fetch(t.Context(), Request{Wants: []gitpack.ID{id(t, tc.want)}, Depth: 1, Filter: "x"})
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || errors.Is(err, ErrRefused) != tc.refused || x.open != 0 {
				t.Errorf("%s: %v, want %s; %d open", name, err, tc.err, x.open)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text, err := readAll(got); text != tc.got || !errors.Is(err, io.EOF) {
			t.Errorf("%s: %q %v", name, text, err)
		}
		if tc.asked != "" && x.asked[0] != tc.asked {
			t.Errorf("%s: asked %q, want %q", name, x.asked[0], tc.asked)
		}
	}
}

func TestCanFilter(t *testing.T) {
	t.Parallel()
	for greeting, want := range map[string]bool{
		v2Greeting: true,
		"000eversion 2\n" + "0011fetch=shallow" + "0000":           false,
		"000eversion 2\n" + "0000":                                 false,
		pkt(sha("a")+" HEAD\x00ofs-delta filter\n") + "0000":       true,
		pkt(sha("a")+" HEAD\x00ofs-delta allow-filter\n") + "0000": false,
	} {
		s, err := (&script{greeting: greeting}).begin(t)
		if err != nil || s.CanFilter() != want {
			t.Errorf("%q: %v %v", greeting, s.CanFilter(), err)
		}
	}
}

// FuzzSession lets a server say anything, and asks for everything.
func FuzzSession(f *testing.F) {
	a := sha("a")
	v0 := pkt(a+" HEAD\x00side-band-64k symref=HEAD:refs/heads/main\n") + pkt(a+" refs/heads/main\n") + pkt(a+" refs/heads/main^{}\n") + "0000"
	f.Add(httpStart+v0, "0000", pkt("shallow "+a+"\n")+"0000"+pkt("NAK\n")+pkt("\x01PACK")+"0000")
	f.Add(pkt("version 1\n")+v0, "", "0000"+pkt("NAK\n"))
	f.Add(v2Greeting, pkt(a+" HEAD symref-target:refs/heads/main peeled:"+a+"\n")+"0000", pkt("shallow-info\n")+pkt("shallow "+a+"\n")+"0001"+pkt("packfile\n")+pkt("\x01PACK")+pkt("\x02x")+"0000")
	f.Add(v2Greeting, pkt("unborn HEAD\n")+"0000", pkt("ERR not our ref"))
	f.Fuzz(func(t *testing.T, greeting, refs, answer string) {
		x := &script{greeting: greeting, answers: []string{refs, answer}}
		s, err := x.begin(t)
		if err != nil {
			return
		}
		list, err := s.Refs(t.Context(), "refs/heads/")
		if err == nil && len(list) > len(greeting)/40+len(refs)/40 {
			t.Errorf("%d references", len(list))
		}
		if !s.v2 {
			x.answers = []string{answer}
		}
		got, err := s.Fetch(t.Context(), Request{Wants: []gitpack.ID{id(t, a)}, Depth: 1})
		if err != nil {
			if x.open != 0 {
				t.Errorf("%d answers are open", x.open)
			}
			return
		}
		if text, _ := readAll(got); len(text) > len(answer) {
			t.Errorf("%d bytes of %d", len(text), len(answer))
		}
		if err := got.Close(); err != nil || x.open != 0 {
			t.Errorf("%d answers are open: %v", x.open, err)
		}
	})
}
