package dockerfile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/util/suggest"

	"hako/internal/diag"
)

// wrap turns an error of BuildKit's parser into ours.
func (f *File) wrap(err error) error {
	var ours *diag.Error
	if errors.As(err, &ours) {
		return err
	}
	e := &diag.Error{What: message(err), Span: diag.Span{File: f.Name}}
	var located *parser.LocationError
	if errors.As(err, &located) {
		for _, at := range located.Locations {
			if s := f.span(at); s.Start != 0 {
				e.Span = s
				break
			}
		}
	}
	var unknown *instructions.UnknownInstructionError
	if errors.As(err, &unknown) {
		e.What = fmt.Sprintf("unknown instruction %q", clip(unknown.Instruction))
		e.Hint = unknownInstruction(unknown.Instruction)
	}
	if e.What == "file with no instructions" {
		e.What, e.Span = "the Dockerfile has no instructions", diag.Span{File: f.Name}
	}
	return e
}

// unknownInstruction is a hint for a word that is not an instruction, or empty if it is one.
func unknownInstruction(word string) string {
	if _, ok := command.Commands[strings.ToLower(word)]; ok {
		return ""
	}
	names := make([]string, 0, len(command.Commands))
	for name := range command.Commands {
		names = append(names, strings.ToUpper(name))
	}
	if near, ok := suggest.Search(strings.ToUpper(word), names, true); ok {
		return fmt.Sprintf("Did you mean %s?", near)
	}
	return `Is a line continuation ("\" at the end of the line before) missing?`
}

// message is the text of err without the positions that BuildKit puts into it: a Span says that better.
func message(err error) string {
	var located *parser.LocationError
	if errors.As(err, &located) {
		err = located.Unwrap()
	}
	s := err.Error()
	if r, n := utf8.DecodeRuneInString(s); n > 0 && len(s) > n && !isUpper(rune(s[n])) {
		s = strings.ToLower(string(r)) + s[n:]
	}
	return strings.TrimSuffix(s, ".")
}

func isUpper(r rune) bool { return r >= 'A' && r <= 'Z' }

// clip shortens text from a file for a message.
func clip(s string) string {
	const limit = 200
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
