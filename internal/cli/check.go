package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/report"
)

// call is what is to be done with a Dockerfile, as --call says it.
type call struct {
	// name is build, check or targets.
	name   string
	format string
	// ignoreStatus says that warnings are no failure.
	ignoreStatus bool
}

// errFound is the failure of a check that found something. What it found has been told.
var errFound = errors.New("the check found something")

func (c *command) checkCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "check [PATH]", Short: "Say what is wrong or unwise in a Dockerfile; nothing is built", Args: c.operands,
		RunE: func(cmd *cobra.Command, args []string) error {
			c.call = call{name: "check", format: format}
			if !slices.Contains(report.Formats(), format) {
				return usageError{fmt.Errorf("--format %q is none of %s", format, strings.Join(report.Formats(), ", "))}
			}
			return c.build(cmd.Context(), args)
		},
	}
	set := newValues()
	set.register(cmd.Flags())
	cmd.Flags().StringVar(&format, "format", "text", "how to show what was found: text, json or sarif")
	cmd.PreRun = func(*cobra.Command, []string) { c.vs = set }
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := io.WriteString(cmd.OutOrStdout(), fmt.Sprintf("Usage:\n  %s\n\nFlags are those of hako build, so that a command line serves both; what is about the result has no effect. Besides:\n", cmd.UseLine())+
			helpLine(flag{name: "format", kind: stringKind, help: "how to show what was found: text, json or sarif", def: "text"})+
			"\nThe exit code is 1 if anything was found.\n")
		return err
	})
	return cmd
}

// parseCall reads --call and --check.
func parseCall(text string, check bool) (call, error) {
	out := call{name: "build", format: "text"}
	fields := strings.Split(text, ",")
	for i, field := range fields {
		k, v, isOption := strings.Cut(field, "=")
		switch {
		case !isOption && i == 0 && field != "":
			out.name = field
		case isOption && k == "format":
			out.format = v
		case isOption && k == "ignorestatus":
			b, err := strconv.ParseBool(v)
			if err != nil {
				return call{}, fmt.Errorf("--call: ignorestatus=%q is not a bool", v)
			}
			out.ignoreStatus = b
		case text != "":
			return call{}, fmt.Errorf("--call %q is not NAME[,format=FORMAT][,ignorestatus=BOOL]", text)
		}
	}
	if check {
		if out.name != "build" && out.name != "check" && out.name != "lint" {
			return call{}, fmt.Errorf("--check and --call=%s exclude each other", out.name)
		}
		out.name = "check"
	}
	return out, out.validate()
}

// validate refuses what there is not; lint is an old name of check.
func (c *call) validate() error {
	formats := report.Formats()
	switch c.name {
	case "build":
		return nil
	case "lint", "check":
		c.name = "check"
	case "targets":
		formats = []string{"text", "json"}
	case "outline":
		return &diag.Error{What: "--call=outline is not supported", Hint: "Use --call=targets for the stages, or --dryrun for all steps."}
	default:
		return &diag.Error{What: fmt.Sprintf("--call: there is no %q", c.name), Hint: "Use build, check or targets."}
	}
	if !slices.Contains(formats, c.format) {
		return fmt.Errorf("--call=%s: format %q is none of %s", c.name, c.format, strings.Join(formats, ", "))
	}
	return nil
}

// inspect does what c.call says, which is not to build.
func (c *command) inspect(ctx context.Context, env build.Env, req build.Request) error {
	if c.call.name == "targets" {
		stages, err := build.Targets(ctx, env, req)
		if err != nil {
			return checkError{err}
		}
		return report.WriteTargets(c.env.Stdout, stages, c.call.format)
	}
	found, err := build.Check(ctx, env, req)
	if err != nil {
		return checkError{err}
	}
	r := report.Report{
		Name: found.Name, Text: found.Text, Warnings: found.Warnings, Err: found.Err, Version: c.env.Version, Dir: c.env.Cwd,
	}
	if err := r.Write(c.env.Stdout, c.call.format); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	switch {
	case found.Err != nil && c.call.format == "text":
		return checkError{found.Err}
	case found.Err != nil, len(found.Warnings) > 0 && !c.call.ignoreStatus:
		return errFound
	}
	return nil
}

// checkError is a failure of a check, after the command line was understood.
type checkError struct{ error }

func (e checkError) Unwrap() error { return e.error }
