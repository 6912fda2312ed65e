package layer

import (
	"bytes"
	"fmt"

	"hako/internal/tree"
)

// Listing is an Image for look-ups: its index is complete, but its bytes are fetched only when somebody reads a file
// that is not among small, the contents that are at hand, by path. open inflates the layer; it is called at most once
// for each file that is read, and should remember its result.
func Listing(index *Index, small map[string][]byte, open func() (*Image, error)) *Image {
	return &Image{Index: index, absent: &absent{small: small, open: open}}
}

// absent stands for the bytes of an Image without a File.
type absent struct {
	small map[string][]byte
	open  func() (*Image, error)
}

// content reads the file e when it is first read from.
func (a *absent) content(e *IndexEntry) Content {
	if data, ok := a.small[e.Path]; ok {
		return bytes.NewReader(data)
	}
	return &lateReader{absent: a, path: e.Path}
}

// lateReader opens the layer at the first read.
type lateReader struct {
	absent *absent
	path   string
	r      Content
}

func (l *lateReader) open() error {
	if l.r != nil {
		return nil
	}
	im, err := l.absent.open()
	if err != nil {
		return err
	}
	e := im.Index.Find(l.path)
	if e == nil || e.Kind != tree.Regular {
		return fmt.Errorf("read %s: the layer does not hold it any more", l.path)
	}
	l.r = im.Content(e)
	return nil
}

func (l *lateReader) Read(p []byte) (int, error) {
	if err := l.open(); err != nil {
		return 0, err
	}
	return l.r.Read(p)
}

func (l *lateReader) ReadAt(p []byte, off int64) (int, error) {
	if err := l.open(); err != nil {
		return 0, err
	}
	return l.r.ReadAt(p, off)
}
