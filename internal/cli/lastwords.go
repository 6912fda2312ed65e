package cli

import (
	"os"
	"slices"
	"syscall"
	"unicode/utf8"

	"hako/internal/output"
	"hako/internal/ui"
)

// lastWords leaves why a build failed where "kubectl describe pod" shows it. That is for the container's own program: another one,
// started by a script, writes there only if a flag names the file. What steps have printed is not for all who may see the pod.
func (c *command) lastWords(f ui.Failure) {
	path := c.env.LastWords
	if path == "" && c.vs != nil && slices.ContainsFunc(append(outputFiles(), "metadata-file"), func(name string) bool {
		return c.vs.str(name) == output.TerminationLog
	}) {
		path = output.TerminationLog
	}
	if path == "" {
		return
	}
	text := f.Brief()
	if len(text) > output.MaxTermination {
		cut := output.MaxTermination - len("…")
		for cut > 0 && !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut] + "…"
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return // there is nobody who wants to know
	}
	_, _ = file.WriteString(text) // the failure is told already
	_ = file.Close()
}
