package registry

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"hako/internal/diag"
)

// ParseReference parses an image reference as Docker does: "debian" is "docker.io/library/debian:latest".
// If there is both a tag and a digest, the digest counts.
func ParseReference(s string) (name.Reference, error) {
	ref, err := name.ParseReference(s, name.WeakValidation)
	if err != nil {
		return nil, badReference(s, err)
	}
	return ref, nil
}

// ParseTag parses a reference that a push can be made to: one without a digest.
func ParseTag(s string) (name.Tag, error) {
	tag, err := name.NewTag(s, name.WeakValidation)
	if err != nil {
		return name.Tag{}, badReference(s, err)
	}
	return tag, nil
}

func badReference(s string, err error) error {
	hint := `Write it as "registry.example/path/name:tag".`
	if s != strings.ToLower(s) {
		hint = "Repository names must be in lower case."
	}
	if scheme, _, ok := strings.Cut(s, "://"); ok {
		hint = `Leave out "` + scheme + `://".`
		s = scheme + "://…" // there may be a password in it
		err = nil
	}
	return &diag.Error{What: `image reference "` + s + `" is not valid`, Cause: err, Hint: hint}
}

// FullName is the reference in full with Docker Hub's usual name: "docker.io/library/debian:12".
func FullName(ref name.Reference) string { return familiar(ref.Name()) }

func familiar(s string) string {
	if rest, ok := strings.CutPrefix(s, name.DefaultRegistry+"/"); ok {
		return "docker.io/" + rest
	}
	return s
}

// SameHost says whether a and b name the same registry: letters' case, a scheme and which of Docker Hub's names do not matter.
func SameHost(a, b string) bool { return canonicalHost(a) == canonicalHost(b) }

// canonicalHost maps the names of Docker Hub to the one that go-containerregistry uses, and all to lower case.
// A scheme, which some put before hosts in options, is dropped.
func canonicalHost(h string) string {
	h = strings.ToLower(strings.TrimSuffix(h, "/"))
	if _, rest, ok := strings.Cut(h, "://"); ok {
		h = rest
	}
	switch h {
	case "docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return name.DefaultRegistry
	}
	return h
}
