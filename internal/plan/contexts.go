package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/image"
)

// The forms of a named context's value, as buildx has them. What is none of these nor a URL is a directory.
const (
	imageContext  = "docker-image://"
	layoutContext = "oci-layout://"
	stageContext  = "target:"
)

// httpContextFile is the file that a named context behind a URL consists of, as for BuildKit.
const httpContextFile = "context"

// ContextName is the name under which a named context is kept: "alpine", "docker.io/library/alpine" and "alpine:latest"
// are the same. A platform can follow: "alpine::linux/arm64" stands for the name only where it is wanted for that platform.
func ContextName(name string) (string, error) {
	base, platform, limited := strings.Cut(name, "::")
	named, err := reference.ParseNormalizedNamed(base)
	if err != nil {
		return "", &diag.Error{What: fmt.Sprintf("--build-context %s: it cannot be the name of a stage or an image", name), Cause: err,
			Hint: "Use lower-case letters, digits, dots and dashes: --build-context name=place."}
	}
	base = familiarName(named)
	if !limited {
		return base, nil
	}
	p, err := image.ParsePlatform(platform)
	if err != nil {
		return "", &diag.Error{What: "--build-context " + name, Cause: err, Hint: "Write name::os/architecture=place."}
	}
	return base + "::" + image.FormatPlatform(image.Normalize(p)), nil
}

// familiarName is the shortest name of an image, without the tag "latest".
func familiarName(named reference.Named) string {
	return strings.TrimSuffix(reference.FamiliarString(named), ":latest")
}

// namedContext is what a --build-context says. Exactly one of image, layout, stage, source and empty is set.
type namedContext struct {
	name   string
	image  string // reference of a registry's image
	layout string // "path[:tag][@digest]" of an OCI layout
	stage  string // name of a stage of the same file
	source *Source
	empty  bool // docker-image://scratch
	used   bool
}

// readContexts checks and parses the named contexts.
func (b *builder) readContexts() error {
	for _, key := range sortedKeys(b.opts.Contexts) {
		name, err := ContextName(key)
		if err != nil {
			return err
		}
		c, err := parseContext(name, b.opts.Contexts[key])
		if err != nil {
			return &diag.Error{What: "--build-context " + key, Cause: err,
				Hint: "Give a directory, a git repository, a URL, docker-image://NAME, oci-layout://PATH or target:STAGE."}
		}
		b.contexts[name] = c
	}
	return nil
}

// parseContext reads the value of a named context.
func parseContext(name, value string) (*namedContext, error) {
	c := &namedContext{name: name}
	if value == "" {
		return nil, errors.New("the place is empty")
	}
	for _, form := range []struct {
		prefix string
		field  *string
	}{{imageContext, &c.image}, {layoutContext, &c.layout}, {stageContext, &c.stage}} {
		rest, ok := strings.CutPrefix(value, form.prefix)
		if !ok {
			continue
		}
		if rest == "" {
			return nil, fmt.Errorf("there is nothing after %s", form.prefix)
		}
		*form.field = rest
		return c, c.checkImage()
	}
	title := "context " + name
	g, err := parseGit(value)
	switch {
	case err != nil:
		return nil, err
	case g != nil:
		c.source = &Source{Name: title, Git: g}
	case strings.HasPrefix(value, "http://"), strings.HasPrefix(value, "https://"):
		c.source = &Source{Name: title, HTTP: &HTTPSource{URL: value, Filename: httpContextFile}}
	default:
		c.source = &Source{Name: title, Context: value}
	}
	return c, nil
}

// checkImage refuses what cannot name an image. "scratch" is the empty one.
func (c *namedContext) checkImage() error {
	switch c.image {
	case "":
		return nil
	case scratch:
		c.image, c.empty = "", true
		return nil
	}
	_, err := reference.ParseNormalizedNamed(c.image)
	return err
}

// contextFor finds the named context that takes the place of a stage or an image for a platform, or nil.
// A name that no context can have is none.
func (b *builder) contextFor(name string, platform *ocispec.Platform) *namedContext {
	if len(b.contexts) == 0 || strings.EqualFold(name, scratch) || strings.EqualFold(name, "context") {
		return nil
	}
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return nil
	}
	want := b.target
	if platform != nil {
		want = *platform
	}
	key := familiarName(named)
	c := b.contexts[key+"::"+image.FormatPlatform(image.Normalize(want))]
	if c == nil {
		c = b.contexts[key]
	}
	if c != nil {
		c.used = true
	}
	return c
}

// setContext makes s start from what the named context c stands for.
func (b *builder) setContext(s *stage, c *namedContext) error {
	s.named, s.base = c, nil
	switch {
	case c.image != "":
		s.baseName = c.image
	case c.layout != "":
		s.baseName = layoutContext + c.layout
	case c.empty:
		s.baseName = scratch
	case c.source != nil:
		s.baseName = c.source.Name
	default:
		base, err := b.contextStage(c)
		if err != nil {
			return b.located(err, s.at)
		}
		s.base = base
	}
	return nil
}

// contextStage is the stage that a named context stands for. It comes before whoever uses it.
func (b *builder) contextStage(c *namedContext) (*stage, error) {
	if s, ok := b.byName[strings.ToLower(c.stage)]; ok {
		return s, nil
	}
	e := &diag.Error{What: fmt.Sprintf("--build-context %s=%s%s: there is no such stage before its first use", c.name, stageContext, c.stage)}
	if near, ok := diag.Nearest(c.stage, b.names()); ok {
		e.Hint = fmt.Sprintf("Did you mean %s?", near)
	}
	return nil, e
}

// fromSource says whether s is a tree from elsewhere, and not an image.
func (s *stage) fromSource() bool { return s.named != nil && s.named.source != nil }

// isStage says whether s becomes a stage of the graph: not if others only copy from it, and can read what it stands for.
func (s *stage) isStage(needed map[*stage]bool, target *stage) bool {
	switch {
	case s.kind == aliasOfImage:
		return false
	case s == target || !s.replaced || s.named.empty:
		return true
	}
	for other := range needed {
		if other.base == s {
			return true
		}
	}
	return false
}

// startWithSource makes the files of a named context the first layer of s.
func (b *builder) startWithSource(s *stage) error {
	text := "FROM " + s.baseName
	if err := b.budget.spend(len(text) + 256); err != nil { // 256: about what a step costs
		return b.located(err, s.at)
	}
	s.out.Steps = append(s.out.Steps, &Step{
		ID: s.out.ID() + "/1", Span: b.file.Span(s.at), Text: text, History: len(s.out.Config.History), Platform: s.out.Platform,
		Op: &Copy{From: From{Source: s.named.source}, Paths: []string{"/"}, Dest: "/"},
	})
	s.out.Config.History = append(s.out.Config.History, ocispec.History{
		Created: copyTime(b.epoch), CreatedBy: text, Comment: historyComment,
	})
	return nil
}

// warnUnusedContexts warns of named contexts that nothing asked for.
func (b *builder) warnUnusedContexts() {
	for _, name := range slices.Sorted(maps.Keys(b.contexts)) {
		why := "no stage and no image has this name"
		if base, _, _ := strings.Cut(name, "::"); base == scratch || base == "context" {
			why = "nothing can take the place of " + base
		}
		if !b.contexts[name].used {
			b.warnings = append(b.warnings, Warning{Message: fmt.Sprintf("--build-context %s was not used: %s", name, why), Span: diag.Span{File: b.file.Name}})
		}
	}
}
