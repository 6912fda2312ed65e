package rpmdb

import (
	"encoding/binary"
	"slices"
)

// Berkeley DB's pages (libdb: src/dbinc/db_page.h).
const (
	bdbHashMagic = 0x061561
	bdbPageHead  = 26 // bytes: lsn 8, pgno 4, prev 4, next 4, entries 2, high free offset 2, level 1, type 1
	bdbUnsorted  = 2  // a page of a hash, before 4.6
	bdbSorted    = 13 // and since
	bdbOverflow  = 7  // a part of an item that has no place in a page

	bdbKeyData = 1 // an item in the page
	bdbOffPage = 3 // an item in overflow pages: type 1, unused 3, page 4, length 4
)

// bdbOrder is the byte order of a hash database; nil if it is none.
func bdbOrder(head []byte) binary.ByteOrder {
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		if order.Uint32(head[12:]) == bdbHashMagic {
			return order
		}
	}
	return nil
}

// bdbFile is what the first page says.
type bdbFile struct {
	*database
	order binary.ByteOrder
	page  int64
}

// bdb reads the values of all pairs of a hash; keys are the packages' numbers, 0 for the last number given.
func (d *database) bdb(order binary.ByteOrder) error {
	head, err := d.bytes(0, 72)
	if err != nil {
		return err
	}
	f := &bdbFile{database: d, order: order, page: int64(order.Uint32(head[20:]))}
	if f.page < 512 || f.page > 64<<10 || f.page&(f.page-1) != 0 {
		return errDamaged
	}
	if head[24] != 0 {
		return errFormat // encrypted
	}
	last := int64(order.Uint32(head[32:]))
	for number := int64(1); number <= last && (number+1)*f.page <= f.size; number++ {
		page, err := f.bytes(number*f.page, f.page)
		if err != nil {
			return err
		}
		if kind := page[25]; kind != bdbUnsorted && kind != bdbSorted {
			continue
		}
		if err := f.pairs(page); err != nil {
			return err
		}
	}
	return nil
}

// pairs reads the pairs of a page of the hash.
func (f *bdbFile) pairs(page []byte) error {
	entries := int(f.order.Uint16(page[20:]))
	if bdbPageHead+2*entries > len(page) || entries%2 != 0 {
		return errDamaged
	}
	end := len(page)
	for i := range entries {
		at := int(f.order.Uint16(page[bdbPageHead+2*i:]))
		if at < bdbPageHead+2*entries || at >= end {
			return errDamaged
		}
		item := page[at:end]
		end = at
		if i%2 == 0 {
			continue // a key
		}
		value, err := f.value(item)
		if err != nil {
			return err
		}
		if len(value) <= 8 {
			continue // the last number given
		}
		if err := f.each(value); err != nil {
			return err
		}
	}
	return nil
}

// value is what an item holds, or points to; nothing if it is of another kind.
func (f *bdbFile) value(item []byte) ([]byte, error) {
	switch {
	case item[0] == bdbKeyData:
		return slices.Clone(item[1:]), nil
	case item[0] != bdbOffPage:
		return nil, nil
	case len(item) < 12:
		return nil, errDamaged
	}
	next, size := int64(f.order.Uint32(item[4:])), int64(f.order.Uint32(item[8:]))
	if size > maxHeader || size > f.size {
		return nil, errDamaged
	}
	var out []byte
	for int64(len(out)) < size {
		if next == 0 {
			return nil, errDamaged
		}
		page, err := f.bytes(next*f.page, f.page)
		if err != nil {
			return nil, err
		}
		n := int64(f.order.Uint16(page[22:]))
		if page[25] != bdbOverflow || n == 0 || n > f.page-bdbPageHead {
			return nil, errDamaged
		}
		out = append(out, page[bdbPageHead:bdbPageHead+n]...)
		next = int64(f.order.Uint32(page[16:]))
	}
	return out[:size], nil
}
