package contextsource

import (
	"context"
	"strings"

	"hako/internal/contextartifact"
	"hako/internal/event"
	"hako/internal/gittree"
)

// Pin returns the place of r with the commit or the digest that it stands for at the moment, so that it is the same whenever and
// wherever it is opened. pinned is false, and the place as it was, if there is no way to say that: of files on web servers and in
// buckets. What the user can mend is a *diag.Error.
//
// A repository that is to have a .git directory keeps its reference, which is seen in there: if that moves, opening it fails.
func Pin(ctx context.Context, o Options, r Request) (place string, pinned bool, err error) {
	o.Events = event.Discard{} // whoever opens the place says it
	op := &opener{Options: o, req: r}
	k, err := op.kindOf()
	if err != nil {
		return "", false, err
	}
	switch k {
	case gitRepository:
		return op.pinGit(ctx)
	case artifact:
		a, err := contextartifact.Find(ctx, o.Registry, r.Place)
		if err != nil {
			return "", false, err
		}
		return contextartifact.Scheme + a.Reference, true, nil
	}
	return r.Place, false, nil
}

// pinGit adds the commit, in docker's words.
func (o *opener) pinGit(ctx context.Context) (place string, pinned bool, err error) {
	spec, err := o.gitSpec()
	if err != nil {
		return "", false, err
	}
	if isCommit(spec.Ref) || spec.Checksum != "" {
		return o.req.Place, true, nil
	}
	commit, err := gittree.Resolve(ctx, o.Git, *spec)
	if err != nil {
		return "", false, err
	}
	if commit == "" {
		return o.req.Place, true, nil
	}
	want := *spec
	want.Checksum, want.FetchByCommit = commit, !spec.KeepGitDir
	op := *o
	op.req.Place = withCommit(o.req.Place, &want)
	if got, err := op.gitSpec(); err != nil || *got != want { // a form without room for it
		return o.req.Place, false, nil
	}
	return op.req.Place, true, nil
}

// withCommit is a place with the commit of s.
func withCommit(place string, s *gittree.Spec) string {
	at, fragment, hasFragment := strings.Cut(place, "#")
	if strings.HasPrefix(at, GitHub) {
		at = "https://" + strings.TrimSuffix(at, ".git") + ".git"
	}
	if strings.Contains(at, "?") {
		at += "&"
	} else {
		at += "?"
	}
	at += "checksum=" + s.Checksum
	if s.FetchByCommit {
		at += "&fetch-by-commit=true"
	}
	if hasFragment {
		at += "#" + fragment
	}
	return at
}
