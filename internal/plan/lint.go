package plan

import (
	"cmp"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	"github.com/moby/buildkit/util/suggest"
	"github.com/moby/patternmatcher"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/image"
)

// The rules of BuildKit's linter that need a whole plan. Those of single instructions run while the file is parsed.

func (b *builder) lintStageNames(stages []instructions.Stage) {
	names := map[string]bool{}
	for _, s := range stages {
		switch {
		case s.Name == "":
			continue
		case s.Name == scratch || s.Name == "context":
			b.lint.Run(&linter.RuleReservedStageName, s.Location, linter.RuleReservedStageName.Format(s.Name))
		}
		if names[s.Name] {
			b.lint.Run(&linter.RuleDuplicateStageName, s.Location, linter.RuleDuplicateStageName.Format(s.Name))
		}
		names[s.Name] = true
	}
}

// lintCasing finds instructions that are not written like most others, in upper or in lower case.
func (b *builder) lintCasing(stages []instructions.Stage) {
	type word struct {
		text string
		at   []parser.Range
	}
	var words []word
	for _, s := range stages {
		words = append(words, word{s.OrigCmd, s.Location})
		for _, c := range s.Commands {
			words = append(words, word{c.Name(), c.Location()})
		}
	}
	lower, upper := 0, 0
	for _, w := range words {
		switch w.text {
		case strings.ToLower(w.text):
			lower++
		case strings.ToUpper(w.text):
			upper++
		}
	}
	want, style := strings.ToUpper, "uppercase"
	if lower > upper {
		want, style = strings.ToLower, "lowercase"
	}
	for _, w := range words {
		if want(w.text) != w.text {
			b.lint.Run(&linter.RuleConsistentInstructionCasing, w.at, linter.RuleConsistentInstructionCasing.Format(w.text, style))
		}
	}
}

// lintDefaultBases finds FROMs that are no image names unless a --build-arg is given.
func (b *builder) lintDefaultBases(stages []instructions.Stage, args []instructions.ArgCommand) {
	env := b.globals.clone()
	for i := range args {
		for _, kv := range args[i].Args {
			v, err := b.globalArg(kv, nil, env)
			if err != nil {
				return // the build reports it
			}
			if v != nil {
				env.set(kv.Key, *v)
			}
		}
	}
	for _, s := range stages {
		res, err := b.expand(s.BaseName, env)
		if err != nil {
			return
		}
		if _, err := reference.ParseNormalizedNamed(res.Result); err != nil {
			b.lint.Run(&linter.RuleInvalidDefaultArgInFrom, s.Location, linter.RuleInvalidDefaultArgInFrom.Format(s.BaseName))
		}
	}
}

// lintUndeclared finds variables in FROM that no ARG before the first FROM declares.
func (b *builder) lintUndeclared(unmatched map[string]struct{}, at []parser.Range, lint *linter.Linter) {
	for _, name := range sortedKeys(unmatched) {
		if _, predefined := b.globals.Get(name); predefined || b.globalArgs[name] {
			continue
		}
		near := ""
		if b.search.spend(len(b.globalArgs)) == nil {
			near = b.near(name, slices.Concat(b.globals.Keys(), sortedKeys(b.globalArgs)))
		}
		lint.Run(&linter.RuleUndefinedArgInFrom, at, linter.RuleUndefinedArgInFrom.Format(name, near))
	}
}

func (b *builder) lintRedundantPlatform(src *instructions.Stage, res shell.ProcessWordResult, lint *linter.Linter) {
	_, matched := res.Matched["TARGETPLATFORM"]
	if !matched || len(res.Matched) != 1 || len(res.Unmatched) > 0 {
		return
	}
	if v, _ := b.globals.Get("TARGETPLATFORM"); v == res.Result {
		lint.Run(&linter.RuleRedundantTargetPlatform, src.Location, linter.RuleRedundantTargetPlatform.Format(src.Platform))
	}
}

func (b *builder) lintConstantPlatform(src *instructions.Stage, res shell.ProcessWordResult, lint *linter.Linter) {
	if len(res.Matched) > 0 || len(res.Unmatched) > 0 {
		return
	}
	p, err := platforms.Parse(res.Result)
	if err != nil || strings.Contains(src.Name, p.OS) || strings.Contains(src.Name, p.Architecture) {
		return
	}
	lint.Run(&linter.RuleFromPlatformFlagConstDisallowed, src.Location, linter.RuleFromPlatformFlagConstDisallowed.Format(res.Result))
}

// lintBasePlatforms finds images for another platform than the one that was asked for. One without layers fits all.
func (b *builder) lintBasePlatforms(planned map[*stage]bool) {
	for _, s := range b.stages {
		if s.ref == nil || s.named != nil || !planned[s] || !hasLayers(s.ref.Config) {
			continue
		}
		want, have := *s.platform, s.ref.Config.Platform
		if have.OS != want.OS || have.Architecture != want.Architecture {
			text := linter.RuleInvalidBaseImagePlatform.Format(s.baseName, image.FormatPlatform(image.Normalize(want)), image.FormatPlatform(image.Normalize(have)))
			b.lint.Run(&linter.RuleInvalidBaseImagePlatform, s.at, text)
		}
	}
}

