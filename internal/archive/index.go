package archive

import (
	"hash/maphash"
	"iter"
	"strings"
	"time"

	"hako/internal/tree"
)

// index is what an archive holds but for the contents. It is made for millions of files: names and files are rows of tables
// that point to each other by number, the bytes of names lie in one place, and one hash table finds a name in a directory.
//
// The key of a name is the number of its directory. A directory that is replaced by something else is a row that nothing
// points to any more: the names in it need not be touched, and cannot come back. While it is filled, one goroutine uses it.
type index struct {
	names  table[name]
	inodes table[inode]
	more   []moreMeta
	bytes  arena
	slots  []nameID // of the hash table: 0 where there is nothing
	seed   maphash.Seed
}

// nameID and inodeID number rows; 0 is none.
type (
	nameID  uint32
	inodeID uint32
)

// root is the row of the root directory.
const root inodeID = 1

// name is one name in a directory.
type name struct {
	dir  inodeID
	ino  inodeID // what it stands for
	next nameID  // in the same directory
	at   uint32  // in the arena
	size uint8
}

// inode is what all names of one file share.
type inode struct {
	seconds int64 // of the time
	size    int64
	// at is where the content is, or of a directory the last name that was made in it.
	at    int64
	nanos uint32 // of the time
	more  uint32 // 1 + its number; 0 if there is nothing
	links uint32
	name  nameID // the first that was given to it; 0 for the root
	mode  uint16
	kind  tree.Kind
	// dropped says that the content is not there.
	dropped bool
}

// moreMeta is what few files have.
type moreMeta struct {
	linkname     string
	major, minor uint32
	xattrs       map[string]string
}

func newIndex(now time.Time) *index {
	x := &index{slots: make([]nameID, 64), seed: maphash.MakeSeed()}
	x.names.add(name{})
	x.inodes.add(inode{})
	x.inodes.add(inode{kind: tree.Dir, mode: 0o755, seconds: now.Unix(), nanos: uint32(now.Nanosecond())}) //nolint:gosec // below a billion
	return x
}

func (x *index) inode(id inodeID) *inode { return x.inodes.at(uint32(id)) }

// slot finds the place of a name in the hash table.
func (x *index) slot(dir inodeID, text string) int {
	const golden = 0x9e3779b97f4a7c15 // 2^64 / the golden ratio, for numbers that follow each other
	mask := len(x.slots) - 1
	at := int((maphash.String(x.seed, text)^uint64(dir)*golden)>>1) & mask //nolint:gosec // shifted
	for ; ; at = (at + 1) & mask {
		id := x.slots[at]
		if id == 0 {
			return at
		}
		n := x.names.at(uint32(id))
		if n.dir == dir && x.bytes.is(n.at, n.size, text) {
			return at
		}
	}
}

// child is what a name in a directory stands for, or 0.
func (x *index) child(dir inodeID, text string) inodeID {
	id := x.slots[x.slot(dir, text)]
	if id == 0 {
		return 0
	}
	return x.names.at(uint32(id)).ino
}

// set makes a name in a directory stand for an inode, and returns the name and what it stood for before.
func (x *index) set(dir inodeID, text string, ino inodeID) (nameID, inodeID) {
	at := x.slot(dir, text)
	if id := x.slots[at]; id != 0 {
		n := x.names.at(uint32(id))
		old := n.ino
		n.ino = ino
		return id, old
	}
	d := x.inode(dir)
	id := nameID(x.names.add(name{
		dir: dir, ino: ino, next: nameID(d.at), at: x.bytes.add(text), size: uint8(len(text)), //nolint:gosec // names are short and few
	}))
	d.at = int64(id)
	x.slots[at] = id
	if used := x.names.len(); used > len(x.slots)/4*3 {
		x.grow()
	}
	return id, 0
}

// grow doubles the hash table.
func (x *index) grow() {
	x.slots = make([]nameID, 2*len(x.slots))
	for id := 1; id < x.names.len(); id++ {
		n := x.names.at(uint32(id)) //nolint:gosec // a number of a row
		x.slots[x.slot(n.dir, x.bytes.text(n.at, n.size))] = nameID(id)
	}
}

// newInode makes a row of an entry.
func (x *index) newInode(e *tree.Entry) inodeID {
	i := inode{kind: e.Kind, size: e.Size}
	i.set(e)
	if e.Linkname != "" || e.Major != 0 || e.Minor != 0 || len(e.Xattrs) > 0 {
		x.more = append(x.more, moreMeta{strings.Clone(e.Linkname), e.Major, e.Minor, e.Xattrs})
		i.more = uint32(len(x.more)) //nolint:gosec // fewer than entries
	}
	return inodeID(x.inodes.add(i))
}

func (i *inode) set(e *tree.Entry) {
	i.mode, i.seconds, i.nanos = uint16(e.Mode), e.ModTime.Unix(), uint32(e.ModTime.Nanosecond()) //nolint:gosec // 12 bits; below a billion
}

// put makes a new file with a name, and tells gone of what had the name before and has none any more.
func (x *index) put(dir inodeID, base string, e *tree.Entry, gone func(*inode)) (inodeID, error) {
	ino := x.newInode(e)
	return ino, x.link(dir, base, ino, gone)
}

// link gives a file a name, which may be a further one.
func (x *index) link(dir inodeID, base string, ino inodeID, gone func(*inode)) error {
	if err := x.tooDeep(dir, base); err != nil {
		return err
	}
	if x.child(dir, base) == ino {
		return nil
	}
	id, old := x.set(dir, base, ino)
	i := x.inode(ino)
	if i.links++; i.name == 0 {
		i.name = id
	}
	if old == 0 {
		return nil
	}
	o := x.inode(old)
	if o.name == id {
		o.name = 0
	}
	if o.links--; o.links == 0 {
		gone(o)
	}
	return nil
}

