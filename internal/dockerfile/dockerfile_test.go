package dockerfile_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"hako/internal/diag"
	"hako/internal/dockerfile"
)

func lines(n ...int) []parser.Range {
	var out []parser.Range
	for _, i := range n {
		out = append(out, parser.Range{Start: parser.Position{Line: i}, End: parser.Position{Line: i}})
	}
	return out
}

func TestSpansHoldTheirSource(t *testing.T) {
	t.Parallel()
	f, err := dockerfile.Parse("build/Dockerfile", []byte("\uFEFF# syntax=x/y:1\r\nFROM a AS b\r\nRUN <<EOF \\\r\n  && c\r\nhello\r\nEOF\r\nUSER u"))
	if err != nil {
		t.Fatal(err)
	}
	stages, args, err := f.Instructions(linter.New(&linter.Config{}))
	if err != nil || len(args) != 0 || len(stages) != 1 {
		t.Fatalf("stages %v, args %v, error %v", stages, args, err)
	}
	got := []diag.Span{f.Span(stages[0].Location)}
	for _, c := range stages[0].Commands {
		got = append(got, f.Span(c.Location()))
	}
	want := []diag.Span{
		{
			File: "build/Dockerfile", Start: 2, End: 2, Source: []string{"FROM a AS b"},
			Before: []string{"# syntax=x/y:1"}, After: []string{"RUN <<EOF \\", "  && c"},
		},
		{
			File: "build/Dockerfile", Start: 3, End: 6, Source: []string{"RUN <<EOF \\", "  && c", "hello", "EOF"},
			Before: []string{"# syntax=x/y:1", "FROM a AS b"}, After: []string{"USER u"},
		},
		{File: "build/Dockerfile", Start: 7, End: 7, Source: []string{"USER u"}, Before: []string{"hello", "EOF"}},
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if value, line := dockerfile.Syntax([]byte("# escape=\\\n# syntax=x/y:1\nFROM a")); value != "x/y:1" || line != 2 {
		t.Errorf("syntax is %q in line %d", value, line)
	}
	if diff := cmp.Diff(diag.Span{File: "build/Dockerfile"}, f.Span(lines(8))); diff != "" {
		t.Errorf("a place outside of the file: -want +got:\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "the Dockerfile is empty"},
		{"blank", " \n\t\r\n", "the Dockerfile is empty"},
		{"comment", "# x\n", "the Dockerfile has no instructions"},
		{"utf-16", "\xff\xfeF\x00R\x00", "the Dockerfile is encoded in UTF-16"},
		{"binary", "\x1f\x8b\x00", "the Dockerfile contains a NUL byte"},
		{"large", "FROM a\n" + strings.Repeat("RUN x\n", 800_000), "the Dockerfile is larger than 4 MiB"},
		{"long line", "FROM a\nRUN " + strings.Repeat("x", 70_000), "D:2: dockerfile line greater than max allowed size of 65535"},
		{"many instructions", "FROM a\n" + strings.Repeat("RUN x\n", 10_000), "D:10001: the Dockerfile has 10001 instructions, more than 10000"},
		{"nested braces", "FROM a\nENV a=" + strings.Repeat("${a:-", 101), "D:2: more than 100 nested \"${\""},
		{"nested braces over lines", "FROM a\nRUN \\\n" + strings.Repeat("$\\\n{a:-\\\n", 200), "D:203: more than 100 nested \"${\""},
		{"nested onbuild", "FROM a\n" + strings.Repeat("ONBUILD ", 1000) + "RUN x", "D:2: nested ONBUILD"},
		{"nested onbuild over lines", "FROM a\n" + strings.Repeat("ONBU\\\n# c\nILD   \\\n\n", 1000) + "RUN x", "D:32: nested ONBUILD"},
		{"comments", strings.Repeat("# x\n", 10_001) + "ARG a", "D:10001: more than 10000 comment lines in a row"},
		{"escape", "# escape=x\nFROM a", "D:1: invalid escape token 'x' does not match ` or \\"},
		{"second directive", "# escape=`\n# escape=`\nFROM a", "D:2: only one escape parser directive can be used"},
		{"check", "# check=foo=1\nFROM a", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := dockerfile.Parse("D", []byte(tt.text))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.As(err, new(*diag.Error)) || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestInstructionsAreFreshEveryTime(t *testing.T) {
	t.Parallel()
	f, err := dockerfile.Parse("D", []byte("FROM a\nEXPOSE 2 1\nENV a=b\n"))
	if err != nil {
		t.Fatal(err)
	}
	print := func() string {
		stages, _, err := f.Instructions(linter.New(&linter.Config{}))
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%+v", stages[0].Commands[1])
	}
	if a, b := print(), print(); a != b {
		t.Errorf("%s, then %s", a, b)
	}
	one, _, _ := f.Instructions(linter.New(&linter.Config{}))
	two, _, _ := f.Instructions(linter.New(&linter.Config{}))
	if one[0].Commands[0] == two[0].Commands[0] {
		t.Error("two calls share an instruction")
	}
}

func TestLinter(t *testing.T) {
	t.Parallel()
	text := "# check=skip=MaintainerDeprecated\nfrom a AS B\nMAINTAINER x\nRUN a \\\n\n b\n"
	f, err := dockerfile.Parse("D", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	config, at, err := f.LintConfig(nil)
	if err != nil || f.Span(at).Start != 1 {
		t.Fatalf("line %d, %v", f.Span(at).Start, err)
	}
	config.Warn = func(rule, _, _, _ string, at []parser.Range) {
		got = append(got, fmt.Sprintf("%s %s", f.Span(at), rule))
	}
	lint := linter.New(config)
	if _, _, err := f.Instructions(lint); err != nil {
		t.Fatal(err)
	}
	want := []string{"D:6 NoEmptyContinuation", "D:2 StageNameCasing", "D:2 FromAsCasing"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	bad, none := "error=maybe", ""
	if config, _, err := f.LintConfig(&none); err != nil || len(config.SkipRules) != 0 {
		t.Errorf("an empty option does not replace that of the file: %v, %v", config, err)
	}
	if _, _, err := f.LintConfig(&bad); err == nil || !strings.Contains(err.Error(), "check option") {
		t.Errorf("a bad option gave %v", err)
	}
}

func TestTrigger(t *testing.T) {
	t.Parallel()
	f, err := dockerfile.Parse("D", []byte("FROM a\nFROM b"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ text, want string }{
		{"RUN x", ""},
		{"COPY <<EOF /a\nx\nEOF", ""},
		{"# check=skip=all\nRUN x", ""},
		{"FROM x", `D:2: ONBUILD trigger "FROM x" of the base image: FROM cannot be a trigger`},
		{"RUN a\nRUN b", `D:2: ONBUILD trigger "RUN a\nRUN b" of the base image: it is 2 instructions instead of one`},
		{"", `D:2: ONBUILD trigger "" of the base image: the Dockerfile is empty`},
		{"FOO", `D:2: ONBUILD trigger "FOO" of the base image: unknown instruction: FOO`},
	} {
		cmd, err := f.Trigger(tt.text, lines(2))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%q: %v", tt.text, err)
		case tt.want == "" && f.Span(cmd.Location()).Start != 2:
			t.Errorf("%q is at %v", tt.text, cmd.Location())
		case tt.want != "" && (err == nil || err.Error() != tt.want):
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
	}
}
