package gittree

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"hako/internal/gitpack"
)

// conversion is what becomes of a file's content on its way out of the repository.
type conversion struct {
	crlf     crlfRule
	ident    bool
	encoding string // of the file, where it is not what lies in the repository
}

// crlfRule says when a line feed becomes a carriage return and a line feed.
type crlfRule uint8

const (
	keepLines crlfRule = iota
	crlfText           // always
	crlfAuto           // if the content is text, and has no carriage returns yet
)

// newConversion reads the attributes of a file (gitattributes(5)). nil means that nothing is to be done.
func newConversion(a map[string]attribute) *conversion {
	c := &conversion{ident: a["ident"].state == set}
	text := a["text"]
	if _, ok := a["text"]; !ok || text.state == unspecified {
		text = oldText(a["crlf"])
	}
	eol := a["eol"]
	wantsCRLF := eol.state == valued && eol.value == "crlf"
	if old := a["crlf"]; eol.state != valued && old.state == valued && old.value == "crlf" {
		wantsCRLF = true
	}
	switch {
	case !wantsCRLF || text.state == unset:
	case text.state == valued && text.value == "auto":
		c.crlf = crlfAuto
	default:
		c.crlf = crlfText // eol alone makes a file text
	}
	if e := a["working-tree-encoding"]; e.state == valued && !isUTF8(e.value) {
		c.encoding = e.value
	}
	if *c == (conversion{}) {
		return nil
	}
	return c
}

// oldText is what the attribute crlf, of before git 1.7.2, says about text.
func oldText(crlf attribute) attribute {
	switch crlf.state {
	case set:
		return attribute{state: set}
	case unset:
		return attribute{state: unset}
	case valued:
		if crlf.value == "input" {
			return attribute{state: set}
		}
	}
	return attribute{}
}

func isUTF8(name string) bool {
	return strings.EqualFold(name, "UTF-8") || strings.EqualFold(name, "UTF8")
}

// apply converts the content of the blob id.
func (c *conversion) apply(data []byte, id gitpack.ID) ([]byte, error) {
	if c.ident {
		data = replaceIdent(data, id)
	}
	if c.crlf == crlfText || c.crlf == crlfAuto && canBeCRLF(data) {
		data = toCRLF(data)
	}
	if c.encoding != "" {
		return encode(data, c.encoding)
	}
	return data, nil
}

// canBeCRLF says whether text=auto takes the content for text without carriage returns, as git does.
func canBeCRLF(data []byte) bool {
	printable, other := 0, 0
	for i, b := range data {
		switch {
		case b == '\r', b == 0:
			return false
		case b == '\n', b == '\b', b == '\t', b == '\f', b == 0x1b:
			if b != '\n' {
				printable++
			}
		case b == 0x1a && i == len(data)-1: // an end of file as DOS writes it
		case b < ' ' || b == 0x7f:
			other++
		default:
			printable++
		}
	}
	const share = 128 // as git: one other byte in so many is still text
	return other <= printable/share
}

// toCRLF puts a carriage return before each line feed that has none.
func toCRLF(data []byte) []byte {
	out := make([]byte, 0, len(data)+bytes.Count(data, []byte{'\n'}))
	for i, b := range data {
		if b == '\n' && (i == 0 || data[i-1] != '\r') {
			out = append(out, '\r')
		}
		out = append(out, b)
	}
	return out
}

// replaceIdent writes the id of the blob into each $Id$ and $Id: …$ on one line.
func replaceIdent(data []byte, id gitpack.ID) []byte {
	const mark = "$Id"
	var out []byte
	for {
		at := bytes.Index(data, []byte(mark))
		if at < 0 {
			return append(out, data...)
		}
		out = append(out, data[:at]...)
		data = data[at:]
		rest := data[len(mark):]
		end := identEnd(rest)
		if end < 0 {
			out = append(out, mark...)
		} else {
			out = fmt.Appendf(out, "$Id: %s $", id)
			rest = rest[end:]
		}
		data = rest
	}
}

// identEnd is where an identifier ends that begins with "$" or ": …$"; -1 if it is none.
func identEnd(rest []byte) int {
	switch {
	case len(rest) > 0 && rest[0] == '$':
		return 1
	case len(rest) == 0 || rest[0] != ':':
		return -1
	}
	end := bytes.IndexByte(rest, '$')
	if end < 0 || bytes.IndexByte(rest[:end], '\n') >= 0 {
		return -1
	}
	// A blank in the middle means that another system has written it; git leaves that alone.
	if inner := rest[1:end]; len(inner) > 2 && bytes.IndexByte(inner[1:len(inner)-1], ' ') >= 0 {
		return -1
	}
	return end + 1
}

// encode turns UTF-8 into another encoding. Only those of Unicode are known.
func encode(data []byte, name string) ([]byte, error) {
	upper := strings.ToUpper(strings.ReplaceAll(name, "_", "-"))
	bom := !strings.HasSuffix(upper, "LE") && !strings.HasSuffix(upper, "BE")
	upper, withBOM := strings.CutSuffix(upper, "-BOM")
	bom = bom && !withBOM || withBOM
	var order binary.AppendByteOrder = binary.BigEndian
	switch {
	case strings.HasSuffix(upper, "LE"):
		order = binary.LittleEndian
	case !strings.HasSuffix(upper, "BE"):
		order = binary.LittleEndian // what iconv on Linux writes for UTF-16 and UTF-32
	}
	var put func(out []byte, r rune) []byte
	switch strings.TrimSuffix(strings.TrimSuffix(upper, "LE"), "BE") {
	case "UTF-16", "UTF16":
		put = func(out []byte, r rune) []byte {
			if high, low := utf16.EncodeRune(r); high != utf8.RuneError {
				return order.AppendUint16(order.AppendUint16(out, uint16(high)), uint16(low)) //nolint:gosec // surrogates
			}
			return order.AppendUint16(out, uint16(r)) //nolint:gosec // it needs no surrogates
		}
	case "UTF-32", "UTF32":
		put = func(out []byte, r rune) []byte { return order.AppendUint32(out, uint32(r)) } //nolint:gosec // not negative
	default:
		return nil, fmt.Errorf("the encoding %q of working-tree-encoding is not supported", clip(name))
	}
	var out []byte
	if bom {
		out = put(out, '\uFEFF')
	}
	for len(data) > 0 {
		r, n := utf8.DecodeRune(data)
		out, data = put(out, r), data[n:]
	}
	return out, nil
}
