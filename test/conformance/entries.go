package conformance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// parseEntry turns the words of one line into a tar header and content:
//
//	dir PATH MODE UID:GID
//	file PATH MODE UID:GID CONTENT
//	fifo PATH MODE UID:GID
//	char PATH MODE UID:GID MAJOR:MINOR      (and block)
//	symlink PATH TARGET
//	link PATH TARGET
//	whiteout PATH
//	opaque PATH
//
// each followed by options: mtime=TIME, owner=UID:GID, xattr.NAME=VALUE.
func parseEntry(words []string) (*tar.Header, []byte, error) {
	kind := words[0]
	n, ok := map[string]int{
		"dir": 4, "file": 5, "fifo": 4, "char": 5, "block": 5, "symlink": 3, "link": 3, "whiteout": 2, "opaque": 2,
	}[kind]
	if !ok || len(words) < n {
		return nil, nil, fmt.Errorf("parse entry %q: unknown kind or too few words", words)
	}
	h := &tar.Header{Name: words[1], ModTime: fixedTime(), Mode: 0o777}
	var content []byte
	var err error
	if n >= 4 {
		if h.Mode, err = strconv.ParseInt(words[2], 8, 64); err != nil {
			return nil, nil, fmt.Errorf("parse mode: %w", err)
		}
		if h.Uid, h.Gid, err = pair(words[3]); err != nil {
			return nil, nil, err
		}
	}
	switch kind {
	case "dir":
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
	case "file":
		h.Typeflag, content = tar.TypeReg, []byte(words[4])
		h.Size = int64(len(content))
	case "fifo":
		h.Typeflag = tar.TypeFifo
	case "char", "block":
		h.Typeflag = map[string]byte{"char": tar.TypeChar, "block": tar.TypeBlock}[kind]
		major, minor, err := pair(words[4])
		if err != nil {
			return nil, nil, err
		}
		h.Devmajor, h.Devminor = int64(major), int64(minor)
	case "symlink":
		h.Typeflag, h.Linkname = tar.TypeSymlink, words[2]
	case "link":
		h.Typeflag, h.Linkname = tar.TypeLink, words[2]
	case "whiteout":
		h.Typeflag, h.Mode = tar.TypeReg, 0o600
		h.Name = path.Join(path.Dir(h.Name), ".wh."+path.Base(h.Name))
	case "opaque":
		h.Typeflag, h.Mode = tar.TypeReg, 0o600
		h.Name = path.Join(h.Name, ".wh..wh..opq")
	}
	return h, content, applyOptions(h, words[n:])
}

func applyOptions(h *tar.Header, options []string) error {
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		switch {
		case name == "mtime":
			t, err := time.Parse(time.RFC3339Nano, value)
			if err != nil {
				return fmt.Errorf("parse time: %w", err)
			}
			h.ModTime = t
		case name == "owner":
			uid, gid, err := pair(value)
			if err != nil {
				return err
			}
			h.Uid, h.Gid = uid, gid
		case strings.HasPrefix(name, "xattr."):
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords["SCHILY."+name] = value
		default:
			return fmt.Errorf("parse entry: unknown option %q", o)
		}
	}
	return nil
}

func pair(s string) (a, b int, err error) {
	if _, err := fmt.Sscanf(s, "%d:%d", &a, &b); err != nil {
		return 0, 0, fmt.Errorf("parse pair %q: %w", s, err)
	}
	return a, b, nil
}

// writeEntries writes the entries of lines to w as a tar.
func writeEntries(w io.Writer, lines []line) error {
	tw := tar.NewWriter(w)
	headers := map[string]tar.Header{}
	for _, l := range lines {
		h, content, err := parseEntry(l.words)
		if err != nil {
			return fmt.Errorf("line %d: %w", l.number, err)
		}
		if h.Typeflag == tar.TypeLink { // a further name says the same of the file as the first
			first := headers[h.Linkname]
			first.Typeflag, first.Name, first.Linkname, first.Size = tar.TypeLink, h.Name, h.Linkname, 0
			*h = first
		}
		headers[h.Name] = *h
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("line %d: write header: %w", l.number, err)
		}
		if _, err := tw.Write(content); err != nil {
			return fmt.Errorf("line %d: write content: %w", l.number, err)
		}
	}
	return tw.Close()
}

// buildArchive makes the archive that text describes. A first line "format FORMAT" says how it is compressed;
// without it the name's extension does.
func buildArchive(name, text string) ([]byte, error) {
	lines, err := parseLines(text)
	if err != nil {
		return nil, err
	}
	format := strings.TrimPrefix(path.Ext(name), ".")
	if len(lines) > 0 && lines[0].words[0] == "format" {
		format, lines = lines[0].words[1], lines[1:]
	}
	var buf bytes.Buffer
	w, err := compressor(&buf, format)
	if err != nil {
		return nil, err
	}
	if err := writeEntries(w, lines); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("close archive: %w", err)
	}
	return buf.Bytes(), nil
}

func compressor(w io.Writer, format string) (io.WriteCloser, error) {
	switch format {
	case "tar":
		return nopCloser{w}, nil
	case "gz", "tgz":
		return gzip.NewWriter(w), nil
	case "xz", "txz":
		return xz.NewWriter(w)
	case "zst":
		return zstd.NewWriter(w)
	}
	return nil, fmt.Errorf("unknown archive format %q", format)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }
