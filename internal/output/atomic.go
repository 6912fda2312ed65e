package output

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const writeBuffer = 256 << 10

// writeFile lets fill write the file at path, such that it has either its old content or all of the new.
// What is no regular file (a pipe, /dev/stdout) is written to directly.
func writeFile(path string, fill func(io.Writer) error) error {
	st, err := os.Stat(path) // follows links: a link to a file is replaced where it points to
	if err == nil && !st.Mode().IsRegular() {
		return writeInPlace(path, fill)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return err
		}
	}
	return replaceFile(path, fill)
}

func writeInPlace(path string, fill func(io.Writer) error) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return buffered(f, fill)
}

func replaceFile(path string, fill func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreClosed(f.Close()), os.Remove(f.Name()))
		}
	}()
	if err := buffered(f, fill); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil { // CreateTemp makes it private
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func ignoreClosed(err error) error {
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}

func buffered(w io.Writer, fill func(io.Writer) error) error {
	b := bufio.NewWriterSize(w, writeBuffer)
	if err := fill(b); err != nil {
		return err
	}
	return b.Flush()
}

// copyBlob copies a layer and makes sure that it is what its descriptor says.
func copyBlob(ctx context.Context, w io.Writer, l Layer) (err error) {
	rc, err := l.Open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	hash := l.Digest.Algorithm().Hash()
	n, err := io.Copy(io.MultiWriter(w, hash), &contextReader{ctx: ctx, r: io.LimitReader(rc, l.Size+1)})
	if err != nil {
		return fmt.Errorf("copy layer %s: %w", l.Digest, err)
	}
	if n != l.Size || digest.NewDigest(l.Digest.Algorithm(), hash) != l.Digest {
		return fmt.Errorf("copy layer %s: the content has another digest or size", l.Digest)
	}
	return nil
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context // of the one copy that it is made for
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// blobs lists all blobs of the image, each once: configuration and layers.
func (im *Image) blobs() []Layer {
	var out []Layer
	seen := map[digest.Digest]bool{}
	for _, l := range append([]Layer{im.config()}, im.Layers...) {
		if !seen[l.Digest] {
			seen[l.Digest] = true
			out = append(out, l)
		}
	}
	return out
}

// bytesLayer is a manifest or an index as a blob.
func bytesLayer(d ocispec.Descriptor, data []byte) Layer {
	im := Image{Config: d, ConfigData: data}
	return im.config()
}
