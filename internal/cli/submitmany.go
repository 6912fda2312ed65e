package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"hako/internal/build"
	"hako/internal/cluster"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/matrix"
	"hako/internal/registry"
	"hako/internal/submit"
)

// farm is a cluster, as a place for many builds: each is a Job.
type farm struct {
	c        *command
	vs       *values
	requests map[string]submit.Request
	// labels are those of all Jobs of this run.
	labels map[string]string

	cluster  *cluster.Client
	contexts *submit.Contexts
}

var _ place = (*farm)(nil)

// isMany says whether the command line names a file of builds.
func isMany(vs *values) bool {
	return vs.str("builds") != "" || len(vs.list("dockerfile")) > 0 && isBuilds(vs.str("dockerfile"))
}

// submitMany makes what a file names in a cluster.
func (c *command) submitMany(ctx context.Context, names []string) error {
	for name, hint := range map[string]string{
		"attach": "Follow one Job of the run by its name, without a file of builds.",
		"detach": "This program has to stay, since it starts each build when what it needs is done: let it run in the background, or in a pod.",
	} {
		if v := c.vs.byName[name]; !v.isDefault() {
			return usageError{&diag.Error{What: "--" + name + " cannot hold for many builds", Hint: hint}}
		}
	}
	const unique = 8
	run := strings.ToLower(rand.Text()[:unique])
	f := &farm{c: c, vs: c.vs, requests: map[string]submit.Request{}, labels: map[string]string{submit.RunLabel: run}}
	m := &many{command: c, at: f, known: slices.Concat(flags(), podFlags()), manyOptions: manyOptions{
		file: c.vs.str("builds"), concurrency: c.vs.int("concurrency"), keepGoing: c.vs.bool("keep-going"), print: c.vs.bool("print"),
	}}
	return m.run(ctx, names)
}

// onlyMany refuses flags that only mean something with a file of builds.
func onlyMany(vs *values) error {
	for _, f := range manyFlags("") {
		if len(vs.list(f.name)) > 0 {
			return &diag.Error{What: "--" + f.name + " is for a file of builds", Hint: "Name one with --builds FILE."}
		}
	}
	return nil
}

func (*farm) program() string { return "hako submit" }

func (f *farm) take(ctx context.Context, b matrix.Build, vs *values) (build.Request, error) {
	req, err := f.c.submitRequest(ctx, vs, nil)
	if err == nil {
		err = req.Validate()
	}
	req.Job.Title, req.Job.Labels = b.Name, f.labels
	f.requests[b.Name] = req
	return req.Build, err
}

// open finds the cluster, and asks it something: one that cannot be reached, or used, is better known before hundreds of builds wait.
func (f *farm) open(ctx context.Context) (err error) {
	if f.cluster, err = f.c.connect(f.vs); err != nil {
		return err
	}
	var lost *cluster.ConnectionError
	_, err = f.cluster.Job(ctx, "hako-"+f.labels[submit.RunLabel])
	if errors.As(err, &lost) || err != nil && !cluster.IsNotFound(err) && !cluster.IsTemporary(err) {
		f.cluster.Close()
		return err
	}
	f.contexts = submit.NewContexts(f.c.buildEnv(f.c.ui))
	f.c.ui.Emit(event.Info{Message: fmt.Sprintf("the Jobs of %d builds in namespace %s get the label %s=%s", len(f.requests), f.cluster.Namespace, submit.RunLabel, f.labels[submit.RunLabel])})
	return nil
}

func (f *farm) make(ctx context.Context, b matrix.Build, further []build.KeyValue) (string, error) {
	req := f.requests[b.Name]
	for _, kv := range further {
		image := strings.TrimPrefix(kv.Value, "docker-image://")
		if _, err := registry.ParseReference(image); err != nil {
			return "", err
		}
		req.Args = append(slices.Clip(req.Args), "--build-context="+kv.Key+"="+kv.Value)
		req.CredentialsFor = append(slices.Clip(req.CredentialsFor), image)
	}
	sink := event.Named{Build: b.Name, To: f.c.ui}
	// Many builds are a long run, in which an API server may well be restarted.
	const patience = 10 * time.Minute
	made, err := submit.Build(ctx, submit.Env{Cluster: f.cluster, Build: f.c.buildEnv(sink), Contexts: f.contexts, Patience: patience}, req)
	if err != nil {
		return "", err
	}
	return made.Made.Top.Digest.String(), nil
}

func (f *farm) close(ctx context.Context) {
	f.contexts.Close(ctx)
	f.cluster.Close()
}
