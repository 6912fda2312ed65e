package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"hako/internal/build"
	"hako/internal/event"
	"hako/internal/matrix"
)

// bakeCommand is "hako bake", which makes all images that a file names.
func (c *command) bakeCommand() *cobra.Command {
	var o manyOptions
	cmd := &cobra.Command{
		Use: "bake [NAME…]", Short: "Build the images that a file names, in the order of what they need",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.openLog(); err != nil {
				return err
			}
			m := &many{command: c, manyOptions: o, at: &machine{c: c, requests: map[string]build.Request{}}, known: flags()}
			return m.run(cmd.Context(), args)
		},
	}
	set := newValues()
	set.register(cmd.Flags())
	cmd.Flags().StringVar(&o.file, "builds", "", "")
	cmd.Flags().IntVar(&o.concurrency, "concurrency", 4, "")
	cmd.Flags().BoolVar(&o.keepGoing, "keep-going", false, "")
	cmd.Flags().BoolVar(&o.print, "print", false, "")
	cmd.PreRun = func(*cobra.Command, []string) { c.vs = set }
	own := append(manyFlags("4"),
		flag{name: "metadata-file", kind: stringKind, help: "file that gets the summary as JSON"},
		flag{name: "NAME", kind: stringKind, help: "another flag of hako build: it is given to each build, before those of the file"})
	usageOf(cmd, nil, own...)
	return cmd
}

// manyFlags are those of a command that makes what a file names.
func manyFlags(concurrency string) []flag {
	return []flag{
		{name: "builds", kind: stringKind, help: "file of builds, builds.yaml if not given; --dockerfile (-f) does the same if its value ends in .yaml, .yml or .json", forks: "H", status: used},
		{name: "concurrency", kind: intKind, def: concurrency, help: "builds to run at the same time", forks: "H", status: used},
		{name: "keep-going", kind: boolKind, def: "false", help: "after a failure, go on with builds that do not need the one that failed", forks: "H", status: used},
		{name: "print", kind: boolKind, def: "false", help: "print what would be built, in order, as commands", forks: "H", status: used},
	}
}

// machine is this machine, as a place.
type machine struct {
	c        *command
	requests map[string]build.Request
	// idle are flags of builds that only mean something in a pod.
	idle []string
}

var _ place = (*machine)(nil)

func (*machine) program() string { return "hako build" }

func (m *machine) take(_ context.Context, b matrix.Build, vs *values) (build.Request, error) {
	for _, f := range podFlags() {
		if name := "--" + f.name; len(vs.byName[f.name].given) > 0 && !slices.Contains(m.idle, name) {
			m.idle = append(m.idle, name)
		}
	}
	req, err := m.c.request(vs, nil)
	m.requests[b.Name] = req
	return req, err
}

// open says what of the file is for a cluster.
func (m *machine) open(context.Context) error {
	if len(m.idle) > 0 {
		m.c.ui.Emit(event.Info{Message: "of the file, " + strings.Join(m.idle, ", ") + " count for hako submit only"})
	}
	return nil
}

func (m *machine) make(ctx context.Context, b matrix.Build, further []build.KeyValue) (string, error) {
	req := m.requests[b.Name]
	req.NamedContexts = slices.Concat(req.NamedContexts, further)
	sink := event.Named{Build: b.Name, To: m.c.ui}
	made, err := build.Build(ctx, m.c.buildEnv(sink), req)
	if err != nil {
		return "", err
	}
	reportTo(sink, made)
	return made.Digest.String(), nil
}

func (*machine) close(context.Context) {}
