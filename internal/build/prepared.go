package build

import (
	"path/filepath"

	"hako/internal/prepared"
	"hako/internal/workdir"
)

// openPrepared are the places where layers of base images are kept as steps need them: the directory of base images, which may
// be on a volume, and the work directory, if it is one for builds alone.
func (b *builder) openPrepared() []*prepared.Store {
	if b.req.Bases.LimitBytes <= 0 {
		return nil
	}
	stop := make(chan struct{})
	var out []*prepared.Store
	if dir := b.req.Bases.Dir; dir != "" && workdir.Maps(b.file(dir)) {
		out = append(out, b.volume(stop))
	}
	if dir := b.sharedDir(); dir != "" {
		b.room.share(dir)
		out = append(out, prepared.Open(prepared.Options{Dir: dir, LimitBytes: b.req.Bases.LimitBytes, Own: true}))
	}
	for _, s := range out {
		b.closers = append(b.closers, s.Close)
	}
	b.closers = append(b.closers, nothing(func() {
		if b.life != nil && b.life.Err() != nil {
			close(stop)
		}
	}))
	return out
}

// volume are the layers in the directory of base images.
func (b *builder) volume(stop <-chan struct{}) *prepared.Store {
	return prepared.Open(prepared.Options{
		Dir: filepath.Join(b.file(b.req.Bases.Dir), ".hako", "layers"), LimitBytes: b.req.Bases.LimitBytes, Durable: true, Stop: stop,
	})
}

// sharedDir is what the builds of one work directory share. There is none in a directory that is gone after the build, in one
// for everybody's temporary files, and in memory.
func (b *builder) sharedDir() string {
	r := b.dir.Report()
	own := r.Exec == defaultDir || b.req.WorkDir != "" && !b.dir.Made()
	if r.Mode != workdir.Disk || r.InMemory || !own {
		return ""
	}
	return filepath.Join(r.Exec, "hako-layers")
}

// defaultDir is kaniko's own directory.
const defaultDir = "/kaniko"
