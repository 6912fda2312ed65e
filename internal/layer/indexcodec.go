package layer

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

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

// EncodeIndex writes ix to w in a form that DecodeIndex reads. The same index always gives the same bytes.
func EncodeIndex(w io.Writer, ix *Index) error {
	bw := bufio.NewWriter(w)
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
// could have, or there is an error.
func DecodeIndex(r io.Reader) (*Index, error) {
	ix, err := decodeIndex(bufio.NewReader(r))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read a layer's index: %w", err)
	}
	return ix, nil
}

func decodeIndex(r *bufio.Reader) (*Index, error) {
	magic := make([]byte, len(indexMagic))
	if _, err := io.ReadFull(r, magic); err != nil {
		return nil, err
	}
	count, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, err
	}
	if string(magic) != indexMagic || count > defaultEntries {
		return nil, errIndex
	}
	s := &stream{r: r}
	check := newIndexCheck()
	ix := &Index{}
	left := int64(defaultNameBytes)
	for range count {
		b, err := s.bytes(maxHeader + maxDigest)
		if err != nil {
			return nil, err
		}
		if left -= int64(len(b)); left < 0 {
			return nil, errIndex
		}
		e, err := parseIndexEntry(b)
		if err != nil {
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

// indexCheck verifies that entries make an index.
type indexCheck struct {
	last  string
	kinds map[string]tree.Kind // of what is no directory: what hard links may refer to
	dirs  map[string]struct{}
}

func newIndexCheck() *indexCheck {
	return &indexCheck{kinds: map[string]tree.Kind{}, dirs: map[string]struct{}{}}
}

func (c *indexCheck) entry(e *IndexEntry) error {
	if err := c.path(e); err != nil {
		return fmt.Errorf("%w: %q: %w", errIndex, shorten(e.Path), err)
	}
	if err := c.kind(e); err != nil {
		return fmt.Errorf("%w: %q: %w", errIndex, shorten(e.Path), err)
	}
	c.last = e.Path
	if e.Kind == tree.Dir {
		c.dirs[e.Path] = struct{}{}
	} else {
		c.kinds[e.Path] = e.Kind
	}
	return nil
}

func (c *indexCheck) path(e *IndexEntry) error {
	if err := checkName(e.Path); err != nil {
		return err
	}
	if c.last == "" {
		if e.Path != "." || e.Kind != tree.Dir {
			return errRoot
		}
		return nil
	}
	if tree.Compare(c.last, e.Path) >= 0 {
		return fmt.Errorf("comes after %q", shorten(c.last))
	}
	dir, _ := splitPath(e.Path)
	if _, ok := c.dirs[dir]; !ok {
		return errors.New("its directory does not come before it")
	}
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
		if k, ok := c.kinds[e.Linkname]; !ok || k == tree.Hardlink || k == tree.Whiteout {
			return errors.New("it links to nothing")
		}
		if c.kinds[e.Linkname] == tree.Regular {
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