// hasLayers says whether an image has files, judging by its history where the layers are not listed.
func hasLayers(c *image.Config) bool {
	return len(c.RootFS.DiffIDs) > 0 || slices.ContainsFunc(c.History, func(h ocispec.History) bool { return !h.EmptyLayer })
}

// lintIgnored finds a source that is not in the context because .dockerignore leaves it out. Patterns with exceptions
// are not judged: what is below a directory that is left out may come back.
func (p *planner) lintIgnored(c *copySpec, src string) {
	if c.from != nil || p.ignored == nil || p.ignored.Exclusions() {
		return
	}
	verb := "Copy"
	if c.add {
		verb = "Add"
	}
	src = path.Clean(src)
	if (src == "." || src == "/") && !ignoresRoot(p.ignored) {
		return
	}
	if ok, err := p.ignored.MatchesOrParentMatches(src); err == nil && ok {
		p.lint.Run(&linter.RuleCopyIgnoredFile, p.cmd.Location(), linter.RuleCopyIgnoredFile.Format(verb, src))
	}
}

// ignoresRoot says whether a pattern leaves out all that is in the context's root.
func ignoresRoot(m *patternmatcher.PatternMatcher) bool {
	return slices.ContainsFunc(m.Patterns(), func(p *patternmatcher.Pattern) bool {
		return slices.Contains([]string{"*", "**", "**/*"}, p.String())
	})
}

// lintUndefined finds variables that neither ENV nor ARG has set.
func (p *planner) lintUndefined(unmatched map[string]struct{}) {
	for _, name := range sortedKeys(unmatched) {
		if p.argNames[name] || isScanArg(name) {
			continue
		}
		near := ""
		if p.search.spend(len(p.vars.values)) == nil {
			near = p.near(name, p.vars.Keys())
		}
		p.lint.Run(&linter.RuleUndefinedVar, p.cmd.Location(), linter.RuleUndefinedVar.Format(name, near))
	}
}

// near is what BuildKit would suggest for name, or empty. Comparing takes as long as both names, one times the other:
// after what b.search allows, there are no more suggestions.
func (b *builder) near(name string, known []string) string {
	length := utf8.RuneCountInString(name)
	var options []string
	for _, k := range known {
		if d := len(k) - len(name); max(d, -d) > 2*utf8.UTFMax {
			continue
		}
		if d := utf8.RuneCountInString(k) - length; max(d, -d) > 2 { // then more than two edits are needed
			continue
		}
		options = append(options, k)
	}
	if b.search.spend(len(options)*length*length) != nil {
		return ""
	}
	near, _ := suggest.Search(name, options, true)
	return near
}

// lintPair finds "KEY value" without "=". secretOf is the instruction if its keys must not name secrets.
func (p *planner) lintPair(kv instructions.KeyValuePair, secretOf string) {
	if kv.NoDelim {
		p.lint.Run(&linter.RuleLegacyKeyValueFormat, p.cmd.Location(), linter.RuleLegacyKeyValueFormat.Format(p.cmd.Name()))
	}
	if secretOf != "" {
		p.lintSecret(secretOf, kv.Key)
	}
}

func (p *planner) lintSecret(instruction, key string) {
	if p.secret.match(key) {
		p.lint.Run(&linter.RuleSecretsUsedInArgOrEnv, p.cmd.Location(), linter.RuleSecretsUsedInArgOrEnv.Format(instruction, key))
	}
}

// lintOnce finds an earlier instruction that this one makes useless.
func (p *planner) lintOnce(s *seen) {
	if s.set {
		p.lint.Run(&linter.RuleMultipleInstructionsDisallowed, s.at, linter.RuleMultipleInstructionsDisallowed.Format(p.cmd.Name()))
	}
	*s = seen{at: p.cmd.Location(), set: true}
}

func (p *planner) lintJSON(shellForm bool) {
	if shellForm && len(p.out.Config.Config.Shell) == 0 {
		p.lint.Run(&linter.RuleJSONArgsRecommended, p.cmd.Location(), linter.RuleJSONArgsRecommended.Format(p.cmd.Name()))
	}
}

// secretNames knows the names of variables that look like secrets.
type secretNames struct{ deny, allow *regexp.Regexp }

func newSecretNames() *secretNames {
	words := func(alternatives string) *regexp.Regexp {
		return regexp.MustCompile(`(?i)(?:_|^)(?:` + alternatives + `)(?:_|$)`)
	}
	return &secretNames{
		deny:  words("apikey|auth|credential|credentials|key|password|pword|passwd|secret|token"), // BuildKit: SecretsUsedInArgOrEnv
		allow: words("public|file|version"),
	}
}

func (s *secretNames) match(key string) bool {
	return s.deny.MatchString(key) && !s.allow.MatchString(key)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
