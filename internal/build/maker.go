package build

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"hako/internal/blob"
	"hako/internal/layer"
	"hako/internal/output"
	"hako/internal/rootfs"
	"hako/internal/solve"
	"hako/internal/workdir"
)

// maker stores the layers of a build in its work directory.
type maker struct {
	store *blob.Store
	dir   *workdir.Dir
	opts  layer.WriteOptions
	// life is the context of the build: files of a layer are read after the step that made it, and after all steps.
	life context.Context //nolint:containedctx // a tree.Tree has no place for it
	// ahead, if not nil, begins to send a layer while it is made.
	ahead func(output.Growing) (*output.Stream, error)
	// latest, if not nil, is the time that no file of a layer may be younger than.
	latest *time.Time
	room   *room // nil if nobody counts
}

var _ solve.Maker = (*maker)(nil)

// Make implements [solve.Maker].
func (m *maker) Make(ctx context.Context, changes layer.Changes, o solve.MakeOptions) (_ solve.Layer, err error) {
	w, err := m.store.CreateHashed(ctx)
	if err != nil {
		return solve.Layer{}, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	dst := &sender{Writer: w}
	if o.New {
		dst.ahead = m.ahead
	}
	defer func() {
		if err != nil {
			dst.stream.Drop()
		}
	}()
	opts := m.opts
	if o.Keep {
		if opts.Image, err = m.dir.ExecFile("layer"); err != nil {
			return solve.Layer{}, err
		}
	}
	if m.latest != nil {
		changes = layer.Until(changes, *m.latest, nil)
	}
	written, err := layer.Write(ctx, changes, dst, opts)
	if err != nil {
		return solve.Layer{}, err
	}
	if _, _, err = w.Commit(written.Digest); err != nil {
		return solve.Layer{}, err
	}
	if m.room != nil {
		if err := m.room.check(); err != nil {
			return solve.Layer{}, err
		}
	}
	dst.stream.Finish(written.Digest)
	out := solve.Layer{Descriptor: written.Descriptor, Source: rootfs.Source{DiffID: written.DiffID}}
	if opts.Digests {
		if out.Content, err = written.Image.Digest(ctx, "."); err != nil {
			return solve.Layer{}, err
		}
	}
	if o.Keep {
		out.Source.Open = func(context.Context) (*layer.Image, error) { return written.Image, nil }
		return out, nil
	}
	again := &reopened{maker: m, desc: written.Descriptor, blob: func(context.Context) (io.ReadCloser, error) { return m.store.Open(written.Digest) }}
	out.Source.Open = again.open
	listing := written.Image.Late(func() (*layer.Image, error) { return again.open(m.life) })
	out.Source.List = func(context.Context) (*layer.Image, error) { return listing, nil }
	return out, nil
}

// sendAhead is how much of a layer is made before sending it begins. Smaller ones are made before a registry has answered.
const sendAhead = 8 << 20 // bytes, compressed

// sender writes a blob and begins to send it when it has become large.
type sender struct {
	*blob.Writer
	ahead  func(output.Growing) (*output.Stream, error) // nil if it is not to be sent
	stream *output.Stream
}

func (s *sender) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	if err != nil || s.ahead == nil || s.Size() < sendAhead {
		return n, err
	}
	tail, err := s.Tail()
	if err != nil {
		return n, err
	}
	s.stream, err = s.ahead(tail)
	s.ahead = nil
	return n, err
}

// Hold implements [solve.Maker]. Nothing is compressed and no blob is kept.
func (m *maker) Hold(ctx context.Context, changes layer.Changes) (rootfs.Source, error) {
	f, err := m.dir.ExecFile("mount")
	if err != nil {
		return rootfs.Source{}, err
	}
	written, err := layer.Write(ctx, changes, io.Discard, layer.WriteOptions{Compression: layer.Uncompressed, Image: f})
	if err != nil {
		return rootfs.Source{}, errors.Join(err, f.Close())
	}
	return rootfs.Source{
		DiffID: written.DiffID,
		Open:   func(context.Context) (*layer.Image, error) { return written.Image, nil },
	}, nil
}

// reopened is a stored layer whose files are needed after all.
type reopened struct {
	maker *maker
	desc  layer.Descriptor
	blob  func(ctx context.Context) (io.ReadCloser, error)
	// reject, if not nil, is told why the blob, which rest is what is left of, cannot be opened, and returns the error to go on with.
	reject func(ctx context.Context, rest io.Reader, err error) error

	mu    sync.Mutex // guards image, and is held while it is made
	image *layer.Image
}

// open inflates the layer, once.
func (r *reopened) open(ctx context.Context) (_ *layer.Image, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.image != nil {
		return r.image, nil
	}
	b, err := r.blob(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	f, err := r.maker.dir.ExecFile("layer")
	if err != nil {
		return nil, err
	}
	if r.image, err = layer.Prepare(ctx, b, r.desc, layer.PrepareOptions{Image: f, Verified: true}); err != nil {
		if r.reject != nil {
			err = r.reject(ctx, b, err)
		}
		return nil, errors.Join(err, f.Close())
	}
	return r.image, nil
}
