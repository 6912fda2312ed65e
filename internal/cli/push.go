package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hako/internal/build"
	"hako/internal/event"
)

// registryFlagNames are the flags of commands that only talk to registries.
func registryFlagNames() []string {
	return []string{
		"insecure", "insecure-registry", "skip-tls-verify", "skip-tls-verify-registry", "registry-certificate", "registry-client-cert",
		"credential-helpers", "verbosity", "log-format", "log-timestamp",
	}
}

func pushFlagNames() []string {
	return append([]string{
		"destination", "digest-file", "image-name-with-digest-file", "image-name-tag-with-digest-file", "push-retry",
		"push-ignore-immutable-tag-errors", "skip-push-permission-check", "kaniko-dir",
	}, registryFlagNames()...)
}

// some gives cmd the flags of these names, and makes c look at them. The flags of executor are legal after each command anyway.
func (c *command) some(cmd *cobra.Command, names []string) {
	if c.kaniko {
		return
	}
	set := newValues()
	all := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
	set.register(all)
	all.VisitAll(func(f *pflag.Flag) {
		if slices.Contains(names, f.Name) {
			cmd.Flags().AddFlag(f)
		}
	})
	cmd.PreRun = func(*cobra.Command, []string) { c.vs = set }
}

// usageOf is the text of the help of a command with some of the flags, and own ones.
func usageOf(cmd *cobra.Command, names []string, own ...flag) {
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		text := fmt.Sprintf("Usage:\n  %s\n\nFlags:\n", cmd.UseLine())
		for _, f := range own {
			text += helpLine(f)
		}
		for _, f := range flags() {
			if slices.Contains(names, f.name) {
				text += helpLine(f)
			}
		}
		_, err := io.WriteString(cmd.OutOrStdout(), text)
		return err
	})
}

func (c *command) pushCommand() *cobra.Command {
	var image string
	cmd := &cobra.Command{
		Use: "push ARCHIVE|LAYOUT [REFERENCE…]", Short: "Push an image that is in an archive or an OCI layout", Args: someOperands("name the archive or OCI layout to push"),
		RunE: func(cmd *cobra.Command, args []string) error { return c.push(cmd.Context(), image, args) },
	}
	cmd.Flags().StringVar(&image, "image", "", "")
	c.some(cmd, pushFlagNames())
	usageOf(cmd, pushFlagNames(), flag{name: "image", kind: stringKind, help: "which of several images, by a name that the archive has for it, or by its digest; all if not given"})
	return cmd
}

// push pushes the images of args[0] to args[1:] and --destination, or where the archive says.
func (c *command) push(ctx context.Context, image string, args []string) error {
	if err := c.openLog(); err != nil {
		return err
	}
	vs := c.vs
	req := build.PushRequest{
		Path: args[0], Image: image, Registry: c.registry(vs), WorkDir: firstSet(vs.str("kaniko-dir"), c.getenv("KANIKO_DIR")),
		Outputs: build.Outputs{
			Destinations: slices.Concat(vs.list("destination"), args[1:]), DigestFile: vs.str("digest-file"),
			NameWithDigestFile: vs.str("image-name-with-digest-file"), NameTagWithDigestFile: vs.str("image-name-tag-with-digest-file"),
			PushRetries: vs.int("push-retry"), IgnoreImmutableTags: vs.bool("push-ignore-immutable-tag-errors"),
			SkipPushPermissionCheck: vs.bool("skip-push-permission-check"), BuilderOutputDir: c.getenv("BUILDER_OUTPUT"),
		},
	}
	if req.Outputs.PushRetries < 0 {
		return usageError{errors.New("--push-retry must not be negative")}
	}
	results, err := build.Push(ctx, c.buildEnv(c.ui), req)
	for i := range results {
		reportTo(c.ui, &results[i])
	}
	if err != nil {
		return pushError{err}
	}
	return nil
}

// pushError is a failure of a push, after the command line was understood.
type pushError struct{ error }

func (e pushError) Unwrap() error { return e.error }

// openLog makes the log that the flags say.
func (c *command) openLog() error {
	format, level, err := c.logSettings()
	if err != nil {
		return err
	}
	c.ui = c.newUI(format, level)
	return nil
}

// buildEnv is the world of a build.
func (c *command) buildEnv(events event.Sink) build.Env {
	return build.Env{Now: c.env.Now, Getenv: c.getenv, Cwd: c.env.Cwd, Stdin: c.env.Stdin, Stdout: c.env.Stdout, Events: events}
}
