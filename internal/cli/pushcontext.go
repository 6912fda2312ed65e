package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"hako/internal/build"
)

// pushContextCommand is "hako push-context", which sends a context to a registry.
func (c *command) pushContextCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "push-context PATH REFERENCE", Short: "Send a build context to a registry, for builds with --context oci://…",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return usageError{fmt.Errorf("push-context takes a context and a reference, not %d arguments", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return c.pushContext(cmd, args) },
	}
	set := newValues()
	set.register(cmd.Flags())
	cmd.PreRun = func(*cobra.Command, []string) { c.vs = set }
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := io.WriteString(cmd.OutOrStdout(), fmt.Sprintf("Usage:\n  %s\n\n", cmd.UseLine())+
			"PATH is what --context takes. What .dockerignore leaves out is not sent. The reference by digest is printed, as\n"+
			"registry/repository@sha256:…; build with --context oci:// and that. A tag in REFERENCE is set, too.\n\n"+
			"Flags are those of hako build; those about registries, logs, the context, --dockerfile, --compression (zstd if not given)\n"+
			"and --compression-level have an effect.\n")
		return err
	})
	return cmd
}

// pushContext sends a context.
func (c *command) pushContext(cmd *cobra.Command, args []string) error {
	format, level, err := c.logSettings()
	if err != nil {
		return err
	}
	if err := c.vs.byName["no-push"].Set("true"); err != nil { // no image is made
		return err
	}
	req, err := c.request(c.vs, args[:1])
	if err != nil {
		return usageError{err}
	}
	if len(c.vs.list("compression")) == 0 {
		req.Compression = "zstd"
	}
	c.ui = c.newUI(format, level)
	c.warn()
	pushed, err := build.PushContext(cmd.Context(), c.buildEnv(c.ui), req, args[1])
	if err != nil {
		return sendError{err}
	}
	_, err = fmt.Fprintln(c.env.Stdout, pushed.Reference)
	return err
}

// sendError is a failure to push a context, after the command line was understood.
type sendError struct{ error }

func (e sendError) Unwrap() error { return e.error }
