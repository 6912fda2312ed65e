package layer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/opencontainers/go-digest"

	"hako/internal/tree"
)

// collector takes the entries of a layer one by one and makes the index, and the image if there is a file for it.
type collector struct {
	names *names
	image *erofsWriter // may be nil
	file  *os.File
	bytes int64     // of contents so far
	hash  hash.Hash // of contents; nil if nobody wants their digests
	buf   []byte
}

func newCollector(l Limits, file *os.File) (*collector, error) {
	const bufSize = 128 << 10
	c := &collector{names: newNames(l), file: file, buf: make([]byte, bufSize)}
	if file == nil {
		return c, nil
	}
	var err error
	c.image, err = newErofsWriter(file)
	return c, err
}

// content reads exactly size bytes, stores them in the image and copies them to also, which may be nil.
func (c *collector) content(ctx context.Context, ino *inode, r io.Reader, also io.Writer) error {
	if ino.Size > c.names.limits.TarBytes-c.bytes { // a sum could overflow: the sizes of sparse files are only claims
		return fmt.Errorf("layer has more than %d bytes of content", c.names.limits.TarBytes)
	}
	c.bytes += ino.Size
	ino.offset = -1
	if c.image != nil {
		var err error
		if ino.offset, err = c.image.align(); err != nil {
			return err
		}
	}
	if c.hash != nil {
		c.hash.Reset()
	}
	for left := ino.Size; left > 0; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(c.buf[:min(left, int64(len(c.buf)))])
		left -= int64(n)
		if err := c.chunk(c.buf[:n], also); err != nil {
			return err
		}
		if left > 0 && err != nil {
			return shortContent(err, left)
		}
	}
	if c.hash != nil {
		ino.content = digest.NewDigest(digest.Canonical, c.hash)
	}
	return nil
}

func shortContent(err error, left int64) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read content, %d bytes are missing: %w", left, err)
}

func (c *collector) chunk(p []byte, also io.Writer) error {
	if c.hash != nil {
		c.hash.Write(p)
	}
	if c.image != nil {
		if _, err := c.image.Write(p); err != nil {
			return err
		}
	}
	if also == nil {
		return nil
	}
	_, err := also.Write(p)
	return err
}

// finish completes the index, and the image if there is one.
func (c *collector) finish() (*Image, error) {
	if err := c.names.linkLate(); err != nil {
		return nil, err
	}
	im := &Image{File: c.file, Index: c.names.index()}
	if c.image == nil {
		im.absent = &absent{small: c.names.small}
		return im, nil
	}
	return im, c.image.finish(c.names.root)
}

// add takes an entry of a change set, whose path has no markers in it.
func (c *collector) add(ctx context.Context, e *tree.Entry, content io.Reader, also io.Writer) error {
	ino := &inode{Entry: *e, offset: -1}
	ino.Inode, ino.Links = 0, 0 // of the tree that the entry comes from
	switch e.Kind {
	case tree.Hardlink:
		return c.names.putLink(*e)
	case tree.Whiteout:
		return c.names.hide(e.Path, *e)
	case tree.Regular:
		if c.image == nil && accountFile(e) {
			ino.data = bytes.NewBuffer(make([]byte, 0, e.Size))
			content = io.TeeReader(content, ino.data)
		}
		if err := c.content(ctx, ino, content, also); err != nil {
			return err
		}
	}
	return c.names.put(ino)
}

// completeLink gives a hard link of a change set the metadata of its first name: extractors apply it to both.
func (c *collector) completeLink(e *tree.Entry) error {
	if e.Kind != tree.Hardlink {
		return nil
	}
	first, err := c.names.find(e.Linkname)
	if err != nil {
		return err
	}
	if first == nil {
		return fmt.Errorf("%s: hard link to %q, which is not in the layer", e.Path, e.Linkname)
	}
	e.Mode, e.UID, e.GID, e.ModTime, e.Xattrs = first.Mode, first.UID, first.GID, first.ModTime, first.Xattrs
	return nil
}
