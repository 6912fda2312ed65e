package imagefile

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"hako/internal/compression"
)

// files are the files of an archive or of a directory.
type files interface {
	// open reads a regular file and says how long it is; it returns fs.ErrNotExist if there is none.
	open(name string) (io.ReadCloser, int64, error)
	close() error
}

// openFiles opens what o names.
func openFiles(ctx context.Context, o Options) (files, error) {
	if o.Input != nil {
		return spooled(ctx, o.Input, o)
	}
	st, err := os.Stat(o.Path)
	if err != nil {
		return nil, reason(err)
	}
	if st.IsDir() {
		root, err := os.OpenRoot(o.Path)
		return &directory{root}, reason(err)
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return nil, reason(err)
	}
	var magic [8]byte
	n, _ := f.ReadAt(magic[:], 0) // a pipe cannot be read at an offset
	if st.Mode().IsRegular() && !compression.Compressed(magic[:n]) {
		return indexed(ctx, f)
	}
	out, err := spooled(ctx, f, o)
	return out, errors.Join(err, f.Close())
}

// reason is what the system said, without the name of the call.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// directory is a directory with a layout.
type directory struct{ root *os.Root }

var _ files = (*directory)(nil)

func (d *directory) open(name string) (io.ReadCloser, int64, error) {
	st, err := d.root.Stat(name)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, reason(err))
	}
	if !st.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := d.root.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, reason(err))
	}
	return f, st.Size(), nil
}

func (d *directory) close() error { return d.root.Close() }

// spooled reads an archive that can be read once, or that is compressed as a whole, into a file.
func spooled(ctx context.Context, r io.Reader, o Options) (_ files, err error) {
	plain, err := compression.NewReader(bufio.NewReaderSize(r, 1<<20))
	if err != nil {
		return nil, err
	}
	defer plain.Close() //nolint:errcheck // read to its end
	f, err := o.Spool()
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(f, &stoppable{ctx, plain}); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return indexed(ctx, f)
}

// stoppable ends with its context.
type stoppable struct {
	ctx context.Context //nolint:containedctx // of the one copy that it is made for
	r   io.Reader
}

// Read reads on.
func (s *stoppable) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(p)
}

// tarball is a tar whose files are read where they lie.
type tarball struct {
	file  *os.File
	parts map[string]part
}

var _ files = (*tarball)(nil)

// part is a file in a tar, or a link to one.
type part struct {
	offset, size int64
	link         string
}

const (
	maxParts = 1 << 20 // of a tar; docker's limit of layers is 127
	maxLinks = 8       // of links that point to links
)

// indexed finds the files of a tar. It owns f.
func indexed(ctx context.Context, f *os.File) (_ files, err error) {
	t := &tarball{file: f, parts: map[string]part{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	for tr := tar.NewReader(f); ; { // it does not read ahead, so that f is where the file's data begins
		h, err := tr.Next()
		switch {
		case errors.Is(err, io.EOF) && len(t.parts) == 0:
			return nil, errors.New("it is no archive, or an empty one")
		case errors.Is(err, io.EOF):
			return t, nil
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case len(t.parts) >= maxParts:
			return nil, fmt.Errorf("it has more than %d files", maxParts)
		}
		name := clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			offset, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, err
			}
			t.parts[name] = part{offset: offset, size: h.Size}
		case tar.TypeSymlink: // docker, before version 25: a layer that another image has, too
			t.parts[name] = part{link: clean(path.Join(path.Dir(name), h.Linkname))}
		case tar.TypeLink:
			t.parts[name] = part{link: clean(h.Linkname)}
		}
	}
}

func clean(name string) string { return strings.TrimPrefix(path.Join("/", name), "/") }

func (t *tarball) open(name string) (io.ReadCloser, int64, error) {
	p, ok := t.parts[clean(name)]
	for n := 0; ok && p.link != ""; n++ {
		if n == maxLinks {
			return nil, 0, fmt.Errorf("%s: too many links", name)
		}
		p, ok = t.parts[p.link]
	}
	if !ok {
		return nil, 0, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(t.file, p.offset, p.size)), p.size, nil
}

func (t *tarball) close() error { return t.file.Close() }
