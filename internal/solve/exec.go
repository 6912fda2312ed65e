package solve

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
)

// exec runs a RUN step and makes a layer of what it changed.
func (s *solver) exec(ctx context.Context, j job, op *plan.Run) (*state, error) {
	t, err := j.cur.stack.Tree(ctx)
	if err != nil {
		return nil, err
	}
	user, err := rootfs.LookupUser(t, op.User)
	if err != nil {
		return nil, &diag.Error{What: "RUN: find user " + op.User, Span: j.step.Span, Cause: err,
			Hint: "Create the user in an earlier RUN or use a numeric id."}
	}
	x, err := s.extras(ctx, j, op)
	if err != nil {
		return nil, err
	}
	engine, err := s.parts.Engine(ctx)
	if err != nil {
		return nil, err
	}
	last := &tail{}
	out := &lines{sink: s.parts.Events, step: j.step.ID, last: last}
	errs := &lines{sink: s.parts.Events, step: j.step.ID, stderr: true, last: last}
	start := s.parts.Now()
	outcome, err := engine.Run(ctx, &sandbox.Step{
		Name: j.step.ID, Lowers: j.cur.stack.Lowers(),
		Args: op.Args, Env: withHome(withSecrets(op.Env, x.env), user.Home), Dir: op.Dir,
		User:     sandbox.User{UID: user.UID, GID: user.GID, Groups: user.Groups},
		Hostname: op.Hostname, ExtraHosts: hosts(op.ExtraHosts), Mounts: x.mounts, Files: x.files, ShmSize: op.ShmSize, Latest: s.parts.Latest,
		Network: network(op.Network), Stdout: out, Stderr: errs,
	})
	out.flush()
	errs.flush()
	s.span("sandbox", j.step, start)
	if err != nil {
		return nil, failed(j.step, last, err)
	}
	next, err := s.commit(ctx, outcome.Changes(), j)
	if err == nil {
		err = outcome.Keep(next.stack.ChainID())
	}
	return next, errors.Join(err, outcome.Close())
}

func network(n plan.Network) sandbox.Network {
	switch n {
	case plan.NetworkHost:
		return sandbox.NetworkHost
	case plan.NetworkNone:
		return sandbox.NetworkNone
	}
	return sandbox.NetworkDefault
}

// failed explains a step that did not succeed.
func failed(step *plan.Step, last *tail, err error) error {
	var exit *sandbox.ExitError
	var hinted interface{ Hint() string }
	switch {
	case errors.As(err, &exit):
	case errors.As(err, &hinted): // the sandbox knows what would help
		return &diag.Error{What: "RUN", Span: step.Span, Cause: err, Hint: hinted.Hint()}
	default:
		return err
	}
	lines := last.text()
	return &diag.Error{What: "RUN", Span: step.Span, Cause: err, Output: lines, Hint: advise(exit, step, lines)}
}

// withSecrets sets variables over those of the same names.
func withSecrets(env, secrets []string) []string {
	for _, kv := range secrets {
		name, _, _ := strings.Cut(kv, "=")
		env = slices.DeleteFunc(slices.Clone(env), func(old string) bool { return strings.HasPrefix(old, name+"=") })
		env = append(env, kv)
	}
	return env
}

// withHome sets HOME as runc does: where the image does not set it, or leaves it empty.
func withHome(env []string, home string) []string {
	i := slices.IndexFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") })
	switch {
	case i < 0:
		return append(slices.Clip(env), "HOME="+home)
	case env[i] == "HOME=":
		env = slices.Clone(env)
		env[i] = "HOME=" + home
	}
	return env
}

func hosts(entries []plan.HostEntry) []sandbox.Host {
	var out []sandbox.Host
	for _, h := range entries {
		out = append(out, sandbox.Host{Name: h.Name, IP: h.IP})
	}
	return out
}

// files are the heredocs of a step as its sandbox shows them. They are scripts, so they can be executed.
func files(inline []plan.InlineFile) []sandbox.File {
	var out []sandbox.File
	for _, f := range inline {
		out = append(out, sandbox.File{Path: f.Path, Mode: 0o755, Data: f.Data})
	}
	return out
}

// maxLine bounds a line of output; a longer one comes in pieces.
const maxLine = 64 << 10 // 64 KiB

// lines turns what a step writes into one event for each line. It may be used from many goroutines.
type lines struct {
	sink   event.Sink
	step   string
	stderr bool
	last   *tail

	mu   sync.Mutex // guards rest
	rest []byte
}

var _ io.Writer = (*lines)(nil)

// Write never fails.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		end := slices.Index(p, '\n')
		if end >= 0 {
			l.emitLocked(append(l.rest, p[:end]...))
			p = p[end+1:]
			continue
		}
		l.rest = append(l.rest, p...)
		p = nil
		if len(l.rest) >= maxLine {
			l.emitLocked(l.rest)
		}
	}
	return n, nil
}

// flush emits an unfinished last line.
func (l *lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		l.emitLocked(l.rest)
	}
}

// emitLocked hands line over to the sink, which may keep it.
func (l *lines) emitLocked(line []byte) {
	l.last.add(line)
	l.sink.Emit(event.StepOutput{Step: l.step, Stderr: l.stderr, Line: line})
	l.rest = nil
}
