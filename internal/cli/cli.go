// Package cli is the command line: kaniko's flags, their environment variables and a few habits of docker build,
// turned into a build.Request. No flag and no environment variable is read below it.
//
// The program is called hako, with the command build among others, or executor, which is kaniko's name and builds at once,
// or warmer, which is kaniko's name, too, and fetches images.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hako/internal/build"
	"hako/internal/credential"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/output"
	"hako/internal/registry"
	"hako/internal/trace"
	"hako/internal/ui"
)

// Env is the world of one run of the program.
type Env struct {
	// Environ is the environment, as "K=V".
	Environ []string
	// Cwd is the working directory.
	Cwd            string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Now is the clock.
	Now func() time.Time
	// Version is hako's own, as "v0.1.0".
	Version string
	// LastWords is a file that gets why the program failed, if it exists; empty means none, unless a flag names Kubernetes' own.
	LastWords string
}

// command is one run of the program.
type command struct {
	env  Env
	args []string
	vars map[string]string
	// kaniko says that the program was called as executor, warmer that it was called as that.
	kaniko, warmer bool
	vs             *values
	// call is what to do; without a name, the flags say it.
	call call
	ui   *ui.UI
	// resultToStdout says that standard output gets an archive.
	resultToStdout bool
}

// usageError is a command line that does not say what to do.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Main runs the program with args, args[0] being its name, and returns its exit code:
// 0 for success, the exit code of a failing RUN command (255 if a signal ended it), 128 plus the signal's number if
// ctx was cancelled with a [SignalError], 75 for a context that did not come whole over standard input, and 1 for any other failure.
//
// Under the name of a credential helper (docker-credential-ecr-login) it is one.
func Main(ctx context.Context, env Env, args []string) int {
	if name := filepath.Base(args[0]); credential.IsProgram(name) {
		return serveCredentials(ctx, env, name, args[1:])
	}
	c := &command{env: env, args: args, vars: variables(env.Environ), vs: newValues()}
	switch strings.TrimSuffix(filepath.Base(args[0]), ".exe") {
	case "executor":
		c.kaniko = true
	case "warmer":
		c.warmer = true
	}
	c.ui = c.newUI(ui.Text, ui.Info)
	root := c.root()
	root.SetArgs(args[1:])
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	return c.fail(ctx, cmd, err)
}

// variables is an environment by name; of two values the last counts.
func variables(environ []string) map[string]string {
	vars := map[string]string{}
	for _, kv := range environ {
		k, v, _ := strings.Cut(kv, "=")
		vars[k] = v
	}
	return vars
}

// serveCredentials answers as the credential helper of that name.
func serveCredentials(ctx context.Context, env Env, name string, args []string) int {
	vars := variables(env.Environ)
	return credential.Serve(ctx, credential.Process{
		Name: name, Args: args, Getenv: func(k string) string { return vars[k] },
		Stdin: env.Stdin, Stdout: env.Stdout, Stderr: env.Stderr, Version: env.Version,
	})
}

// SignalError is the cause of a context that a signal cancelled.
type SignalError struct {
	// Number and Name are those of the signal: 15, "terminated".
	Number int
	Name   string
}

// Error says which signal it was.
func (e *SignalError) Error() string { return "stopped by signal: " + e.Name }

// fail reports err and returns the exit code.
func (c *command) fail(ctx context.Context, cmd *cobra.Command, err error) int {
	if errors.Is(err, errFound) {
		return 1
	}
	stopped, f := (*SignalError)(nil), c.failure(cmd, err)
	if errors.As(context.Cause(ctx), &stopped) {
		f = ui.Failure{Prefix: "error building image: ", Err: stopped}
	}
	c.ui.Fail(f)
	c.lastWords(f)
	if stopped != nil {
		return 128 + stopped.Number
	}
	return codeOf(err)
}

// exitAgain says that the same may succeed if it is tried again: EX_TEMPFAIL of sysexits.h.
const exitAgain = 75

// failure is how err is told.
func (c *command) failure(cmd *cobra.Command, err error) ui.Failure {
	var usage usageError
	var building buildError
	var pushing pushError
	var sending sendError
	var checking checkError
	var warming warmError
	var submitting submitError
	switch {
	case errors.As(err, &warming):
		return ui.Failure{Prefix: "error warming the cache: ", Err: warming.error}
	case errors.As(err, &checking):
		return ui.Failure{Prefix: "error checking Dockerfile: ", Err: checking.error}
	case errors.As(err, &pushing):
		return ui.Failure{Prefix: "error pushing image: ", Err: pushing.error}
	case errors.As(err, &sending):
		return ui.Failure{Prefix: "error pushing context: ", Err: sending.error}
	case errors.As(err, &submitting):
		return ui.Failure{Prefix: "error building image: ", Err: submitting.error}
	case errors.As(err, &building):
		return ui.Failure{Prefix: "error building image: ", Err: building.error}
	case errors.As(err, &usage):
		return ui.Failure{Prefix: "Error: ", Err: usage.error, Advice: fmt.Sprintf("Run '%s --help' for usage.", c.called(cmd))}
	}
	return ui.Failure{Prefix: "Error: ", Err: err}
}

