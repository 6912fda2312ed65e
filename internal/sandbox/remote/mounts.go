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
	Cache    *Cache
	Tmpfs    *sandbox.Tmpfs
	Socket   *Socket
}

// Bind is a sandbox.Bind whose lowers are IDs, bottom first.
type Bind struct {
	Lowers []string
	Path   string
}

// Cache is a sandbox.Cache. First is empty if it has no lowers.
type Cache struct {
	ID             string
	First          Bind
	Mode, UID, GID uint32
	Owned          bool
}

// Socket is a sandbox.Socket; see [Run.Connect].
type Socket struct{ Mode, UID, GID uint32 }

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
		case *sandbox.Cache:
			s.Cache = &Cache{
				ID: src.ID, First: *j.bind(&sandbox.Bind{Lowers: src.Lowers, Path: src.Path}), Mode: src.Mode, UID: src.UID, GID: src.GID, Owned: src.Owned,
			}
		case *sandbox.Tmpfs:
			s.Tmpfs = src
		case *sandbox.Socket:
			s.Socket = &Socket{Mode: src.Mode, UID: src.UID, GID: src.GID}
		default:
			return nil, fmt.Errorf("mount %T on %s: unknown kind", src, m.Target)
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
