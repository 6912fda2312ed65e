package plan

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/shell"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
	"hako/internal/image"
)

// historyComment marks history entries, as BuildKit does.
const historyComment = "buildkit.dockerfile.v0"

// planner plans one instruction of a stage.
type planner struct {
	*builder
	*stage
	cmd     instructions.Command
	from    []*stage // what it reads, see command
	trigger bool
	lint    *linter.Linter
}

// stage plans s: what it starts from, then each instruction. Stages that it needs are planned before.
func (b *builder) stage(ctx context.Context, s *stage) error {
	s.planned = true
	if s.kind != ofFile {
		s.out.Platform = b.target
		s.out.Config = image.Empty(b.target)
		return nil
	}
	if err := b.begin(s); err != nil {
		return err
	}
	for _, c := range s.commands {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p := &planner{builder: b, stage: s, cmd: c.Command, from: c.from, trigger: c.trigger, lint: b.lint.WithMergedConfigFromComments(c.Comments())}
		err := p.expandWords()
		if err == nil {
			err = p.dispatch()
		}
		if err != nil {
			return b.located(err, c.Location())
		}
	}
	s.out.Config.RootFS = ocispec.RootFS{Type: "layers"}
	s.out.ListContext, s.out.ListStage = b.listed(s, listContext), b.listed(s, listStage)
	return nil
}

// listed says whether an ARG of that name asks for s: before the first FROM, or in s, which wins. The value is a bool, or a
// list of stages.
func (b *builder) listed(s *stage, name string) bool {
	value, ok := b.globals.Get(name)
	for _, kv := range s.args {
		if kv.Key == name && kv.Value != nil {
			value, ok = *kv.Value, true
		}
	}
	if all, err := strconv.ParseBool(value); err == nil {
		return all
	}
	return ok && slices.Contains(strings.Split(value, ","), s.out.ID())
}

// begin sets s to what its base leaves.
func (b *builder) begin(s *stage) error {
	c := &s.out.Config
	switch {
	case s.base != nil:
		s.out.Base.Stage = s.base.out
		*c = image.Clone(&s.base.out.Config)
		s.platform, s.vars, s.workdirSet = s.base.platform, s.base.vars.clone(), s.base.workdirSet
		s.args, s.argNames = slices.Clone(s.base.args), maps.Clone(s.base.argNames)
	case s.ref != nil:
		s.out.Base.Image = s.ref
		*c = image.Clone(s.ref.Config)
		c.History = baseHistory(s.ref.Config)
		c.Created = nil
		if c.OS == "" || c.Architecture == "" {
			c.Platform = *s.platform
		}
		if s.replaced {
			have := c.Platform
			s.platform = &have
		}
	default:
		target := b.target
		s.platform, *c = &target, image.Empty(target)
	}
	if err := b.budget.spend(128*len(c.History) + 64*(len(c.Config.Env)+len(c.Config.Labels)+len(c.Config.ExposedPorts)+len(s.args))); err != nil {
		return b.located(err, s.at) // about what the copies cost
	}
	c.Config.OnBuild = nil
	c.RootFS = ocispec.RootFS{Type: "layers"}
	s.out.Platform = image.Normalize(*s.platform)
	if _, ok := shell.EnvsFromSlice(c.Config.Env).Get("PATH"); !ok {
		c.Config.Env = append(c.Config.Env, "PATH="+image.DefaultPath)
	}
	if s.vars == nil {
		s.vars, s.argNames = newVariables(), map[string]bool{}
	}
	for _, kv := range c.Config.Env {
		k, v := splitPair(kv)
		s.vars.set(k, v)
	}
	if c.Config.WorkingDir != "" {
		c.Config.WorkingDir = resolvePath(c.Config.WorkingDir, c.Config.WorkingDir)
	}
	if s.fromSource() {
		return b.startWithSource(s)
	}
	return nil
}

