package foreign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"hako/internal/sandbox"
)

// programPath is where the program is shown. Heredocs have their directory there, too.
const programPath = "/dev/pipes/hako-probe"

// Probe runs the program for the architecture in a step of the engine. The error says why it does not run: a
// *[UnableError] if only programs for that processor do not, another one if no step runs at all.
func Probe(ctx context.Context, engine sandbox.Engine, arch string) error {
	program := Program(arch)
	if program == nil {
		return &UnableError{Arch: arch, Why: "unknown architecture"}
	}
	var said bytes.Buffer
	outcome, err := engine.Run(ctx, &sandbox.Step{
		Name: "probe " + arch, Args: []string{programPath}, Dir: "/", Hostname: "buildkitsandbox",
		Files:  []sandbox.File{{Path: programPath, Mode: 0o755, Data: program}},
		Stdout: &said, Stderr: &said,
	})
	var exit *sandbox.ExitError
	switch {
	case errors.As(err, &exit):
		return &UnableError{Arch: arch, Why: lastLine(said.String(), exit)}
	case err != nil:
		return fmt.Errorf("try a program for %s: %w", arch, err)
	}
	return outcome.Close()
}

// lastLine is what the failed program, or who was to start it, said last.
func lastLine(said string, exit *sandbox.ExitError) string {
	lines := strings.Split(strings.TrimSpace(said), "\n")
	last := lines[len(lines)-1]
	if _, why, ok := strings.Cut(last, "exec "+programPath+": "); ok { // as runc says it
		return why
	}
	if last == "" {
		return exit.Error()
	}
	return last
}

// UnableError says that programs for a processor do not run.
type UnableError struct {
	Arch string
	// Why is what the attempt said: "exec format error".
	Why string
}

// Error says which processor, and why.
func (e *UnableError) Error() string {
	return fmt.Sprintf("programs for %s do not run here: %s", e.Arch, e.Why)
}
