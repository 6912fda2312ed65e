package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"github.com/moby/patternmatcher"

	"hako/internal/diag"
)

// Rule is one of BuildKit's rules for Dockerfiles.
type Rule struct {
	// Name is what "# check=skip=" takes.
	Name, Description string
	// URL is the rule's page in Docker's documentation, or empty.
	URL string
	// Experimental rules are off unless "# check=experimental=" names them.
	Experimental bool
}

// Rules are all rules, in BuildKit's order.
func Rules() []Rule {
	return []Rule{
		ruleOf(&linter.RuleStageNameCasing), ruleOf(&linter.RuleFromAsCasing), ruleOf(&linter.RuleNoEmptyContinuation),
		ruleOf(&linter.RuleConsistentInstructionCasing), ruleOf(&linter.RuleDuplicateStageName), ruleOf(&linter.RuleReservedStageName),
		ruleOf(&linter.RuleJSONArgsRecommended), ruleOf(&linter.RuleMaintainerDeprecated), ruleOf(&linter.RuleUndefinedArgInFrom),
		ruleOf(&linter.RuleWorkdirRelativePath), ruleOf(&linter.RuleUndefinedVar), ruleOf(&linter.RuleMultipleInstructionsDisallowed),
		ruleOf(&linter.RuleLegacyKeyValueFormat), ruleOf(&linter.RuleInvalidBaseImagePlatform), ruleOf(&linter.RuleRedundantTargetPlatform),
		ruleOf(&linter.RuleSecretsUsedInArgOrEnv), ruleOf(&linter.RuleInvalidDefaultArgInFrom), ruleOf(&linter.RuleFromPlatformFlagConstDisallowed),
		ruleOf(&linter.RuleCopyIgnoredFile), ruleOf(&linter.RuleInvalidDefinitionDescription), ruleOf(&linter.RuleExposeProtoCasing),
		ruleOf(&linter.RuleExposeInvalidFormat),
	}
}

func ruleOf[F any](r *linter.LinterRule[F]) Rule {
	return Rule{Name: r.Name, Description: r.Description, URL: r.URL, Experimental: r.Experimental}
}

// newLinter sets up BuildKit's linter by --build-arg BUILDKIT_DOCKERFILE_CHECK or else by "# check=".
func (b *builder) newLinter() error {
	var check *string
	if arg, ok := b.opts.BuildArgs["BUILDKIT_DOCKERFILE_CHECK"]; ok {
		check = &arg
	}
	config, at, err := b.file.LintConfig(check)
	if err != nil {
		return err
	}
	b.noteRules(config, at)
	if rest := b.file.CheckRest(); rest != "" && check == nil {
		b.note(at, fmt.Sprintf("check: %q has no effect: the value ends at the first blank", rest))
	}
	config.Warn = func(rule, description, url, message string, at []parser.Range) {
		b.warn(Warning{Rule: rule, Description: description, URL: url, Message: message, Span: b.file.Span(at)})
	}
	b.lint = linter.New(config)
	if len(b.opts.IgnorePatterns) > 0 {
		if b.ignored, err = patternmatcher.New(b.opts.IgnorePatterns); err != nil {
			return fmt.Errorf("compile the ignore patterns: %w", err)
		}
	}
	return nil
}

// noteRules warns of names in a check option that are no rules; BuildKit takes them without a word.
func (b *builder) noteRules(config *linter.Config, at []parser.Range) {
	var known []string
	for _, r := range Rules() {
		known = append(known, r.Name)
	}
	for _, name := range slices.Concat(config.SkipRules, config.ExperimentalRules) {
		if name == "" || slices.Contains(known, name) {
			continue
		}
		text := fmt.Sprintf("check: there is no rule %q", name)
		if near, ok := diag.Nearest(name, known); ok {
			text += " (did you mean " + near + "?)"
		}
		b.note(at, text)
	}
}

// noteComments warns of what is wrong with the check comments above single instructions.
func (b *builder) noteComments(stages []instructions.Stage) {
	for _, s := range stages {
		b.noteComment(s.Comments, s.Location)
		for _, c := range s.Commands {
			b.noteComment(c.Comments(), c.Location())
		}
	}
}

// noteComment looks at the comments that stand above an instruction, as linter.Linter.WithMergedConfigFromComments does.
func (b *builder) noteComment(comments []string, at []parser.Range) {
	for _, text := range comments {
		p := parser.DirectiveParser{}
		p.SetComment("")
		d, err := p.ParseLine([]byte(text))
		if err != nil || d == nil || d.Name != "check" {
			continue
		}
		value, _, _ := strings.Cut(d.Value, " ")
		config, err := linter.ParseLintOptions(value)
		if err != nil {
			b.note(at, "check: the comment above has no effect: "+err.Error())
			return
		}
		if config.ReturnAsError {
			b.note(at, "check: error=true has no effect above an instruction, only in the first lines of the file")
		}
		b.noteRules(config, at)
		return // only the first counts
	}
}

func (b *builder) note(at []parser.Range, text string) {
	b.warn(Warning{Message: text, Span: b.file.Span(at)})
}

// maxWarnings bounds what a hostile file makes us say.
const maxWarnings = 5000

func (b *builder) warn(w Warning) {
	switch n := len(b.warnings); {
	case n < maxWarnings:
		b.warnings = append(b.warnings, w)
	case n == maxWarnings:
		b.warnings = append(b.warnings, Warning{Message: fmt.Sprintf("more than %d warnings: the rest is left out", maxWarnings), Span: diag.Span{File: b.file.Name}})
	}
}