// putDir makes a directory, or gives one that is there what the entry says.
func (x *index) putDir(dir inodeID, base string, e *tree.Entry) error {
	if old := x.child(dir, base); old != 0 && x.inode(old).kind == tree.Dir {
		made := x.inode(x.newInode(e))
		o := x.inode(old)
		o.set(e)
		o.more = made.more
		return nil
	}
	_, err := x.put(dir, base, e, func(*inode) {})
	return err
}

// tooDeep refuses paths that are longer than Linux allows.
func (x *index) tooDeep(dir inodeID, base string) error {
	size := len(base)
	for id := dir; id != root; {
		n := x.names.at(uint32(x.inode(id).name))
		size += 1 + int(n.size)
		id = n.dir
		if size > maxPath {
			return errLongName
		}
	}
	return nil
}

// maxSymlinks is Linux's limit, path_resolution(7).
const maxSymlinks = 40

// parent finds the directory of a clean name, through symbolic links, makes what is missing, and returns the last part.
func (x *index) parent(name string) (inodeID, string, error) {
	rest, base := "", name
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		rest, base = name[:i], name[i+1:]
	}
	cur, links := root, 0
	for rest != "" {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		switch part {
		case "", ".":
			continue
		case "..":
			cur = x.up(cur)
			continue
		}
		next := x.child(cur, part)
		if next == 0 {
			made, err := x.put(cur, part, &tree.Entry{Kind: tree.Dir, Mode: 0o755, ModTime: time.Unix(0, 0)}, nil)
			if err != nil {
				return 0, "", err
			}
			cur = made
			continue
		}
		switch i := x.inode(next); i.kind {
		case tree.Dir:
			cur = next
		case tree.Symlink:
			target := x.more[i.more-1].linkname
			if links++; links > maxSymlinks || len(target)+len(rest) > 2*maxPath {
				return 0, "", errNoParent
			}
			if target[0] == '/' {
				cur = root
			}
			rest = target + "/" + rest
		default:
			return 0, "", errNotDir
		}
	}
	return cur, base, nil
}

// up is the directory above one.
func (x *index) up(dir inodeID) inodeID {
	if dir == root {
		return root
	}
	return x.names.at(uint32(x.inode(dir).name)).dir
}

// path is a path of an inode that has just been made.
func (x *index) path(id inodeID) string {
	p, _ := x.pathOf(x.names.at(uint32(x.inode(id).name)))
	return p
}

// pathOf is the path of a name; ok is false if it cannot be reached any more.
func (x *index) pathOf(n *name) (path string, ok bool) {
	parts := make([]string, 0, 8)
	for {
		parts = append(parts, x.bytes.text(n.at, n.size))
		if n.dir == root {
			break
		}
		id := x.inode(n.dir).name
		if id == 0 || x.names.at(uint32(id)).ino != n.dir {
			return "", false
		}
		n = x.names.at(uint32(id))
	}
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return strings.Join(parts, "/"), true
}

// files are all names.
func (x *index) files() iter.Seq[*name] {
	return func(yield func(*name) bool) {
		for id := 1; id < x.names.len(); id++ {
			if !yield(x.names.at(uint32(id))) { //nolint:gosec // a number of a row
				return
			}
		}
	}
}

// find returns what is at a literal path, or 0.
func (x *index) find(p string) inodeID {
	cur := root
	if p == "." {
		return cur
	}
	for part := range strings.SplitSeq(p, "/") {
		if x.inode(cur).kind != tree.Dir {
			return 0
		}
		if cur = x.child(cur, part); cur == 0 {
			return 0
		}
	}
	return cur
}

// table is a list of rows that grows without being copied.
type table[T any] struct {
	chunks [][]T
	n      int
}

const tableChunk = 4096 // rows

func (t *table[T]) len() int { return t.n }

func (t *table[T]) at(i uint32) *T { return &t.chunks[i/tableChunk][i%tableChunk] }

func (t *table[T]) add(v T) uint32 {
	if t.n%tableChunk == 0 {
		t.chunks = append(t.chunks, make([]T, tableChunk))
	}
	id := uint32(t.n) //nolint:gosec // limits keep it small
	*t.at(id) = v
	t.n++
	return id
}

// arena holds the bytes of names. No name lies across two chunks.
type arena struct {
	chunks [][]byte
	free   uint32
}

const arenaChunk = 1 << 20 // 1 MiB

func (a *arena) add(text string) uint32 {
	left := uint32(len(a.chunks))*arenaChunk - a.free //nolint:gosec // at most a few thousand
	if int(left) < len(text) {
		a.free = uint32(len(a.chunks)) * arenaChunk //nolint:gosec // likewise
		a.chunks = append(a.chunks, make([]byte, arenaChunk))
	}
	at := a.free
	copy(a.chunks[at/arenaChunk][at%arenaChunk:], text)
	a.free += uint32(len(text)) //nolint:gosec // a name
	return at
}

func (a *arena) slice(at uint32, size uint8) []byte {
	return a.chunks[at/arenaChunk][at%arenaChunk:][:size]
}

func (a *arena) text(at uint32, size uint8) string { return string(a.slice(at, size)) }

func (a *arena) is(at uint32, size uint8, text string) bool {
	return int(size) == len(text) && string(a.slice(at, size)) == text
}
