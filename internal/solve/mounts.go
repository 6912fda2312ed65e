package solve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"hako/internal/diag"
	"hako/internal/filecopy"
	"hako/internal/plan"
	"hako/internal/rootfs"
	"hako/internal/sandbox"
)

// extras is what a RUN has besides its stage.
type extras struct {
	mounts []sandbox.Mount
	files  []sandbox.File
	// env are the variables of secrets.
	env []string
}

// extras makes ready what j mounts.
func (s *solver) extras(ctx context.Context, j job, op *plan.Run) (*extras, error) {
	x := &extras{files: files(op.Files)}
	for i := range op.Mounts {
		m := &op.Mounts[i]
		var src sandbox.MountSource
		var err error
		switch p := m.Source.(type) {
		case *plan.BindMount:
			src, err = s.bind(ctx, p)
		case *plan.CacheMount:
			src, err = s.cache(ctx, p, j.caches[p])
		case *plan.TmpfsMount:
			src = &sandbox.Tmpfs{Size: p.Size}
		case *plan.SecretMount:
			err = s.secret(x, p, m.Target)
		case *plan.SSHMount:
			src = s.agent(p)
		default:
			err = fmt.Errorf("unknown kind %T", p)
		}
		if err != nil {
			return nil, mountError(err)
		}
		if src != nil {
			x.mounts = append(x.mounts, sandbox.Mount{Target: m.Target, Source: src, ReadOnly: m.ReadOnly})
		}
	}
	return x, nil
}

// mountError says what err is about. What the user can mend keeps its hint.
func mountError(err error) error {
	const what = "RUN --mount: "
	var d *diag.Error
	if !errors.As(err, &d) {
		return fmt.Errorf(what+"%w", err)
	}
	c := *d
	c.What = what + strings.TrimPrefix(c.What, what)
	return &c
}

// checkGiven makes sure that the user gave every secret and agent that a step requires, before anything runs.
func (s *solver) checkGiven(g *plan.Graph) error {
	for _, st := range g.Stages {
		for _, step := range st.Steps {
			op, ok := step.Op.(*plan.Run)
			if !ok {
				continue
			}
			for i := range op.Mounts {
				if err := s.given(op.Mounts[i].Source); err != nil {
					return located(step, mountError(err))
				}
			}
		}
	}
	return nil
}

func (s *solver) given(m plan.MountSource) error {
	switch m := m.(type) {
	case *plan.SecretMount:
		if m.Required && !s.parts.Secrets.Has(m.ID) {
			return &diag.Error{
				What: fmt.Sprintf("the step requires the secret %q, and there is none", m.ID),
				Hint: fmt.Sprintf("Give it with --secret id=%s,src=FILE or --secret id=%s,env=VARIABLE.", m.ID, m.ID),
			}
		}
	case *plan.SSHMount:
		if m.Required && s.parts.Agent(m.ID) == nil {
			return &diag.Error{
				What: fmt.Sprintf("the step requires the ssh agent %q, and there is none", m.ID),
				Hint: fmt.Sprintf("Give it with --ssh %s, or --ssh %s=SOCKET_OR_KEY.", m.ID, m.ID),
			}
		}
	}
	return nil
}

// cache is the cache that the step has claimed under id.
func (s *solver) cache(ctx context.Context, m *plan.CacheMount, id string) (*sandbox.Cache, error) {
	c := &sandbox.Cache{ID: id, Path: strings.TrimPrefix(m.Path, "/"), Mode: cacheMode}
	if c.Path == "" {
		c.Path = "."
	}
	var first *rootfs.Stack
	switch {
	case m.Owner != nil:
		c.Mode, c.UID, c.GID = m.Owner.Mode, m.Owner.UID, m.Owner.GID
	case m.From != nil:
		var err error
		if first, c.Path, err = s.filesOf(ctx, *m.From, m.Path); err != nil {
			return nil, err
		}
	}
	if s.parts.CacheMounts != nil {
		first = s.parts.CacheMounts.First(ctx, &FirstRequest{ID: id, Shared: m.Sharing == plan.SharingShared, Below: first})
		c.Owned = m.From == nil || m.Owner != nil
	}
	c.Lowers = first.Lowers()
	return c, nil
}

// cacheMode is that of a cache's directory where nothing says otherwise.
const cacheMode = 0o755

// claim waits for the caches of a RUN, and puts their IDs into j. It comes before the step takes a slot.
// The caller calls release when the step is over.
func (s *solver) claim(ctx context.Context, j *job) (release func(), _ error) {
	op, ok := j.step.Op.(*plan.Run)
	if !ok {
		return func() {}, nil
	}
	var mounts []*plan.CacheMount
	var wants []want
	for i := range op.Mounts {
		if m, ok := op.Mounts[i].Source.(*plan.CacheMount); ok {
			key, err := s.cacheKey(ctx, m)
			if err != nil {
				return nil, err
			}
			mounts, wants = append(mounts, m), append(wants, want{key, m.Sharing})
		}
	}
	ids, release, err := s.caches.claim(ctx, wants)
	if err != nil {
		return nil, err
	}
	j.caches = map[*plan.CacheMount]string{}
	for i, m := range mounts {
		j.caches[m] = ids[i]
	}
	return release, nil
}

