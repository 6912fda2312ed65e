package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"hako/internal/build"
	"hako/internal/diag"
	"hako/internal/event"
	"hako/test/conformance"
)

// hako builds in this process and notes what it is warned of. It is for one build.
type hako struct {
	registry, workDir string

	mu       sync.Mutex // guards warnings
	warnings []string
}

var (
	_ conformance.Builder = (*hako)(nil)
	_ event.Sink          = (*hako)(nil)
)

// Build is conformance.Builder's.
func (h *hako) Build(ctx context.Context, job conformance.Job) error {
	env := build.Env{
		Now: time.Now, Getenv: func(string) string { return "" }, Cwd: job.Context, Stdout: io.Discard, Events: h,
		Transport: redirect{host: h.registry, base: http.DefaultTransport},
	}
	_, err := build.Build(ctx, env, build.Request{
		Context:    job.Context,
		Dockerfile: filepath.Join(job.Context, job.Case.Args.Dockerfile),
		BuildArgs:  map[string]string{},
		Platforms:  []string{job.Case.Args.Platform},
		Outputs:    build.Outputs{NoPush: true, OCILayoutPath: job.Out},
		WorkDir:    h.workDir,
	})
	if err == nil {
		return nil
	}
	failed := &conformance.BuildError{Text: err.Error()}
	if d := (*diag.Error)(nil); errors.As(err, &d) {
		failed.Line = d.Span.Start
	}
	return failed
}

// Emit is event.Sink's.
func (h *hako) Emit(e event.Event) {
	if w, ok := e.(event.Warning); ok {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.warnings = append(h.warnings, w.Message)
	}
}

// warned says whether a warning has this text in it.
func (h *hako) warned(text string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.warnings, func(s string) bool { return strings.Contains(s, text) })
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
