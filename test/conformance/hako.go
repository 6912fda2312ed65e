package conformance

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/sandbox/choice"
)

// Hako builds in this process.
type Hako struct {
	// Registry is the host that stands for every registry, "127.0.0.1:port".
	Registry string
	// Files is the server of the cases, "127.0.0.1:port".
	Files string
	// WorkDir is where builds keep their state.
	WorkDir string
	// Sandbox is the engine of RUN steps.
	Sandbox choice.Mode
}

var _ Builder = (*Hako)(nil)

// Build is Builder's.
func (h *Hako) Build(ctx context.Context, job Job) error {
	env, req := h.request(job)
	_, err := build.Build(ctx, env, req)
	if err == nil {
		return nil
	}
	return buildError(err)
}

func buildError(err error) *BuildError {
	failed := &BuildError{Text: err.Error()}
	if d := (*diag.Error)(nil); errors.As(err, &d) {
		failed.Line = d.Span.Start
	}
	return failed
}

// request is what job asks for, and the world that it runs in.
func (h *Hako) request(job Job) (build.Env, build.Request) {
	a := job.Case.Args
	env := build.Env{
		Now:       time.Now,
		Getenv:    func(string) string { return "" },
		Cwd:       job.Context,
		Stdout:    io.Discard,
		Events:    eventLog{job.Log},
		Transport: redirect{host: h.Registry, base: http.DefaultTransport},
		Sources:   redirect{host: h.Files, base: http.DefaultTransport},
	}
	req := build.Request{
		Context:    job.Context,
		Dockerfile: filepath.Join(job.Context, a.Dockerfile),
		Target:     a.Target,
		BuildArgs:  map[string]string{},
		Platforms:  strings.Split(a.Platform, ","),
		Outputs:    build.Outputs{NoPush: true, OCILayoutPath: job.Out},
		WorkDir:    h.WorkDir,
		Sandbox:    string(h.Sandbox),

		RewriteTimestamp: a.RewriteTimestamp,
		Network:          a.Network,
	}
	for _, arg := range a.BuildArgs {
		name, value, _ := strings.Cut(arg, "=")
		req.BuildArgs[name] = value
	}
	for _, l := range a.Labels {
		name, value, _ := strings.Cut(l, "=")
		req.Labels = append(req.Labels, build.KeyValue{Key: name, Value: value})
	}
	for _, s := range a.Secrets {
		id, place, _ := strings.Cut(s, "=")
		req.Secrets = append(req.Secrets, build.Secret{ID: id, Path: pathIn(job.Context, place)})
	}
	for _, id := range a.Agents {
		req.Agents = append(req.Agents, build.Agent{ID: id, Paths: []string{pathIn(job.Context, keyFile)}})
	}
	for _, c := range a.Contexts {
		name, place, _ := strings.Cut(c, "=")
		scheme, dir, beside := strings.Cut(place, besideMark)
		if beside && (scheme == "" || scheme == layoutScheme) {
			place = scheme + pathIn(job.Context, besideMark+dir)
		}
		req.NamedContexts = append(req.NamedContexts, build.KeyValue{Key: name, Value: place})
	}
	return env, req
}

// redirect sends every request to one host over plain HTTP.
type redirect struct {
	host string
	base http.RoundTripper
}

// RoundTrip is http.RoundTripper's.
func (r redirect) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme, req.URL.Host = "http", r.host
	return r.base.RoundTrip(req)
}

// eventLog logs what steps write.
type eventLog struct{ log func(args ...any) }

// Emit is event.Sink's.
func (l eventLog) Emit(e event.Event) {
	switch e := e.(type) {
	case event.StepOutput:
		l.log(e.Step + ": " + string(e.Line))
	case event.Info:
		l.log(e.Message)
	}
}
