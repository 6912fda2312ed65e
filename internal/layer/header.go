package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"math"
	"path"
	"strings"
	"time"

	"hako/internal/tree"
)

// The names that a layer's tar uses for what is gone, after the OCI image specification, layer.md.
const (
	whiteoutPrefix = ".wh."
	// whiteoutMeta starts names with a meaning to aufs alone, and the opaque marker.
	whiteoutMeta   = ".wh..wh."
	whiteoutOpaque = ".wh..wh..opq"
)

// paxXattr starts the PAX records that hold extended attributes.
const paxXattr = "SCHILY.xattr."

// header is the one place where an entry becomes a tar header. What varies between machines and is no property of
// the file is left out: user and group names, access and change times, device and inode numbers of the host.
// Times are whole seconds, as BuildKit writes them. The same entry always gives the same bytes.
func header(e *tree.Entry) (*tar.Header, error) {
	h := &tar.Header{
		Name:    e.Path,
		Mode:    int64(e.Mode & 0o7777),
		Uid:     int(e.UID),
		Gid:     int(e.GID),
		ModTime: headerTime(e.ModTime),
		Format:  tar.FormatPAX,
	}
	switch e.Kind {
	case tree.Dir:
		h.Typeflag, h.Name = tar.TypeDir, e.Path+"/"
	case tree.Regular:
		h.Typeflag, h.Size = tar.TypeReg, e.Size
	case tree.Symlink:
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, e.Linkname, 0o777
	case tree.Hardlink:
		h.Typeflag, h.Linkname = tar.TypeLink, e.Linkname
	case tree.CharDevice:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(e.Major), int64(e.Minor)
	case tree.BlockDevice:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeBlock, int64(e.Major), int64(e.Minor)
	case tree.Fifo:
		h.Typeflag = tar.TypeFifo
	case tree.Whiteout:
		dir, base := path.Split(e.Path)
		return &tar.Header{
			Typeflag: tar.TypeReg, Name: dir + whiteoutPrefix + base, ModTime: h.ModTime, Format: tar.FormatPAX,
		}, nil
	case tree.Socket:
		return nil, fmt.Errorf("%s: a socket cannot be part of a layer", e.Path)
	default:
		return nil, fmt.Errorf("%s: unknown kind of entry %d", e.Path, e.Kind)
	}
	return h, setXattrs(h, e)
}

func setXattrs(h *tar.Header, e *tree.Entry) error {
	for name, value := range e.Xattrs {
		if overlayXattr(name) {
			continue
		}
		if strings.ContainsAny(name, "=\x00") || name == "" {
			return fmt.Errorf("%s: extended attribute %q cannot be part of a layer", e.Path, name)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string, len(e.Xattrs))
		}
		h.PAXRecords[paxXattr+name] = value
	}
	return nil
}

// headerTime is t in whole seconds; no time is the epoch.
func headerTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Unix(0, 0)
	}
	return time.Unix(t.Unix(), 0)
}

// overlayXattr tells whether an extended attribute is an instruction to an overlay file system.
// In an image it would hide or redirect files of the layers below wherever the image is mounted.
func overlayXattr(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

var (
	errDotDot = errors.New(`name contains ".."`)
	errNUL    = errors.New("name contains a zero byte")
)

// Limits of Linux; a layer beyond them cannot be used by anybody.
const (
	maxName  = 255       // NAME_MAX
	maxPath  = 4096      // PATH_MAX
	maxMajor = 1<<12 - 1 // include/linux/kdev_t.h: MINORBITS is 20
	maxMinor = 1<<20 - 1
)

// parseHeader turns the header of a foreign tar into an entry. Path is clean and relative, but the markers of
// whiteouts are still in it; Linkname of a hard link is clean, too.
func parseHeader(h *tar.Header) (tree.Entry, error) {
	e := tree.Entry{Mode: uint32(h.Mode & 0o7777), ModTime: h.ModTime} //nolint:gosec // masked
	var err error
	if e.Path, err = cleanName(h.Name); err != nil {
		return e, err
	}
	if e.UID, err = id32("owner", int64(h.Uid)); err != nil {
		return e, err
	}
	if e.GID, err = id32("group", int64(h.Gid)); err != nil {
		return e, err
	}
	e.Xattrs = headerXattrs(h)
	switch h.Typeflag {
	case tar.TypeDir:
		e.Kind = tree.Dir
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeCont:
		e.Kind, e.Size = tree.Regular, h.Size
	case tar.TypeSymlink:
		e.Kind, e.Mode = tree.Symlink, 0o777
		e.Linkname, err = linkTarget(h.Linkname)
	case tar.TypeLink:
		e.Kind = tree.Hardlink
		e.Linkname, err = cleanName(h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		err = parseDevice(h, &e)
	case tar.TypeFifo:
		e.Kind = tree.Fifo
	default:
		err = fmt.Errorf("unknown type %q of a tar entry", h.Typeflag)
	}
	return e, err
}

func parseDevice(h *tar.Header, e *tree.Entry) error {
	if h.Devmajor < 0 || h.Devmajor > maxMajor || h.Devminor < 0 || h.Devminor > maxMinor {
		return fmt.Errorf("device number %d:%d is out of range", h.Devmajor, h.Devminor)
	}
	e.Kind = tree.CharDevice
	if h.Typeflag == tar.TypeBlock {
		e.Kind = tree.BlockDevice
	}
	e.Major, e.Minor = uint32(h.Devmajor), uint32(h.Devminor) //nolint:gosec // checked above
	if isOverlayWhiteout(e) {
		e.Kind = tree.Whiteout
	}
	return nil
}

// isOverlayWhiteout tells whether e is the device that overlay file systems take for a deleted file, also where it
// comes from the tar of an image.
func isOverlayWhiteout(e *tree.Entry) bool {
	return e.Kind == tree.CharDevice && e.Major == 0 && e.Minor == 0
}

func headerXattrs(h *tar.Header) map[string]string {
	var x map[string]string
	for k, v := range h.PAXRecords {
		name, ok := strings.CutPrefix(k, paxXattr)
		if !ok || name == "" || overlayXattr(name) {
			continue
		}
		if x == nil {
			x = map[string]string{}
		}
		x[name] = v
	}
	return x
}

func id32(what string, id int64) (uint32, error) {
	if id < 0 || id > math.MaxUint32 {
		return 0, fmt.Errorf("%s %d is out of range", what, id)
	}
	return uint32(id), nil
}

func linkTarget(s string) (string, error) {
	if strings.IndexByte(s, 0) >= 0 {
		return "", fmt.Errorf("link target %q: %w", s, errNUL)
	}
	if s == "" {
		return "", errors.New("link target is empty")
	}
	if len(s) >= maxPath {
		return "", fmt.Errorf("link target is longer than %d bytes", maxPath-1)
	}
	return s, nil
}

// cleanName makes a name of a tar relative to the root of the layer. A name that points out of it is refused.
func cleanName(name string) (string, error) {
	if strings.IndexByte(name, 0) >= 0 {
		return "", errNUL
	}
	if len(name) > maxPath {
		return "", fmt.Errorf("name is longer than %d bytes", maxPath)
	}
	for rest := name; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if part == ".." {
			return "", errDotDot
		}
		if len(part) > maxName {
			return "", fmt.Errorf("name has a component longer than %d bytes", maxName)
		}
	}
	clean := strings.TrimPrefix(path.Clean("/"+name), "/")
	if clean == "" {
		return ".", nil
	}
	return clean, nil
}
