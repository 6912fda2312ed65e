package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"hako/internal/build"
	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/matrix"
	"hako/internal/registry"
)

// manyOptions are the flags of a run of many builds.
type manyOptions struct {
	file        string
	concurrency int
	keepGoing   bool
	print       bool
}

// place is where the builds of a file are made: here, or in a cluster.
type place interface {
	// program is the command that makes one of them.
	program() string
	// take keeps what the flags of a build say. It is called once for each build before any is made.
	take(ctx context.Context, b matrix.Build, vs *values) (build.Request, error)
	// open is called when all builds are known and before they are made.
	open(ctx context.Context) error
	// make makes a build, whose named contexts are those of its flags and further ones, and returns the digest. It is called from many goroutines.
	make(ctx context.Context, b matrix.Build, further []build.KeyValue) (string, error)
	// close is called when nothing is made any more.
	close(ctx context.Context)
}

// many is one run of many builds.
type many struct {
	*command
	manyOptions
	at place
	// known are all flags that the command line can have for every build.
	known []flag
}

// notShared are the flags that name a place for one result, or are about one build.
func notShared() []string {
	return append(outputFiles(), "destination", "tag", "output", "oci-layout-path", "trace", "context", "target", "dockerfile", "call", "check", "dryrun", "bucket", "job-name")
}

// outputFiles are the flags that name a file for one result.
func outputFiles() []string {
	return []string{"tar-path", "digest-file", "image-name-with-digest-file", "image-name-tag-with-digest-file", "iidfile"}
}

// isBuilds says whether the value of --dockerfile is the name of a file of builds.
func isBuilds(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name))
}

// run makes what names say.
func (m *many) run(ctx context.Context, names []string) error {
	shared, err := m.sharedFlags()
	if err != nil {
		return usageError{err}
	}
	if m.concurrency < 1 {
		return usageError{fmt.Errorf("--concurrency %d: there is no such number of builds", m.concurrency)}
	}
	builds, err := m.read(firstSet(m.file, "builds.yaml"), names)
	if err != nil {
		return usageError{err}
	}
	if err := m.takeAll(ctx, builds, shared); err != nil {
		return usageError{err}
	}
	if m.print {
		return m.printAll(builds, shared)
	}
	if err := m.at.open(ctx); err != nil {
		return buildError{err}
	}
	t := &tally{m: m, all: len(builds)}
	results := matrix.Run(ctx, builds, matrix.Options{
		Concurrency: m.concurrency, KeepGoing: m.keepGoing, Now: m.env.Now, Done: t.tell,
		Run: func(ctx context.Context, b matrix.Build, digest func(string) string) (string, error) {
			return m.at.make(ctx, b, fromOthers(b, builds, digest))
		},
	})
	m.at.close(ctx)
	return m.summary(results)
}

// fromOthers are the named contexts of a build that other builds have made.
func fromOthers(b matrix.Build, builds []matrix.Build, digest func(string) string) []build.KeyValue {
	var out []build.KeyValue
	for _, f := range b.From {
		i := slices.IndexFunc(builds, func(o matrix.Build) bool { return o.Name == f.Build }) // Select has it, and that it has tags
		out = append(out, build.KeyValue{Key: f.Context, Value: "docker-image://" + withoutTag(builds[i].Tags[0]) + "@" + digest(f.Build)})
	}
	return out
}

