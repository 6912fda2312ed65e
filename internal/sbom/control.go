package sbom

import (
	"context"
	"errors"
	"path"
	"strings"

	"hako/internal/purl"
	"hako/internal/tree"
)

// paragraph is one entry of a Debian control file: fields with their values; of a value over several lines the first.
type paragraph map[string]string

// paragraphs calls fn for each entry of a control file (deb822(5)).
func paragraphs(ctx context.Context, f *file, fn func(paragraph)) error {
	p, count := paragraph{}, 0
	err := lines(f.reader(), func(line []byte) error {
		if count++; count%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		text := string(line)
		if strings.TrimSpace(text) == "" {
			if len(p) > 0 {
				fn(p)
			}
			p = paragraph{}
			return nil
		}
		if text[0] == ' ' || text[0] == '\t' || text[0] == '#' {
			return nil
		}
		if k, v, ok := strings.Cut(text, ":"); ok && len(p) < maxFields {
			p[strings.ToLower(k)] = clean(v)
		}
		return nil
	})
	if len(p) > 0 {
		fn(p)
	}
	return err
}

// maxFields bounds the fields of an entry.
const maxFields = 200

// isDpkg finds dpkg's database: one file, or one for each package as in distroless images.
func isDpkg(p string) bool {
	const dir = "var/lib/dpkg/"
	if p == dir+"status" {
		return true
	}
	rest, ok := strings.CutPrefix(p, dir+"status.d/")
	return ok && !strings.Contains(rest, "/") && !strings.HasSuffix(rest, ".md5sums")
}

// dpkg reads installed packages of Debian and its kin.
func (s *scanner) dpkg(ctx context.Context, f *file) error {
	return paragraphs(ctx, f, func(p paragraph) {
		state := strings.Fields(p["status"])
		if len(state) == 3 && state[2] != "installed" {
			return // removed, or not configured yet
		}
		name, version := p["package"], p["version"]
		if name == "" || version == "" {
			return
		}
		license, copyright := s.debianLicense(name)
		evidence := []string{f.path()}
		if copyright != "" {
			evidence = append(evidence, copyright)
		}
		s.add(Package{
			Type: "deb", Name: name, Version: version, License: license, Supplier: p["maintainer"], Homepage: p["homepage"],
			Description: p["description"], Evidence: evidence,
			PURL: purl.URL{Type: "deb", Namespace: s.distro.namespace("debian"), Name: strings.ToLower(name), Version: version, Qualifiers: [][2]string{
				{"arch", p["architecture"]}, {"distro", s.distro.qualifier()}, {"upstream", debianSource(p)},
			}}.String(),
		})
	})
}

// namespace is the vendor in package URLs.
func (d Distro) namespace(otherwise string) string {
	if d.ID == "" {
		return otherwise
	}
	return d.ID
}

// debianSource is the source package, with its version where that is another one: "gcc-12@12.2.0-14".
func debianSource(p paragraph) string {
	name, version, _ := strings.Cut(p["source"], " ")
	version = strings.Trim(version, "() ")
	switch {
	case name == "" || name == p["package"] && version == "":
		return ""
	case version != "" && version != p["version"]:
		return name + "@" + version
	}
	return name
}

// maxCopyright bounds a copyright file, in bytes.
const maxCopyright = 1 << 20

// debianLicense reads the licences out of a copyright file that programs can read
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/). It returns where it found them.
func (s *scanner) debianLicense(name string) (license, found string) {
	if strings.ContainsAny(name, "/\x00") {
		return "", ""
	}
	p, err := tree.Resolve(s.tree, path.Join("usr/share/doc", name, "copyright"), true)
	if err != nil {
		return "", ""
	}
	data, err := content(s.tree, p, maxCopyright)
	if err != nil {
		return "", ""
	}
	return debianLicenses(string(data)), p
}

