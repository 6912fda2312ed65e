package plan

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"hako/internal/diag"
)

// The meaning of RUN --mount is that of BuildKit's dockerfile2llb/convert_runmount.go, convert_secrets.go and
// convert_ssh.go, and of client/llb/exec.go, which sorts the mounts.

const (
	secretDir  = "/run/secrets/"            // BuildKit: convert_secrets.go
	secretMode = 0o400                      // likewise
	agentPath  = "/run/buildkit/ssh_agent." // BuildKit: client/llb/exec.go, followed by a number
	agentMode  = 0o600                      // likewise
	agentID    = "default"
	cacheMode  = 0o755
	agentEnv   = "SSH_AUTH_SOCK"
)

// mounts are the mounts of c, parents first. The second result is the socket that ssh finds its agent at, or empty.
// sources are the stages that they name.
func (p *planner) mounts(c *instructions.RunCommand, sources []*stage) ([]Mount, string, error) {
	// BuildKit's order, before it sorts by target: what is mounted, then secrets, then sockets.
	var secrets, sockets []Mount
	plain := slices.Clone(p.opts.Binds)
	for i, m := range instructions.GetMounts(c) {
		out, err := p.mount(m, sources[i], len(sockets))
		if err != nil {
			return nil, "", err
		}
		switch m.Type {
		case instructions.MountTypeSecret:
			secrets = append(secrets, out)
		case instructions.MountTypeSSH:
			sockets = append(sockets, out)
		default:
			plain = append(plain, out)
		}
	}
	agent := ""
	if len(sockets) > 0 {
		agent = sockets[0].Target
	}
	all := slices.Concat(plain, secrets, sockets)
	slices.SortStableFunc(all, func(a, b Mount) int { return cmp.Compare(a.Target, b.Target) })
	return lastOfTarget(all), agent, nil
}

// lastOfTarget leaves out mounts that another with the same target hides.
func lastOfTarget(sorted []Mount) []Mount {
	var out []Mount
	for i, m := range sorted {
		if m.Target == "" || i+1 == len(sorted) || sorted[i+1].Target != m.Target {
			out = append(out, m)
		}
	}
	return out
}

// mount plans one mount. agents is how many sockets there are so far.
func (p *planner) mount(m *instructions.Mount, from *stage, agents int) (Mount, error) {
	if from != nil && !from.planned {
		return Mount{}, &diag.Error{
			What: fmt.Sprintf("RUN --mount: stage %s comes after stage %s", from.out.ID(), p.out.ID()),
			Hint: "Move the stage that is mounted before this one.",
		}
	}
	p.warnIgnored(m)
	out := Mount{ReadOnly: m.ReadOnly}
	var err error
	switch m.Type {
	case instructions.MountTypeSecret:
		return p.secretMount(m)
	case instructions.MountTypeSSH:
		return p.sshMount(m, agents)
	case instructions.MountTypeCache:
		out.Source = p.cacheMount(m, from)
	case instructions.MountTypeTmpfs:
		if path.Join("/", m.Source) != "/" {
			err = &diag.Error{What: "RUN --mount=type=tmpfs: there is no source in an empty directory", Hint: "Leave source out."}
		}
		out.Source = &TmpfsMount{Size: m.SizeLimit}
	default:
		bind := &BindMount{Path: path.Join("/", m.Source)}
		if from != nil {
			bind.From = from.source()
		}
		out.Source = bind
	}
	if err == nil {
		out.Target, err = p.mountTarget(m)
	}
	return out, err
}

// mountTarget is where m is seen.
func (p *planner) mountTarget(m *instructions.Mount) (string, error) {
	target := m.Target
	if !path.IsAbs(target) {
		target = path.Join("/", p.out.Config.Config.WorkingDir, target)
	}
	if target = path.Clean(target); target != "/" {
		return target, nil
	}
	hint := "Give a target below the root."
	if m.Target == "" {
		hint = "Give a target: without one it is the working directory, which is / here."
	}
	return "", &diag.Error{What: fmt.Sprintf("RUN --mount=type=%s cannot be mounted on /", m.Type), Hint: hint}
}

// cacheMount finds out which cache it is.
func (p *planner) cacheMount(m *instructions.Mount, from *stage) *CacheMount {
	id := m.CacheID
	if id == "" {
		id = path.Clean(m.Target)
	}
	out := &CacheMount{ID: p.opts.BuildArgs["BUILDKIT_CACHE_MOUNT_NS"] + "/" + id, Path: path.Join("/", m.Source)}
	switch m.CacheSharing {
	case instructions.MountSharingPrivate:
		out.Sharing = SharingPrivate
	case instructions.MountSharingLocked:
		out.Sharing = SharingLocked
	}
	if from != nil && from.kind != aliasOfScratch {
		f := from.source()
		out.From = &f
	}
	if out.Path == "/" && (m.UID != nil || m.GID != nil || m.Mode != nil) {
		o := owner(m, cacheMode)
		out.Owner = &o
	}
	return out
}