// sharedFlags are the flags of the command line for all builds.
func (m *many) sharedFlags() ([]string, error) {
	var out []string
	for _, f := range m.known {
		given := m.vs.byName[f.name].given
		switch {
		case len(given) == 0 || f.name == "metadata-file" || f.alias != "":
			continue
		case f.name == "dockerfile" && isBuilds(given[len(given)-1]) && m.file == "":
			m.file = given[len(given)-1]
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

// read reads a file of builds.
func (m *many) read(name string, names []string) ([]matrix.Build, error) {
	data, err := os.ReadFile(m.absolute(name))
	if err != nil {
		return nil, &diag.Error{What: "read the file of builds", Cause: err, Hint: "Name it with --builds FILE."}
	}
	f, err := matrix.Parse(name, data, m.getenv)
	if err != nil {
		return nil, err
	}
	return f.Select(names)
}

// takeAll reads the flags of all builds.
func (m *many) takeAll(ctx context.Context, builds []matrix.Build, shared []string) error {
	m.call = call{name: "build"}
	warnings := &distinct{to: m.ui, told: map[string]bool{}}
	m.warnTo(warnings)
	results := map[string]string{}
	for _, b := range builds {
		set, err := parseBuild(b, shared)
		if err == nil {
			warnOfEffects(set, warnings)
			err = m.take(ctx, b, set, results)
		}
		if err == nil {
			continue
		}
		d := &diag.Error{What: "build " + b.Name, Span: b.Span, Cause: err}
		if cause := (*diag.Error)(nil); errors.As(err, &cause) {
			d.Hint = cause.Hint
		}
		return d
	}
	return nil
}

// distinct is a Sink that says each warning once.
type distinct struct {
	to   event.Sink
	told map[string]bool
}

// Emit passes e on unless it is known.
func (d *distinct) Emit(e event.Event) {
	if w, ok := e.(event.Warning); ok {
		if d.told[w.Message] {
			return
		}
		d.told[w.Message] = true
	}
	d.to.Emit(e)
}

// parseBuild reads the flags of one build.
func parseBuild(b matrix.Build, shared []string) (*values, error) {
	set := newSubmitValues()
	fs := pflag.NewFlagSet(b.Name, pflag.ContinueOnError)
	set.registerSome(fs, podFlags())
	set.register(fs)
	if err := fs.Parse(slices.Concat(shared, b.Flags)); err != nil {
		return nil, misplaced(fs, err)
	}
	if rest := fs.Args(); len(rest) > 0 {
		return nil, fmt.Errorf("%q is no flag", rest[0])
	}
	for _, name := range []string{"trace", "check", "dryrun", "call"} {
		if len(set.byName[name].given) > 0 {
			return nil, fmt.Errorf("--%s is for one build", name)
		}
	}
	for _, name := range []string{"context", "dockerfile"} {
		if place := set.str(name); contextsource.IsStandardInput(place) {
			return nil, &diag.Error{What: "--" + name + "=" + place + " is standard input, which is for one build", Hint: "Name a file or directory."}
		}
	}
	return set, nil
}

// misplaced is the error about a flag that a build cannot have, as err says.
func misplaced(known *pflag.FlagSet, err error) error {
	var unknown *pflag.NotExistError
	if errors.As(err, &unknown) && slices.ContainsFunc(slices.Concat(clusterFlags(), manyFlags("")), func(f flag) bool { return f.name == unknown.GetSpecifiedName() }) {
		return &diag.Error{What: "--" + unknown.GetSpecifiedName() + " is for all builds", Hint: "Give it on the command line."}
	}
	return suggestFlag(known, err)
}

// take makes the request of a build. results are where those before it put theirs.
func (m *many) take(ctx context.Context, b matrix.Build, set *values, results map[string]string) error {
	req, err := m.at.take(ctx, b, set)
	if err != nil {
		return err
	}
	return m.claim(b.Name, set, &req.Outputs, results)
}

// claim notes where a build puts its results, and refuses what another has: which of the two would be left is chance.
func (m *many) claim(name string, vs *values, o *build.Outputs, results map[string]string) error {
	var places []string
	for _, d := range o.Destinations {
		if ref, err := registry.ParseReference(d); err == nil && !o.NoPush && !o.ByDigest {
			places = append(places, ref.Name())
		}
	}
	for _, f := range append(outputFiles(), "metadata-file") {
		if v := vs.str(f); v != "" {
			places = append(places, m.absolute(v))
		}
	}
	for _, p := range slices.Compact(slices.Sorted(slices.Values(places))) {
		if other, ok := results[p]; ok {
			return &diag.Error{What: fmt.Sprintf("it makes %s, and so does build %s", p, other), Hint: "Give each build its own; of a matrix, put every key into the tag."}
		}
		results[p] = name
	}
	return nil
}

// printAll prints commands.
func (m *many) printAll(builds []matrix.Build, shared []string) error {
	for _, b := range builds {
		line := "# " + b.Name + "\n" + m.at.program()
		for _, f := range slices.Concat(shared, b.Flags) {
			line += " " + quoted(f)
		}
		for _, f := range b.From {
			line += " " + quoted("--build-context="+f.Context+"=target:"+f.Build)
		}
		if _, err := fmt.Fprintln(m.env.Stdout, line); err != nil {
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
