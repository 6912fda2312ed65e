package conformance

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"hako/internal/build"
)

// Finding is a rule that a Dockerfile breaks.
type Finding struct {
	Rule string `json:"rule"`
	// URL is the page that explains the rule; empty if there is none.
	URL string `json:"url,omitempty"`
	// Lines are those of the instruction.
	Lines   []int  `json:"lines"`
	Message string `json:"message"`
}

// Checker finds the rules that a Dockerfile breaks.
type Checker interface {
	// Check returns the findings, sorted. That of a Dockerfile that cannot be built are those up to its error,
	// which is a *BuildError, if the checker tells of it; any other error is a fault of the test.
	Check(ctx context.Context, job Job) ([]Finding, error)
}

var (
	_ Checker = (*BuildKit)(nil)
	_ Checker = (*Hako)(nil)
)

// Check is Checker's. BuildKit's text has no error of the Dockerfile, so it never returns a *BuildError.
func (b *BuildKit) Check(ctx context.Context, job Job) ([]Finding, error) {
	c := job.Case
	dir, name := filepath.Split(c.Args.Dockerfile)
	args := []string{
		"--addr", b.Addr, "build", "--frontend=dockerfile.v0", "--opt", "requestid=frontend.lint",
		"--local", "context=" + job.Context, "--local", "dockerfile=" + filepath.Join(job.Context, dir), "--opt", "filename=" + name,
	}
	if c.Args.Target != "" {
		args = append(args, "--opt", "target="+c.Args.Target)
	}
	for _, a := range c.Args.BuildArgs {
		args = append(args, "--opt", "build-arg:"+a)
	}
	prune := exec.CommandContext(ctx, b.Buildctl, "--addr", b.Addr, "prune", "--all", "--filter", "type==source.local")
	if out, err := prune.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("run buildctl prune: %w: %s", err, out)
	}
	cmd := exec.CommandContext(ctx, b.Buildctl, args...)
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("run buildctl: %w: %s", err, out)
	}
	return parseFindings(string(out))
}

// parseFindings reads BuildKit's text: a head, a message, a place and an excerpt in which the lines are marked.
func parseFindings(text string) ([]Finding, error) {
	head := regexp.MustCompile(`^(\w+)(?: - (\S+))?$`)
	marked := regexp.MustCompile(`(?m)^ *(\d+) \| >>> `)
	var out []Finding
	for _, part := range strings.Split("\n"+text, "\n\nWARNING: ")[1:] {
		first, rest, _ := strings.Cut(part, "\n")
		message, excerpt, _ := strings.Cut(rest, "\n")
		m := head.FindStringSubmatch(first)
		if m == nil {
			return nil, fmt.Errorf("parse findings: %q", part)
		}
		f := Finding{Rule: m[1], URL: m[2], Message: message}
		for _, l := range marked.FindAllStringSubmatch(excerpt, -1) {
			n, err := strconv.Atoi(l[1])
			if err != nil {
				return nil, fmt.Errorf("parse findings: %w", err)
			}
			f.Lines = append(f.Lines, n)
		}
		out = append(out, f)
	}
	return sortFindings(out), nil
}

// Check is Checker's.
func (h *Hako) Check(ctx context.Context, job Job) ([]Finding, error) {
	env, req := h.request(job)
	req.Platforms = nil // BuildKit's check is for its own platform, whatever is asked for
	found, err := build.Check(ctx, env, req)
	if err != nil {
		return nil, buildError(err)
	}
	var out []Finding
	for _, w := range found.Warnings {
		f := Finding{Rule: w.Rule, URL: w.URL, Message: w.Message}
		for n := w.Span.Start; n <= w.Span.End; n++ {
			f.Lines = append(f.Lines, n)
		}
		out = append(out, f)
	}
	if found.Err != nil {
		err = buildError(found.Err)
	}
	return sortFindings(out), err
}

func sortFindings(list []Finding) []Finding {
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(slices.Compare(a.Lines, b.Lines), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return list
}

// loadFindings reads findings from the file at path.
func loadFindings(path string) ([]Finding, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read findings: %w", err)
	}
	var out []Finding
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, errors.Join(errors.New("decode findings of "+path), err)
	}
	return out, nil
}

// saveFindings writes findings to the file at path.
func saveFindings(path string, list []Finding) error {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if list == nil {
		list = []Finding{}
	}
	if err := enc.Encode(list); err != nil {
		return fmt.Errorf("encode findings: %w", err)
	}
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
