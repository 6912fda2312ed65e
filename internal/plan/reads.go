package plan

import "strings"

// Reads lists what the step reads beside the files of its own stage: other stages, images, sources, and the build context,
// which is the zero From. One may come more than once.
func (s *Step) Reads() []From {
	var out []From
	if op, ok := s.Op.(*Copy); ok && (len(op.Paths) > 0 || op.From != (From{})) {
		out = append(out, op.From)
	}
	return out
}

// Describe is what the step does, as Graph.String prints it, a line for each aspect, for people who do not have this machine:
// without paths of its directories. Values of variables whose names look like secrets are masked.
func (s *Step) Describe() []string {
	t := &text{secret: newSecretNames(), others: true}
	t.step(s)
	lines := strings.Split(strings.TrimSuffix(t.b.String(), "\n"), "\n")[1:] // the first names the step
	for i, l := range lines {
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
