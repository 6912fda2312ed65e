package image

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"hako/internal/diag"
)

// Level is the document that an annotation is put on.
type Level string

// The levels, as BuildKit names them.
const (
	// OnManifest is the manifest of each image, OnIndex the index.
	OnManifest Level = "manifest"
	OnIndex    Level = "index"
	// OnManifestDescriptor is what describes a manifest: in the index or, if there is none, in the list of an OCI layout.
	OnManifestDescriptor Level = "manifest-descriptor"
	// OnIndexDescriptor is what describes the index in the list of an OCI layout.
	OnIndexDescriptor Level = "index-descriptor"
)

func levels() []string {
	return []string{string(OnManifest), string(OnIndex), string(OnManifestDescriptor), string(OnIndexDescriptor)}
}

// Annotation is one annotation of a result.
type Annotation struct {
	Level Level
	// Platform is the only one whose image gets it, as FormatPlatform writes it; empty means all. Indexes have none.
	Platform string
	Key      string
	Value    string
}

// ParseAnnotation reads "[LEVEL[[PLATFORM]][,LEVEL…]:]KEY=VALUE", buildx's form. Without a level it is about manifests.
// What stands before a colon and is no list of levels is part of the key.
func ParseAnnotation(s string) ([]Annotation, error) {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return nil, fmt.Errorf("annotation %q is not KEY=VALUE", s)
	}
	list, rest, ok := strings.Cut(key, ":")
	if !ok {
		return []Annotation{{Level: OnManifest, Key: key, Value: value}}, nil
	}
	var out []Annotation
	for _, word := range strings.Split(list, ",") {
		a, err := parseLevel(word)
		if err != nil && len(out) == 0 && !looksLikeLevel(word) {
			return []Annotation{{Level: OnManifest, Key: key, Value: value}}, nil
		}
		if err == nil && rest == "" {
			err = fmt.Errorf("annotation %q has no key", s)
		}
		if err != nil {
			return nil, err
		}
		a.Key, a.Value = rest, value
		out = append(out, a)
	}
	return out, nil
}

// looksLikeLevel says whether a word may be meant as a level.
func looksLikeLevel(word string) bool {
	name, _, bracket := strings.Cut(word, "[")
	_, near := diag.Nearest(name, levels())
	return bracket || near || slices.Contains(levels(), name)
}

// ParseAnnotationOption reads the name of an option of an output, "annotation[-LEVEL][[PLATFORM]].KEY".
// ok is false if it is no annotation at all.
func ParseAnnotationOption(name, value string) (a Annotation, ok bool, err error) {
	m := regexp.MustCompile(`^annotation(?:-([a-z-]+))?(\[[^\]]*\])?\.(\S+)$`).FindStringSubmatch(name) // BuildKit: exptypes
	if m == nil {
		return a, false, nil
	}
	level := m[1]
	if level == "" {
		level = string(OnManifest)
	}
	a, err = parseLevel(level + m[2])
	a.Key, a.Value = m[3], value
	return a, true, err
}

// parseLevel reads "LEVEL" or "LEVEL[PLATFORM]".
func parseLevel(s string) (Annotation, error) {
	level, rest, bracket := strings.Cut(s, "[")
	if !slices.Contains(levels(), level) {
		e := &diag.Error{What: fmt.Sprintf("unknown kind of annotation %q", level), Hint: "Use one of " + strings.Join(levels(), ", ") + "."}
		if near, ok := diag.Nearest(level, levels()); ok {
			e.Hint = "Did you mean " + near + "?"
		}
		return Annotation{}, e
	}
	a := Annotation{Level: Level(level)}
	if !bracket {
		return a, nil
	}
	name, closed := strings.CutSuffix(rest, "]")
	if !closed || name == "" {
		return a, fmt.Errorf("annotation %q: write the platform as %s[linux/amd64]", s, level)
	}
	if a.Level == OnIndex || a.Level == OnIndexDescriptor {
		return a, fmt.Errorf("annotation %q: an index is for all platforms", s)
	}
	p, err := ParsePlatform(name)
	if err != nil {
		return a, fmt.Errorf("annotation %q: %w", s, err)
	}
	a.Platform = FormatPlatform(Normalize(p))
	return a, nil
}

// Annotations are those of a result. Of several with the same key, one for a platform wins, then the last.
type Annotations []Annotation

// On are the annotations of a document of one platform; nil for none.
func (as Annotations) On(level Level, p ocispec.Platform) map[string]string {
	var out map[string]string
	for _, platform := range []string{"", FormatPlatform(Normalize(p))} {
		for _, a := range as {
			if a.Level != level || a.Platform != platform {
				continue
			}
			if out == nil {
				out = map[string]string{}
			}
			out[a.Key] = a.Value
		}
	}
	return out
}

// NeedIndex is an annotation that only an index can have, or nil.
func (as Annotations) NeedIndex() *Annotation {
	i := slices.IndexFunc(as, func(a Annotation) bool { return a.Level == OnIndex || a.Level == OnIndexDescriptor })
	if i < 0 {
		return nil
	}
	return &as[i]
}