// expandWords replaces the variables of the instruction, which is ours to change. ARG does it by itself.
func (p *planner) expandWords() error {
	if err := p.refuse(); err != nil {
		return err
	}
	if _, isArg := p.cmd.(*instructions.ArgCommand); isArg {
		return nil
	}
	add, isAdd := p.cmd.(*instructions.AddCommand)
	checked := isAdd && add.Checksum != ""
	if c, ok := p.cmd.(instructions.SupportsSingleWordExpansion); ok {
		err := c.Expand(func(word string) (string, error) { return p.word(p.lex, word) })
		if _, run := p.cmd.(*instructions.RunCommand); run && err != nil {
			return mountError(err) // nothing else of a RUN is expanded
		}
		if err != nil {
			return err
		}
	}
	if checked && add.Checksum == "" {
		p.note("ADD --checksum is empty here: nothing is checked")
	}
	if c, ok := p.cmd.(instructions.SupportsSingleWordExpansionRaw); ok {
		lex := shell.NewLex('\\')
		lex.SkipProcessQuotes = true
		return c.ExpandRaw(func(word string) (string, error) { return p.word(lex, word) })
	}
	return nil
}

// word replaces the variables in one word.
func (p *planner) word(lex *shell.Lex, word string) (string, error) {
	if !strings.ContainsAny(word, "$'\"\\`") {
		return word, nil
	}
	res, err := p.expandWith(lex, word, p.vars)
	p.lintUndefined(res.Unmatched)
	return res.Result, err
}

//nolint:funlen // closed switch over instructions.Command
func (p *planner) dispatch() error {
	switch c := p.cmd.(type) {
	case *instructions.EnvCommand:
		return p.env(c)
	case *instructions.ArgCommand:
		return p.arg(c)
	case *instructions.LabelCommand:
		return p.label(c)
	case *instructions.MaintainerCommand:
		p.out.Config.Author = c.Maintainer
		return p.config("MAINTAINER " + c.Maintainer)
	case *instructions.RunCommand:
		return p.run(c, p.from)
	case *instructions.CopyCommand:
		return p.copy(copySpec{
			from: p.from[0], SourcesAndDest: c.SourcesAndDest, chown: c.Chown, chmod: c.Chmod,
			link: c.Link, parents: c.Parents, exclude: c.ExcludePatterns,
		})
	case *instructions.AddCommand:
		return p.copy(copySpec{
			add: true, SourcesAndDest: c.SourcesAndDest, chown: c.Chown, chmod: c.Chmod,
			link: c.Link, exclude: c.ExcludePatterns, unpack: c.Unpack, checksum: c.Checksum, keepGitDir: c.KeepGitDir,
		})
	case *instructions.WorkdirCommand:
		return p.workdir(c)
	case *instructions.UserCommand:
		p.out.Config.Config.User = c.User
		return p.config("USER " + c.User)
	case *instructions.CmdCommand:
		return p.command(c)
	case *instructions.EntrypointCommand:
		return p.entrypoint(c)
	case *instructions.HealthCheckCommand:
		return p.healthcheck(c)
	case *instructions.ExposeCommand:
		return p.expose(c)
	case *instructions.VolumeCommand:
		return p.volume(c)
	case *instructions.StopSignalCommand:
		return p.stopSignal(c)
	case *instructions.ShellCommand:
		p.out.Config.Config.Shell = c.Shell
		return p.config(fmt.Sprintf("SHELL %v", c.Shell))
	case *instructions.OnbuildCommand:
		p.out.Config.Config.OnBuild = append(p.out.Config.Config.OnBuild, c.Expression)
		return nil // no history entry, as in BuildKit
	}
	return fmt.Errorf("there is no instruction %s", strings.ToUpper(p.cmd.Name()))
}

// config notes an instruction that makes no layer.
func (p *planner) config(createdBy string) error { return p.commit(createdBy, nil) }

