package plan

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/util/system"
	mode "github.com/tonistiigi/dchapes-mode"

	"hako/internal/buildcontext"
	"hako/internal/diag"
)

// copySpec is what COPY and ADD have in common.
type copySpec struct {
	instructions.SourcesAndDest
	add           bool
	from          *stage
	chown, chmod  string
	link, parents bool
	exclude       []string
	unpack        *bool
	checksum      string // of a remote source; empty for none
	keepGitDir    *bool  // of git repositories
}

func (c *copySpec) name() string {
	if c.add {
		return "ADD"
	}
	return "COPY"
}

func (p *planner) copy(c copySpec) error {
	if err := p.checkCopy(&c); err != nil {
		return err
	}
	op := &Copy{Add: c.add, Unpack: c.unpack, Link: c.link && c.chmod == "", Exclude: c.exclude, Dest: p.dest(c.DestPath), Chown: c.chown, Chmod: c.chmod}
	var text strings.Builder
	text.WriteString(c.name())
	if c.parents {
		text.WriteString(" --parents")
	}
	if c.chown != "" {
		text.WriteString(" --chown=" + c.chown)
	}
	if c.chmod != "" {
		text.WriteString(" --chmod=" + c.chmod)
	}
	for _, src := range c.SourcePaths {
		text.WriteString(" " + withoutLogin(src))
		if err := p.addSource(&c, op, src); err != nil {
			return err
		}
	}
	for _, doc := range c.SourceContents {
		if err := checkInlineName(doc.Path); err != nil {
			return err
		}
		text.WriteString(" <<" + doc.Path)
		op.Inline = append(op.Inline, InlineFile{Path: doc.Path, Data: []byte(doc.Data)})
	}
	text.WriteString(" " + c.DestPath + " # buildkit")
	if c.from != nil {
		op.From = c.from.source()
	}
	return p.commit(text.String(), op)
}

// checkRemoteFlags refuses a --checksum that nothing would be compared with, and warns of flags without effect.
func (p *planner) checkRemoteFlags(c *copySpec) error {
	isGit := func(src string) bool { return remoteKind(src) == gitRepository }
	if c.keepGitDir != nil && !slices.ContainsFunc(c.SourcePaths, isGit) {
		p.note("ADD --keep-git-dir has no effect: no source is a git repository")
	}
	switch {
	case c.checksum == "":
	case len(c.SourcePaths) == 0:
		return &diag.Error{What: "ADD --checksum is for URLs and git repositories, not for heredocs"}
	case len(c.SourcePaths) != 1:
		return &diag.Error{
			What: fmt.Sprintf("ADD --checksum is for a single source, not for %d", len(c.SourcePaths)),
			Hint: "Write an ADD of its own for each source that is to be checked.",
		}
	case remoteKind(c.SourcePaths[0]) == "":
		return &diag.Error{
			What: "ADD --checksum is for URLs and git repositories, not for " + c.SourcePaths[0],
			Hint: "Leave out --checksum: files of the context are what they are.",
		}
	}
	return nil
}

// addSource adds a source to op.
func (p *planner) addSource(c *copySpec, op *Copy, src string) error {
	at, fetched, err := remoteSource(c, src)
	if err != nil {
		return err
	}
	if fetched != nil {
		for len(op.Fetched) < len(op.Paths) {
			op.Fetched = append(op.Fetched, nil)
		}
		op.Paths, op.Fetched = append(op.Paths, at), append(op.Fetched, fetched)
		return nil
	}
	p.lintIgnored(c, src)
	if len(op.Fetched) > 0 {
		op.Fetched = append(op.Fetched, nil)
	}
	if !c.parents {
		op.Paths = append(op.Paths, path.Join("/", src))
		return nil
	}
	pivot, part := splitPivot(src)
	if err := buildcontext.CheckPattern(part.Pattern); err != nil {
		return patternError(c.name(), src, err)
	}
	op.Paths, op.Parents = append(op.Paths, pivot), append(op.Parents, part)
	return nil
}

// chownByName says whether a part of "user[:group]" has to be looked up: it is neither a number nor "root".
func chownByName(chown string) bool {
	for _, part := range strings.SplitN(chown, ":", 2) {
		if _, err := strconv.ParseInt(part, 10, 32); err != nil && part != "" && part != "root" {
			return true
		}
	}
	return false
}

