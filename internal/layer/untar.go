package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"hako/internal/tree"
)

// readTar feeds all entries of a layer's tar to c. It reads up to the end marker of the tar.
func readTar(ctx context.Context, r io.Reader, c *collector) error {
	tr := tar.NewReader(r)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // comments of git archive; no extractor of images uses them
		}
		if err := addHeader(ctx, c, h, tr); err != nil {
			return fmt.Errorf("tar entry %q: %w", shorten(h.Name), err)
		}
	}
}

// shorten keeps a hostile name from flooding the log.
func shorten(name string) string {
	const most = 300
	if len(name) <= most {
		return name
	}
	return name[:most] + "…"
}

func addHeader(ctx context.Context, c *collector, h *tar.Header, content io.Reader) error {
	e, err := parseHeader(h)
	if err != nil {
		return err
	}
	done, err := c.marker(&e)
	if done || err != nil {
		return err
	}
	if e.Path == "." && e.Kind != tree.Dir {
		return errors.New("the root of a layer must be a directory")
	}
	return c.add(ctx, &e, content, nil)
}

// marker deals with names that start with ".wh.": whiteouts, the opaque marker, and what aufs left.
func (c *collector) marker(e *tree.Entry) (done bool, err error) {
	if !strings.Contains(e.Path, whiteoutPrefix) {
		return false, nil
	}
	dir, base := splitPath(e.Path)
	for d := dir; d != "."; d = path.Dir(d) {
		if name := path.Base(d); strings.HasPrefix(name, whiteoutMeta) {
			return true, nil // inside .wh..wh.plnk
		} else if strings.HasPrefix(name, whiteoutPrefix) {
			return true, fmt.Errorf("lies inside the whiteout %q", name)
		}
	}
	switch {
	case base == whiteoutOpaque:
		return true, c.names.setOpaque(dir)
	case strings.HasPrefix(base, whiteoutMeta):
		return true, nil
	case !strings.HasPrefix(base, whiteoutPrefix):
		return false, nil
	}
	gone := base[len(whiteoutPrefix):]
	if gone == "" || gone == "." || gone == ".." {
		return true, fmt.Errorf("whiteout of %q", gone)
	}
	if dir != "." {
		gone = dir + "/" + gone
	}
	return true, c.names.hide(gone, *e)
}
