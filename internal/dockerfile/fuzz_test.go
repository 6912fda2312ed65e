package dockerfile_test

import (
	"errors"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/linter"

	"hako/internal/diag"
	"hako/internal/dockerfile"
)

// FuzzParse feeds arbitrary text: whatever is wrong with it is an error for the user with a place inside the file.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"FROM scratch\n", "ARG A=1\nFROM a:${A} AS b\nRUN <<EOF\nx\nEOF\n", "# escape=`\nFROM a\nRUN a `\n b", "# check=skip=all\nFROM a",
		"FROM a\nONBUILD COPY <<-\"E\" /x\n\ty\n\tE\n", "FROM a\r\nENV a b c\r\nENV a=\"b c\" d='e'\r\n", "FROM a\nHEALTHCHECK --interval=1s CMD [\"a\"]",
		"FROM a\nCOPY [\"a\", \"b\"]\nADD --chown=1 a b /c/\nEXPOSE 1-3/udp", "FROM a\nRUN --mount=type=cache,target=/x --network=none true",
		"FROM a\nRUN cat <<A <<B\nA\nB\n", "RUN x", "FOO", "FROM a b c d", "\uFEFFFROM a\nLABEL a=b \\\n # c\n\n d=e", "FROM a\nSHELL [\"x\"]\nVOLUME [\"\"]",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := dockerfile.Parse("D", text)
		if err != nil {
			var e *diag.Error
			if !errors.As(err, &e) {
				t.Fatalf("%T is no diag.Error: %v", err, err)
			}
			if n := e.Span.End - e.Span.Start + 1; e.Span.Start != 0 && len(e.Span.Source) != n {
				t.Errorf("span %d-%d has %d lines", e.Span.Start, e.Span.End, len(e.Span.Source))
			}
			return
		}
		stages, _, err := file.Instructions(linter.New(&linter.Config{}))
		if err != nil {
			t.Fatalf("second time: %v", err)
		}
		for _, s := range stages {
			for _, c := range s.Commands {
				if file.Span(c.Location()).Start == 0 {
					t.Errorf("%s has no place", c.Name())
				}
			}
		}
	})
}