// debianLicenses joins the licences of all files: each of them is needed to use the whole.
func debianLicenses(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	if !strings.HasPrefix(strings.ToLower(first), "format:") {
		return "" // prose
	}
	var out []string
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		v, ok := strings.CutPrefix(line, "License:")
		if v = clean(v); !ok || v == "" || len(out) == maxLicenses {
			continue
		}
		for _, one := range debianExpression(v) {
			if !seen[one] {
				seen[one] = true
				out = append(out, one)
			}
		}
	}
	return strings.Join(out, " AND ")
}

// maxLicenses bounds the licences of a package.
const maxLicenses = 100

// debianExpression turns "GPL-2+ or Artistic, and BSD-3-clause" into SPDX expressions that are all needed.
func debianExpression(v string) []string {
	v = strings.NewReplacer(", and ", " and ", ",", " and ").Replace(strings.ToLower(v) + " ")
	var out []string
	for part := range strings.SplitSeq(v, " and ") {
		var choice []string
		for one := range strings.SplitSeq(part, " or ") {
			name, exception, _ := strings.Cut(strings.TrimSpace(one), " with ")
			if name = strings.TrimSpace(name); name == "" {
				continue
			}
			id := debianID(strings.ReplaceAll(name, " ", "-"))
			if exception = strings.TrimSpace(exception); exception != "" {
				id += "-with-" + strings.ReplaceAll(exception, " ", "-") // no exception of SPDX's is called so
			}
			choice = append(choice, id)
		}
		switch len(choice) {
		case 0:
		case 1:
			out = append(out, choice[0])
		default:
			out = append(out, "("+strings.Join(choice, " OR ")+")")
		}
	}
	return out
}

// debianID maps Debian's short names to SPDX's where they differ in more than case.
func debianID(name string) string {
	switch name {
	case "expat":
		return "MIT"
	case "apache-2":
		return "Apache-2.0"
	}
	for _, family := range []string{"agpl-", "lgpl-", "gpl-", "gfdl-"} {
		version, ok := strings.CutPrefix(name, family)
		if !ok || version == "" || version[0] < '0' || version[0] > '9' {
			continue
		}
		version, later := strings.CutSuffix(version, "+")
		if strings.Trim(version, "0123456789.") != "" {
			return name
		}
		if !strings.Contains(version, ".") {
			version += ".0"
		}
		suffix := "-only"
		if later {
			suffix = "-or-later"
		}
		return strings.ToUpper(family) + version + suffix
	}
	return name
}

// isApk finds the database of Alpine's package manager; newer ones keep it below usr.
func isApk(p string) bool { return p == "lib/apk/db/installed" || p == "usr/lib/apk/db/installed" }

var errNoPackages = errors.New("the database names no package")

// apk reads installed packages of Alpine and its kin (apk-installed: one letter, a colon, a value).
func (s *scanner) apk(ctx context.Context, f *file) error {
	p, count, packages := map[byte]string{}, 0, 0
	flush := func() {
		if p['P'] != "" && p['V'] != "" {
			packages++
			s.add(s.apkPackage(p, f.path()))
		}
		p = map[byte]string{}
	}
	err := lines(f.reader(), func(line []byte) error {
		if count++; count%4096 == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		switch {
		case len(line) == 0:
			flush()
		case len(line) > 2 && line[1] == ':' && strings.IndexByte("PVATULmo", line[0]) >= 0:
			p[line[0]] = clean(string(line[2:]))
		}
		return nil
	})
	flush()
	if err == nil && packages == 0 && f.entry.Size > 0 {
		return errNoPackages
	}
	return err
}

func (s *scanner) apkPackage(p map[byte]string, path string) Package {
	source := p['o']
	if source == p['P'] {
		source = ""
	}
	return Package{
		Type: "apk", Name: p['P'], Version: p['V'], License: p['L'], Supplier: p['m'], Homepage: p['U'], Description: p['T'],
		Evidence: []string{path},
		PURL: purl.URL{Type: "apk", Namespace: s.distro.namespace("alpine"), Name: strings.ToLower(p['P']), Version: p['V'], Qualifiers: [][2]string{
			{"arch", p['A']}, {"distro", s.distro.qualifier()}, {"upstream", source},
		}}.String(),
	}
}
