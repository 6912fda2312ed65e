package cli

import (
	"fmt"
	"os"
	"strings"

	"hako/internal/diag"
	"hako/internal/sshagent"
)

// agents puts the private keys of --ssh into the Secret. An agent stays on its machine: that is what it is for.
func (p *parcel) agents() error {
	for i, a := range p.req.Build.Agents {
		refuse := &diag.Error{
			What: "--ssh " + a.ID + " is an agent of this machine, and the build runs in a pod",
			Hint: "Name a file with a private key, which goes with the Secret: --ssh " + a.ID + "=FILE.",
		}
		if len(a.Paths) == 0 || a.Raw {
			return refuse
		}
		for _, path := range a.Paths {
			if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeSocket != 0 {
				return refuse
			}
		}
		if _, err := sshagent.Open([]sshagent.Config{{ID: a.ID, Paths: a.Paths}}); err != nil {
			return err
		}
		var places []string
		for j, path := range a.Paths {
			place, err := p.copy(fmt.Sprintf("ssh-%d-%d", i, j), path)
			if err != nil {
				return &diag.Error{What: "--ssh " + a.ID, Cause: err}
			}
			places = append(places, place)
		}
		p.add("ssh", a.ID+"="+strings.Join(places, ","))
	}
	return nil
}
