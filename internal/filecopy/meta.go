package filecopy

import (
	"maps"
	"time"

	"hako/internal/tree"
)

// meta is what a tree.Entry says about a file, in less room: an archive may have millions.
type meta struct {
	size     int64
	seconds  int64 // of the time
	uid, gid uint32
	nanos    uint32 // of the time
	mode     uint16
	kind     tree.Kind
	more     *moreMeta // nil if there is nothing in it
}

// moreMeta is what few files have. It is never changed, so that meta can be copied.
type moreMeta struct {
	linkname     string
	major, minor uint32
	xattrs       map[string]string
}

func newMeta(e *tree.Entry) meta {
	m := meta{size: e.Size, uid: e.UID, gid: e.GID, kind: e.Kind}
	m.setMode(e.Mode)
	m.setTime(e.ModTime)
	if e.Linkname != "" || e.Major != 0 || e.Minor != 0 || len(e.Xattrs) > 0 {
		m.more = &moreMeta{linkname: e.Linkname, major: e.Major, minor: e.Minor, xattrs: e.Xattrs}
	}
	return m
}

// entry is m as an entry at p.
func (m *meta) entry(p string) tree.Entry {
	e := tree.Entry{
		Path: p, Kind: m.kind, Mode: uint32(m.mode), UID: m.uid, GID: m.gid, Size: m.size,
		ModTime: m.time(),
	}
	if m.more != nil {
		e.Linkname, e.Major, e.Minor, e.Xattrs = m.more.linkname, m.more.major, m.more.minor, m.more.xattrs
	}
	return e
}

func (m *meta) time() time.Time { return time.Unix(m.seconds, int64(m.nanos)) }

func (m *meta) setTime(t time.Time) {
	m.seconds, m.nanos = t.Unix(), uint32(t.Nanosecond()) //nolint:gosec // below a billion
}

func (m *meta) setMode(mode uint32) { m.mode = uint16(mode & modeAll) } //nolint:gosec // masked

// addXattrs sets attributes, keeping those with other names.
func (m *meta) addXattrs(x map[string]string) {
	if len(x) == 0 {
		return
	}
	more := moreMeta{}
	if m.more != nil {
		more = *m.more
	}
	all := make(map[string]string, len(more.xattrs)+len(x))
	maps.Copy(all, more.xattrs)
	maps.Copy(all, x)
	more.xattrs = all
	m.more = &more
}
