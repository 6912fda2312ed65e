package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/opencontainers/go-digest"

	"hako/internal/diag"
)

// Source is a file tree that is neither the build context nor a stage nor an image: a named context, or what ADD fetches.
// Exactly one of Context, Machine, HTTP and Git is set. Sources with equal fields are the same.
type Source struct {
	// Name is the source for people, without secrets.
	Name string
	// Context is the place of a build context as the user named it: a directory, or another form that --context takes.
	// What its own .dockerignore names is not in it.
	Context string
	// Machine is a directory of this machine, of which nothing is left out.
	Machine string
	HTTP    *HTTPSource
	Git     *GitSource
}

// HTTPSource is one file behind a URL: a tree with nothing but it in its root, owned by root, mode 0600,
// with the time that the server says, or else 1970.
type HTTPSource struct {
	// URL may hold a user and a password.
	URL string
	// Filename is what the file is called in the tree.
	Filename string
	// Checksum is what its content has to be; empty if anything will do.
	Checksum digest.Digest
}

// GitSource is a git repository's tree at one commit.
type GitSource struct {
	// Remote is the URL without fragment and query, or "user@host:path". It may hold a user and a password.
	Remote string
	// Ref is a branch, a tag, a full name of a reference, or a commit; empty is the remote's default branch.
	Ref string
	// Subdir is a directory in the repository that takes the root's place; empty for none.
	Subdir string
	// Checksum is a commit, or the first digits of one, that Ref has to stand for; empty if any will do.
	Checksum string
	// KeepGitDir leaves a .git directory in the tree. It has no effect if there is a Subdir.
	KeepGitDir bool
	// SkipSubmodules leaves the directories of submodules empty.
	SkipSubmodules bool
	// CommitTimes gives all files the time of the commit, and not that of the build.
	CommitTimes bool
	// FetchByCommit fetches Checksum, a full commit, without asking what Ref stands for.
	FetchByCommit bool
}

// check refuses what cannot be.
func (g *GitSource) check() error {
	if strings.HasPrefix(g.Ref, "-") {
		return &diag.Error{What: fmt.Sprintf("git repository %s: %q cannot be a reference", withoutSecrets(g.Remote), g.Ref)}
	}
	hex := strings.Trim(g.Checksum, "0123456789abcdefABCDEF") == ""
	switch {
	case !hex:
		return &diag.Error{
			What: fmt.Sprintf("git repository %s: the checksum %q is no commit", withoutSecrets(g.Remote), g.Checksum),
			Hint: "Give the commit's id in hexadecimal digits, or the beginning of it.",
		}
	case g.FetchByCommit && len(g.Checksum) != 40 && len(g.Checksum) != 64:
		return &diag.Error{
			What: fmt.Sprintf("git repository %s: fetch-by-commit needs a whole commit id", withoutSecrets(g.Remote)),
			Hint: "Give all digits of it as commit=… in the URL.",
		}
	}
	return nil
}

// String is the source's name and place, without secrets.
func (s *Source) String() string {
	with := func(place string) string {
		if place == s.Name {
			return quote(place)
		}
		return s.Name + " " + quote(place)
	}
	switch {
	case s.HTTP != nil:
		return with(withoutSecrets(s.HTTP.URL)) + field(" checksum=", string(s.HTTP.Checksum))
	case s.Git != nil:
		g := s.Git
		text := with(withoutSecrets(g.Remote)) + field(" ref=", g.Ref) + field(" subdir=", g.Subdir) + field(" checksum=", g.Checksum)
		for _, flag := range []struct {
			name string
			set  bool
		}{
			{"keep-git-dir", g.KeepGitDir}, {"skip-submodules", g.SkipSubmodules}, {"commit-times", g.CommitTimes}, {"fetch-by-commit", g.FetchByCommit},
		} {
			if flag.set {
				text += " " + flag.name
			}
		}
		return text
	case s.Machine != "":
		return s.Name
	}
	if !strings.Contains(s.Context, "://") {
		return s.Name + " " + quote(s.Context)
	}
	return s.Name + " " + quote(withoutSecrets(s.Context))
}

// parseGit reads a git repository as BuildKit writes it. It returns nil if text is none.
func parseGit(text string) (*GitSource, error) {
	ref, err := parseGitRef(text)
	if ref == nil || err != nil {
		return nil, err
	}
	g := &GitSource{
		Remote: ref.Remote, Ref: ref.Ref, Subdir: ref.SubDir, Checksum: ref.Checksum,
		CommitTimes: ref.MTime == "commit", FetchByCommit: ref.FetchByCommit,
		KeepGitDir:     ref.KeepGitDir != nil && *ref.KeepGitDir,
		SkipSubmodules: ref.Submodules != nil && !*ref.Submodules,
	}
	return g, g.check()
}

// parseGitRef is what BuildKit makes of text, or nil if it is not a git repository.
func parseGitRef(text string) (*dfgitutil.GitRef, error) {
	ref, isGit, err := dfgitutil.ParseGitRef(text)
	if err != nil && isGit {
		return nil, &diag.Error{What: gitRepository + " " + withoutSecrets(text), Cause: err}
	}
	if err != nil || ref.IndistinguishableFromLocal {
		return nil, nil //nolint:nilerr,nilnil // not a git repository, then
	}
	return ref, nil
}

// Sources are all sources that the graph reads, each once.
func (g *Graph) Sources() []*Source {
	var out []*Source
	add := func(s *Source) {
		if s != nil && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	for _, st := range g.Stages {
		for _, step := range st.Steps {
			switch op := step.Op.(type) {
			case *Copy:
				add(op.From.Source)
				for _, s := range op.Fetched {
					add(s)
				}
			case *Run:
				for _, m := range op.Mounts {
					switch m := m.Source.(type) {
					case *BindMount:
						add(m.From.Source)
					case *CacheMount:
						if m.From != nil {
							add(m.From.Source)
						}
					}
				}
			}
		}
	}
	return out
}
