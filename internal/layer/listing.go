package layer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"

	"hako/internal/tree"
)

// accountFiles are what steps look users up in. Almost every step does, and reads little else of a layer, so these files
// are at hand in an Image without a File, unless they are larger than any real one.
func accountFiles() []string { return []string{"etc/passwd", "etc/group"} }

func accountFile(e *tree.Entry) bool {
	const most = 1 << 20 // 1 MiB
	return e.Kind == tree.Regular && e.Size <= most && slices.Contains(accountFiles(), e.Path)
}

// AtHand are the contents of account files by path, as Listing takes them. It reads no file that is not at hand.
func (im *Image) AtHand() map[string][]byte {
	if im.absent != nil {
		return im.absent.small
	}
	out := map[string][]byte{}
	for _, p := range accountFiles() {
		e := im.Index.Find(p)
		if e == nil || !accountFile(&e.Entry) {
			continue
		}
		if data, err := io.ReadAll(im.Content(e)); err == nil {
			out[p] = data
		}
	}
	return out
}

// absent stands for the bytes of an Image without a File.
type absent struct {
	small map[string][]byte // contents that are at hand, by path
	open  func() (*Image, error)
}

var errNoFiles = errors.New("the layer's files were not kept")

// Listing is an Image for look-ups, whose index and account files are those of an Image that was written or listed before.
// open is called as by Late.
func Listing(index *Index, small map[string][]byte, open func() (*Image, error)) *Image {
	return (&Image{Index: index, absent: &absent{small: small}}).Late(open)
}

// Late returns an Image for look-ups, made of one without a File: it is complete, but bytes of files are fetched
// only when somebody reads one that is not at hand. open makes the layer readable; it is called at most once for each
// file that is read, and should remember its result.
func (im *Image) Late(open func() (*Image, error)) *Image {
	out := *im
	out.absent = &absent{open: open}
	if im.absent != nil {
		out.absent.small = im.absent.small
	}
	return &out
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
	if l.absent.open == nil {
		return errNoFiles
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
