package contextsource

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"

	"hako/internal/diag"
	"hako/internal/event"
	"hako/internal/gittree"
	"hako/internal/gitwire"
)

// A git repository is written in kaniko's form, git://host/path#ref#commit, or in docker's: https://host/path.git#ref:subdir,
// user@host:path, ssh://…, each with docker's query. The two disagree about git://, which is https for kaniko (or what
// GIT_PULL_METHOD says), and git's own protocol for docker. Here it is what kaniko says; GIT_PULL_METHOD=git is docker's.
// They also disagree about submodules, which kaniko leaves out and docker does not, and about the .git directory, where it is
// the other way round.

// Git says how a repository that is a context is fetched. The zero value is what the form of the place stands for.
type Git struct {
	// Branch is a branch or a tag that takes the place of the one in the place; empty for none.
	Branch string
	// Submodules, if not nil, says whether submodules are fetched; nil is what the form of the place says.
	Submodules *bool
	// KeepDir, if not nil, says whether there is a .git directory; nil is what the form of the place says.
	KeepDir *bool
	// KeepPointers says that files of Git LFS stay what the repository has in their place.
	KeepPointers bool
	// CommitTimes gives all files the time of the commit.
	CommitTimes bool
}

// isGit says whether the place is a git repository.
func (o *opener) isGit() bool {
	text := o.req.Place
	scheme, rest, ok := strings.Cut(text, "://")
	switch {
	case !ok:
		return o.isShortGit(text)
	case scheme == "git" || scheme == "ssh":
		return true
	case scheme != "http" && scheme != "https":
		return false
	}
	at, _, _ := strings.Cut(rest, "#")
	at, _, _ = strings.Cut(at, "?")
	return strings.HasSuffix(at, ".git")
}

// isShortGit says whether text is user@host:path or github.com/owner/name, and not a directory of that name.
func (o *opener) isShortGit(text string) bool {
	user, rest, ok := strings.Cut(text, "@")
	host, at, ok2 := strings.Cut(rest, ":")
	remote := ok && ok2 && user != "" && host != "" && at != "" && !strings.Contains(user+host, "/")
	if !remote && !strings.HasPrefix(text, GitHub) {
		return false
	}
	_, err := os.Lstat(filepath.Join(o.Cwd, text))
	return err != nil
}

// GitHub is what a place begins with that is a repository there without saying how it is reached: that is https.
const GitHub = "github.com/"

// openGit fetches a git repository at one commit.
func (o *opener) openGit(ctx context.Context) (*Source, error) {
	spec, err := o.gitSpec()
	if err != nil {
		return nil, err
	}
	t, taken, err := o.fetchGit(ctx, *spec)
	if err != nil {
		return nil, o.explainLimit(err)
	}
	at := t.Time()
	s := &Source{
		Tree: t, Name: gitwire.Redact(spec.Remote), URI: gitURI(spec), Digest: t.Format() + ":" + t.Commit(), Time: &at, SubPathTaken: taken,
		closers: []func() error{t.Close},
	}
	o.tellGit(s, spec)
	return s, nil
}

// tellGit says which commit it is, and what of it is not there although nobody asked for that.
func (o *opener) tellGit(s *Source, spec *gittree.Spec) {
	_, commit, _ := strings.Cut(s.Digest, ":")
	text := fmt.Sprintf("%s is the commit %s of %s", o.req.Title, commit, s.URI)
	kaniko := strings.HasPrefix(o.req.Place, "git://")
	if kaniko && spec.KeepGitDir && o.req.Git.KeepDir == nil {
		text += ", with .git (--git keep-git-dir=false leaves it out)"
	}
	o.Events.Emit(event.Info{Message: text})
	if _, err := s.Tree.Lstat(".gitmodules"); err == nil && kaniko && spec.SkipSubmodules && o.req.Git.Submodules == nil {
		o.Events.Emit(event.Warning{Message: o.req.Title + ": its submodules are empty directories; --git recurse-submodules=true fetches them"})
	}
}

// fetchGit fetches the repository, or only the directory that is to take the context's place: then no more is fetched,
// where the server can do that. A path with symbolic links is left to whoever can follow them.
func (o *opener) fetchGit(ctx context.Context, s gittree.Spec) (t *gittree.Tree, taken bool, err error) {
	options := o.Git
	options.Limits.Pack.PackBytes = o.MaxBytes
	sub := strings.TrimLeft(o.req.SubPath, "/")
	if sub != "" && filepath.IsLocal(sub) && !s.KeepGitDir {
		below := s
		below.Subdir = path.Join(s.Subdir, sub)
		t, err = gittree.Fetch(ctx, options, below)
		var none *gittree.SubdirError
		if err == nil || !errors.As(err, &none) {
			return t, true, err
		}
	}
	t, err = gittree.Fetch(ctx, options, s)
	return t, false, err
}

// gitURI is the repository for others: without secrets, with the reference and the directory.
func gitURI(s *gittree.Spec) string {
	uri := gitwire.Redact(s.Remote)
	if s.Ref != "" || s.Subdir != "" {
		uri += "#" + s.Ref
	}
	if s.Subdir != "" {
		uri += ":" + s.Subdir
	}
	return uri
}

