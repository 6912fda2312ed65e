package cli

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"hako/internal/build"
	"hako/internal/contextsource"
	"hako/internal/diag"
	"hako/internal/event"
)

// gitOptions are the values of --git.
type gitOptions struct {
	contextsource.Git
	skipTLSVerify bool
	// unknown are the keys that nobody knows. kaniko takes them without a word.
	unknown []string
}

// gitKeys are the keys of --git: kaniko's, and lfs and keep-git-dir. single-branch and depth have no effect: never more
// than one commit is fetched where the server allows it.
func gitKeys() []string {
	return []string{"branch", "single-branch", "recurse-submodules", "insecure-skip-tls", "depth", "lfs", "keep-git-dir"}
}

// takeGit puts the values of --git into the request.
func takeGit(vs *values, req *build.Request) error {
	g, err := parseGit(vs.list("git"))
	req.Git, req.GitSkipTLSVerify = g.Git, g.skipTLSVerify
	return err
}

// parseGit reads the values of --git; the last one of a key counts.
func parseGit(given []string) (gitOptions, error) {
	var out gitOptions
	var errs []error
	for _, text := range given {
		key, value, ok := strings.Cut(text, "=")
		if !ok {
			errs = append(errs, fmt.Errorf("--git %s: expected key=value", text))
			continue
		}
		if err := out.set(key, value); err != nil {
			errs = append(errs, fmt.Errorf("--git %s: %w", text, err))
		}
	}
	return out, errors.Join(errs...)
}

func (g *gitOptions) set(key, value string) (err error) {
	on := func() bool {
		var b bool
		if b, err = strconv.ParseBool(value); err != nil {
			err = errors.New("the value is true or false")
		}
		return b
	}
	switch key {
	case "branch":
		g.Branch = value
	case "recurse-submodules":
		b := on()
		g.Submodules = &b
	case "insecure-skip-tls":
		g.skipTLSVerify = on()
	case "lfs":
		g.KeepPointers = !on()
	case "keep-git-dir":
		b := on()
		g.KeepDir = &b
	case "single-branch":
		on()
	case "depth":
		if n, perr := strconv.Atoi(value); perr != nil || n < 0 {
			err = errors.New("the value is a number of commits")
		}
	default:
		g.unknown = append(g.unknown, key)
	}
	return err
}

// warnOfGit tells of keys that have no effect because nobody knows them.
func warnOfGit(vs *values, to event.Sink) {
	g, err := parseGit(vs.list("git"))
	if err != nil {
		return // request has said it
	}
	for _, key := range g.unknown {
		text := fmt.Sprintf("--git %s has no effect: there is no such option", key)
		if near, ok := diag.Nearest(key, gitKeys()); ok {
			text += fmt.Sprintf("; did you mean %s?", near)
		}
		to.Emit(event.Warning{Message: text})
	}
}
