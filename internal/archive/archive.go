// Package archive gives a tar archive as a file tree: it is read once, front to back, all contents go one after the other into
// one file without a name, and the rest into an index in memory.
//
// An archive is not trusted. Names are kept inside: ".." is refused, absolute names are relative to the root, and symbolic
// links on the way to an entry are followed inside the tree. Nothing but the one file is ever written, so that device nodes
// are entries and hard links are names. What an archive can make us keep is bounded. A million files cost about 110 bytes
// each, and their names.
package archive

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"hako/internal/inflate"
	"hako/internal/spool"
	"hako/internal/tree"
)

// Options says how an archive is unpacked.
type Options struct {
	// File makes an empty file without a name. It must be set.
	File func(name string) (*os.File, error)
	// Now is the time of the root.
	Now time.Time
	// Sieve says whose content need not be kept; nil keeps all.
	Sieve Sieve
	// Limits bound what the archive may make us do.
	Limits Limits
	// Warn is told what is odd about the archive but does no harm; nil drops it.
	Warn func(text string)
}

// Limits bound what an archive may hold. The zero value means the defaults.
type Limits struct {
	// Entries is the largest number of entries; 0 means 5 million, as many as a layer.
	Entries int
	// NameBytes bounds the bytes of all names, link targets and extended attributes; 0 means 1 GiB.
	NameBytes int64
	// Bytes bounds the contents of all files, holes included; 0 means 1 TiB.
	Bytes int64
}

const (
	defaultEntries   = 5_000_000
	defaultNameBytes = 1 << 30 // 1 GiB
	defaultBytes     = 1 << 40 // 1 TiB
)

func (l Limits) orDefault() Limits {
	return Limits{
		Entries: cmp.Or(l.Entries, defaultEntries), NameBytes: cmp.Or(l.NameBytes, defaultNameBytes), Bytes: cmp.Or(l.Bytes, defaultBytes),
	}
}

// Sieve decides, file by file, whose content is of no interest. It may learn from the archive itself. One goroutine uses it.
type Sieve interface {
	// Wants says that the content of the file at a path is to be shown to Learn.
	Wants(path string) bool
	// Learn takes the content of a file that is wanted.
	Learn(path string, content []byte)
	// Drops says that the content of the file at a path is of no interest, as far as is known by now.
	Drops(path string) bool
}

const (
	// maxLearn is the largest file that a sieve is shown.
	maxLearn = 16 << 20 // 16 MiB
	// keptDropped is how much of what a sieve drops is kept all the same, in files of up to keptFile: what it learns later
	// may change its mind, and small archives are not worth the risk.
	keptDropped = 32 << 20 // 32 MiB
	keptFile    = 1 << 20  // 1 MiB
	// worthPunching is the size of a file whose room is given back when it turns out to be of no interest.
	worthPunching = 64 << 10 // 64 KiB
)

// NeededError says that the content of a file was dropped and turned out to be needed: what the sieve learned later changed
// its mind, or the file has another name. Unpack the archive again without a sieve.
type NeededError struct{ Path string }

// Error names the file.
func (e *NeededError) Error() string {
	return fmt.Sprintf("%q is needed after its content was skipped", e.Path)
}

// Errors that callers tell apart.
var (
	// ErrTooMuch is about a limit.
	ErrTooMuch = errors.New("the archive holds too much")
	// ErrNoArchive is about a stream that does not begin like an archive.
	ErrNoArchive = errors.New("it is not a tar archive, nor one compressed with gzip, zstd, xz or bzip2")
)

var (
	errDropped    = errors.New("its content was left out while the archive was unpacked")
	errEmpty      = errors.New("there is nothing in it: not even the end of an archive")
	errUnfinished = fmt.Errorf("the archive is cut off: it has no end: %w", io.ErrUnexpectedEOF)
	errRoot       = errors.New("the root of the context must be a directory")
	errNoParent   = errors.New("its directory is a symbolic link to what is no directory")
	errNotDir     = errors.New("it is below something that is not a directory")
	errNoTarget   = errors.New("a hard link must point to a file that comes before it")
	errLinkToDir  = errors.New("a hard link cannot point to a directory")
)

// Unpack reads an archive to the end of the stream and returns it as a tree, which the caller closes. Errors are plain and
// name the entry; a *NeededError is about the sieve. When ctx ends, Unpack returns its cause.
func Unpack(ctx context.Context, r io.Reader, o Options) (_ *Tree, err error) {
	u := &unpacker{
		ctx: ctx, options: o, limits: o.Limits.orDefault(), index: newIndex(o.Now),
		in: &tail{ctx: ctx, r: r}, spool: spool.New(func() (*os.File, error) { return o.File("context") }),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, u.spool.Close())
		}
	}()
	if err := u.all(); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return &Tree{index: u.index, spool: u.spool}, nil
}

// unpacker is an archive on its way.
type unpacker struct {
	ctx     context.Context //nolint:containedctx // it lives as long as the call of Unpack
	options Options
	limits  Limits
	index   *index
	in      *tail
	spool   *spool.Spool

	entries   int
	nameBytes int64
	bytes     int64
	kept      int64 // of what the sieve drops
	dropped   bool  // whether any content is missing
	learned   bool  // whether the sieve learned after something was dropped or kept
}

func (u *unpacker) all() error {
	r := tar.NewReader(u.in)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return u.damaged(err)
		}
		if u.entries++; u.entries > u.limits.Entries {
			return fmt.Errorf("%w: more than %d entries", ErrTooMuch, u.limits.Entries)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if err := u.entry(h, r); err != nil {
			return fmt.Errorf("entry %s: %w", quote(h.Name), u.damaged(err))
		}
	}
	if err := u.end(); err != nil {
		return err
	}
	if err := u.spool.Finish(); err != nil {
		return err
	}
	return u.settle()
}

