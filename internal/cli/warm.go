package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"hako/internal/build"
	"hako/internal/event"
)

// warmError is a failure to fetch images, after the command line was understood.
type warmError struct{ error }

func (e warmError) Unwrap() error { return e.error }

// warmFlags are those of "hako warm" and of the program "warmer". Some names of one letter mean something else than for a build,
// as in kaniko.
func warmFlags() []flag {
	out := []flag{
		{name: "image", short: "i", kind: multiKind, help: "image to fetch", forks: "GCO", status: used},
		{name: "dockerfile", short: "d", kind: stringKind, help: "file, URL or - (standard input): a Dockerfile, all of whose images are fetched, of every stage", forks: "GCO", status: used},
		{name: "build-arg", kind: multiKind, help: "NAME=VALUE for an ARG of --dockerfile; NAME alone takes the value from the environment", forks: "GCO", status: used},
		{name: "cache-dir", short: "c", kind: stringKind, def: "/cache", help: "directory to put images into; made if it is missing", forks: "GCO", status: used},
		{name: "cache-ttl", kind: durationKind, def: "336h0m0s", help: "age at which an image is too old: it is then checked, or fetched anew", forks: "GCO", status: used},
		{name: "force", short: "f", kind: boolKind, def: "false", help: "fetch what is there already", forks: "GCO", status: used},
		{name: "layout", kind: stringKind, def: "oci", help: "how images are written: oci (a layout, as the live fork of kaniko does) or docker (an archive, for kaniko up to v1.24 and Chainguard's)", forks: "H", status: used, values: []string{"oci", "docker"}},
		{name: "prepare", kind: boolKind, def: "true", help: "unpack images besides, into the form that steps need, so that builds need not", forks: "H", status: used},
		{name: "customPlatform", kind: stringKind, help: "platform of the images, os/arch[/variant]; this machine's if not given", forks: "GCO", status: used},
		{name: "custom-platform", kind: stringKind, help: "the same", forks: "H", status: used, alias: "customPlatform"},
		{name: "platform", kind: multiKind, help: "the same, and several: os/arch[/variant],…", forks: "H", status: used},
	}
	names := []string{
		"insecure-pull", "insecure-registry", "skip-tls-verify-pull", "skip-tls-verify-registry", "registry-certificate", "registry-client-cert",
		"registry-map", "registry-mirror", "skip-default-registry-fallback", "credential-helpers", "bases-limit", "kaniko-dir", "verbosity", "log-format", "log-timestamp",
	}
	byName := map[string]flag{}
	for _, f := range flags() {
		byName[f.name] = f
	}
	for _, n := range names {
		out = append(out, byName[n])
	}
	return out
}

// newWarmValues are the flags of a warmer; those that only a build has are at their defaults.
func newWarmValues() *values {
	vs := newValues()
	for _, f := range warmFlags() {
		vs.byName[f.name] = &value{flag: f}
	}
	return vs
}

func (c *command) warmCommand(use string) *cobra.Command {
	vs := newWarmValues()
	if c.warmer {
		c.vs = vs
	}
	cmd := &cobra.Command{
		Use: use, Short: "Fetch base images into a directory, for builds with --cache-dir",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q for %q", args[0], use)}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			c.vs = vs
			return c.warmImages(cmd.Context())
		},
	}
	set := cmd.Flags()
	if c.warmer {
		set = cmd.PersistentFlags() // legal after a subcommand too, as in kaniko
	}
	set.SortFlags = false
	vs.registerSome(set, warmFlags())
	cmd.SetUsageFunc(func(cmd *cobra.Command) error {
		_, err := io.WriteString(cmd.OutOrStdout(), warmUsage(cmd.UseLine()))
		return err
	})
	return cmd
}

// warmUsage is the text of --help.
func warmUsage(line string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n\nFlags:\n", line)
	for _, f := range warmFlags() {
		b.WriteString(helpLine(f))
	}
	b.WriteString("\nThe exit code is 0 unless no image at all could be fetched.\n")
	return b.String()
}

// warmImages fetches images.
func (c *command) warmImages(ctx context.Context) error {
	vs := c.vs
	if err := c.openLog(); err != nil {
		return err
	}
	req, err := c.warmRequest(vs)
	if err != nil {
		return usageError{err}
	}
	done, err := build.Warm(ctx, c.buildEnv(c.ui), req)
	if err != nil {
		return warmError{err}
	}
	fetched := 0
	for _, d := range done {
		if d.Fetched {
			fetched++
		}
	}
	c.ui.Emit(event.Info{Message: fmt.Sprintf("fetched %d of %d images into %s", fetched, len(done), req.Bases.Dir)})
	return nil
}

// warmRequest turns the flags and the environment into a build.WarmRequest.
func (c *command) warmRequest(vs *values) (build.WarmRequest, error) {
	req := build.WarmRequest{
		Bases:      build.Bases{Dir: vs.str("cache-dir"), TTL: vs.duration("cache-ttl"), Images: vs.list("image")},
		Dockerfile: vs.str("dockerfile"), BuildArgs: c.buildArgs(vs.list("build-arg")), Force: vs.bool("force"),
		Archives: vs.str("layout") == "docker", Pack: !vs.bool("prepare"),
		Registry: c.registry(vs), WorkDir: firstSet(vs.str("kaniko-dir"), c.getenv("KANIKO_DIR")),
	}
	var err error
	if req.Bases.LimitBytes, err = sizeBytes(vs.str("bases-limit")); err != nil {
		return req, fmt.Errorf("--bases-limit: %w", err)
	}
	if req.Platforms, err = platforms(vs.str("customPlatform"), vs.list("platform")); err != nil {
		return req, err
	}
	// The live fork's switch between the layouts.
	const layouts = "FF_KANIKO_OCI_WARMER"
	if text := c.getenv(layouts); text != "" && len(vs.list("layout")) == 0 {
		oci, perr := strconv.ParseBool(text)
		if perr != nil {
			err = errors.Join(err, fmt.Errorf("%s=%q is not a bool", layouts, text))
		}
		req.Archives = !oci
	}
	if req.Bases.Dir == "" {
		err = errors.Join(err, errors.New("--cache-dir is empty"))
	}
	return req, err
}