// buildError is a failure of the build itself, after the command line was understood.
type buildError struct{ error }

func (e buildError) Unwrap() error { return e.error }

// called is the command that cmd is, as it was called.
func (c *command) called(cmd *cobra.Command) string {
	switch {
	case c.kaniko:
		return "executor"
	case c.warmer:
		return "warmer"
	case cmd.Name() == "help" && cmd.HasParent():
		return cmd.Parent().CommandPath()
	}
	return cmd.CommandPath()
}

func (c *command) getenv(name string) string { return c.vars[name] }

// newUI is how people see what happens. What steps print to standard output goes to standard error if that takes a result.
func (c *command) newUI(f ui.Format, l ui.Level) *ui.UI {
	stdout := c.env.Stdout
	if c.resultToStdout {
		stdout = c.env.Stderr
	}
	return ui.New(ui.Options{Format: f, Level: l, Timestamps: c.vs.bool("log-timestamp"), Stdout: stdout, Stderr: c.env.Stderr, Now: c.env.Now})
}

// root is the command tree.
func (c *command) root() *cobra.Command {
	var root *cobra.Command
	switch {
	case c.warmer:
		root = c.warmCommand("warmer")
	case c.kaniko:
		root = c.buildCommand("executor")
		c.vs.register(root.PersistentFlags()) // legal after a subcommand too, as in kaniko
	default:
		root = &cobra.Command{Use: "hako", Short: "Build container images from Dockerfiles, without a daemon, in any container", Args: noOperands,
			Version: c.env.Version,
			RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
		b := c.buildCommand("build [PATH]")
		c.vs.register(b.Flags())
		root.AddCommand(b, c.warmCommand("warm"))
		root.SetVersionTemplate(c.versionLine() + "\n")
	}
	root.SilenceErrors, root.SilenceUsage = true, true
	root.AddCommand(c.versionCommand(), c.doctorCommand())
	if !c.warmer {
		root.AddCommand(c.pushCommand(), c.loginCommand(), c.logoutCommand())
	}
	if !c.kaniko && !c.warmer {
		root.AddCommand(c.checkCommand(), c.cacheCommand(), c.pushContextCommand(), c.submitCommand(), c.indexCommand(), c.bakeCommand())
	}
	refuseUnknownTopics(root)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		if cmd == root && !c.kaniko && !c.warmer {
			return usageError{&diag.Error{What: err.Error(), Hint: "Name a command before its flags: hako build …"}}
		}
		return usageError{suggestFlag(cmd.Flags(), err)}
	})
	return root
}

func (c *command) buildCommand(use string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: "Build an image from a Dockerfile and push it",
		Args:  c.operands,
		RunE:  func(cmd *cobra.Command, args []string) error { return c.build(cmd.Context(), args) },
	}
	cmd.Flags().SortFlags = false
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := io.WriteString(cmd.OutOrStdout(), usage(cmd.UseLine(), c.kaniko))
		return err
	})
	return cmd
}

// operands are none for executor, as in kaniko ("--cache true" is an error), and at most the context for hako build.
func (c *command) operands(_ *cobra.Command, args []string) error {
	switch {
	case c.kaniko && len(args) > 0:
		return usageError{fmt.Errorf("unknown command %q for \"executor\"", args[0])}
	case len(args) > 1:
		return usageError{fmt.Errorf("more than one context: %s; a value of a bool flag is given as --flag=value", strings.Join(args, " "))}
	}
	return nil
}

func (c *command) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Args: noOperands, RunE: func(*cobra.Command, []string) error {
		line := c.versionLine()
		if c.kaniko || c.warmer {
			line = "Kaniko version :  " + c.env.Version // kaniko's own line, two spaces included
		}
		_, err := fmt.Fprintln(c.env.Stdout, line)
		return err
	}}
}