// cacheKey is the same for mounts that mean the same cache.
func (s *solver) cacheKey(ctx context.Context, m *plan.CacheMount) (string, error) {
	switch {
	case m.Owner != nil:
		return fmt.Sprintf("%s:%o:%d:%d", m.ID, m.Owner.Mode, m.Owner.UID, m.Owner.GID), nil
	case m.From == nil:
		return m.ID, nil
	}
	lowers, _, err := s.files(ctx, *m.From, m.Path)
	if err != nil || len(lowers) == 0 {
		return m.ID, err
	}
	return m.ID + ":" + lowers[len(lowers)-1].ID.String(), nil
}

// secret adds a secret to x, as a file at target unless that is empty.
func (s *solver) secret(x *extras, m *plan.SecretMount, target string) error {
	var data []byte
	ok := s.parts.Secrets.Has(m.ID)
	if ok {
		var err error
		if data, err = s.parts.Secrets.Read(m.ID); err != nil {
			return err
		}
	}
	if m.Env != "" {
		if bytes.IndexByte(data, 0) >= 0 {
			return &diag.Error{
				What: fmt.Sprintf("the secret %q has a zero byte in it and cannot be a variable", m.ID),
				Hint: "Mount it as a file: leave env out.",
			}
		}
		x.env = append(x.env, m.Env+"="+string(data))
	}
	if ok && target != "" {
		x.files = append(x.files, sandbox.File{Path: target, Mode: m.Owner.Mode, UID: m.Owner.UID, GID: m.Owner.GID, Data: data})
	}
	return nil
}

// agent is the socket of an agent, or nil if the user gave none.
func (s *solver) agent(m *plan.SSHMount) sandbox.MountSource {
	dial := s.parts.Agent(m.ID)
	if dial == nil {
		return nil
	}
	return &sandbox.Socket{Dial: dial, Mode: m.Owner.Mode, UID: m.Owner.UID, GID: m.Owner.GID}
}

// bind finds the files that a mount shows.
func (s *solver) bind(ctx context.Context, m *plan.BindMount) (*sandbox.Bind, error) {
	lowers, path, err := s.files(ctx, m.From, m.Path)
	if err != nil {
		return nil, err
	}
	return &sandbox.Bind{Lowers: lowers, Path: path}, nil
}

// files are the layers that path of f is in, and its literal path there.
func (s *solver) files(ctx context.Context, f plan.From, path string) ([]rootfs.Lower, string, error) {
	stack, at, err := s.filesOf(ctx, f, path)
	return stack.Lowers(), at, err
}

// filesOf is files as a stack.
func (s *solver) filesOf(ctx context.Context, f plan.From, path string) (*rootfs.Stack, string, error) {
	from, name, err := s.from(ctx, f)
	if err != nil {
		return nil, "", err
	}
	at, err := filecopy.Find(from, name, path)
	if err != nil {
		return nil, "", err
	}
	stack, ok, err := s.stackOf(ctx, f)
	if err == nil && !ok {
		stack, err = s.held.stack(ctx, from, name, partKey{f, at})
	}
	if err != nil {
		return nil, "", err
	}
	return stack, at, nil
}

// sources are the stages that op reads.
func sources(op plan.Op) []*plan.Stage {
	var out []*plan.Stage
	for _, f := range froms(op) {
		if f.Stage != nil {
			out = append(out, f.Stage)
		}
	}
	return out
}

// froms is what op reads besides its own stage.
func froms(op plan.Op) []plan.From {
	var out []plan.From
	switch op := op.(type) {
	case *plan.Copy:
		out = append(out, op.From)
	case *plan.Run:
		for _, m := range op.Mounts {
			switch src := m.Source.(type) {
			case *plan.BindMount:
				out = append(out, src.From)
			case *plan.CacheMount:
				if src.From != nil {
					out = append(out, *src.From)
				}
			}
		}
	}
	return out
}

// stackOf is the stack of layers that f is; ok says whether it is one.
func (s *solver) stackOf(ctx context.Context, f plan.From) (_ *rootfs.Stack, ok bool, _ error) {
	var st *state
	var err error
	switch {
	case f.Stage != nil:
		st, err = s.wait(ctx, f.Stage)
	case f.Image != nil:
		st, err = s.image(ctx, f.Image)
	default:
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return st.stack, true, nil
}