// gitSpec reads the place.
func (o *opener) gitSpec() (*gittree.Spec, error) {
	text := o.req.Place
	if strings.HasPrefix(text, GitHub) {
		text = "https://" + text
		if at, rest, ok := strings.Cut(text, "#"); !strings.HasSuffix(at, ".git") {
			if text = at + ".git"; ok {
				text += "#" + rest
			}
		}
	}
	kaniko := strings.HasPrefix(text, "git://")
	commit := ""
	if kaniko {
		var err error
		if text, commit, err = cutCommit(text); err != nil {
			return nil, err
		}
	}
	ref, isGit, err := dfgitutil.ParseGitRef(text)
	if err != nil || !isGit {
		return nil, &diag.Error{
			What: "git repository " + gitwire.Redact(text), Cause: parseReason(err),
			Hint: "Write git://host/path#ref#commit, https://host/path.git#ref:directory or user@host:path#ref:directory.",
		}
	}
	g := o.req.Git
	s := &gittree.Spec{
		Remote: ref.Remote, Ref: ref.Ref, Subdir: strings.Trim(path.Join("/", ref.SubDir), "/"), Checksum: ref.Checksum, FetchByCommit: ref.FetchByCommit,
		CommitTimes: g.CommitTimes || ref.MTime == "commit", LFS: !g.KeepPointers,
		// A directory of kaniko's clone has no .git in it.
		KeepGitDir:     decided(kaniko && o.req.SubPath == "" && ref.SubDir == "", ref.KeepGitDir, g.KeepDir),
		SkipSubmodules: !decided(!kaniko, ref.Submodules, g.Submodules),
	}
	if kaniko {
		var known bool
		if s.Remote, known = PullURL(ref.Remote, o.Getenv); !known {
			o.Events.Emit(event.Warning{Message: pullMethod + "=" + o.Getenv(pullMethod) + " has no meaning, so https is used; https, http, ssh and git have one"})
		}
	}
	o.chooseRef(s, commit)
	return s, checkGit(s)
}

// decided is the last of what was said, or the usual.
func decided(usual bool, said ...*bool) bool {
	for _, b := range said {
		if b != nil {
			usual = *b
		}
	}
	return usual
}

// cutCommit cuts the commit off that kaniko has after a second #.
func cutCommit(text string) (rest, commit string, err error) {
	parts := strings.Split(text, "#")
	switch {
	case len(parts) > 3:
		return "", "", &diag.Error{What: fmt.Sprintf("git repository %s: there is a third # after it", gitwire.Redact(parts[0])), Hint: "Write git://host/path#ref#commit."}
	case len(parts) == 3:
		return parts[0] + "#" + parts[1], parts[2], nil
	}
	return text, "", nil
}

// parseReason is what is wrong with an address, without the address.
func parseReason(err error) error {
	if u, ok := err.(*url.Error); ok { //nolint:errorlint // what is around it may repeat the address
		return u.Err
	}
	return err
}

// PullURL is what git://host/path stands for in a context: another scheme, by the variable GIT_PULL_METHOD. known is false if
// that has a value without a meaning; then it is https, as in kaniko.
func PullURL(remote string, getenv func(string) string) (_ string, known bool) {
	rest := strings.TrimPrefix(remote, "git://")
	switch method := strings.ToLower(getenv(pullMethod)); method {
	case "", "https":
		return "https://" + rest, true
	case "http", "git":
		return method + "://" + rest, true
	case "ssh":
		if host, _, _ := strings.Cut(rest, "/"); !strings.Contains(host, "@") {
			rest = "git@" + rest
		}
		return "ssh://" + rest, true
	}
	return "https://" + rest, false
}

const pullMethod = "GIT_PULL_METHOD"

// chooseRef decides between the places where a reference can be named: a commit counts before a branch of --git, and that
// before the place's.
func (o *opener) chooseRef(s *gittree.Spec, commit string) {
	branch := o.req.Git.Branch
	chosen := s.Ref
	switch {
	case commit != "":
		chosen = commit
	case branch != "" && !isCommit(s.Ref):
		chosen = branch
	}
	if branch != "" && s.Ref != "" && s.Ref != branch && "refs/heads/"+branch != s.Ref && "refs/tags/"+branch != s.Ref {
		o.Events.Emit(event.Warning{Message: fmt.Sprintf("--git branch=%s and #%s in --context name two references; %s is taken", branch, s.Ref, chosen)})
	}
	s.Ref = chosen
}

// isCommit says whether text is a whole commit id.
func isCommit(text string) bool {
	return (len(text) == 40 || len(text) == 64) && strings.Trim(text, "0123456789abcdefABCDEF") == ""
}

// checkGit refuses what cannot be.
func checkGit(s *gittree.Spec) error {
	bad := func(hint, format string, args ...any) error {
		return &diag.Error{What: "git repository " + gitwire.Redact(s.Remote) + ": " + fmt.Sprintf(format, args...), Hint: hint}
	}
	switch {
	case strings.HasPrefix(s.Ref, "-"), strings.ContainsAny(s.Ref, " \t\r\n\x00~^:?*[\\"): // git-check-ref-format(1)
		return bad("Name a branch, a tag, a reference or a commit.", "%q cannot be a reference", s.Ref)
	case strings.Trim(s.Checksum, "0123456789abcdefABCDEF") != "":
		return bad("Give the commit's id in hexadecimal digits, or the beginning of it.", "the checksum %q is no commit", s.Checksum)
	case s.FetchByCommit && !isCommit(s.Checksum):
		return bad("Give all digits of it as commit=… in the URL.", "fetch-by-commit needs a whole commit id")
	}
	return nil
}
