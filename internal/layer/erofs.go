package layer

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"hako/internal/tree"
)

// The EROFS writer. The format is that of Linux' Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h,
// in the subset that gVisor's reader takes: uncompressed, no xattrs, no inline data of regular files.
//
// An image is written in one go: the blocks of the regular files as they stream in, then full blocks of
// directories and long symbolic links, then the inodes with what is short enough to lie next to them,
// at last the superblock. Runs of zeros become holes.
const (
	blockBits  = 12
	blockSize  = 1 << blockBits
	inodeSize  = 64
	inodeSlot  = 32 // unit of inode numbers
	direntSize = 12

	erofsMagic        = 0xe0f5e1e2
	superOffset       = 1024
	superSize         = 128
	featureCompatTime = 2 // EROFS_FEATURE_COMPAT_MTIME: inodes hold mtime

	formatExtended = 1      // inode layout, bit 0
	formatInline   = 2 << 1 // data layout, bits 1 to 3

	modeFifo, modeChar, modeDir, modeBlock, modeRegular, modeSymlink = 0o010000, 0o020000, 0o040000, 0o060000, 0o100000, 0o120000
)

// erofsWriter writes one image to file.
type erofsWriter struct {
	file *os.File
	buf  *bufio.Writer
	off  int64
	zero []byte
}

// newErofsWriter empties file.
func newErofsWriter(file *os.File) (*erofsWriter, error) {
	if err := file.Truncate(0); err != nil {
		return nil, fmt.Errorf("write EROFS image: %w", err)
	}
	const bufSize = 256 << 10
	w := &erofsWriter{file: file, zero: make([]byte, blockSize), off: blockSize} // block 0 is the superblock's
	w.buf = bufio.NewWriterSize(&holeWriter{file: file, off: blockSize, zero: w.zero}, bufSize)
	return w, nil
}

// Write appends to the image.
func (w *erofsWriter) Write(p []byte) (int, error) {
	n, err := w.buf.Write(p)
	w.off += int64(n)
	if err != nil {
		return n, fmt.Errorf("write EROFS image: %w", err)
	}
	return n, nil
}

// align pads to the next block and returns its offset.
func (w *erofsWriter) align() (int64, error) {
	if rest := w.off % blockSize; rest != 0 {
		if _, err := w.Write(w.zero[rest:]); err != nil {
			return 0, err
		}
	}
	if w.off>>blockBits > math.MaxUint32 {
		return 0, errors.New("write EROFS image: image is larger than 16 TiB")
	}
	return w.off, nil
}

// holeWriter writes sequentially and leaves out blocks of zeros.
type holeWriter struct {
	file *os.File
	off  int64
	zero []byte
}

func (h *holeWriter) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		skip := h.zeros(p[done:])
		done += skip
		h.off += int64(skip)
		run := h.data(p[done:])
		n, err := h.file.WriteAt(p[done:done+run], h.off)
		done += n
		h.off += int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// zeros counts the bytes of whole zero blocks at the start of p.
func (h *holeWriter) zeros(p []byte) int {
	n := 0
	for len(p)-n >= blockSize && bytes.Equal(p[n:n+blockSize], h.zero) {
		n += blockSize
	}
	return n
}

// data counts the bytes up to the next whole zero block.
func (h *holeWriter) data(p []byte) int {
	n := 0
	for n < len(p) && (len(p)-n < blockSize || !bytes.Equal(p[n:n+blockSize], h.zero)) {
		n += min(blockSize, len(p)-n)
	}
	return n
}

// finish writes everything but the data of regular files, which is there already.
func (w *erofsWriter) finish(root *node) error {
	order := inodesOf(root)
	if err := w.place(order); err != nil {
		return err
	}
	meta, err := w.align()
	if err != nil {
		return err
	}
	for i, n := range order {
		if err := w.writeInode(n, meta, uint32(i+1)); err != nil { //nolint:gosec // limited by Limits.Entries
			return err
		}
	}
	if _, err := w.align(); err != nil {
		return err
	}
	if err := w.buf.Flush(); err != nil {
		return fmt.Errorf("write EROFS image: %w", err)
	}
	return w.writeSuper(root, meta, len(order))
}

