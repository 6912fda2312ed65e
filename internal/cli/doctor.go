package cli

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"hako/internal/workdir"
)

func (c *command) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what works here, and what a pod would have to allow for the rest", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.doctor(cmd.Context()) },
	}
}

// doctor prints what a build would find here. It fails if no RUN step can run.
func (c *command) doctor(ctx context.Context) error {
	if err := c.doctorState(); err != nil {
		return err
	}
	return nil
}

// doctorState says where a build would keep its state.
func (c *command) doctorState() (err error) {
	d, err := workdir.Open(workdir.Options{Explicit: firstSet(c.getenv("KANIKO_DIR")), Candidates: []string{"/kaniko", firstSet(c.getenv("TMPDIR"), "/tmp"), "/tmp"}})
	if err != nil {
		return fmt.Errorf("open work directory: %w", err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r := d.Report()
	out := c.env.Stdout
	fmt.Fprintf(out, "state: %s\n", r.Mode)
	for _, t := range r.Tried {
		doctorPlace(out, t)
	}
	if r.InMemory {
		fmt.Fprintln(out, "  hint: layers count as memory of the container; mount a volume (an emptyDir) at /kaniko or /tmp")
	}
	return nil
}

func doctorPlace(out io.Writer, t workdir.Attempt) {
	switch {
	case t.Err != nil:
		fmt.Fprintf(out, "  %s: cannot be used: %v\n", t.Path, t.Err)
	case t.ExecErr != nil:
		fmt.Fprintf(out, "  %s: files can be kept, but not mapped executable: %v\n", t.Path, t.ExecErr)
	case t.Tmpfs:
		fmt.Fprintf(out, "  %s: works, but is memory\n", t.Path)
	default:
		fmt.Fprintf(out, "  %s: works\n", t.Path)
	}
}
