package layer

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"hako/internal/tree"
)

// The stream by which a sandbox, a separate process, tells the builder its changes:
//
//	magic
//	for each entry: frameEntry, length (uvarint), header; then, for a regular file, exactly Size bytes
//	frameEnd, or frameError, length, message
//
// A header is a sequence of uvarints and of strings with their length in front. The reader does not trust the writer.
const (
	streamMagic = "hako changes 1\n"

	frameEntry = 'e'
	frameEnd   = '.'
	frameError = '!'

	// maxHeader bounds one header: a path, a link target and 64 attributes of the largest size, xattr(7).
	maxHeader   = 2*maxPath + 64*(65536+maxName) + 256
	maxErrorMsg = 64 << 10
)

// Encode writes changes to w in a form that Decode reads. If changes end with an error, the reader learns its text.
func Encode(ctx context.Context, w io.Writer, changes Changes) error {
	const bufSize = 256 << 10
	enc := &encoder{w: bufio.NewWriterSize(w, bufSize), copyBuf: make([]byte, bufSize)}
	_, err := enc.w.WriteString(streamMagic)
	if err == nil {
		err = changes.Each(ctx, func(e tree.Entry, content io.Reader) error { return enc.entry(ctx, &e, content) })
	}
	switch {
	case err == nil:
		err = enc.w.WriteByte(frameEnd)
	case !enc.inContent:
		msg := []byte(err.Error())
		_ = enc.w.WriteByte(frameError) // err is what the caller has to know
		_ = enc.bytes(msg[:min(len(msg), maxErrorMsg)])
	}
	if ferr := enc.w.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		return fmt.Errorf("send changes: %w", err)
	}
	return nil
}

type encoder struct {
	w         *bufio.Writer
	header    []byte
	copyBuf   []byte
	inContent bool // some, but not all of a file's bytes are written
}

func (enc *encoder) bytes(p []byte) error {
	if _, err := enc.w.Write(binary.AppendUvarint(nil, uint64(len(p)))); err != nil {
		return err
	}
	_, err := enc.w.Write(p)
	return err
}

func (enc *encoder) entry(ctx context.Context, e *tree.Entry, content io.Reader) error {
	enc.header = appendHeader(enc.header[:0], e)
	if err := enc.w.WriteByte(frameEntry); err != nil {
		return err
	}
	if err := enc.bytes(enc.header); err != nil {
		return err
	}
	if e.Kind != tree.Regular {
		return nil
	}
	enc.inContent = true
	if content == nil {
		return fmt.Errorf("%s: %w", e.Path, errNoContent)
	}
	if err := enc.content(ctx, content, e.Size); err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	enc.inContent = false
	return nil
}

func (enc *encoder) content(ctx context.Context, r io.Reader, left int64) error {
	for left > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(enc.copyBuf[:min(left, int64(len(enc.copyBuf)))])
		left -= int64(n)
		if _, err := enc.w.Write(enc.copyBuf[:n]); err != nil {
			return err
		}
		if left > 0 && err != nil {
			return shortContent(err, left)
		}
	}
	return nil
}

func appendHeader(b []byte, e *tree.Entry) []byte {
	b = appendString(b, e.Path)
	b = append(b, byte(e.Kind))
	for _, v := range []uint32{e.Mode, e.UID, e.GID} {
		b = binary.AppendUvarint(b, uint64(v))
	}
	b = binary.AppendVarint(b, e.Size)
	sec, nsec := int64(0), 0
	if !e.ModTime.IsZero() {
		sec, nsec = e.ModTime.Unix(), e.ModTime.Nanosecond()
	}
	b = binary.AppendVarint(b, sec)
	b = binary.AppendUvarint(b, uint64(nsec)) //nolint:gosec // 0 to 999,999,999
	b = appendString(b, e.Linkname)
	b = binary.AppendUvarint(b, uint64(e.Major))
	b = binary.AppendUvarint(b, uint64(e.Minor))
	b = binary.AppendUvarint(b, uint64(len(e.Xattrs)))
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		b = appendString(b, name)
		b = appendString(b, e.Xattrs[name])
	}
	return b
}

func appendString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Decode reads what Encode wrote. The writer is not trusted: the entries are verified to be in normal form
// as far as that can be told without the tree below, and nothing it sends makes Each use much memory.
// What Each leaves unread of a content it skips. Each fails if the stream ends early or has anything after its end.
func Decode(r io.Reader) Changes { return &decoder{r: r} }

type decoder struct{ r io.Reader }

var errStream = errors.New("changes are garbled")

