// Package purl writes package URLs (https://github.com/package-url/purl-spec), which name packages and images
// in lists of contents and in statements about builds.
package purl

import (
	"fmt"
	"strings"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// URL is a package URL in its parts, not escaped. What a type says about upper case is the caller's business.
type URL struct {
	Type string
	// Namespace is the part before the name, with slashes; it may be empty, as Version may.
	Namespace, Name, Version string
	// Qualifiers are names and values in the order of the names; those without a value are left out.
	Qualifiers [][2]string
}

// String is the canonical form.
func (u URL) String() string {
	var b strings.Builder
	b.WriteString("pkg:" + u.Type)
	for segment := range strings.SplitSeq(u.Namespace, "/") {
		if segment != "" {
			b.WriteString("/" + escape(segment))
		}
	}
	b.WriteString("/" + escape(u.Name))
	if u.Version != "" {
		b.WriteString("@" + escape(u.Version))
	}
	sep := "?"
	for _, q := range u.Qualifiers {
		if q[1] != "" {
			b.WriteString(sep + q[0] + "=" + escape(q[1]))
			sep = "&"
		}
	}
	return b.String()
}

// escape percent-encodes all but what the specification leaves as it is.
func escape(s string) string {
	var b strings.Builder
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

// Image names an image of a registry on a platform, as BuildKit does: Docker Hub's names are short, and a digest is a
// qualifier. A reference that is none is an error.
func Image(ref string, platform ocispec.Platform) (string, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return "", fmt.Errorf("name %s: %w", ref, err)
	}
	u := URL{Type: "docker"}
	if canonical, ok := named.(reference.Canonical); ok {
		u.Qualifiers = [][2]string{{"digest", canonical.Digest().String()}}
	} else {
		named = reference.TagNameOnly(named)
	}
	if tagged, ok := named.(reference.Tagged); ok {
		u.Version = tagged.Tag()
	}
	name := reference.FamiliarName(named)
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		u.Namespace, name = name[:i], name[i+1:]
	}
	u.Name = name
	if platform.OS != "" {
		u.Qualifiers = append(u.Qualifiers, [2]string{"platform", platforms.Format(platforms.Normalize(platform))})
	}
	return u.String(), nil
}