// damaged gives an error about the archive as a whole its words.
func (u *unpacker) damaged(err error) error {
	if u.in.total < blockSize && errors.Is(err, io.ErrUnexpectedEOF) && !u.in.failed || u.in.total == blockSize && errors.Is(err, tar.ErrHeader) {
		return ErrNoArchive
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the archive is cut off: %w", err)
	}
	return err
}

// end reads what follows the archive: compressions have their checksums there, and programs fill up with zeros.
func (u *unpacker) end() error {
	switch {
	case u.in.total == 0:
		return errEmpty
	case u.in.zeros < blockSize:
		return errUnfinished
	}
	u.in.marked = true
	_, err := io.Copy(io.Discard, u.in)
	if errors.Is(err, inflate.ErrHeader) { // as for gzip(1), what follows its data and is not gzip does no harm
		u.warn("what follows the compressed data is not read")
		err = nil
	}
	if n := u.in.garbage; n > 0 {
		u.warn(fmt.Sprintf("%d bytes after the end of the archive are not read", n))
	}
	return u.damaged(err)
}

func (u *unpacker) warn(text string) {
	if u.options.Warn != nil {
		u.options.Warn(text)
	}
}

// entry takes one entry.
func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name, err := cleanName(h.Name)
	if err != nil {
		return err
	}
	isDir := h.Typeflag == tar.TypeDir
	if name == "." {
		if isDir {
			return nil // the root is as that of every context
		}
		return errRoot
	}
	e, err := parseHeader(h)
	if err != nil {
		return err
	}
	if err := u.charge(name, &e); err != nil {
		return err
	}
	dir, base, err := u.index.parent(name)
	if err != nil {
		return err
	}
	switch {
	case h.Typeflag == tar.TypeLink:
		return u.hardLink(h, dir, base)
	case isDir:
		return u.index.putDir(dir, base, &e)
	}
	ino, err := u.index.put(dir, base, &e, u.release)
	if err != nil || e.Kind != tree.Regular {
		return err
	}
	return u.content(ino, e.Size, content)
}

// charge counts what an entry costs.
func (u *unpacker) charge(name string, e *tree.Entry) error {
	u.nameBytes += int64(len(name) + len(e.Linkname))
	for k, v := range e.Xattrs {
		u.nameBytes += int64(len(k) + len(v))
	}
	if u.nameBytes > u.limits.NameBytes {
		return fmt.Errorf("%w: more than %d bytes of names and attributes", ErrTooMuch, u.limits.NameBytes)
	}
	if e.Size > u.limits.Bytes-u.bytes {
		return fmt.Errorf("%w: more than %d bytes", ErrTooMuch, u.limits.Bytes)
	}
	u.bytes += e.Size
	return nil
}

// hardLink gives a file a further name.
func (u *unpacker) hardLink(h *tar.Header, dir inodeID, base string) error {
	target, err := cleanName(h.Linkname)
	if err != nil {
		return fmt.Errorf("link to %s: %w", quote(h.Linkname), err)
	}
	in, last, err := u.index.parent(target)
	if err != nil {
		return err
	}
	first := u.index.child(in, last)
	switch {
	case first == 0:
		return fmt.Errorf("link to %s: %w", quote(h.Linkname), errNoTarget)
	case u.index.inode(first).kind == tree.Dir:
		return fmt.Errorf("link to %s: %w", quote(h.Linkname), errLinkToDir)
	}
	return u.index.link(dir, base, first, u.release)
}

// content takes the content of a new file.
func (u *unpacker) content(ino inodeID, size int64, r io.Reader) error {
	i := u.index.inode(ino)
	if size == 0 {
		return u.learn(ino, nil)
	}
	s := u.options.Sieve
	if s == nil {
		at, err := u.spool.Add(u.ctx, r, size)
		i.at = at
		return err
	}
	path := u.index.path(ino)
	if s.Wants(path) && size <= maxLearn {
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if i.at, err = u.spool.Add(u.ctx, bytes.NewReader(data), size); err != nil {
			return err
		}
		return u.learn(ino, data)
	}
	if s.Drops(path) {
		if size > keptFile || u.kept+size > keptDropped {
			i.dropped, u.dropped = true, true
			return nil
		}
		u.kept += size
	}
	at, err := u.spool.Add(u.ctx, r, size)
	i.at = at
	return err
}

// learn shows the sieve a file that it wants.
func (u *unpacker) learn(ino inodeID, data []byte) error {
	s := u.options.Sieve
	if s == nil {
		return nil
	}
	if path := u.index.path(ino); s.Wants(path) {
		s.Learn(path, data)
		u.learned = true
	}
	return nil
}

// release gives back the room of a file whose last name is gone.
func (u *unpacker) release(i *inode) {
	if i.kind == tree.Regular && !i.dropped && i.size >= worthPunching {
		u.spool.Punch(i.at, i.size)
	}
}

// settle goes through all files once more when the sieve knows all that it will ever know.
func (u *unpacker) settle() error {
	s := u.options.Sieve
	if s == nil || !u.learned && !u.dropped {
		return nil
	}
	for n := range u.index.files() {
		i := u.index.inode(n.ino)
		if i.kind != tree.Regular || !i.dropped && (i.size < worthPunching || i.links > 1) {
			continue
		}
		if u.ctx.Err() != nil {
			return context.Cause(u.ctx)
		}
		path, ok := u.index.pathOf(n)
		if !ok {
			continue
		}
		drops := s.Drops(path)
		switch {
		case i.dropped && !drops:
			return &NeededError{Path: path}
		case !i.dropped && drops:
			i.dropped = true
			u.spool.Punch(i.at, i.size)
		}
	}
	return nil
}