// Each is Changes.Each.
func (d *decoder) Each(ctx context.Context, fn func(tree.Entry, io.Reader) error) error {
	const bufSize = 256 << 10
	s := &stream{r: bufio.NewReaderSize(d.r, bufSize), order: newOrderCheck(), fn: fn}
	err := s.start()
	for more := true; more && err == nil; {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		more, err = s.frame()
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if s.fnErr != nil {
		return s.fnErr
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("receive changes: %w", err)
	}
	return nil
}

// stream is one run of a decoder.
type stream struct {
	r      *bufio.Reader
	order  *orderCheck
	header []byte
	fn     func(tree.Entry, io.Reader) error
	fnErr  error
}

func (s *stream) start() error {
	magic := make([]byte, len(streamMagic))
	if _, err := io.ReadFull(s.r, magic); err != nil {
		return err
	}
	if string(magic) != streamMagic {
		return errStream
	}
	return nil
}

// frame handles the next frame; more is false after the last.
func (s *stream) frame() (more bool, err error) {
	kind, err := s.r.ReadByte()
	if err != nil {
		return false, err
	}
	switch kind {
	case frameEntry:
		return true, s.entry()
	case frameEnd:
		if _, err := s.r.ReadByte(); !errors.Is(err, io.EOF) {
			return false, errors.Join(errStream, err)
		}
		return false, nil
	case frameError:
		msg, err := s.bytes(maxErrorMsg)
		if err != nil {
			return false, err
		}
		return false, fmt.Errorf("the other side says: %q", msg)
	}
	return false, errStream
}

// bytes reads a string with its length in front. The result is valid until the next call.
func (s *stream) bytes(most uint64) ([]byte, error) {
	n, err := binary.ReadUvarint(s.r)
	if err != nil {
		return nil, err
	}
	if n > most {
		return nil, errStream
	}
	if uint64(cap(s.header)) < n {
		s.header = make([]byte, n)
	}
	s.header = s.header[:n]
	_, err = io.ReadFull(s.r, s.header)
	return s.header, err
}

func (s *stream) entry() error {
	b, err := s.bytes(maxHeader)
	if err != nil {
		return err
	}
	e, err := parseEntry(b)
	if err != nil {
		return err
	}
	if err := s.order.check(&e); err != nil {
		return err
	}
	if e.Kind != tree.Regular {
		s.fnErr = s.fn(e, nil)
		return s.fnErr
	}
	content := &exactReader{r: s.r, left: e.Size}
	if s.fnErr = s.fn(e, content); s.fnErr != nil {
		return s.fnErr
	}
	_, err = io.Copy(io.Discard, content)
	return err
}

// exactReader reads left bytes of r; that r has fewer is an error.
type exactReader struct {
	r    io.Reader
	left int64
}

func (x *exactReader) Read(p []byte) (int, error) {
	if x.left == 0 {
		return 0, io.EOF
	}
	n, err := x.r.Read(p[:min(int64(len(p)), x.left)])
	x.left -= int64(n)
	if errors.Is(err, io.EOF) && x.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// fields takes a header apart. After the first error, everything is zero.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) fail() { f.b, f.bad = nil, true }

func (f *fields) uint(most uint64) uint64 {
	v, n := binary.Uvarint(f.b)
	if n <= 0 || v > most {
		f.fail()
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) uint32() uint32 {
	const max32 = 1<<32 - 1
	return uint32(f.uint(max32)) //nolint:gosec // bounded
}

func (f *fields) int() int64 {
	v, n := binary.Varint(f.b)
	if n <= 0 {
		f.fail()
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) string() string {
	n := f.uint(uint64(len(f.b)))
	if n > uint64(len(f.b)) {
		f.fail()
		return ""
	}
	s := string(f.b[:n])
	f.b = f.b[n:]
	return s
}

func parseEntry(b []byte) (tree.Entry, error) {
	f := &fields{b: b}
	e := f.header()
	if f.bad || len(f.b) != 0 {
		return tree.Entry{}, errStream
	}
	return e, nil
}

// header takes apart what appendHeader made.
func (f *fields) header() tree.Entry {
	var e tree.Entry
	e.Path = f.string()
	e.Kind = tree.Kind(f.uint(uint64(tree.Whiteout))) //nolint:gosec // bounded
	e.Mode, e.UID, e.GID = f.uint32(), f.uint32(), f.uint32()
	e.Size = f.int()
	const maxSec, maxNsec = 1 << 40, 999_999_999 // 34,000 years
	sec := f.int()
	nsec := f.uint(maxNsec)
	if sec < -maxSec || sec > maxSec {
		f.fail()
	}
	e.ModTime = time.Unix(sec, int64(nsec)) //nolint:gosec // bounded
	e.Linkname = f.string()
	e.Major, e.Minor = f.uint32(), f.uint32()
	count := f.uint(maxHeader)
	for range count {
		if f.bad {
			break
		}
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		name := f.string()
		e.Xattrs[name] = f.string()
	}
	if uint64(len(e.Xattrs)) != count {
		f.fail()
	}
	return e
}
