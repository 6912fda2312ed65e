package trail_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"hako/internal/trail"
	"hako/internal/tree"
)

// steps are steps with these texts; "text=after" also says what the stage held afterwards.
func steps(texts ...string) []trail.Step {
	var out []trail.Step
	for i, text := range texts {
		out = append(out, trail.Step{ID: fmt.Sprint("s/", i+1), Text: text, After: text})
	}
	return out
}

func files(paths ...string) *trail.Files {
	f := &trail.Files{}
	for _, p := range paths {
		e := tree.Entry{Path: p, Kind: tree.Regular, Mode: 0o644}
		f.Add(&e, "content of "+p)
	}
	return f
}

func TestExplain(t *testing.T) {
	t.Parallel()
	before := func() *trail.Trail {
		s := steps("COPY a", "RUN b", "RUN c")
		s[1].Parts = []trail.Part{{Name: "ARG V", Digest: "1"}, {Name: "the command", Digest: "2"}}
		s[1].Reads = []trail.Read{{Name: "the context", Digest: "d", Files: files("one", "two")}}
		return &trail.Trail{Stages: []trail.Stage{{Name: "s", Base: "base", Digest: "sha256:1", Steps: s}}}
	}
	for name, c := range map[string]struct {
		change func(s *trail.Stage)
		want   trail.Reason
	}{
		"nothing":       {func(*trail.Stage) {}, trail.Reason{Kind: "gone"}},
		"another stage": {func(s *trail.Stage) { s.Name = "t" }, trail.Reason{Kind: "new"}},
		"base":          {func(s *trail.Stage) { s.Digest = "sha256:2" }, trail.Reason{Kind: "base", Subject: "base"}},
		"text":          {func(s *trail.Stage) { s.Steps[1].Text = "RUN x" }, trail.Reason{Kind: "instruction", Subject: "RUN b"}},
		"text above": {func(s *trail.Stage) { s.Steps[0].Text, s.Steps[0].After = "COPY x", "x" },
			trail.Reason{Kind: "instruction", Subject: "COPY a", Step: "s/1"}},
		"removed above": {func(s *trail.Stage) { s.Steps = s.Steps[1:] }, trail.Reason{Kind: "removed", Subject: "COPY a", Step: "s/2"}},
		"new":           {func(s *trail.Stage) { s.Steps = append(steps("COPY a", "RUN new"), s.Steps[1:]...)[:2] }, trail.Reason{Kind: "instruction", Subject: "RUN b"}},
		"new above":     {func(s *trail.Stage) { s.Steps = append(steps("RUN new"), s.Steps...) }, trail.Reason{Kind: "new", Step: "s/1"}},
		"variable":      {func(s *trail.Stage) { s.Steps[1].Parts[0].Digest = "x" }, trail.Reason{Kind: "part", Subject: "ARG V"}},
		"fewer variables": {func(s *trail.Stage) { s.Steps[1].Parts = s.Steps[1].Parts[1:] },
			trail.Reason{Kind: "part", Subject: "ARG V"}},
		"made something else": {func(s *trail.Stage) { s.Steps[0].After = "x" }, trail.Reason{Kind: "above", Step: "s/1"}},
		"another cause, the same result": {func(s *trail.Stage) { s.Steps[0].Parts = []trail.Part{{Name: "n", Digest: "n"}} },
			trail.Reason{Kind: "gone"}},
		"file": {func(s *trail.Stage) {
			s.Steps[1].Reads[0].Digest, s.Steps[1].Reads[0].Files = "e", files("one", "three", "two")
		}, trail.Reason{Kind: "file", Subject: "/three", Change: "added"}},
		"file gone": {func(s *trail.Stage) { s.Steps[1].Reads[0].Digest, s.Steps[1].Reads[0].Files = "e", files("two") },
			trail.Reason{Kind: "file", Subject: "/one", Change: "removed"}},
		"source without files": {func(s *trail.Stage) { s.Steps[1].Reads[0].Digest, s.Steps[1].Reads[0].Files = "e", nil },
			trail.Reason{Kind: "source", Subject: "the context"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			now := before().Stages[0]
			c.change(&now)
			if len(now.Steps) > 2 && name != "new above" {
				now.Steps = now.Steps[:2]
			}
			encoded, err := before().Encode()
			if err != nil {
				t.Fatal(err)
			}
			old, err := trail.Decode(encoded)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, trail.Explain(old, &now)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	if r := trail.Explain(nil, &before().Stages[0]); r.Kind != "new" {
		t.Error(r)
	}
}

func TestHowAFileChanged(t *testing.T) {
	t.Parallel()
	base := tree.Entry{Path: "f", Kind: tree.Regular, Mode: 0o644}
	link := tree.Entry{Path: "f", Kind: tree.Symlink, Linkname: "a"}
	for _, c := range []struct {
		was, is tree.Entry
		content string
		want    string
	}{
		{base, base, "x", "content"},
		{base, tree.Entry{Path: "f", Kind: tree.Regular, Mode: 0o755}, "c", "mode, owner or attributes"},
		{base, tree.Entry{Path: "f", Kind: tree.Regular, Mode: 0o644, Xattrs: map[string]string{"user.a": "b"}}, "c", "mode, owner or attributes"},
		{base, tree.Entry{Path: "f", Kind: tree.Dir, Mode: 0o755}, "", "type"},
		{link, tree.Entry{Path: "f", Kind: tree.Symlink, Linkname: "b"}, "", "link"},
	} {
		of := func(e tree.Entry, content, digest string) trail.Stage {
			f := &trail.Files{}
			f.Add(&e, content)
			return trail.Stage{Steps: []trail.Step{{Text: "COPY", Reads: []trail.Read{{Digest: digest, Files: f}}}}}
		}
		now := of(c.is, c.content, "2")
		want := trail.Reason{Kind: "file", Subject: "/f", Change: c.want}
		if got := trail.Explain(&trail.Trail{Stages: []trail.Stage{of(c.was, "c", "1")}}, &now); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
}

// A list of too many files is cut, and what is beyond that is not said to be added or removed.
func TestManyFiles(t *testing.T) {
	t.Parallel()
	list := func(from int) *trail.Files {
		f := &trail.Files{}
		for i := range 400_000 {
			f.Add(&tree.Entry{Path: fmt.Sprintf("a/long/enough/path/%08d", from+i), Kind: tree.Regular}, "c")
		}
		return f
	}
	old := &trail.Trail{Stages: []trail.Stage{{Steps: []trail.Step{{Text: "COPY", Reads: []trail.Read{{Name: "it", Digest: "1", Files: list(0)}}}}}}}
	encoded, err := old.Encode()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, data := range encoded {
		total += len(data)
	}
	if total > 9<<20 || len(encoded) != 2 {
		t.Errorf("%d bytes in %d files", total, len(encoded))
	}
	if old, err = trail.Decode(encoded); err != nil {
		t.Fatal(err)
	}
	now := trail.Stage{Steps: []trail.Step{{Text: "COPY", Reads: []trail.Read{{Name: "it", Digest: "2", Files: list(1)}}}}}
	if got, want := trail.Explain(old, &now), (trail.Reason{Kind: "source", Subject: "it"}); got != want {
		t.Errorf("%+v", got)
	}
}

// A trail that would fill the memory is neither read nor written.
func TestLongTrails(t *testing.T) {
	t.Parallel()
	long := &trail.Trail{Stages: []trail.Stage{{Name: strings.Repeat("n", 4<<20)}}}
	if _, err := long.Encode(); err == nil {
		t.Error("it was written")
	}
	text := `{"version":1,"stages":[{}` + strings.Repeat(",{}", 2<<20) + "]}"
	if _, err := trail.Decode(map[string][]byte{"trail": []byte(text)}); err == nil {
		t.Error("it was read")
	}
}

func FuzzDecode(f *testing.F) {
	t := &trail.Trail{Stages: []trail.Stage{{Name: "s", Steps: []trail.Step{{Text: "COPY", Reads: []trail.Read{{Digest: "1", Files: files("a", "b")}}}}}}}
	good, err := t.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good["trail"], good["files/0/0/0"])
	f.Add([]byte("{"), []byte("\x01\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Fuzz(func(_ *testing.T, summary, list []byte) {
		got, err := trail.Decode(map[string][]byte{"trail": summary, "files/0/0/0": list})
		if err != nil {
			return
		}
		for i := range got.Stages {
			trail.Explain(got, &t.Stages[0])
			trail.Explain(t, &got.Stages[i])
		}
	})
}
