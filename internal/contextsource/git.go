package contextsource

import (
	"context"
	"strings"
)

// isGit says whether text names a git repository.
func isGit(text string) bool {
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case !ok:
		return strings.HasPrefix(text, "git@")
	case scheme == "git" || scheme == "ssh":
		return true
	case scheme != "http" && scheme != "https":
		return false
	}
	path, _, _ := strings.Cut(rest, "#")
	path, _, _ = strings.Cut(path, "?")
	return strings.HasSuffix(path, ".git")
}

// openGit fetches a git repository at one commit.
func (o *opener) openGit(_ context.Context) (*Source, error) {
	return nil, o.unsupported("git")
}
