package dockerfile

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/moby/buildkit/frontend/dockerfile/command"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

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
			if beforeLine(e.What) && len(at) > 0 {
				at = []parser.Range{{Start: parser.Position{Line: at[0].Start.Line + 1}, End: parser.Position{Line: at[0].Start.Line + 1}}}
			}
			if s := f.span(at); s.Start != 0 {
				e.Span = s
				break
			}
		}
	}
	if flag, ok := strings.CutPrefix(e.What, "unknown flag: --"); ok && len(e.Span.Source) > 0 {
		if near, ok := diag.Nearest(flag, flags(e.Span.Source[0])); ok {
			e.Hint = fmt.Sprintf("Did you mean --%s?", near)
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

// beforeLine says whether BuildKit's parser gives this error the number of the line before.
func beforeLine(what string) bool {
	return strings.HasPrefix(what, "invalid escape token") || strings.HasSuffix(what, "parser directive can be used") ||
		strings.HasPrefix(what, "dockerfile line greater than")
}

// flags are those of the instruction that line begins with.
func flags(line string) []string {
	word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch strings.ToLower(word) {
	case command.From:
		return []string{"platform"}
	case command.Copy:
		return []string{"chmod", "chown", "exclude", "from", "link", "parents"}
	case command.Add:
		return []string{"checksum", "chmod", "chown", "exclude", "keep-git-dir", "link", "unpack"}
	case command.Run:
		return []string{"device", "mount", "network", "security"}
	case command.Healthcheck:
		return []string{"interval", "retries", "start-interval", "start-period", "timeout"}
	}
	return nil
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
	if near, ok := diag.Nearest(word, names); ok {
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
	// BuildKit's own suggestion is any of the nearest ones; ours is always the same.
	if i := strings.LastIndex(s, " (did you mean "); i >= 0 && strings.HasSuffix(s, "?)") {
		s = s[:i]
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
