package solve

import "hako/internal/plan"

// uses knows what later steps need of each layer.
type uses struct {
	// read are the stages whose files a COPY reads: those it names and all they stand on.
	read map[*plan.Stage]bool
	// lastRun is, for each stage, the number of its steps that some RUN stands on or mounts; no number if none does.
	lastRun map[*plan.Stage]int
	// result are the target and all stages that it stands on: their layers are those of the image.
	result map[*plan.Stage]bool
}

func newUses(g *plan.Graph) *uses {
	u := &uses{read: map[*plan.Stage]bool{}, lastRun: map[*plan.Stage]int{}, result: map[*plan.Stage]bool{}}
	for st := g.Target; st != nil && !g.Aside; st = st.Base.Stage {
		u.result[st] = true
	}
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

// images are those whose files somebody reads: a sandbox, a COPY, a list of their software.
func (u *uses) images(g *plan.Graph) []*plan.ImageRef {
	var out []*plan.ImageRef
	for _, st := range g.Stages {
		_, mounted := u.lastRun[st]
		if st.Base.Image != nil && (u.read[st] || mounted || st.ListStage) {
			out = append(out, st.Base.Image)
		}
		for _, step := range st.Steps {
			for _, f := range froms(step.Op) {
				if f.Image != nil {
					out = append(out, f.Image)
				}
			}
		}
	}
	return out
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
