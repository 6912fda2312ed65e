package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/matrix"
)

// bakeOptions are the flags of "hako bake" beside those of "hako build".
type bakeOptions struct {
	file        string
	concurrency int
	keepGoing   bool
	print       bool
}

// bakeCommand is "hako bake", which makes all images that a file names.
func (c *command) bakeCommand() *cobra.Command {
	var o bakeOptions
	cmd := &cobra.Command{
		Use: "bake [NAME…]", Short: "Build the images that a file names, in the order of what they need",
		RunE: func(cmd *cobra.Command, args []string) error { return c.bake(cmd.Context(), o, args) },
	}
	set := newValues()
	set.register(cmd.Flags())
	cmd.Flags().StringVar(&o.file, "builds", "", "")
	cmd.Flags().IntVar(&o.concurrency, "concurrency", 4, "")
	cmd.Flags().BoolVar(&o.keepGoing, "keep-going", false, "")
	cmd.Flags().BoolVar(&o.print, "print", false, "")
	cmd.PreRun = func(*cobra.Command, []string) { c.vs = set }
	usageOf(cmd, nil,
		flag{name: "builds", kind: stringKind, def: "builds.yaml", help: "file of builds; --dockerfile (-f) does the same if its value ends in .yaml, .yml or .json"},
		flag{name: "concurrency", kind: intKind, def: "4", help: "builds to run at the same time"},
		flag{name: "keep-going", kind: boolKind, def: "false", help: "after a failure, go on with builds that do not need the one that failed"},
		flag{name: "print", kind: boolKind, def: "false", help: "print what would be built, in order, as commands"},
		flag{name: "metadata-file", kind: stringKind, help: "file that gets the summary as JSON"},
		flag{name: "NAME", kind: stringKind, help: "another flag of hako build: it is given to each build, before those of the file"},
	)
	return cmd
}

// notShared are the flags that name a place for one result.
func notShared() []string {
	return []string{
		"destination", "tag", "output", "tar-path", "tarPath", "oci-layout-path", "digest-file", "image-name-with-digest-file", "image-name-tag-with-digest-file",
		"iidfile", "trace", "context", "target", "dockerfile", "call", "check", "dryrun", "bucket",
	}
}

// bake builds what names say.
func (c *command) bake(ctx context.Context, o bakeOptions, names []string) error {
	if err := c.openLog(); err != nil {
		return err
	}
	shared, err := c.sharedFlags(&o)
	if err != nil {
		return usageError{err}
	}
	builds, err := c.readBuilds(firstSet(o.file, "builds.yaml"), names)
	if err != nil {
		return usageError{err}
	}
	requests := map[string]build.Request{}
	for _, b := range builds {
		if requests[b.Name], err = c.bakeRequest(b, shared); err != nil {
			d := &diag.Error{What: "build " + b.Name, Span: b.Span, Cause: err}
			if cause := (*diag.Error)(nil); errors.As(err, &cause) {
				d.Hint = cause.Hint
			}
			return usageError{d}
		}
	}
	if o.print {
		return c.printBuilds(builds, shared)
	}
	if o.concurrency < 1 {
		return usageError{fmt.Errorf("--concurrency %d: there is no such number of builds", o.concurrency)}
	}
	tags := map[string]string{}
	for _, b := range builds {
		tags[b.Name] = append(slices.Clone(b.Tags), "")[0]
	}
	results := matrix.Run(ctx, builds, matrix.Options{
		Concurrency: o.concurrency, KeepGoing: o.keepGoing, Now: c.env.Now,
		Run: func(ctx context.Context, b matrix.Build, digest func(string) string) (string, error) {
			req := requests[b.Name]
			for _, f := range b.From {
				place := "docker-image://" + withoutTag(tags[f.Build]) + "@" + digest(f.Build)
				req.NamedContexts = append(req.NamedContexts, build.KeyValue{Key: f.Context, Value: place})
			}
			made, err := build.Build(ctx, c.buildEnv(named{b.Name, c.ui}), req)
			if err != nil {
				return "", err
			}
			c.report(made)
			return made.Digest.String(), nil
		},
		Done: func(r matrix.Result) { c.tell(r) },
	})
	return c.summary(results)
}

