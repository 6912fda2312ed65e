package rpmdb

import (
	"encoding/binary"
	"slices"
)

// SQLite's file format: https://www.sqlite.org/fileformat2.html
const (
	sqliteHead     = 100 // bytes before the first page's own head
	sqliteInterior = 0x05
	sqliteLeaf     = 0x0d
	// sqliteDepth bounds a tree; SQLite's own are never deeper than 20.
	sqliteDepth = 20
	// sqliteTable is the table with the headers: "hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL".
	sqliteTable = "Packages"
)

// sqliteFile is what the file's head says.
type sqliteFile struct {
	*database
	page   int64 // bytes of a page
	usable int64 // of them, what is not reserved
}

// sqlite reads the rows of the table with the headers.
func (d *database) sqlite() error {
	head, err := d.bytes(0, sqliteHead)
	if err != nil {
		return err
	}
	f := &sqliteFile{database: d, page: int64(binary.BigEndian.Uint16(head[16:]))}
	if f.page == 1 {
		f.page = 65536
	}
	f.usable = f.page - int64(head[20])
	if f.page < 512 || f.page&(f.page-1) != 0 || f.usable < 480 {
		return errDamaged
	}
	root := int64(0)
	err = f.walk(1, 0, func(row []byte) error {
		columns, err := sqliteColumns(row)
		if err != nil {
			return err
		}
		// type, name, tbl_name, rootpage, sql
		if len(columns) >= 4 && string(columns[0]) == "table" && string(columns[1]) == sqliteTable {
			root = sqliteInt(columns[3])
		}
		return nil
	})
	if err != nil {
		return err
	}
	if root == 0 {
		return errFormat // a database of something else
	}
	return f.walk(root, 0, func(row []byte) error {
		columns, err := sqliteColumns(row)
		if err != nil {
			return err
		}
		if len(columns) < 2 {
			return errDamaged
		}
		return f.each(columns[1])
	})
}

// walk calls fn with the record of each row of the table whose tree has its root at page number.
func (f *sqliteFile) walk(number int64, depth int, fn func([]byte) error) error {
	if depth > sqliteDepth || number < 1 {
		return errDamaged
	}
	page, err := f.bytes((number-1)*f.page, f.page)
	if err != nil {
		return err
	}
	head := 0
	if number == 1 {
		head = sqliteHead
	}
	kind, cells := page[head], int(binary.BigEndian.Uint16(page[head+3:]))
	first := head + 8
	if kind == sqliteInterior {
		first += 4
	} else if kind != sqliteLeaf {
		return errDamaged
	}
	for i := range cells {
		at := first + 2*i
		if at+2 > len(page) {
			return errDamaged
		}
		cell := int(binary.BigEndian.Uint16(page[at:]))
		if cell+4 > len(page) {
			return errDamaged
		}
		if kind == sqliteInterior {
			err = f.walk(int64(binary.BigEndian.Uint32(page[cell:])), depth+1, fn)
		} else {
			err = f.row(page[cell:], fn)
		}
		if err != nil {
			return err
		}
	}
	if kind == sqliteInterior {
		return f.walk(int64(binary.BigEndian.Uint32(page[head+8:])), depth+1, fn)
	}
	return nil
}

// row puts a row together from its cell and the pages that it overflows to.
func (f *sqliteFile) row(cell []byte, fn func([]byte) error) error {
	size, n := sqliteVarint(cell)
	_, m := sqliteVarint(cell[n:]) // the row's number
	if n == 0 || m == 0 || size < 0 || size > maxHeader || size > f.size {
		return errDamaged
	}
	cell = cell[n+m:]
	local := f.local(size)
	if local > int64(len(cell)) {
		return errDamaged
	}
	out := slices.Clone(cell[:local])
	if local == size {
		return fn(out)
	}
	if local+4 > int64(len(cell)) {
		return errDamaged
	}
	next := int64(binary.BigEndian.Uint32(cell[local:]))
	for int64(len(out)) < size {
		if next < 1 {
			return errDamaged
		}
		page, err := f.bytes((next-1)*f.page, f.page)
		if err != nil {
			return err
		}
		next = int64(binary.BigEndian.Uint32(page))
		out = append(out, page[4:4+min(f.usable-4, size-int64(len(out)))]...)
	}
	return fn(out)
}

// local is how many bytes of a row of that size lie in its cell.
func (f *sqliteFile) local(size int64) int64 {
	most := f.usable - 35
	if size <= most {
		return size
	}
	least := (f.usable-12)*32/255 - 23
	if n := least + (size-least)%(f.usable-4); n <= most {
		return n
	}
	return least
}

// sqliteColumns cuts a record into its columns. Numbers are as they are stored.
func sqliteColumns(row []byte) ([][]byte, error) {
	size, n := sqliteVarint(row)
	if n == 0 || size < int64(n) || size > int64(len(row)) {
		return nil, errDamaged
	}
	types, body := row[n:size], row[size:]
	var out [][]byte
	for len(types) > 0 {
		kind, n := sqliteVarint(types)
		if n == 0 {
			return nil, errDamaged
		}
		types = types[n:]
		length := sqliteLength(kind)
		if length < 0 || length > int64(len(body)) {
			return nil, errDamaged
		}
		out = append(out, body[:length])
		body = body[length:]
	}
	return out, nil
}

// sqliteLength is how many bytes a column of that serial type has.
func sqliteLength(kind int64) int64 {
	switch {
	case kind >= 12:
		return (kind - 12) / 2 // even: bytes; odd: text
	case kind < 0 || kind > 9:
		return -1
	}
	return [...]int64{0, 1, 2, 3, 4, 6, 8, 8, 0, 0}[kind]
}

// sqliteInt is a stored number; nothing for one that would not fit a page's.
func sqliteInt(b []byte) int64 {
	if len(b) > 6 {
		return 0
	}
	n := int64(0)
	for _, c := range b {
		n = n<<8 | int64(c)
	}
	return n
}

// sqliteVarint reads a number of one to nine bytes; n is 0 if it is cut off.
func sqliteVarint(b []byte) (value int64, n int) {
	for i, c := range b {
		if i == 8 {
			return value<<8 | int64(c), 9
		}
		value = value<<7 | int64(c&0x7f)
		if c < 0x80 {
			return value, i + 1
		}
	}
	return 0, 0
}
