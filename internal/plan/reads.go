package plan

import "strings"

// Reads lists what the step reads beside the files of its own stage: other stages, images, sources, and the build context,
// which is the zero From. One may come more than once.
func (s *Step) Reads() []From {
	switch op := s.Op.(type) {
	case *Copy:
		return op.reads()
	case *Run:
		return op.reads()
	}
	return nil
}

func (c *Copy) reads() []From {
	var out []From
	named := false // whether a path is one of From
	for i := range c.Paths {
		if i < len(c.Fetched) && c.Fetched[i] != nil {
			out = append(out, From{Source: c.Fetched[i]})
			continue
		}
		named = true
	}
	if named {
		out = append(out, c.From)
	}
	return out
}

func (r *Run) reads() []From {
	var out []From
	for _, m := range r.Mounts {
		switch src := m.Source.(type) {
		case *BindMount:
			out = append(out, src.From)
		case *CacheMount:
			if src.From != nil {
				out = append(out, *src.From)
			}
		}
	}
	return out
}

// Describe is what the step does, as Graph.String prints it, a line for each aspect, for people who do not have this machine:
// without paths of its directories. Values of variables whose names look like secrets are masked.
func (s *Step) Describe() []string {
	t := &text{secret: newSecretNames()}
	t.step(s)
	lines := strings.Split(strings.TrimSuffix(t.b.String(), "\n"), "\n")[1:] // the first names the step
	for i, l := range lines {
		for _, f := range s.Reads() {
			if f.Source != nil && f.Source.URI() == "" {
				l = strings.ReplaceAll(l, f.Source.String(), f.Source.Name)
			}
		}
		lines[i] = strings.TrimSpace(l)
	}
	return lines
}

// URI names the source for others: without user, password and query, which may be secrets. It is empty for a local directory.
func (s *Source) URI() string {
	switch {
	case s.HTTP != nil:
		return withoutSecrets(s.HTTP.URL)
	case s.Git != nil:
		uri := withoutSecrets(s.Git.Remote)
		if s.Git.Ref != "" || s.Git.Subdir != "" {
			uri += "#" + s.Git.Ref
		}
		if s.Git.Subdir != "" {
			uri += ":" + s.Git.Subdir
		}
		return uri
	case strings.Contains(s.Context, "://") && !strings.HasPrefix(s.Context, "dir://"):
		return withoutSecrets(s.Context)
	}
	return ""
}
