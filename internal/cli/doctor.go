package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"hako/internal/diag"
	"hako/internal/sandbox/native"
	"hako/internal/sandbox/sentry"
	"hako/internal/workdir"
)

func (c *command) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what works here, and what a pod would have to allow for the rest", Args: noOperands,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.doctor(cmd.Context()) },
	}
}

// doctor prints what a build would find here. It fails if no RUN step can run.
func (c *command) doctor(ctx context.Context) (err error) {
	out := c.env.Stdout
	fmt.Fprintf(out, "hako %s, %s/%s, uid %d\n", c.env.Version, runtime.GOOS, runtime.GOARCH, os.Getuid())
	d, err := c.doctorState()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	natively, err := doctorNative(ctx, out, d.Path())
	if err != nil {
		return err
	}
	report, err := sentry.Probe(ctx, sentry.Options{})
	var unavailable *sentry.UnavailableError
	if err != nil && !errors.As(err, &unavailable) {
		return fmt.Errorf("start the sandbox: %w", err)
	}
	doctorSentry(out, report)
	if unavailable != nil && !natively {
		return &diag.Error{What: "RUN steps cannot work here", Hint: unavailable.Hint()}
	}
	return nil
}

// doctorNative says whether and how steps run natively.
func doctorNative(ctx context.Context, out io.Writer, state string) (works bool, err error) {
	if state == "" {
		fmt.Fprintln(out, "native: does not work: there is no directory for state")
		return false, nil
	}
	dir := filepath.Join(state, "steps")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return false, fmt.Errorf("make the directory of steps: %w", err)
	}
	report, err := native.Probe(ctx, native.Options{Dir: dir})
	var unavailable *native.UnavailableError
	if err != nil && !errors.As(err, &unavailable) {
		return false, fmt.Errorf("start the native sandbox: %w", err)
	}
	if report.Rung == 0 {
		fmt.Fprintln(out, "native: does not work")
	} else {
		fmt.Fprintf(out, "native: works, %s\n", report.Rung)
	}
	for _, f := range report.Failures {
		fmt.Fprintf(out, "  %s: %v\n", f.Rung, f.Err)
		if s := f.Setting(); s != "" {
			fmt.Fprintf(out, "    %s\n", s)
		}
	}
	return report.Rung != 0, nil
}

func doctorSentry(out io.Writer, r sentry.Report) {
	if r.Platform == "" {
		fmt.Fprintln(out, "sentry: does not work")
	} else {
		fmt.Fprintf(out, "sentry: works, on %s\n", r.Platform)
	}
	for _, f := range r.Failures {
		first, _, _ := strings.Cut(f.Err.Error(), "\n") // the log of a crash follows
		fmt.Fprintf(out, "  %s does not work: %s\n", f.Platform, first)
	}
	for _, cause := range r.Causes {
		fmt.Fprintf(out, "  refused: %s: %v\n    %s\n", cause.Call, cause.Err, cause.Setting)
	}
	for _, line := range r.Confinement {
		fmt.Fprintf(out, "  %s\n", line)
	}
}

// doctorState says where a build would keep its state. The caller closes it.
func (c *command) doctorState() (*workdir.Dir, error) {
	places := []string{"/kaniko"}
	if tmp := c.getenv("TMPDIR"); tmp != "" {
		places = append(places, tmp)
	}
	d, err := workdir.Open(workdir.Options{Explicit: c.getenv("KANIKO_DIR"), Candidates: append(places, "/tmp")})
	if err != nil {
		return nil, fmt.Errorf("open work directory: %w", err)
	}
	r := d.Report()
	out := c.env.Stdout
	fmt.Fprintf(out, "state: %s\n", r.Mode)
	for _, t := range r.Tried {
		doctorPlace(out, t)
	}
	if r.InMemory {
		fmt.Fprintln(out, "  hint: layers count as memory of the container; mount a volume (an emptyDir) at /kaniko or /tmp")
	}
	return d, nil
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
