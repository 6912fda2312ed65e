package solve

import "hako/internal/plan"

// uses knows what later steps need of each layer.
type uses struct {
	// read are the stages whose files a COPY reads: those it names and all they stand on.
	read map[*plan.Stage]bool
	// lastRun is, for each stage, the number of its steps that some RUN stands on or mounts.
	lastRun map[*plan.Stage]int
}

func newUses(g *plan.Graph) *uses {
	u := &uses{read: map[*plan.Stage]bool{}, lastRun: map[*plan.Stage]int{}}
	for _, st := range g.Stages {
		for i, step := range st.Steps {
			from := sources(step.Op)
			switch step.Op.(type) {
			case *plan.Copy:
				for _, s := range from {
					u.reads(s)
				}
			case *plan.Run:
				u.runs(st, i)
				for _, s := range from {
					u.runs(s, len(s.Steps))
				}
			}
		}
	}
	return u
}

// reads notes that somebody reads the files of st.
func (u *uses) reads(st *plan.Stage) {
	for ; st != nil && !u.read[st]; st = st.Base.Stage {
		u.read[st] = true
	}
}

// runs notes that step number n of st runs in a sandbox, on everything before it.
func (u *uses) runs(st *plan.Stage, n int) {
	u.lastRun[st] = max(u.lastRun[st], n)
	for b := st.Base.Stage; b != nil; b = b.Base.Stage {
		u.lastRun[b] = len(b.Steps)
	}
}

// keep says whether the files of the layer that step number n of st makes should be kept readable: a COPY
// will read them, or a sandbox has to mount them. What a RUN makes is mounted already where it was made.
func (u *uses) keep(st *plan.Stage, n int) bool {
	if u.read[st] {
		return true
	}
	_, run := st.Steps[n].Op.(*plan.Run)
	return !run && n < u.lastRun[st]
}
