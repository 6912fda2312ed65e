package gitpack

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
)

var errBadDelta = errors.New("its delta is damaged")

// apply unpacks the delta number n, which stands on base.
func (p *Pack) apply(ctx context.Context, n int32, base *content) (_ *content, err error) {
	z, err := p.inflate(n)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, putInflater(z)) }()
	d := &delta{ctx: ctx, base: base, in: bufio.NewReaderSize(io.LimitReader(z, p.entries[n].packed), 4<<10)}
	from, err := d.number()
	if err != nil {
		return nil, err
	}
	size, err := d.number()
	switch {
	case err != nil:
		return nil, err
	case from != base.size():
		return nil, fmt.Errorf("%w: it stands on %d bytes, not on %d", errBadDelta, from, base.size())
	case size > p.limits.ObjectBytes:
		return nil, fmt.Errorf("%w: %d bytes in one object", ErrTooMuch, size)
	}
	if d.out, err = p.newContent(size); err != nil {
		return nil, err
	}
	if err := d.run(size); err != nil {
		return nil, errors.Join(err, d.out.close())
	}
	return d.out, nil
}

// delta is a delta while it is applied (gitformat-pack(5), "deltified representation").
type delta struct {
	ctx   context.Context //nolint:containedctx // lives as long as the call it serves
	base  *content
	in    *bufio.Reader
	out   *content
	piece []byte // for bases in files
}

// number reads a size.
func (d *delta) number() (int64, error) {
	var n uint64
	for shift := 0; ; shift += 7 {
		b, err := d.in.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		if shift > 56 {
			return 0, errBadDelta
		}
		n |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return int64(n), nil //nolint:gosec // less than 2^63
		}
	}
}

// run carries out all instructions; the result must have that size.
func (d *delta) run(size int64) error {
	for count := 0; ; count++ {
		if count&0xffff == 0 && d.ctx.Err() != nil {
			return context.Cause(d.ctx)
		}
		op, err := d.in.ReadByte()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		left := size - d.out.size()
		switch {
		case op == 0:
			return errBadDelta
		case op&0x80 != 0:
			err = d.copy(op, left)
		case int64(op) > left:
			return errBadDelta
		default:
			_, err = io.CopyN(d.out, d.in, int64(op))
		}
		if err != nil {
			return unexpected(err)
		}
	}
	if d.out.size() != size {
		return fmt.Errorf("%w: it gives %d bytes, not %d", errBadDelta, d.out.size(), size)
	}
	return nil
}

// copy takes a piece of the base, which must not be longer than left.
func (d *delta) copy(op byte, left int64) error {
	var at, n int64
	for i := range 7 {
		if op&(1<<i) == 0 {
			continue
		}
		b, err := d.in.ReadByte()
		if err != nil {
			return err
		}
		if i < 4 {
			at |= int64(b) << (8 * i)
		} else {
			n |= int64(b) << (8 * (i - 4))
		}
	}
	if n == 0 {
		n = 0x10000
	}
	if n > left || at+n > d.base.size() {
		return errBadDelta
	}
	if d.base.file == nil {
		_, err := d.out.Write(d.base.mem[at : at+n])
		return err
	}
	if d.piece == nil {
		d.piece = make([]byte, copyPiece)
	}
	_, err := io.CopyBuffer(struct{ io.Writer }{d.out}, io.NewSectionReader(d.base, at, n), d.piece)
	return err
}