// owner is what m says of owner and mode, or root and mode.
func owner(m *instructions.Mount, mode uint32) Owner {
	o := Owner{Mode: mode}
	if m.Mode != nil {
		o.Mode = uint32(*m.Mode) & 0o777 //nolint:gosec // masked, as in BuildKit
	}
	if m.UID != nil {
		o.UID = uint32(*m.UID) //nolint:gosec // parsed with 32 bits
	}
	if m.GID != nil {
		o.GID = uint32(*m.GID) //nolint:gosec // likewise
	}
	return o
}

func (p *planner) secretMount(m *instructions.Mount) (Mount, error) {
	id := cmp.Or(m.Source, m.CacheID)
	if id == "" {
		id = path.Base(m.Target)
	}
	secret := &SecretMount{ID: id, Required: m.Required, Owner: owner(m, secretMode)}
	out := Mount{Source: secret, ReadOnly: true}
	if m.Env != nil {
		if *m.Env == "" || strings.ContainsAny(*m.Env, "=\x00") {
			return Mount{}, &diag.Error{What: fmt.Sprintf("RUN --mount=type=secret: env=%s is not the name of a variable", *m.Env), Hint: "Write env=NAME."}
		}
		if secret.Env = *m.Env; m.Target == "" {
			return out, nil
		}
	}
	at := *m
	if at.Target == "" {
		at.Target = secretDir + path.Base(id)
	}
	var err error
	out.Target, err = p.mountTarget(&at)
	return out, err
}

func (p *planner) sshMount(m *instructions.Mount, number int) (Mount, error) {
	if m.Source != "" {
		return Mount{}, &diag.Error{What: "RUN --mount=type=ssh has no source", Hint: "Name the agent with id, as in build --ssh id=…."}
	}
	ssh := &SSHMount{ID: cmp.Or(m.CacheID, agentID), Required: m.Required, Owner: owner(m, agentMode)}
	at := *m
	if at.Target == "" {
		at.Target = agentPath + itoa(number)
	}
	target, err := p.mountTarget(&at)
	return Mount{Target: target, Source: ssh}, err
}

// warnIgnored warns of what BuildKit accepts although it means nothing for this kind of mount.
func (p *planner) warnIgnored(m *instructions.Mount) {
	none := func(kinds ...instructions.MountType) bool { return !slices.Contains(kinds, m.Type) }
	const bind, cache, tmpfs = instructions.MountTypeBind, instructions.MountTypeCache, instructions.MountTypeTmpfs
	const secret, ssh = instructions.MountTypeSecret, instructions.MountTypeSSH
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"from", m.From != "" && none(bind, cache)},
		{"id", m.CacheID != "" && none(cache, secret, ssh)},
		{"env", m.Env != nil && none(secret)},
		{"rw", !m.ReadOnly && none(bind, cache, tmpfs)},
		{"mode, uid and gid if it has a source", m.Type == cache && path.Join("/", m.Source) != "/" && (m.Mode != nil || m.UID != nil || m.GID != nil)},
	} {
		if f.set {
			p.warnings = append(p.warnings, Warning{
				Message: fmt.Sprintf("RUN --mount=type=%s ignores %s", m.Type, f.name), Span: p.file.Span(p.cmd.Location()),
			})
		}
	}
}

// mountError words what BuildKit's parser says of a --mount. Its own suggestion is any of the nearest words; ours is always
// the same.
func mountError(err error) error {
	text := expansionMessage(err)
	if i := strings.LastIndex(text, " (did you mean "); i >= 0 {
		text = text[:i]
	}
	e := &diag.Error{What: "RUN --mount: " + text}
	words := strings.FieldsFunc(text, func(r rune) bool { return r == '\'' || r == '"' })
	options, ok := map[string][]string{
		"unexpected key": {
			"type", "from", "source", "target", "readonly", "readwrite", "id", "sharing", "required", "size", "mode", "uid", "gid",
			"src", "dst", "destination", "ro", "rw", "env",
		},
		"unsupported mount type":    {"bind", "cache", "tmpfs", "secret", "ssh"},
		"unsupported sharing value": {"shared", "private", "locked"},
	}[strings.TrimSpace(words[0])]
	if !ok || len(words) < 2 {
		return e
	}
	if near, ok := diag.Nearest(words[1], options); ok {
		e.Hint = fmt.Sprintf("Did you mean %s?", near)
	} else if strings.Contains(text, " for mount type ") {
		e.Hint = "A size needs type=tmpfs, and required needs type=secret or type=ssh, given before it."
	}
	return e
}

// network is what the step reaches.
func (p *planner) network(c *instructions.RunCommand) Network {
	switch instructions.GetNetwork(c) {
	case instructions.NetworkNone:
		return NetworkNone
	case instructions.NetworkHost:
		return NetworkHost
	}
	return p.opts.Network
}