// inodesOf lists the first name of each inode that the image holds: all but those of files with xattrs,
// which gVisor cannot read. Directories with xattrs are needed for what is in them, and lose them here.
func inodesOf(root *node) []*node {
	var out []*node
	var visit func(n *node)
	visit = func(n *node) {
		if n.first == n {
			out = append(out, n)
		}
		for _, c := range n.sorted() {
			if c.inImage() {
				visit(c)
			}
		}
	}
	visit(root)
	return out
}

func (n *node) inImage() bool {
	return n.Kind == tree.Dir || len(n.Xattrs) == 0
}

// place decides where each inode lies and writes the full blocks of what does not fit next to it.
func (w *erofsWriter) place(order []*node) error {
	pos := int64(inodeSize) // number 0 stays free
	for _, n := range order {
		size, tail := n.payloadSize()
		n.length, n.tail = size, tail
		if pos%blockSize+inodeSize+int64(tail) > blockSize {
			pos = (pos + blockSize - 1) / blockSize * blockSize
		}
		n.nid = uint64(pos / inodeSlot) //nolint:gosec // positive
		pos += inodeSize + int64(tail)
		pos = (pos + inodeSlot - 1) / inodeSlot * inodeSlot
	}
	for _, n := range order {
		if n.Kind == tree.Regular {
			n.block = uint32(max(n.offset, 0) >> blockBits) //nolint:gosec // align checked it
			continue
		}
		if n.length == int64(n.tail) {
			continue
		}
		off, err := w.align()
		if err != nil {
			return err
		}
		n.block = uint32(off >> blockBits) //nolint:gosec // align checked it
		if _, err := w.Write(n.payload()[:n.length-int64(n.tail)]); err != nil {
			return err
		}
	}
	return nil
}

// payloadSize returns the size of the inode's data, and how much of its end lies next to the inode.
func (n *node) payloadSize() (size int64, tail int) {
	switch n.Kind {
	case tree.Regular:
		return n.Size, 0
	case tree.Symlink:
		size = int64(len(n.Linkname))
	case tree.Dir:
		size = direntsSize(n.dirents())
	default:
		return 0, 0
	}
	tail = int(size % blockSize)
	if tail > blockSize-inodeSize {
		tail = 0
	}
	return size, tail
}

func (n *node) payload() []byte {
	if n.Kind == tree.Symlink {
		return []byte(n.Linkname)
	}
	return encodeDirents(n.dirents())
}

// dirent is a name in a directory.
type dirent struct {
	name string
	node *node
}

// dirents lists the directory with "." and "..", in the bytewise order that look-ups rely on.
func (n *node) dirents() []dirent {
	out := make([]dirent, 0, len(n.children)+2)
	out = append(out, dirent{".", n}, dirent{"..", n.up()})
	for name, c := range n.children {
		if c.inImage() {
			out = append(out, dirent{name, c})
		}
	}
	slices.SortFunc(out, func(a, b dirent) int { return strings.Compare(a.name, b.name) })
	return out
}

// blockOf returns how many of the entries fit into one block, and their size in bytes.
func blockOf(ents []dirent) (n, size int) {
	for n < len(ents) {
		s := direntSize + len(ents[n].name)
		if size+s > blockSize {
			break
		}
		size += s
		n++
	}
	return n, size
}

func direntsSize(ents []dirent) int64 {
	var total int64
	for len(ents) > 0 {
		n, size := blockOf(ents)
		if ents = ents[n:]; len(ents) > 0 {
			size = blockSize
		}
		total += int64(size)
	}
	return total
}

func encodeDirents(ents []dirent) []byte {
	out := make([]byte, 0, direntsSize(ents))
	for len(ents) > 0 {
		n, size := blockOf(ents)
		if n < len(ents) {
			size = blockSize
		}
		block := make([]byte, size)
		nameOff := n * direntSize
		for i, e := range ents[:n] {
			d := block[i*direntSize:]
			binary.LittleEndian.PutUint64(d, e.node.nid)
			binary.LittleEndian.PutUint16(d[8:], uint16(nameOff)) //nolint:gosec // below blockSize
			d[10] = fileType(e.node.Kind)
			nameOff += copy(block[nameOff:], e.name)
		}
		out = append(out, block...)
		ents = ents[n:]
	}
	return out
}

