package layer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// The form in which an index is kept outside of a build:
//
//	magic, number of entries (uvarint)
//	for each entry: length (uvarint), header as in a stream of changes, marks (one byte), content digest
//
// Offsets are not kept: they mean something only beside the file that they are offsets in.
const indexMagic = "hako index 1\n"

// Marks of an entry.
const (
	markOpaque = 1 << iota
	markImplied
)

// EncodeIndex writes ix to w in a form that DecodeIndex reads, and fails if that would refuse it by the same limits. The same
// index always gives the same bytes.
func EncodeIndex(w io.Writer, ix *Index, limits Limits) error {
	bw := bufio.NewWriter(w)
	left, err := newIndexBudget(limits, uint64(len(ix.Entries)))
	if err != nil {
		return fmt.Errorf("write a layer's index: %w", err)
	}
	var buf []byte
	buf = append(buf, indexMagic...)
	buf = binary.AppendUvarint(buf, uint64(len(ix.Entries)))
	for i := range ix.Entries {
		e := &ix.Entries[i]
		header := appendHeader(nil, &e.Entry)
		var marks byte
		if e.Opaque {
			marks |= markOpaque
		}
		if e.Implied {
			marks |= markImplied
		}
		header = appendString(append(header, marks), e.Content.String())
		if err := left.take(e, len(header)); err != nil {
			return fmt.Errorf("write a layer's index: %w", err)
		}
		buf = append(binary.AppendUvarint(buf, uint64(len(header))), header...)
		if _, err := bw.Write(buf); err != nil {
			return fmt.Errorf("write a layer's index: %w", err)
		}
		buf = buf[:0]
	}
	if _, err := bw.Write(buf); err != nil {
		return fmt.Errorf("write a layer's index: %w", err)
	}
	if err := bw.Flush(); err != nil {
		return fmt.Errorf("write a layer's index: %w", err)
	}
	return nil
}

var errIndex = errors.New("the index is garbled")

// DecodeIndex reads what EncodeIndex wrote, to the end of r. The writer is not trusted: the result is an index that a layer
// could have, within the limits, or there is an error.
func DecodeIndex(r io.Reader, limits Limits) (*Index, error) {
	ix, err := decodeIndex(bufio.NewReader(r), limits)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read a layer's index: %w", err)
	}
	return ix, nil
}

func decodeIndex(r *bufio.Reader, limits Limits) (*Index, error) {
	magic := make([]byte, len(indexMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, err
	}
	count, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if string(magic) != indexMagic {
		return nil, errIndex
	}
	left, err := newIndexBudget(limits, count)
	if err != nil {
		return nil, err
	}
	s := &stream{r: r}
	ix := &Index{}
	check := &indexCheck{before: ix}
	for i := range int(count) { //nolint:gosec // within the limits
		if i == cap(ix.Entries) { // not at once: so many may not come; doubled, and in the end exact
			ix.Entries = slices.Grow(ix.Entries, min(int(count)-i, max(i, 1<<10))) //nolint:gosec // as above
		}
		b, err := s.bytes(maxHeader + maxDigest)
		if err != nil {
			return nil, err
		}
		e, err := parseIndexEntry(b)
		if err != nil {
			return nil, err
		}
		if err := left.take(&e, len(b)); err != nil {
			return nil, err
		}
		if err := check.entry(&e); err != nil {
			return nil, err
		}
		ix.Entries = append(ix.Entries, e)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return nil, errIndex
	}
	return ix, nil
}

// maxDigest bounds a content digest with its length and the marks.
const maxDigest = 160

func parseIndexEntry(b []byte) (IndexEntry, error) {
	f := &fields{b: b}
	e := IndexEntry{Entry: f.header(), Offset: -1}
	marks := byte(f.uint(markOpaque | markImplied))
	e.Content = digest.Digest(f.string())
	if f.bad || len(f.b) != 0 {
		return e, errIndex
	}
	e.Opaque, e.Implied = marks&markOpaque != 0, marks&markImplied != 0
	return e, nil
}

// indexBudget is what the entries that follow may take.
type indexBudget struct{ nameBytes int64 }

var errIndexLimit = errors.New("the index is larger than allowed")

func newIndexBudget(limits Limits, count uint64) (*indexBudget, error) {
	limits = limits.orDefault()
	if count > uint64(limits.Entries) { //nolint:gosec // never negative
		return nil, errIndexLimit
	}
	return &indexBudget{nameBytes: limits.NameBytes}, nil
}

// take accounts for an entry that is written as size bytes.
func (b *indexBudget) take(e *IndexEntry, size int) error {
	const mapBytes = 320 // of a map with an attribute or two: much more memory than the bytes that ask for it
	if len(e.Xattrs) > 0 {
		size += mapBytes
	}
	if b.nameBytes -= int64(size); b.nameBytes < 0 {
		return errIndexLimit
	}
	return nil
}

// indexCheck verifies that entries make an index.
type indexCheck struct {
	before *Index // the entries so far
	dir    string // one of them that is known to be a directory
}

func (c *indexCheck) entry(e *IndexEntry) error {
	if err := c.path(e); err != nil {
		return fmt.Errorf("%w: %q: %w", errIndex, shorten(e.Path), err)
	}
	if err := c.kind(e); err != nil {
		return fmt.Errorf("%w: %q: %w", errIndex, shorten(e.Path), err)
	}
	return nil
}

func (c *indexCheck) path(e *IndexEntry) error {
	if err := checkName(e.Path); err != nil {
		return err
	}
	n := len(c.before.Entries)
	if n == 0 {
		if e.Path != "." || e.Kind != tree.Dir {
			return errRoot
		}
		return nil
	}
	if last := c.before.Entries[n-1].Path; tree.Compare(last, e.Path) >= 0 {
		return fmt.Errorf("comes after %q", shorten(last))
	}
	dir, _ := splitPath(e.Path)
	if dir == c.dir {
		return nil
	}
	if d := c.before.Find(dir); d == nil || d.Kind != tree.Dir {
		return errors.New("its directory does not come before it")
	}
	c.dir = dir
	return nil
}

func (c *indexCheck) kind(e *IndexEntry) error {
	if (e.Opaque || e.Implied) && e.Kind != tree.Dir {
		return errors.New("only directories have marks")
	}
	if e.Mode > 0o7777 || e.Size < 0 || e.Size > 0 && e.Kind != tree.Regular {
		return errors.New("its mode or size is impossible")
	}
	switch e.Kind {
	case tree.Regular:
		return e.content()
	case tree.Hardlink:
		to := c.before.Find(e.Linkname)
		if to == nil || to.Kind == tree.Dir || to.Kind == tree.Hardlink || to.Kind == tree.Whiteout {
			return errors.New("it links to nothing")
		}
		if to.Kind == tree.Regular {
			return e.content()
		}
	}
	if e.Kind < tree.Dir || e.Kind > tree.Whiteout || e.Kind == tree.Socket {
		return errors.New("its kind is impossible")
	}
	return nil
}

// content checks the digest of a file, which may be unknown.
func (e *IndexEntry) content() error {
	if e.Content == "" {
		return nil
	}
	return e.Content.Validate()
}
