package sbom

import (
	"cmp"
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"hako/internal/purl"
)

// maxMetadata bounds what is read of a Python package's metadata: its head.
const maxMetadata = 1 << 20 // 1 MiB

// isPython finds the metadata of installed packages (https://packaging.python.org/specifications/core-metadata/).
func isPython(p string) bool {
	dir, base := path.Split(p)
	dir = strings.TrimSuffix(dir, "/")
	switch {
	case base == "METADATA":
		return strings.HasSuffix(dir, ".dist-info")
	case base == "PKG-INFO":
		return strings.HasSuffix(dir, ".egg-info") || path.Base(dir) == "EGG-INFO"
	}
	return strings.HasSuffix(base, ".egg-info")
}

var errEnd = errors.New("end of the head")

// python reads one installed package.
func (s *scanner) python(_ context.Context, f *file) error {
	head := map[string]string{}
	var classifiers []string
	err := lines(io.LimitReader(f.reader(), maxMetadata), func(line []byte) error {
		if len(line) == 0 || line[0] == '\r' {
			return errEnd // a description follows
		}
		k, v, ok := strings.Cut(string(line), ":")
		if !ok || line[0] == ' ' || line[0] == '\t' {
			return nil
		}
		k, v = strings.ToLower(k), clean(v)
		if k == "classifier" && len(classifiers) < maxLicenses {
			classifiers = append(classifiers, v)
		}
		if _, twice := head[k]; !twice && len(head) < maxFields && v != "UNKNOWN" {
			head[k] = v
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnd) {
		return err
	}
	name, version := head["name"], head["version"]
	if name == "" || version == "" {
		return errNoName
	}
	author := cmp.Or(head["author"], head["maintainer"])
	if mail := cmp.Or(head["author-email"], head["maintainer-email"]); author == "" || !strings.Contains(mail, "<") {
		author = strings.TrimSpace(cmp.Or(author, mail))
	}
	s.add(Package{
		Type: "pypi", Name: name, Version: version, Evidence: []string{f.path()},
		License:  cmp.Or(head["license-expression"], pythonLicense(head["license"], classifiers)),
		Supplier: author, Homepage: head["home-page"], Description: head["summary"],
		PURL: purl.URL{Type: "pypi", Name: pythonName(name), Version: version}.String(),
	})
	return nil
}

var errNoName = errors.New("it has no name and version")

// pythonName is the name as indexes compare it (PEP 503).
func pythonName(name string) string {
	var b strings.Builder
	for part := range strings.FieldsFuncSeq(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
		if b.Len() > 0 {
			b.WriteByte('-')
		}
		b.WriteString(part)
	}
	return b.String()
}

// pythonLicense takes the licence field, or else the last word of the classifiers
// ("License :: OSI Approved :: MIT License").
func pythonLicense(field string, classifiers []string) string {
	if field != "" && len(field) < 100 {
		return field // longer ones are whole texts
	}
	var out []string
	for _, c := range classifiers {
		if rest, ok := strings.CutPrefix(c, "License :: "); ok && rest != "OSI Approved" {
			_, last, _ := cutLast(rest, ":: ")
			out = append(out, strings.TrimSuffix(last, " License"))
		}
	}
	return strings.Join(out, " AND ")
}
