// Package rpmdb reads the package headers out of an RPM database of any of its three forms, in place and without
// the libraries that wrote it: SQLite (rpm 4.16 and later), NDB (SUSE) and a Berkeley DB hash (before).
//
// It reads only, and only what is needed: no index, no lock, no recovery. The bytes may be anybody's: sizes are checked
// against the file before memory is taken, and page chains cannot be longer than the file.
package rpmdb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// maxHeader bounds a package header, in bytes. RPM's own limit is 256 MiB; kernel packages have some 5 MiB.
const maxHeader = 64 << 20

var (
	errFormat  = errors.New("not a package database that is known here")
	errDamaged = errors.New("the database is damaged")
)

// Packages calls fn for each package of the database r of size bytes, in no special order, and stops at its first error.
// Packages whose headers cannot be read are left out; then the error, at the end, says so.
func Packages(ctx context.Context, r io.ReaderAt, size int64, fn func(Package) error) error {
	var head [32]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("read the database's head: %w", err)
	}
	db := &database{ctx: ctx, r: r, size: size}
	var bad error
	db.each = func(header []byte) error {
		p, err := parseHeader(header)
		if err != nil {
			bad = err
			return nil
		}
		return fn(p)
	}
	var err error
	switch order := bdbOrder(head[:]); {
	case bytes.HasPrefix(head[:], []byte("SQLite format 3\x00")):
		err = db.sqlite()
	case bytes.HasPrefix(head[:], []byte("RpmP")):
		err = db.ndb()
	case order != nil:
		err = db.bdb(order)
	default:
		return errFormat
	}
	return errors.Join(err, bad)
}

// database is an open file and where its headers go.
type database struct {
	ctx  context.Context //nolint:containedctx // of one call of Packages
	r    io.ReaderAt
	size int64
	each func(header []byte) error
	// read counts bytes, so that a chain of pages that bites its tail ends.
	read int64
}

// bytes reads n bytes at off.
func (d *database) bytes(off, n int64) ([]byte, error) {
	if d.ctx.Err() != nil {
		return nil, context.Cause(d.ctx)
	}
	if off < 0 || n < 0 || n > maxHeader || off > d.size-n {
		return nil, errDamaged
	}
	// Every byte is needed once; some pages are looked at twice.
	if d.read += n; d.read > 4*d.size+1<<20 {
		return nil, errDamaged
	}
	out := make([]byte, n)
	if _, err := d.r.ReadAt(out, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return out, nil
}

const (
	ndbPage = 4096
	ndbSlot = 16
	ndbBlob = 16 // bytes of a blob's head, and the unit of its offset
)

// ndb reads RPM's own format (rpm: lib/backend/ndb/rpmpkg.c): pages of slots, each of which points to a blob.
func (d *database) ndb() error {
	head, err := d.bytes(0, 32)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(head[4:]) != 0 {
		return errFormat // another version
	}
	pages := int64(binary.LittleEndian.Uint32(head[12:]))
	for page := range pages {
		slots, err := d.bytes(page*ndbPage, ndbPage)
		if err != nil {
			return err
		}
		for off := 0; off < ndbPage; off += ndbSlot {
			if page == 0 && off < 2*ndbSlot {
				continue // the head of the file
			}
			slot := slots[off : off+ndbSlot]
			if !bytes.HasPrefix(slot, []byte("Slot")) {
				return errDamaged
			}
			if index := binary.LittleEndian.Uint32(slot[4:]); index != 0 {
				if err := d.ndbBlob(index, int64(binary.LittleEndian.Uint32(slot[8:]))*ndbBlob); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (d *database) ndbBlob(index uint32, off int64) error {
	head, err := d.bytes(off, ndbBlob)
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(head, []byte("BlbS")) || binary.LittleEndian.Uint32(head[4:]) != index {
		return errDamaged
	}
	blob, err := d.bytes(off+ndbBlob, int64(binary.LittleEndian.Uint32(head[12:])))
	if err != nil {
		return err
	}
	return d.each(blob)
}
