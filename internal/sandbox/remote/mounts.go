package remote

import (
	"fmt"

	"hako/internal/rootfs"
	"hako/internal/sandbox"
)

// StepMount is a sandbox.Mount on its way to the child; exactly one of its pointers is set.
type StepMount struct {
	Target   string
	ReadOnly bool
	Bind     *Bind
	Tmpfs    *sandbox.Tmpfs
}

// Bind is a sandbox.Bind whose lowers are IDs, bottom first.
type Bind struct {
	Lowers []string
	Path   string
}

// job is a step with its mounts as the child knows them, and all layers that the child needs for it.
type job struct {
	*sandbox.Step
	mounts []StepMount
	lowers []rootfs.Lower
}

func newJob(step *sandbox.Step) (*job, error) {
	j := &job{Step: step, lowers: step.Lowers}
	for _, m := range step.Mounts {
		s := StepMount{Target: m.Target, ReadOnly: m.ReadOnly}
		switch src := m.Source.(type) {
		case *sandbox.Bind:
			s.Bind = j.bind(src)
		case *sandbox.Tmpfs:
			s.Tmpfs = src
		default:
			return nil, fmt.Errorf("mount %T on %s: it is not supported yet", src, m.Target)
		}
		j.mounts = append(j.mounts, s)
	}
	return j, nil
}

// bind notes that the child needs the layers of src.
func (j *job) bind(src *sandbox.Bind) *Bind {
	j.lowers = append(j.lowers[:len(j.lowers):len(j.lowers)], src.Lowers...)
	return &Bind{Lowers: lowerIDs(src.Lowers), Path: src.Path}
}

// lowerIDs are the chain IDs of lowers.
func lowerIDs(lowers []rootfs.Lower) []string {
	var ids []string
	for i := range lowers {
		ids = append(ids, lowers[i].ID.String())
	}
	return ids
}
