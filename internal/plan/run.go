package plan

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"hako/internal/diag"
	"hako/internal/image"
)

// pipes is where a RUN finds its heredoc, if that is a script of its own.
const pipes = "/dev/pipes/"

func (p *planner) run(c *instructions.RunCommand, sources []*stage) error {
	if err := p.canRun(); err != nil {
		return err
	}
	words, files, err := p.runWords(c)
	if err != nil {
		return err
	}
	if c.PrependShell {
		words = p.withShell(words)
	}
	if len(words) == 0 {
		return fmt.Errorf("RUN needs a command")
	}
	visible := p.visibleArgs()
	text := append([]string{}, words...)
	if len(visible) > 0 {
		text = slices.Concat([]string{fmt.Sprintf("|%d", len(visible))}, visible, words)
	}
	cfg := &p.out.Config.Config
	dir := "/"
	if cfg.WorkingDir != "" {
		dir = path.Clean(cfg.WorkingDir)
	}
	mounts, agent, err := p.mounts(c, sources)
	if err != nil {
		return err
	}
	op := &Run{
		Args: words, Env: p.runEnv(agent), Dir: dir, User: cfg.User, Mounts: mounts, Files: files, Network: p.network(c),
		Hostname: p.opts.Hostname, ExtraHosts: p.opts.ExtraHosts, ShmSize: p.opts.ShmSize,
	}
	if err := p.budget.spend(len(op.Env) * 16); err != nil {
		return err
	}
	return p.commit("RUN "+strings.Join(text, " ")+" # buildkit", op)
}

// canRun refuses a RUN for a processor whose programs do not run here.
func (p *planner) canRun() error {
	have, want := image.Normalize(p.build), image.Normalize(*p.platform)
	if have.OS == want.OS && have.Architecture == want.Architecture {
		return nil
	}
	var err error
	if p.opts.CanRun != nil {
		if err = p.opts.CanRun(want); err == nil {
			return nil
		}
	}
	return &diag.Error{
		What: fmt.Sprintf("RUN for %s is not supported on %s", image.FormatPlatform(want), image.FormatPlatform(have)), Cause: err,
		Hint: "Run commands in a stage that starts with FROM --platform=$BUILDPLATFORM and only COPY from it; or build on a node of that " +
			"architecture; or register an interpreter on the node, for the native sandbox (qemu-user-static, with binfmt_misc's flag F).",
	}
}

// runWords is the command without its shell, and the script that it runs if that came as a heredoc.
func (p *planner) runWords(c *instructions.RunCommand) ([]string, []InlineFile, error) {
	if len(c.Files) == 0 {
		return c.CmdLine, nil, nil
	}
	if len(c.CmdLine) != 1 || !c.PrependShell {
		return nil, nil, fmt.Errorf("RUN: a heredoc cannot be used in exec form")
	}
	if parser.MustParseHeredoc(c.CmdLine[0]) == nil {
		// The heredocs are part of a longer command: the shell reads them.
		var b strings.Builder
		b.WriteString(c.CmdLine[0])
		for _, f := range c.Files {
			b.WriteString("\n" + f.Data + f.Name)
		}
		return []string{b.String()}, nil, nil
	}
	file := c.Files[0]
	data := file.Data
	if file.Chomp {
		data = parser.ChompHeredocContent(data)
	}
	if !strings.HasPrefix(data, "#!") {
		return []string{data}, nil, nil
	}
	if err := checkInlineName(file.Name); err != nil {
		return nil, nil, err
	}
	at := pipes + file.Name
	return []string{at}, []InlineFile{{Path: at, Data: []byte(data)}}, nil
}

// runEnv is the environment of the command: variables, then where its agent is, then proxies, then what BuildKit's executor
// adds.
func (p *planner) runEnv(agent string) []string {
	env := p.vars.list()
	if _, ok := p.vars.Get(agentEnv); agent != "" && !ok {
		env = append(env, agentEnv+"="+agent)
	}
	env = append(env, p.proxies()...)
	env = lastOfEach(env)
	if !slices.ContainsFunc(env, func(s string) bool { return strings.HasPrefix(s, "PATH=") }) {
		env = append(env, "PATH="+image.DefaultPath)
	}
	return env
}

// proxies are the proxy variables that were given as build arguments; they need no ARG and are in no history.
func (p *planner) proxies() []string {
	values := map[string]string{}
	for _, k := range sortedKeys(p.opts.BuildArgs) {
		if name := proxyName(k); name != "" {
			values[name] = p.opts.BuildArgs[k]
		}
	}
	var out []string
	for _, name := range proxyNames() {
		if v := values[name]; v != "" {
			out = append(out, strings.ToUpper(name)+"="+v, name+"="+v)
		}
	}
	return out
}

func proxyNames() []string {
	return []string{"http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"}
}

// IsProxy says whether a variable of this name is one of the predefined proxy arguments, in either case.
func IsProxy(name string) bool { return proxyName(name) != "" }

// proxyName is the lower-case name of a proxy variable, or empty if key is none.
func proxyName(key string) string {
	if k := strings.ToLower(key); slices.Contains(proxyNames(), k) {
		return k
	}
	return ""
}
