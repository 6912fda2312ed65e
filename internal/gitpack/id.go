package gitpack

import (
	"crypto/sha1" //nolint:gosec // it is git's
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"
)

// Format is the kind of hash that names a repository's objects.
type Format uint8

// The formats. SHA1 is the zero value, as for git.
const (
	SHA1 Format = iota
	SHA256
)

// ParseFormat reads the name that git has for a format.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "", "sha1":
		return SHA1, nil
	case "sha256":
		return SHA256, nil
	}
	return SHA1, fmt.Errorf("unknown object format %q", s)
}

// String is git's name of the format.
func (f Format) String() string {
	if f == SHA256 {
		return "sha256"
	}
	return "sha1"
}

// Size is the length of an id in bytes.
func (f Format) Size() int {
	if f == SHA256 {
		return sha256.Size
	}
	return sha1.Size
}

// Sum is the hash of data, as it stands at the end of git's files.
func (f Format) Sum(data []byte) []byte {
	h := f.hash()
	h.Write(data)
	return h.Sum(nil)
}

func (f Format) hash() hash.Hash {
	if f == SHA256 {
		return sha256.New()
	}
	return sha1.New() //nolint:gosec // it is git's
}

// ID names an object. The zero value names nothing.
type ID struct {
	n   uint8
	sum [sha256.Size]byte
}

// NewID is the id with these bytes, of which there are as many as the format has.
func NewID(b []byte) ID {
	id := ID{n: uint8(len(b))} //nolint:gosec // at most 32
	copy(id.sum[:], b)
	return id
}

// ParseID reads a whole id of the format in hexadecimal digits.
func ParseID(f Format, s string) (ID, error) {
	b, err := hex.DecodeString(strings.ToLower(s))
	if err != nil || len(b) != f.Size() {
		return ID{}, fmt.Errorf("%q is no %s object id", clip(s), f)
	}
	return NewID(b), nil
}

// clip keeps a hostile name from flooding the log.
func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

// IsZero says whether id names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Bytes are those of the id.
func (id ID) Bytes() []byte { return id.sum[:id.n] }

// String is the id in hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id.sum[:id.n]) }

// Kind is the type of an object.
type Kind uint8

// The kinds, with the numbers that packs have for them (gitformat-pack(5)).
const (
	Commit Kind = 1
	Tree   Kind = 2
	Blob   Kind = 3
	Tag    Kind = 4

	ofsDelta Kind = 6
	refDelta Kind = 7
)

// String is git's name of the kind.
func (k Kind) String() string {
	switch k {
	case Commit:
		return "commit"
	case Tree:
		return "tree"
	case Blob:
		return "blob"
	case Tag:
		return "tag"
	}
	return "delta"
}

func (k Kind) isDelta() bool { return k == ofsDelta || k == refDelta }

// objectHash starts the hash of an object.
func objectHash(f Format, k Kind, size int64) hash.Hash {
	h := f.hash()
	fmt.Fprintf(h, "%s %d\x00", k, size) // a hash never fails
	return h
}

// sumID ends it.
func sumID(h hash.Hash) ID {
	var b [sha256.Size]byte
	return NewID(h.Sum(b[:0]))
}
