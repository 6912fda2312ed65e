// Package dockerfile turns the text of a Dockerfile into typed instructions with positions.
//
// The grammar is BuildKit's own parser, so that what is accepted, and how it is split, is the same by construction.
// This package bounds what hostile text can cost, words the errors, and knows which source lines belong to what.
// Instructions keep BuildKit's types; only package plan reads them.
package dockerfile

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"hako/internal/diag"
)

// File is a parsed Dockerfile. It is immutable and may be used from many goroutines.
type File struct {
	// Name is the file as the user gave it, for positions.
	Name    string
	escape  rune
	check   string // value of "# check=" up to the first blank, which is all that counts
	checkAt []parser.Range
	// checkLine is the whole value.
	checkLine string
	lines     []string
	ast       *parser.Node
	warnings  []parser.Warning
}

// Parse reads the text of a Dockerfile. name is used in positions only.
// Every error is a *diag.Error.
func Parse(name string, text []byte) (*File, error) {
	f, err := Scan(name, text)
	if err != nil {
		return nil, err
	}
	if _, _, err := f.Instructions(silent()); err != nil {
		return nil, err
	}
	return f, nil
}

// Scan is Parse without a look at the instructions: one that is wrong is found by Instructions, after what
// the linter has to say about those before it.
func Scan(name string, text []byte) (*File, error) {
	f := &File{Name: name, lines: splitLines(text)}
	if err := f.precheck(text); err != nil {
		return nil, err
	}
	res, err := parser.Parse(bytes.NewReader(text))
	if err != nil {
		return nil, f.wrap(err)
	}
	f.ast, f.escape, f.warnings = res.AST, res.EscapeToken, res.Warnings
	f.check, f.checkLine, f.checkAt, _ = parser.ParseDirective("check", text)
	if n := len(f.ast.Children); n > maxInstructions {
		return nil, &diag.Error{What: fmt.Sprintf("the Dockerfile has %d instructions, more than %d", n, maxInstructions), Span: f.span(f.ast.Children[maxInstructions].Location())}
	}
	return f, nil
}

// Syntax returns the value of "# syntax=" in text and its line; an empty value if there is none.
// It has no effect: the language is built in.
func Syntax(text []byte) (value string, line int) {
	_, value, at, ok := parser.ParseDirective("syntax", text)
	if !ok || len(at) == 0 {
		return value, 0
	}
	return value, at[0].Start.Line
}

// Instructions returns the stages and the ARGs before the first FROM, freshly made on every call:
// the caller owns them and may expand them in place. lint must not be nil.
func (f *File) Instructions(lint *linter.Linter) ([]instructions.Stage, []instructions.ArgCommand, error) {
	for _, w := range f.warnings {
		if w.URL == linter.RuleNoEmptyContinuation.URL && w.Location != nil {
			lint.Run(&linter.RuleNoEmptyContinuation, []parser.Range{*w.Location}, linter.RuleNoEmptyContinuation.Format())
		}
	}
	stages, args, err := instructions.Parse(f.ast, lint)
	if order := f.checkOrder(); order != nil {
		return nil, nil, order
	}
	if err != nil {
		return nil, nil, f.wrap(err)
	}
	return stages, args, nil
}

// checkOrder refuses a file whose first instruction, ARG apart, is not FROM.
func (f *File) checkOrder() error {
	for _, n := range f.ast.Children {
		switch strings.ToLower(n.Value) {
		case "from":
			return nil
		case "arg":
			continue
		}
		if err := unknownInstruction(n.Value); err != "" {
			return nil // instructions.Parse says so, better
		}
		return &diag.Error{
			What: fmt.Sprintf("%s comes before the first FROM", strings.ToUpper(n.Value)),
			Span: f.span(n.Location()),
			Hint: "Begin the Dockerfile with FROM; only ARG may come before it.",
		}
	}
	return &diag.Error{What: "the Dockerfile has no FROM", Span: diag.Span{File: f.Name}, Hint: "Begin the Dockerfile with FROM and the name of a base image, or FROM scratch."}
}

