package rpmdb

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// Package is what the header of an installed package says.
type Package struct {
	Name, Version, Release, Arch string
	// Epoch is empty if there is none.
	Epoch string
	// SourceRPM is the file name of the source package.
	SourceRPM string
	// License, Vendor, URL and Summary are verbatim. Modularity is the label of the module, if any.
	License, Vendor, URL, Summary, Modularity string
}

// Tags and types of RPM's header: https://rpm-software-management.github.io/rpm/manual/tags.html
const (
	tagName       = 1000
	tagVersion    = 1001
	tagRelease    = 1002
	tagEpoch      = 1003
	tagSummary    = 1004
	tagVendor     = 1011
	tagLicense    = 1014
	tagURL        = 1020
	tagArch       = 1022
	tagSourceRPM  = 1044
	tagModularity = 5096

	typeInt32  = 4
	typeString = 6
	typeI18N   = 9

	headerEntry = 16 // bytes of an index entry: tag, type, offset, count
)

// parseHeader reads a header as databases store it: the number of index entries, the size of the data, and both.
func parseHeader(b []byte) (Package, error) {
	if len(b) < 8 {
		return Package{}, errDamaged
	}
	entries, size := int64(binary.BigEndian.Uint32(b)), int64(binary.BigEndian.Uint32(b[4:]))
	if 8+entries*headerEntry+size > int64(len(b)) {
		return Package{}, errDamaged
	}
	data := b[8+entries*headerEntry:][:size]
	var p Package
	for i := range entries {
		e := b[8+i*headerEntry:][:headerEntry]
		value, ok := headerValue(e, data)
		if !ok {
			continue
		}
		if field := p.field(binary.BigEndian.Uint32(e)); field != nil {
			*field = value
		}
	}
	if p.Name == "" || p.Version == "" {
		return Package{}, errDamaged
	}
	return p, nil
}

// field is where a tag's value goes; nil for all others.
func (p *Package) field(tag uint32) *string {
	switch tag {
	case tagName:
		return &p.Name
	case tagVersion:
		return &p.Version
	case tagRelease:
		return &p.Release
	case tagEpoch:
		return &p.Epoch
	case tagSummary:
		return &p.Summary
	case tagVendor:
		return &p.Vendor
	case tagLicense:
		return &p.License
	case tagURL:
		return &p.URL
	case tagArch:
		return &p.Arch
	case tagSourceRPM:
		return &p.SourceRPM
	case tagModularity:
		return &p.Modularity
	}
	return nil
}

// headerValue is an entry's value as text: a number, a string, or the first of several.
func headerValue(e, data []byte) (string, bool) {
	off := int64(binary.BigEndian.Uint32(e[8:]))
	if off >= int64(len(data)) {
		return "", false
	}
	rest := data[off:]
	switch binary.BigEndian.Uint32(e[4:]) {
	case typeInt32:
		if len(rest) < 4 {
			return "", false
		}
		return strconv.FormatUint(uint64(binary.BigEndian.Uint32(rest)), 10), true
	case typeString, typeI18N:
		text, _, ok := bytes.Cut(rest, []byte{0})
		return string(text), ok
	}
	return "", false
}