// splitPivot cuts a source of --parents at the first "/./", which says from where on directories are kept.
func splitPivot(src string) (pivot string, part Part) {
	pivot, pattern, ok := strings.Cut(src, "/./")
	if !ok {
		pivot, pattern = "/", src
	}
	pattern = path.Join("/", pattern)
	return path.Join("/", pivot), Part{
		Pattern:  strings.TrimPrefix(pattern, "/"),
		Required: !hasWildcards(pivot) && !hasWildcards(pattern),
	}
}

// hasWildcards says whether a pattern of paths has an unescaped wildcard.
func hasWildcards(s string) bool {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '*', '?', '[':
			return true
		case '\\':
			i++
		}
	}
	return false
}

// checkExcludes refuses bad patterns.
func (p *planner) checkExcludes(c *copySpec) error {
	for _, pattern := range c.exclude {
		if err := buildcontext.CheckPattern(pattern); err != nil {
			return patternError(c.name()+" --exclude", pattern, err)
		}
		if strings.Contains(pattern, "$") {
			p.note(fmt.Sprintf("%s --exclude=%s: variables are not replaced in --exclude; the \"$\" is taken literally", c.name(), pattern))
		}
	}
	return nil
}

// note warns of something about the instruction that no rule is about.
func (p *planner) note(message string) {
	p.warnings = append(p.warnings, Warning{Message: message, Span: p.file.Span(p.cmd.Location())})
}

func patternError(what, pattern string, err error) error {
	return &diag.Error{What: fmt.Sprintf("%s: bad pattern %q", what, pattern), Cause: err, Hint: `Write a "[" that is meant literally as "\[".`}
}

// checkCopy refuses what the flags cannot mean.
func (p *planner) checkCopy(c *copySpec) error {
	if c.from != nil && !c.from.planned && !c.from.replaced {
		return &diag.Error{
			What: fmt.Sprintf("COPY --from: stage %s comes after stage %s", c.from.out.ID(), p.out.ID()),
			Hint: "Move the stage that is copied from before this one.",
		}
	}
	if err := checkChmod(c.chmod); err != nil {
		return err
	}
	if err := p.checkExcludes(c); err != nil {
		return err
	}
	if c.link && chownByName(c.chown) {
		return &diag.Error{
			What: fmt.Sprintf("%s --link --chown=%s: names cannot be looked up, because --link does not see the files of the stage", c.name(), c.chown),
			Hint: "Give numbers, --chown=UID[:GID], or leave out --link.",
		}
	}
	return p.checkRemoteFlags(c)
}

// source is s as something to copy from.
func (s *stage) source() From {
	if s.kind == ofFile && !s.replaced {
		return From{Stage: s.out}
	}
	switch {
	case s.fromSource():
		return From{Source: s.named.source}
	case s.ref != nil:
		return From{Image: s.ref}
	case s.base != nil:
		return s.base.source()
	}
	return From{Stage: s.out}
}

// dest is the absolute destination. A slash at the end, or "/.", says that it is a directory.
func (p *planner) dest(dest string) string {
	if dest == "" || dest == "." {
		dest = "./"
	}
	dir := path.Join("/", p.out.Config.Config.WorkingDir)
	abs, err := system.NormalizePath(dir, dest, "linux", true)
	if err != nil { // only for Windows paths
		abs = path.Join(dir, dest) + "/"
	}
	clean := path.Clean(abs)
	if clean != "/" && (strings.HasSuffix(abs, "/") || strings.HasSuffix(abs, "/.")) {
		clean += "/"
	}
	return clean
}

// checkChmod refuses a --chmod that is neither octal nor symbolic.
func checkChmod(chmod string) error {
	if chmod == "" {
		return nil
	}
	if n, err := strconv.ParseUint(chmod, 8, 32); err == nil {
		if n > 0o7777 {
			return chmodError(chmod)
		}
		return nil
	}
	if _, err := mode.Parse(chmod); err != nil {
		return chmodError(chmod)
	}
	return nil
}

func chmodError(chmod string) error {
	return &diag.Error{What: fmt.Sprintf("--chmod=%s is not a mode", chmod), Hint: "Write octal digits up to 7777, or symbols such as u=rwX,go=rX."}
}

// checkInlineName refuses a heredoc name that cannot be a file name.
func checkInlineName(name string) error {
	if name == "." || name == ".." || strings.Contains(name, "/") {
		return errors.New("heredoc name " + strconv.Quote(name) + " cannot be a file name")
	}
	return nil
}