// Trigger parses the text of an ONBUILD trigger as one instruction. Its location is at, that of the FROM that runs it.
func (f *File) Trigger(text string, at []parser.Range) (instructions.Command, error) {
	fail := func(err error) error {
		return &diag.Error{What: fmt.Sprintf("ONBUILD trigger %q of the base image: %s", clip(text), message(err)), Span: f.span(at)}
	}
	t := &File{Name: f.Name, lines: splitLines([]byte(text))}
	if err := t.precheck([]byte(text)); err != nil {
		return nil, fail(err)
	}
	res, err := parser.Parse(strings.NewReader(text))
	if err != nil {
		return nil, fail(err)
	}
	if len(res.AST.Children) != 1 {
		return nil, fail(fmt.Errorf("it is %d instructions instead of one", len(res.AST.Children)))
	}
	node := res.AST.Children[0]
	if len(at) > 0 {
		node.StartLine, node.EndLine = at[0].Start.Line, at[len(at)-1].End.Line
	}
	parsed, err := instructions.ParseInstructionWithLinter(node, silent())
	if err != nil {
		return nil, fail(err)
	}
	cmd, ok := parsed.(instructions.Command)
	if !ok {
		return nil, fail(fmt.Errorf("%s cannot be a trigger", strings.ToUpper(node.Value)))
	}
	return cmd, nil
}

// silent is a linter that says nothing. BuildKit's parser panics without one where a comment says "check=".
func silent() *linter.Linter { return linter.New(&linter.Config{}) }

// Lex returns a new lexer with the file's escape character. It is not safe for concurrent use.
func (f *File) Lex() *shell.Lex { return shell.NewLex(f.escape) }

// Span converts a location of BuildKit's into ours, with its source lines.
func (f *File) Span(at []parser.Range) diag.Span { return f.span(at) }

// LintConfig returns what check says ("skip=…;error=true"), or the file's own "# check=" if check is nil,
// and where that stands.
func (f *File) LintConfig(check *string) (*linter.Config, []parser.Range, error) {
	text, at := f.check, f.checkAt
	if check != nil {
		text, at = *check, nil
	}
	config, err := linter.ParseLintOptions(text)
	if err != nil {
		return nil, nil, &diag.Error{What: "check: " + message(err), Span: f.span(at), Hint: `Write "skip=RuleName,RuleName;error=true".`}
	}
	return config, at, nil
}

// CheckRest is what of the file's "# check=" has no effect: all after its first blank, as in BuildKit.
func (f *File) CheckRest() string { return strings.TrimSpace(strings.TrimPrefix(f.checkLine, f.check)) }

func (f *File) span(at []parser.Range) diag.Span {
	s := diag.Span{File: f.Name}
	for _, r := range at {
		if s.Start == 0 || r.Start.Line < s.Start {
			s.Start = r.Start.Line
		}
		s.End = max(s.End, r.End.Line)
	}
	s.End = min(s.End, len(f.lines))
	if s.Start < 1 || s.Start > s.End {
		return diag.Span{File: f.Name}
	}
	s.Source = f.lines[s.Start-1 : s.End : s.End]
	from, to := max(0, s.Start-1-spanContext), min(len(f.lines), s.End+spanContext)
	for from < s.Start-1 && strings.TrimSpace(f.lines[from]) == "" {
		from++
	}
	for to > s.End && strings.TrimSpace(f.lines[to-1]) == "" {
		to--
	}
	s.Before, s.After = f.lines[from:s.Start-1:s.Start-1], f.lines[s.End:to:to]
	return s
}

// spanContext is how many lines are shown on each side of those that are meant.
const spanContext = 2

// splitLines cuts text into lines without their ends and without a byte order mark.
func splitLines(text []byte) []string {
	s := strings.TrimPrefix(string(text), "\uFEFF")
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(l, "\r")
	}
	if n := len(lines); n > 0 && lines[n-1] == "" {
		lines = lines[:n-1]
	}
	return lines
}
