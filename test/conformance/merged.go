package conformance

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// merged is the file tree of a stack of layers. It is written for the tests and shares nothing with the builder,
// so that the two can disagree.
type merged struct {
	files map[string]*file
}

// file is an inode; several paths may share it.
type file struct {
	header  tar.Header
	content string
}

const (
	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

func newMerged() *merged {
	return &merged{files: map[string]*file{}}
}

// applyTar puts one layer on top. It refuses what no builder should write: a path that comes twice,
// a name that is not clean, a hard link to nothing.
func (m *merged) applyTar(tr *tar.Reader) error {
	seen := map[string]bool{}
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		name := path.Join("/", h.Name)
		if seen[name] {
			return fmt.Errorf("%s comes twice", name)
		}
		seen[name] = true
		base := path.Base(name)
		switch {
		case base == opaqueName:
			m.clear(path.Dir(name), seen)
		case strings.HasPrefix(base, whiteoutPrefix):
			gone := path.Join(path.Dir(name), strings.TrimPrefix(base, whiteoutPrefix))
			if m.files[gone] == nil {
				return fmt.Errorf("whiteout of %s, which does not exist below", gone)
			}
			m.remove(gone)
		default:
			if err := m.put(name, h, tr); err != nil {
				return err
			}
		}
	}
}

func (m *merged) put(name string, h *tar.Header, r io.Reader) error {
	for p := path.Dir(name); p != "/"; p = path.Dir(p) {
		if m.files[p] == nil {
			m.files[p] = &file{header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755, ModTime: h.ModTime}}
		}
	}
	if h.Typeflag == tar.TypeLink {
		f := m.files[path.Join("/", h.Linkname)]
		if f == nil {
			return fmt.Errorf("hard link %s to %s, which does not exist", name, h.Linkname)
		}
		m.remove(name)
		m.files[name] = f
		return nil
	}
	if old := m.files[name]; old != nil && (h.Typeflag != tar.TypeDir || old.header.Typeflag != tar.TypeDir) {
		m.remove(name)
	}
	f := &file{header: *h}
	if h.Typeflag == tar.TypeReg {
		b, err := io.ReadAll(r)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		f.content = string(b)
	}
	m.files[name] = f
	return nil
}

func (m *merged) remove(name string) {
	delete(m.files, name)
	for p := range m.files {
		if strings.HasPrefix(p, name+"/") {
			delete(m.files, p)
		}
	}
}

// clear removes what lies in dir but came from a layer below.
func (m *merged) clear(dir string, keep map[string]bool) {
	for p := range m.files {
		if strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") && !keep[p] {
			delete(m.files, p)
		}
	}
}

// describe returns one line for each path. names says what to call contents that change from machine to machine.
func (m *merged) describe(names map[string]string) map[string]string {
	groups := map[*file][]string{}
	for p, f := range m.files {
		groups[f] = append(groups[f], p)
	}
	lines := map[string]string{}
	for f, paths := range groups {
		slices.Sort(paths)
		for _, p := range paths {
			l := f.describe(names)
			if len(paths) > 1 {
				l += " links=" + quoteAll(paths)
			}
			lines[p] = l
		}
	}
	return lines
}

func (f *file) describe(names map[string]string) string {
	h := &f.header
	kind := map[byte]string{
		tar.TypeDir: "dir", tar.TypeReg: "file", tar.TypeSymlink: "symlink",
		tar.TypeChar: "char", tar.TypeBlock: "block", tar.TypeFifo: "fifo",
	}[h.Typeflag]
	parts := []string{kind, fmt.Sprintf("%04o %d:%d", h.Mode, h.Uid, h.Gid)}
	switch kind {
	case "":
		parts[0] = fmt.Sprintf("type %q", h.Typeflag)
	case "file":
		parts = append(parts, describeContent(f.content, names))
	case "symlink":
		parts = []string{kind, fmt.Sprintf("%d:%d -> %s", h.Uid, h.Gid, quote(h.Linkname))}
	case "char", "block":
		parts = append(parts, fmt.Sprintf("%d:%d", h.Devmajor, h.Devminor))
	}
	parts = append(parts, describeTime(h))
	return strings.Join(append(parts, describeXattrs(h)...), " ")
}

// filling is how the files start that setup's command "fill" makes.
const filling = "0123456789abcdef0123456789abcdef"

// maxShown is the size in bytes up to which a text is shown as it is.
const maxShown = 1000

func describeContent(s string, names map[string]string) string {
	if n, ok := names[s]; ok {
		return n
	}
	if len(s) <= maxShown && !strings.HasPrefix(s, filling) && utf8.ValidString(s) {
		return "'" + quote(s) + "'"
	}
	return fmt.Sprintf("%d bytes sha256:%x", len(s), sha256.Sum256([]byte(s)))
}

// describeTime says when the file was changed, to the second, or "now" if the build did it.
func describeTime(h *tar.Header) string {
	if isNow(h.ModTime) {
		return "now"
	}
	return h.ModTime.UTC().Format("2006-01-02T15:04:05Z")
}

// isNow tells times of builds from those that cases set.
func isNow(t time.Time) bool { return t.Year() >= 2025 }

const xattrRecord = "SCHILY.xattr."

// describeXattrs leaves out the attributes of users: BuildKit loses them, see Kept.
func describeXattrs(h *tar.Header) []string {
	var xs []string
	for k, v := range h.PAXRecords {
		if x, ok := strings.CutPrefix(k, xattrRecord); ok && !strings.HasPrefix(x, "user.") {
			xs = append(xs, fmt.Sprintf("%s='%s'", x, quote(v)))
		}
	}
	sort.Strings(xs)
	return xs
}

// difference says what of top is not as in base: one line for each path, in the order of paths.
func difference(base, top map[string]string) []string {
	changed := map[string]string{}
	for p, l := range top {
		if base[p] != l {
			changed[p] = l
		}
	}
	for p := range base {
		if _, ok := top[p]; !ok {
			changed[p] = "gone"
		}
	}
	var lines []string
	for _, p := range slices.Sorted(maps.Keys(changed)) {
		lines = append(lines, quote(p)+": "+changed[p])
	}
	return lines
}

// quote escapes what does not print, as Go does, but leaves double quotes alone: they would be escaped once more in JSON.
func quote(s string) string {
	q := strconv.Quote(s)
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

func quoteAll(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return strings.Join(quoted, ",")
}
