package sbom

import (
	"fmt"
	"strings"
)

// packageURL is a package URL (https://github.com/package-url/purl-spec) before it is written.
type packageURL struct {
	kind, namespace, name, version string
	// qualifiers are pairs in the order of their keys; pairs without a value are left out.
	qualifiers [][2]string
}

// String is the canonical form.
func (u packageURL) String() string {
	var b strings.Builder
	b.WriteString("pkg:" + u.kind)
	for segment := range strings.SplitSeq(u.namespace, "/") {
		if segment != "" {
			b.WriteString("/" + escapePURL(segment))
		}
	}
	b.WriteString("/" + escapePURL(u.name))
	if u.version != "" {
		b.WriteString("@" + escapePURL(u.version))
	}
	sep := "?"
	for _, q := range u.qualifiers {
		if q[1] != "" {
			b.WriteString(sep + q[0] + "=" + escapePURL(q[1]))
			sep = "&"
		}
	}
	return b.String()
}

// escapePURL percent-encodes all but what the specification leaves as it is.
func escapePURL(s string) string {
	var b strings.Builder
	s = clean(s)
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte(".-_~:", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// splitLast cuts a path at its last slash.
func splitLast(s string) (dir, base string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}