// sharedFlags are the flags of the command line for all builds.
func (c *command) sharedFlags(o *bakeOptions) ([]string, error) {
	var out []string
	for _, f := range flags() {
		given := c.vs.byName[f.name].given
		switch {
		case len(given) == 0 || f.name == "metadata-file" || f.alias != "" && f.alias != f.name:
			continue
		case f.name == "dockerfile" && slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(given[len(given)-1])) && o.file == "":
			o.file = given[len(given)-1]
			continue
		case slices.Contains(notShared(), f.name):
			return nil, &diag.Error{What: fmt.Sprintf("--%s cannot hold for many builds", f.name), Hint: "Put it into the file of builds."}
		}
		for _, v := range given {
			out = append(out, "--"+f.name+"="+v)
		}
	}
	return out, nil
}

// readBuilds reads a file of builds.
func (c *command) readBuilds(name string, names []string) ([]matrix.Build, error) {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(c.env.Cwd, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, &diag.Error{What: "read the file of builds", Cause: err, Hint: "Name it with --builds FILE."}
	}
	f, err := matrix.Parse(name, data, c.getenv)
	if err != nil {
		return nil, err
	}
	return f.Select(names)
}

// bakeRequest is the request of one build.
func (c *command) bakeRequest(b matrix.Build, shared []string) (build.Request, error) {
	set := newValues()
	fs := pflag.NewFlagSet(b.Name, pflag.ContinueOnError)
	set.register(fs)
	if err := fs.Parse(slices.Concat(shared, b.Flags)); err != nil {
		return build.Request{}, suggestFlag(err)
	}
	if rest := fs.Args(); len(rest) > 0 {
		return build.Request{}, fmt.Errorf("%q is no flag", rest[0])
	}
	c.call = call{name: "build"}
	for _, name := range []string{"trace", "check", "dryrun"} {
		if len(set.byName[name].given) > 0 {
			return build.Request{}, fmt.Errorf("--%s is for one build", name)
		}
	}
	return c.request(set, nil)
}

// printBuilds prints commands.
func (c *command) printBuilds(builds []matrix.Build, shared []string) error {
	for _, b := range builds {
		line := "# " + b.Name + "\nhako build"
		for _, f := range slices.Concat(shared, b.Flags) {
			line += " " + quoted(f)
		}
		for _, f := range b.From {
			line += " " + quoted("--build-context="+f.Context+"=target:"+f.Build)
		}
		if _, err := fmt.Fprintln(c.env.Stdout, line); err != nil {
			return err
		}
	}
	return nil
}

// quoted is a word for a shell.
func quoted(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("-_=./:@,+%", r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// named puts the name of a build before what it says.
type named struct {
	name string
	to   event.Sink
}

// Emit passes an event on.
func (n named) Emit(e event.Event) {
	switch m := e.(type) {
	case event.Info:
		m.Message = n.name + ": " + m.Message
		e = m
	case event.Warning:
		m.Message = n.name + ": " + m.Message
		e = m
	}
	n.to.Emit(e)
}

// tell says what has become of a build.
func (c *command) tell(r matrix.Result) {
	if r.State == matrix.Failed {
		c.ui.Emit(event.Warning{Message: "build " + r.Name + " failed:\n" + diag.Format(r.Err)})
	}
}

// summary prints the table, writes the metadata and says whether something is missing.
func (c *command) summary(results []matrix.Result) error {
	type line struct {
		Result  matrix.State `json:"result"`
		Digest  string       `json:"containerimage.digest,omitempty"`
		Seconds float64      `json:"seconds"`
		Error   string       `json:"error,omitempty"`
	}
	all := map[string]line{}
	w := tabwriter.NewWriter(c.env.Stdout, 0, 0, 2, ' ', 0)
	_, err := fmt.Fprintln(w, "NAME\tRESULT\tTIME\tDIGEST")
	errs := []error{err}
	done := 0
	for _, r := range results {
		l := line{Result: r.State, Digest: r.Digest, Seconds: r.Took.Seconds()}
		if r.Err != nil {
			l.Error = r.Err.Error()
		}
		if r.State == matrix.Done {
			done++
		}
		all[r.Name] = l
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Name, r.State, r.Took.Round(100*time.Millisecond), r.Digest)
		errs = append(errs, err)
	}
	errs = append(errs, w.Flush())
	if name := c.vs.str("metadata-file"); name != "" {
		errs = append(errs, c.writeSummary(name, all))
	}
	if done < len(results) {
		errs = append(errs, buildError{fmt.Errorf("%d of %d builds are done", done, len(results))})
	}
	return errors.Join(errs...)
}

// writeSummary writes the table as JSON.
func (c *command) writeSummary(name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write the metadata: %w", err)
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(c.env.Cwd, name)
	}
	if err := os.WriteFile(name, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("write the metadata: %w", err)
	}
	return nil
}
