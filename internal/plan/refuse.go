package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"hako/internal/diag"
)

// refuse stops at whatever the instruction says that nothing here carries out. Nothing is silently ignored:
// fields_test.go lists every field of every instruction as used or as refused here.
func (p *planner) refuse() error {
	c, ok := p.cmd.(*instructions.RunCommand)
	if !ok {
		return nil
	}
	flag := refusedRun(c)
	if flag == "" {
		return nil
	}
	return &diag.Error{What: fmt.Sprintf("%s --%s is not supported yet", strings.ToUpper(p.cmd.Name()), flag)}
}

// refusedRun is the first flag of a RUN that is refused. The flags that ask for the default are not.
func refusedRun(c *instructions.RunCommand) string {
	used := slices.Clone(c.FlagsUsed) // BuildKit collects them in a map
	slices.Sort(used)
	for _, flag := range used {
		switch {
		case flag == "network" && instructions.GetNetwork(c) == instructions.NetworkDefault:
		case flag == "security" && instructions.GetSecurity(c) == instructions.SecuritySandbox:
		default:
			return flag
		}
	}
	return ""
}
