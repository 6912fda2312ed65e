package layer

import (
	"bytes"
	"fmt"
	"io"

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
func (a *absent) content(e *IndexEntry) io.Reader {
	if data, ok := a.small[e.Path]; ok {
		return bytes.NewReader(data)
	}
	return &lateReader{absent: a, path: e.Path}
}

// lateReader opens the layer at the first Read.
type lateReader struct {
	absent *absent
	path   string
	r      io.Reader
}

func (l *lateReader) Read(p []byte) (int, error) {
	if l.r == nil {
		im, err := l.absent.open()
		if err != nil {
			return 0, err
		}
		e := im.Index.Find(l.path)
		if e == nil || e.Kind != tree.Regular {
			return 0, fmt.Errorf("read %s: the layer does not hold it any more", l.path)
		}
		l.r = im.Content(e)
	}
	return l.r.Read(p)
}