// versionLine names this program, its version and what it was made for.
func (c *command) versionLine() string {
	return fmt.Sprintf("hako %s %s/%s %s", c.env.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
}

// build sets up the log, reads the request and builds.
func (c *command) build(ctx context.Context, operands []string) error {
	format, level, err := c.logSettings()
	if err != nil {
		return err
	}
	if c.call.name == "" {
		if c.call, err = parseCall(c.vs.str("call"), c.vs.bool("check")); err != nil {
			return usageError{err}
		}
	}
	req, err := c.request(c.vs, operands)
	if err != nil {
		return usageError{err}
	}
	c.resultToStdout = slices.ContainsFunc(req.Outputs.Exports, func(e output.Export) bool { return e.Dest == output.Stdout })
	c.ui = c.newUI(format, level)
	c.warn()
	events, end, err := c.events()
	if err != nil {
		return usageError{err}
	}
	env := c.buildEnv(events)
	if c.call.name != "build" {
		return errors.Join(c.inspect(ctx, env, req), end())
	}
	result, err := build.Build(ctx, env, req)
	if err := errors.Join(err, end()); err != nil {
		return buildError{err}
	}
	reportTo(c.ui, result)
	return nil
}

// events is where a build's events go: to the log, and to the trace if one is asked for. The caller calls end.
func (c *command) events() (_ event.Sink, end func() error, err error) {
	name := c.vs.str("trace")
	if name == "" {
		return c.ui, func() error { return nil }, nil
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(c.env.Cwd, name)
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, nil, fmt.Errorf("--trace: %w", err)
	}
	t := trace.New(f, c.env.Now)
	return event.Sinks{c.ui, t}, func() error { return errors.Join(t.Close(), f.Close()) }, nil
}

// reportTo says what came out. A dry run has no digest.
func reportTo(to event.Sink, r *build.Result) {
	if r.Digest == "" {
		return
	}
	if len(r.Destinations) == 0 {
		to.Emit(event.Info{Message: "built " + r.Digest.String()})
	}
	for _, d := range r.Destinations {
		to.Emit(event.Info{Message: "Pushed " + withoutTag(d) + "@" + r.Digest.String()}) // kaniko's words: jobs look for them
	}
}

// logSettings reads how much is logged, and how.
func (c *command) logSettings() (ui.Format, ui.Level, error) {
	level, err := ui.ParseLevel(c.vs.str("verbosity"))
	if err != nil {
		return 0, 0, usageError{fmt.Errorf("--verbosity: %w", err)}
	}
	format, err := ui.ParseFormat(c.logFormat())
	if err != nil {
		return 0, 0, usageError{fmt.Errorf("--log-format: %w", err)}
	}
	return format, level, nil
}

// withoutTag is the repository of a reference.
func withoutTag(reference string) string {
	ref, err := registry.ParseReference(reference)
	if err != nil {
		return reference
	}
	return ref.Context().Name()
}

// logFormat is the flag, or text if NO_COLOR (no-color.org) is set and the flag is not given.
func (c *command) logFormat() string {
	if len(c.vs.list("log-format")) == 0 && c.getenv("NO_COLOR") != "" {
		return "text"
	}
	return c.vs.str("log-format")
}

// warn tells of spellings that are old and of variables that do nothing.
func (c *command) warn() { c.warnTo(c.ui) }

func (c *command) warnTo(to event.Sink) {
	for _, f := range flags() {
		if f.alias != "" && f.forks != "D" && c.spelled(f.name) {
			to.Emit(event.Warning{Message: fmt.Sprintf("--%s is an old spelling; use --%s", f.name, f.alias)})
		}
	}
	warnOfEffects(c.vs, to)
	if set := c.features(); len(set) > 0 {
		to.Emit(event.Warning{Message: "no effect: " + strings.Join(set, ", ") + ": " + whyFeatures})
	}
}

// warnOfEffects tells of flags that were given and do nothing.
func warnOfEffects(vs *values, to event.Sink) {
	for _, f := range flags() {
		if f.tell && !vs.byName[f.name].isDefault() {
			to.Emit(event.Warning{Message: fmt.Sprintf("--%s has no effect: %s", f.name, f.why)})
		}
	}
	warnOfGit(vs, to)
}

// spelled says whether a flag was given under this very name.
func (c *command) spelled(name string) bool {
	for _, a := range c.args[1:] {
		if a == "--" {
			return false
		}
		if n, _, _ := strings.Cut(strings.TrimPrefix(a, "--"), "="); strings.HasPrefix(a, "--") && n == name {
			return true
		}
	}
	return false
}

// suggestFlag adds the nearest flag of the command's to an error about an unknown one.
func suggestFlag(known *pflag.FlagSet, err error) error {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return err
	}
	name := unknown.GetSpecifiedName()
	if short, _, _ := strings.Cut(unknown.GetSpecifiedShortnames(), "="); short != "" {
		if len(short) < len("ssh") {
			return err // not a long name after one dash
		}
		name = short
	}
	if near := nearest(known, name); near != "" {
		return &diag.Error{What: err.Error(), Hint: "Did you mean --" + near + "?"}
	}
	return err
}

// nearest is the visible flag with the least edits from name, if they are few, or else the only one that begins with it.
func nearest(known *pflag.FlagSet, name string) string {
	best, bestEdits := "", len(name)/3+2
	var longer []string
	known.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if n := edits(name, f.Name); n < bestEdits {
			best, bestEdits = f.Name, n
		}
		if strings.HasPrefix(f.Name, name) {
			longer = append(longer, f.Name)
		}
	})
	if best == "" && len(longer) == 1 {
		return longer[0]
	}
	return best
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