// commit notes an instruction: an entry in the history, and a step. op is nil if it makes no layer.
func (p *planner) commit(createdBy string, op Op) error {
	step := &Step{
		ID: fmt.Sprintf("%s%s/%d", p.stepPrefix(), p.out.ID(), len(p.out.Steps)+1), Span: p.file.Span(p.cmd.Location()), Text: p.text(),
		Op: op, History: len(p.out.Config.History), Env: p.visibleEnv(), Args: p.visibleArgs(), Platform: p.out.Platform,
	}
	if err := p.budget.spend(len(createdBy) + 256); err != nil { // 256: about what a step costs
		return err
	}
	p.out.Steps = append(p.out.Steps, step)
	p.out.Config.History = append(p.out.Config.History, ocispec.History{
		Created: copyTime(p.epoch), CreatedBy: createdBy, Comment: historyComment, EmptyLayer: op == nil,
	})
	return nil
}

// stepPrefix tells the steps of one platform from those of another: "linux/arm64 ", or "linux/amd64->arm64 " for
// a stage that runs here and makes something for there.
func (p *planner) stepPrefix() string {
	switch {
	case !p.opts.Several:
		return ""
	case p.out.Platform.OS == p.target.OS && p.out.Platform.Architecture == p.target.Architecture && p.out.Platform.Variant == p.target.Variant:
		return image.FormatPlatform(p.target) + " "
	}
	to := strings.TrimPrefix(image.FormatPlatform(p.target), p.out.Platform.OS+"/")
	return image.FormatPlatform(p.out.Platform) + "->" + to + " "
}

// visibleEnv is Config.Env for a step. It is shared by steps until the environment changes.
func (p *planner) visibleEnv() []string {
	if p.envList == nil {
		p.envList = slices.Clone(p.out.Config.Config.Env)
		_ = p.budget.spend(len(p.envList) * 16) // overspending shows at the next spend
	}
	return p.envList
}

// visibleArgs is "K=V" of each declared ARG, with what the variable now holds.
func (p *planner) visibleArgs() []string {
	if p.argList == nil {
		index := map[string]int{}
		p.argList = []string{}
		for _, kv := range p.args {
			v, ok := p.vars.Get(kv.Key)
			if !ok {
				v = kv.ValueString()
			}
			if i, ok := index[kv.Key]; ok {
				p.argList[i] = kv.Key + "=" + v
				continue
			}
			index[kv.Key] = len(p.argList)
			p.argList = append(p.argList, kv.Key+"="+v)
		}
		_ = p.budget.spend(len(p.argList) * 16) // overspending shows at the next spend
	}
	return p.argList
}

// changed forgets the lists that steps share.
func (p *planner) changed() { p.envList, p.argList = nil, nil }

// text is the instruction for people, on one line.
func (p *planner) text() string {
	s := ""
	if str, ok := p.cmd.(fmt.Stringer); ok {
		s = str.String()
	}
	words := strings.Fields(s)
	if _, isAdd := p.cmd.(*instructions.AddCommand); isAdd {
		for i := range words {
			words[i] = forDisplay(words[i])
		}
	}
	if len(words) > 0 {
		words[0] = strings.ToUpper(words[0])
	}
	s = strings.Join(words, " ")
	if c, ok := p.cmd.(*instructions.RunCommand); ok && len(c.Files) > 0 {
		s += " (" + firstLine(c.Files[0].Data) + ")"
	}
	if p.trigger {
		s = "ONBUILD " + s
	}
	return clipText(s)
}

// firstLine is the first line of a heredoc, with "..." if there are more.
func firstLine(doc string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(doc), "\n")
	line = strings.TrimRight(line, "\r")
	if rest != "" {
		line += "..."
	}
	return line
}

// clipText bounds the length of a text for people.
func clipText(s string) string {
	const limit = 2000
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

func copyTime(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	c := *t
	return &c
}

// located turns err into a *diag.Error at span. An error that has a place keeps it.
func located(err error, span diag.Span) error {
	var e *diag.Error
	if errors.As(err, &e) {
		if e.Span.Start == 0 {
			c := *e
			c.Span = span
			return &c
		}
		return err
	}
	return &diag.Error{What: expansionMessage(err), Span: span}
}

// expansionMessage is the text of err in our manner: `expand "${a:?}": …` for what the lexer says.
func expansionMessage(err error) string {
	s := err.Error()
	if rest, ok := strings.CutPrefix(s, "failed to process "); ok {
		return "expand " + rest
	}
	return strings.TrimSuffix(s, ".")
}
