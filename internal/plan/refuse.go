package plan

import (
	"github.com/moby/buildkit/frontend/dockerfile/instructions"

	"hako/internal/diag"
)

// refuse stops at whatever the instruction says that nothing here carries out. Nothing is silently ignored:
// fields_test.go lists every field of every instruction as used or as refused here.
func (p *planner) refuse() error {
	c, ok := p.cmd.(*instructions.RunCommand)
	switch {
	case !ok:
		return nil
	case instructions.GetSecurity(c) == instructions.SecurityInsecure:
		return &diag.Error{
			What: "RUN --security=insecure: steps run in a sandbox that has no privileges of the host to give",
			Hint: "Leave --security out: inside the sandbox a step is root already, and only mounts, devices and kernel settings are out of its reach.",
		}
	case len(instructions.GetDevices(c)) > 0:
		return &diag.Error{
			What: "RUN --device: steps run in a sandbox that has no devices of the host to give",
			Hint: "Leave --device out, and use the device when the image runs.",
		}
	}
	return nil
}
