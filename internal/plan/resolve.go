package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"hako/internal/diag"
	"hako/internal/image"
)

// scratch is the base that holds nothing.
const scratch = "scratch"

// imageKey is what an image is looked up by.
type imageKey struct{ ref, platform string }

// resolveAll looks up the images that target needs, and adds the ONBUILD triggers of every base.
// Triggers can need further images, hence the rounds. It returns the stages that are planned: those that target needs,
// or all; but only those that target needs get their triggers, as in BuildKit.
func (b *builder) resolveAll(ctx context.Context, target *stage) (map[*stage]bool, error) {
	for {
		needed := reachable(target)
		planned := needed
		if b.all {
			planned = map[*stage]bool{}
			for _, s := range b.stages {
				planned[s] = true
			}
		}
		if err := b.resolve(ctx, planned); err != nil {
			return nil, err
		}
		more := false
		for _, s := range slices.Clone(b.stages) {
			if !needed[s] || s.onbuildDone || s.kind != ofFile {
				continue
			}
			s.onbuildDone = true
			added, err := b.addTriggers(s)
			if err != nil {
				return nil, err
			}
			more = more || added
		}
		if !more {
			b.lintBasePlatforms(planned)
			return planned, b.checkCircles()
		}
	}
}

// lookup is one image to look up, and the stages that want it.
type lookup struct {
	name     string
	platform ocispec.Platform
	ref      *ImageRef
	stages   []*stage
}

// resolve looks up the images of the needed stages that have none yet.
func (b *builder) resolve(ctx context.Context, needed map[*stage]bool) error {
	var lookups []*lookup
	byKey := map[imageKey]*lookup{}
	for _, s := range b.stages {
		if s.base != nil || s.ref != nil || s.baseName == scratch || s.fromSource() {
			continue
		}
		key, platform, err := b.imageKey(s) // a name that cannot be one is an error even where nothing needs it
		if err != nil {
			return err
		}
		if !needed[s] {
			continue
		}
		if ref, ok := b.images[key]; ok {
			s.setImage(ref, platform)
			continue
		}
		l, ok := byKey[key]
		if !ok {
			l = &lookup{name: key.ref, platform: platform}
			byKey[key] = l
			lookups = append(lookups, l)
		}
		l.stages = append(l.stages, s)
	}
	group, gctx := errgroup.WithContext(ctx)
	for _, l := range lookups {
		group.Go(func() error { return b.lookUp(gctx, l) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for key, l := range byKey {
		b.images[key] = l.ref
		for _, s := range l.stages {
			s.setImage(l.ref, l.platform)
		}
	}
	return nil
}

// imageKey is the full name of the image that s starts from, and the platform that it is wanted for.
func (b *builder) imageKey(s *stage) (imageKey, ocispec.Platform, error) {
	platform := b.target
	if s.platform != nil {
		platform = *s.platform
	}
	if s.named != nil && s.named.layout != "" {
		return imageKey{s.baseName, image.FormatPlatform(platform)}, platform, nil
	}
	named, err := reference.ParseNormalizedNamed(s.baseName)
	if err != nil {
		return imageKey{}, ocispec.Platform{}, b.fail(s.at, b.suggestImage(s.baseName), "%s is neither a stage nor an image: %v", s.place(), err)
	}
	return imageKey{reference.TagNameOnly(named).String(), image.FormatPlatform(platform)}, platform, nil
}

// place is the image as it stands in the file, or on the command line.
func (s *stage) place() string {
	switch {
	case s.named != nil && s.named.layout != "":
		return "--build-context " + s.named.name + "=" + s.baseName
	case s.named != nil:
		return "--build-context " + s.named.name + "=" + imageContext + s.baseName
	case s.kind == ofFile:
		return "FROM " + s.baseName
	}
	return s.flag + s.baseName
}

// lookUp asks the resolver. It is called from many goroutines.
func (b *builder) lookUp(ctx context.Context, l *lookup) error {
	s := l.stages[0]
	resolve, name := b.resolver.Resolve, l.name
	if s.named != nil && s.named.layout != "" {
		resolve, name = b.resolver.ResolveLayout, s.named.layout
	}
	ref, err := resolve(ctx, name, l.platform)
	if err == nil && (ref == nil || ref.Config == nil) {
		err = errors.New("it has no configuration")
	}
	if err != nil {
		e := &diag.Error{What: s.place(), Span: b.file.Span(s.at), Cause: err}
		var inner *diag.Error
		if errors.As(err, &inner) && inner.Hint != "" {
			e.Hint = inner.Hint
		} else {
			e.Hint = b.suggestImage(s.baseName)
		}
		return e
	}
	if os := ref.Config.OS; os != "" && os != "linux" {
		return &diag.Error{
			What: fmt.Sprintf("%s: the image is for %s", s.place(), image.FormatPlatform(ref.Config.Platform)),
			Span: b.file.Span(s.at), Hint: "Use an image for linux.",
		}
	}
	l.ref = new(ImageRef)
	*l.ref = *ref
	l.ref.Name = s.baseName
	if l.ref.Ref == "" {
		l.ref.Ref = l.name
	}
	return nil
}

// suggestImage is a hint for a name that was not found.
func (b *builder) suggestImage(name string) string {
	options := b.names()
	for _, n := range []string{"alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"} {
		options = append(options, n, n+":latest")
	}
	if near, ok := diag.Nearest(name, options); ok {
		return fmt.Sprintf("Did you mean %s?", near)
	}
	return ""
}

// setImage makes ref the base of s.
func (s *stage) setImage(ref *ImageRef, platform ocispec.Platform) {
	s.ref, s.platform = ref, &platform
}

// addTriggers puts the ONBUILD triggers of the base before the instructions of s.
// It says whether they read anything of other stages.
func (b *builder) addTriggers(s *stage) (bool, error) {
	var texts []string
	if s.replaced {
		return false, nil
	}
	if s.base != nil && s.base.replaced && s.base.ref != nil {
		texts = append(texts, s.base.ref.Config.Config.OnBuild...)
	}
	if s.ref != nil {
		texts = append(texts, s.ref.Config.Config.OnBuild...)
	}
	if s.base != nil {
		for _, cmd := range s.base.commands {
			if c, ok := cmd.Command.(*instructions.OnbuildCommand); ok {
				texts = append(texts, c.Expression)
			}
		}
	}
	if len(texts) > maxTriggers {
		return false, b.fail(s.at, "", "the base image has more than %d ONBUILD triggers", maxTriggers)
	}
	var commands []command
	more := false
	for _, text := range texts {
		cmd, err := b.file.Trigger(text, s.at)
		if err != nil {
			return false, err
		}
		c, err := b.bind(s, cmd)
		if err != nil {
			return false, err
		}
		c.trigger = true
		more = more || slices.ContainsFunc(c.from, func(s *stage) bool { return s != nil })
		commands = append(commands, c)
	}
	s.commands = append(commands, s.commands...)
	return more, nil
}

// maxTriggers bounds the ONBUILD triggers of one base image.
const maxTriggers = 1000

// baseHistory is the history of a base image, fitted to its layers: every layer has one entry that is not empty.
// BuildKit repairs the history of the result in the same way when it exports.
func baseHistory(c *image.Config) []ocispec.History {
	layers := len(c.RootFS.DiffIDs)
	out := slices.Clone(c.History)
	for i := range out {
		switch {
		case out[i].EmptyLayer:
		case layers == 0:
			out[i].EmptyLayer = true
		default:
			layers--
		}
	}
	for ; layers > 0; layers-- {
		out = append(out, ocispec.History{Comment: "layer of the base image"})
	}
	return out
}