// fileType is the EROFS_FT_* number of a directory entry.
func fileType(k tree.Kind) byte {
	switch k {
	case tree.Regular:
		return 1
	case tree.Dir:
		return 2
	case tree.CharDevice, tree.Whiteout:
		return 3
	case tree.BlockDevice:
		return 4
	case tree.Fifo:
		return 5
	case tree.Symlink:
		return 7
	}
	return 0
}

// fileMode is the S_IFMT part of a mode. A whiteout is what overlay file systems take for one: character device 0:0.
func fileMode(k tree.Kind) uint32 {
	switch k {
	case tree.Regular:
		return modeRegular
	case tree.Dir:
		return modeDir
	case tree.CharDevice, tree.Whiteout:
		return modeChar
	case tree.BlockDevice:
		return modeBlock
	case tree.Fifo:
		return modeFifo
	case tree.Symlink:
		return modeSymlink
	}
	return 0
}

func (w *erofsWriter) writeInode(n *node, meta int64, ino uint32) error {
	at := meta + int64(n.nid)*inodeSlot //nolint:gosec // set by place
	if gap := at - w.off; gap > 0 {
		if _, err := w.Write(w.zero[:gap]); err != nil {
			return err
		}
	}
	var b [inodeSize]byte
	format := uint16(formatExtended)
	if n.tail > 0 {
		format |= formatInline
	}
	le := binary.LittleEndian
	le.PutUint16(b[0:], format)
	le.PutUint16(b[4:], uint16(fileMode(n.Kind)|n.Mode&0o7777)) //nolint:gosec // 16 bits by construction
	le.PutUint64(b[8:], uint64(n.length))                       //nolint:gosec // never negative
	le.PutUint32(b[16:], n.block)
	if n.Kind == tree.CharDevice || n.Kind == tree.BlockDevice {
		le.PutUint32(b[16:], n.Minor&0xff|n.Major<<8|n.Minor&^0xff<<12) // Linux' new_encode_dev
	}
	le.PutUint32(b[20:], ino)
	le.PutUint32(b[24:], n.UID)
	le.PutUint32(b[28:], n.GID)
	mtime := n.ModTime
	if mtime.IsZero() {
		mtime = time.Unix(0, 0)
	}
	le.PutUint64(b[32:], uint64(mtime.Unix()))       //nolint:gosec // two's complement, as in the format
	le.PutUint32(b[40:], uint32(mtime.Nanosecond())) //nolint:gosec // below 1e9
	le.PutUint32(b[44:], n.linkCount())
	if _, err := w.Write(b[:]); err != nil {
		return err
	}
	if n.tail == 0 {
		return nil
	}
	p := n.payload()
	_, err := w.Write(p[len(p)-n.tail:])
	return err
}

func (n *node) linkCount() uint32 {
	if n.Kind != tree.Dir {
		return max(n.links, 1)
	}
	count := uint32(2)
	for _, c := range n.children {
		if c.Kind == tree.Dir {
			count++
		}
	}
	return count
}

func (w *erofsWriter) writeSuper(root *node, meta int64, inodes int) error {
	var b [superSize]byte
	le := binary.LittleEndian
	le.PutUint32(b[0:], erofsMagic)
	le.PutUint32(b[8:], featureCompatTime)
	b[12] = blockBits
	le.PutUint16(b[14:], uint16(root.nid))         //nolint:gosec // the first inode
	le.PutUint64(b[16:], uint64(inodes))           //nolint:gosec // a count
	le.PutUint32(b[36:], uint32(w.off>>blockBits)) //nolint:gosec // align checked it
	le.PutUint32(b[40:], uint32(meta>>blockBits))  //nolint:gosec // align checked it
	_, err := w.file.WriteAt(b[:], superOffset)
	if err == nil {
		err = w.file.Truncate(w.off) // a hole at the end counts
	}
	if err != nil {
		return fmt.Errorf("write EROFS image: %w", err)
	}
	return nil
}

var _ io.Writer = (*erofsWriter)(nil)
