package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strconv"
	"strings"
	"time"

	"hako/internal/tree"
)

// Limits of Linux.
const (
	maxName  = 255       // NAME_MAX
	maxPath  = 4096      // PATH_MAX
	maxMajor = 1<<12 - 1 // include/linux/kdev_t.h: MINORBITS is 20
	maxMinor = 1<<20 - 1
)

// blockSize is that of a tar, POSIX.1-2001 pax.
const blockSize = 512

// paxXattr starts the PAX records that hold extended attributes.
const paxXattr = "SCHILY.xattr."

var (
	errDotDot   = errors.New(`name contains ".."`)
	errNUL      = errors.New("name contains a zero byte")
	errLongName = fmt.Errorf("name is longer than %d bytes, or a part of it than %d", maxPath, maxName)
)

// cleanName makes a name relative to the root. One that points out of it is refused.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", errNUL
	}
	if len(name) > maxPath {
		return "", errLongName
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "..":
			return "", errDotDot
		case len(part) > maxName:
			return "", errLongName
		}
	}
	if clean := path.Clean("/" + name)[1:]; clean != "" {
		return clean, nil
	}
	return ".", nil
}

// parseHeader is what an entry says, without its path: owners are root, and of the attributes only those of users count, as
// in a directory that is a context.
func parseHeader(h *tar.Header) (tree.Entry, error) {
	e := tree.Entry{Mode: uint32(h.Mode & 0o7777), ModTime: boundTime(h.ModTime)} //nolint:gosec // masked
	switch h.Typeflag {
	case tar.TypeDir:
		e.Kind = tree.Dir
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		e.Kind, e.Size = tree.Regular, h.Size
	case tar.TypeSymlink:
		e.Kind, e.Mode, e.Linkname = tree.Symlink, 0o777, h.Linkname
		if h.Linkname == "" || len(h.Linkname) >= maxPath || strings.IndexByte(h.Linkname, 0) >= 0 {
			return e, fmt.Errorf("bad target %s of a symbolic link", quote(h.Linkname))
		}
	case tar.TypeLink:
		e.Kind = tree.Hardlink
	case tar.TypeFifo:
		e.Kind = tree.Fifo
	case tar.TypeChar, tar.TypeBlock:
		e.Kind = tree.CharDevice
		if h.Typeflag == tar.TypeBlock {
			e.Kind = tree.BlockDevice
		}
		if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
			return e, fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
		}
		e.Major, e.Minor = uint32(h.Devmajor), uint32(h.Devminor) //nolint:gosec // checked above
	default:
		return e, fmt.Errorf("unknown type %q of an entry", h.Typeflag)
	}
	if e.Kind == tree.Dir || e.Kind == tree.Regular {
		e.Xattrs = userXattrs(h)
	}
	return e, nil
}

func userXattrs(h *tar.Header) map[string]string {
	var x map[string]string
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, paxXattr)
		if !ok || !strings.HasPrefix(name, "user.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		if x == nil {
			x = map[string]string{}
		}
		x[name] = v
	}
	return x
}

// boundTime is the epoch for times that a file cannot have.
func boundTime(t time.Time) time.Time {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, math.MaxInt64)) {
		return time.Unix(0, 0)
	}
	return t
}

// quote shows a name from an archive: its beginning, if it is long.
func quote(name string) string {
	const most = 200
	if len(name) > most {
		return strconv.Quote(name[:most]) + "…"
	}
	return strconv.Quote(name)
}

// tail is a reader that ends with a context and knows what the stream ended with.
type tail struct {
	ctx   context.Context //nolint:containedctx // io.Reader has no place for it; it lives as long as one call
	r     io.Reader
	total int64
	// zeros is how many zero bytes came last. After marked is set, garbage counts the others.
	zeros   int64
	marked  bool
	garbage int64
	// failed says that the stream itself ended with an error.
	failed bool
}

// Read reads on. It returns the context's cause once that has ended.
func (t *tail) Read(p []byte) (int, error) {
	if t.ctx.Err() != nil {
		return 0, context.Cause(t.ctx)
	}
	n, err := t.r.Read(p)
	t.failed = t.failed || err != nil && err != io.EOF //nolint:errorlint // a Reader returns it as it is
	t.total += int64(n)
	last := n
	for last > 0 && p[last-1] == 0 {
		last--
	}
	if last > 0 {
		t.zeros = 0
	}
	t.zeros += int64(n - last)
	if t.marked && last > 0 {
		t.garbage += int64(last)
	}
	return n, err
}
