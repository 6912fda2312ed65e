package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"hako/internal/tree"
)

// Write writes a tree to w as a tar archive and returns the number of entries. The same tree always gives the same bytes:
// entries come in tree order, owners are root, times are whole seconds, and the root is left out. Memory does not grow with
// the tree, but for the first names of files that have several. When ctx ends, Write returns its cause.
func Write(ctx context.Context, t tree.Tree, w io.Writer) (int, error) {
	p := &packer{ctx: ctx, tree: t, tar: tar.NewWriter(w), first: map[uint64]string{}}
	if err := p.dir("."); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return 0, err
	}
	return p.entries, p.tar.Close()
}

type packer struct {
	ctx     context.Context //nolint:containedctx // it lives as long as the call of Write
	tree    tree.Tree
	tar     *tar.Writer
	first   map[uint64]string // by inode
	entries int
}

func (p *packer) dir(at string) error {
	names, err := p.tree.ReadDir(at)
	if err != nil {
		return err
	}
	for _, name := range names {
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if err := p.entry(path.Join(at, name)); err != nil {
			return err
		}
	}
	return nil
}

func (p *packer) entry(at string) error {
	e, err := p.tree.Lstat(at)
	if err != nil {
		return err
	}
	h, err := p.header(&e)
	if err != nil {
		return err
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: write tar header: %w", quote(at), err)
	}
	p.entries++
	switch h.Typeflag {
	case tar.TypeDir:
		return p.dir(at)
	case tar.TypeReg:
		return p.content(at, e.Size)
	}
	return nil
}

// header is what an entry becomes.
func (p *packer) header(e *tree.Entry) (*tar.Header, error) {
	h := &tar.Header{Name: e.Path, Mode: int64(e.Mode & 0o7777), ModTime: time.Unix(boundTime(e.ModTime).Unix(), 0), Format: tar.FormatPAX}
	switch e.Kind {
	case tree.Dir:
		h.Typeflag, h.Name = tar.TypeDir, e.Path+"/"
	case tree.Regular:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case tree.Symlink:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Linkname
	case tree.CharDevice, tree.BlockDevice:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(e.Major), int64(e.Minor)
		if e.Kind == tree.BlockDevice {
			h.Typeflag = tar.TypeBlock
		}
	case tree.Fifo:
		h.Typeflag = tar.TypeFifo
	default:
		return nil, fmt.Errorf("%s: unknown kind of entry %d", quote(e.Path), e.Kind)
	}
	for k, v := range e.Xattrs {
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[paxXattr+k] = v
	}
	if e.Kind == tree.Dir || e.Links < 2 {
		return h, nil
	}
	if first, ok := p.first[e.Inode]; ok {
		h.Typeflag, h.Linkname, h.Size, h.PAXRecords = tar.TypeLink, first, 0, nil
		return h, nil
	}
	p.first[e.Inode] = e.Path
	return h, nil
}

var errSizeChanged = errors.New("its size changed while it was read")

// content writes the bytes of a file.
func (p *packer) content(at string, size int64) (err error) {
	r, err := p.tree.Open(at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n, err := io.Copy(p.tar, io.LimitReader(&tail{ctx: p.ctx, r: r}, size))
	if err == nil && n == size {
		if more, _ := r.Read(make([]byte, 1)); more > 0 {
			n++
		}
	}
	if err == nil && n != size {
		err = errSizeChanged
	}
	if err != nil {
		return fmt.Errorf("%s: %w", quote(at), err)
	}
	return nil
}
