package plan

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/util/system"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/sys/signal"
)

func (p *planner) env(c *instructions.EnvCommand) error {
	var text strings.Builder
	text.WriteString("ENV")
	for _, kv := range c.Env {
		p.lintPair(kv, "ENV")
		text.WriteString(" " + kv.String())
		if err := p.budget.spend(len(p.out.Config.Config.Env)); err != nil {
			return err
		}
		p.vars.set(kv.Key, kv.Value)
		p.out.Config.Config.Env = setPair(p.out.Config.Config.Env, kv.Key, kv.Value)
	}
	err := p.config(text.String())
	p.changed()
	return err
}

// arg gives ARGs their values: --build-arg, else the default, else that of an ARG before the first FROM.
// A variable that ENV has set before is hidden by the ARG in this stage's steps, but stays in the image.
func (p *planner) arg(c *instructions.ArgCommand) error {
	var texts []string
	for _, kv := range c.Args {
		p.lintSecret("ARG", kv.Key)
		given, isGiven := p.opts.BuildArgs[kv.Key]
		global, isGlobal := p.globals.Get(kv.Key)
		switch {
		case isGiven:
			kv.Value = &given
		case kv.Value != nil:
			v, err := p.word(p.lex, *kv.Value)
			if err != nil {
				return err
			}
			kv.Value = &v
		case isGlobal:
			kv.Value = &global
		}
		text := kv.Key
		if kv.Value != nil {
			text += "=" + *kv.Value
			if !isScanArg(kv.Key) {
				p.vars.set(kv.Key, *kv.Value)
			}
		}
		p.args = append(p.args, kv)
		p.argNames[kv.Key] = true
		texts = append(texts, text)
	}
	err := p.config("ARG " + strings.Join(texts, " "))
	p.changed()
	return err
}

// The ARGs that say what has a list of its contents beside the image.
const (
	listContext = "BUILDKIT_SBOM_SCAN_CONTEXT"
	listStage   = "BUILDKIT_SBOM_SCAN_STAGE"
)

// isScanArg says whether an ARG configures lists of contents and is no variable.
func isScanArg(key string) bool { return key == listContext || key == listStage }

func (p *planner) label(c *instructions.LabelCommand) error {
	var text strings.Builder
	text.WriteString("LABEL")
	cfg := &p.out.Config.Config
	if cfg.Labels == nil {
		cfg.Labels = make(map[string]string, len(c.Labels))
	}
	for _, kv := range c.Labels {
		p.lintPair(kv, "")
		cfg.Labels[kv.Key] = kv.Value
		text.WriteString(" " + kv.String())
	}
	return p.config(text.String())
}

func (p *planner) command(c *instructions.CmdCommand) error {
	p.lintOnce(&p.stage.cmd)
	p.lintJSON(c.PrependShell)
	p.out.Config.Config.Cmd = p.commandLine(c.ShellDependantCmdLine)
	//lint:ignore SA1019 deprecated, but BuildKit and Docker write it
	p.out.Config.Config.ArgsEscaped = true //nolint:staticcheck // likewise
	return p.config(fmt.Sprintf("CMD %q", p.out.Config.Config.Cmd))
}

func (p *planner) entrypoint(c *instructions.EntrypointCommand) error {
	p.lintOnce(&p.entry)
	p.lintJSON(c.PrependShell)
	cfg := &p.out.Config.Config
	cfg.Entrypoint = p.commandLine(c.ShellDependantCmdLine)
	if !p.stage.cmd.set {
		cfg.Cmd = nil // a CMD of the base was for the base's entry point
	}
	return p.config(fmt.Sprintf("ENTRYPOINT %q", cfg.Entrypoint))
}

// commandLine is the words of CMD or ENTRYPOINT, with the shell in front where it is needed.
func (p *planner) commandLine(c instructions.ShellDependantCmdLine) []string {
	if !c.PrependShell {
		return c.CmdLine
	}
	return p.withShell(c.CmdLine)
}

func (p *planner) withShell(words []string) []string {
	sh := p.out.Config.Config.Shell
	if len(sh) == 0 {
		sh = []string{"/bin/sh", "-c"}
	}
	return append(append([]string{}, sh...), strings.Join(words, " "))
}

func (p *planner) healthcheck(c *instructions.HealthCheckCommand) error {
	p.lintOnce(&p.check)
	h := dockerspec.HealthcheckConfig{
		Test: c.Health.Test, Interval: c.Health.Interval, Timeout: c.Health.Timeout,
		StartPeriod: c.Health.StartPeriod, StartInterval: c.Health.StartInterval, Retries: c.Health.Retries,
	}
	p.out.Config.Config.Healthcheck = &h
	return p.config(fmt.Sprintf("HEALTHCHECK %+v", h))
}

func (p *planner) volume(c *instructions.VolumeCommand) error {
	cfg := &p.out.Config.Config
	if cfg.Volumes == nil {
		cfg.Volumes = map[string]struct{}{}
	}
	for _, v := range c.Volumes {
		if v == "" {
			return errors.New("VOLUME: a path is empty")
		}
		cfg.Volumes[v] = struct{}{}
	}
	return p.config(fmt.Sprintf("VOLUME %v", c.Volumes))
}

func (p *planner) stopSignal(c *instructions.StopSignalCommand) error {
	if _, err := signal.ParseSignal(c.Signal); err != nil {
		return fmt.Errorf("STOPSIGNAL: %q is not a signal", c.Signal)
	}
	p.out.Config.Config.StopSignal = c.Signal
	return p.config("STOPSIGNAL " + c.Signal)
}

func (p *planner) workdir(c *instructions.WorkdirCommand) error {
	if !p.workdirSet && !path.IsAbs(c.Path) {
		p.lint.Run(&linter.RuleWorkdirRelativePath, c.Location(), linter.RuleWorkdirRelativePath.Format(c.Path))
	}
	p.workdirSet = true
	cfg := &p.out.Config.Config
	cfg.WorkingDir = resolvePath(cfg.WorkingDir, c.Path)
	text := "WORKDIR " + cfg.WorkingDir
	if cfg.WorkingDir == "/" {
		return p.config(text)
	}
	return p.commit(text, &Mkdir{Path: path.Clean(cfg.WorkingDir), User: cfg.User, Created: copyTime(p.epoch)})
}

// resolvePath is where dir leads from cur, in the way of WORKDIR: an absolute path is taken as written.
func resolvePath(cur, dir string) string {
	wd, err := system.NormalizeWorkdir(cur, dir, "linux")
	if err != nil { // only for Windows paths
		return path.Join("/", cur, dir)
	}
	return wd
}

// expose expands its words by itself: a variable may hold several ports.
func (p *planner) expose(c *instructions.ExposeCommand) error {
	var words []string
	for _, w := range c.Ports {
		env := newWord(p.vars)
		more, err := p.lex.ProcessWords(w, env)
		if err == nil {
			err = env.err()
		}
		if err != nil {
			return err
		}
		words = append(words, more...)
	}
	ports, err := p.ports(words)
	if err != nil {
		return err
	}
	cfg := &p.out.Config.Config
	if cfg.ExposedPorts == nil {
		cfg.ExposedPorts = map[string]struct{}{}
	}
	for _, port := range ports {
		cfg.ExposedPorts[port] = struct{}{}
	}
	return p.config(fmt.Sprintf("EXPOSE %v", ports))
}
