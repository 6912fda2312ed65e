package sbom

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"

	"hako/internal/purl"
)

const (
	maxPackageJSON = 4 << 20  // 4 MiB; the largest on npmjs.com are some 100 KiB
	maxLock        = 32 << 20 // 32 MiB
	// maxLockDepth bounds how deep packages of an old lock file lie in each other.
	maxLockDepth = 64
)

// inNodeModules says whether p is the package.json of an installed package: node_modules/name/package.json
// or node_modules/@scope/name/package.json. Others, deeper in a package, are no packages.
func inNodeModules(p string) bool {
	dir := path.Dir(path.Dir(p))
	if path.Base(dir) == "node_modules" {
		return !strings.HasPrefix(path.Base(path.Dir(p)), ".")
	}
	return strings.HasPrefix(path.Base(dir), "@") && path.Base(path.Dir(dir)) == "node_modules"
}

// npmManifest is what counts of a package.json. Authors and licences come in more than one form.
type npmManifest struct {
	Name        string          `json:"name"`
	Version     string          `json:"version"`
	Description json.RawMessage `json:"description"`
	Homepage    json.RawMessage `json:"homepage"`
	License     json.RawMessage `json:"license"`
	Licenses    json.RawMessage `json:"licenses"`
	Author      json.RawMessage `json:"author"`
}

// npmPackage reads the package.json of an installed package.
func (s *scanner) npmPackage(_ context.Context, f *file) error {
	data, err := f.all(maxPackageJSON)
	if err != nil {
		return err
	}
	var m npmManifest
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	if m.Name == "" || m.Version == "" {
		return nil // a marker that says how its files are to be read
	}
	p := npm(m.Name, m.Version, f.path())
	p.License, p.Supplier = npmLicense(m.License), npmAuthor(m.Author)
	if p.License == "" {
		p.License = npmLicense(m.Licenses)
	}
	p.Homepage, p.Description = text(m.Homepage), text(m.Description)
	s.add(p)
	return nil
}

func npm(name, version, evidence string) Package {
	scope, base := splitLast(name)
	return Package{
		Type: "npm", Name: name, Version: version, Evidence: []string{evidence},
		PURL: purl.URL{Type: "npm", Namespace: scope, Name: base, Version: version}.String(),
	}
}

// text is the string that raw is, or empty.
func text(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return ""
	}
	return s
}

// npmLicense reads "MIT", {"type": "MIT"} and lists of these, any of which may be chosen.
func npmLicense(raw json.RawMessage) string {
	if s := text(raw); s != "" {
		return s
	}
	var one struct {
		Type json.RawMessage `json:"type"`
	}
	if json.Unmarshal(raw, &one) == nil {
		return text(one.Type)
	}
	var many []json.RawMessage
	if json.Unmarshal(raw, &many) != nil || len(many) > maxLicenses {
		return ""
	}
	var out []string
	for _, m := range many {
		l := text(m)
		if l == "" && json.Unmarshal(m, &one) == nil {
			l = text(one.Type)
		}
		if l != "" && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return strings.Join(out, " OR ")
}

// npmAuthor reads "Name <mail> (url)" and {"name": …, "email": …}.
func npmAuthor(raw json.RawMessage) string {
	if s := text(raw); s != "" {
		s, _, _ = strings.Cut(s, " (")
		return s
	}
	var a struct {
		Name  json.RawMessage `json:"name"`
		Email json.RawMessage `json:"email"`
	}
	if json.Unmarshal(raw, &a) != nil {
		return ""
	}
	name := text(a.Name)
	if mail := text(a.Email); mail != "" && name != "" {
		name += " <" + mail + ">"
	}
	return name
}

// npmLocked is a package of a lock file, of any version of the format.
type npmLocked struct {
	Name         string               `json:"name"`
	Version      string               `json:"version"`
	Integrity    string               `json:"integrity"`
	License      json.RawMessage      `json:"license"`
	Link         bool                 `json:"link"`
	Dependencies map[string]npmLocked `json:"dependencies"`
}

// npmLock reads package-lock.json (https://docs.npmjs.com/cli/configuring-npm/package-lock-json).
func (s *scanner) npmLock(_ context.Context, f *file) error {
	data, err := f.all(maxLock)
	if err != nil {
		return err
	}
	var lock struct {
		Packages map[string]struct {
			npmLocked
			Dependencies json.RawMessage `json:"dependencies"` // names and ranges here
		} `json:"packages"`
		Dependencies map[string]npmLocked `json:"dependencies"`
	}
	if err := json.Unmarshal(data, &lock); err != nil {
		return err
	}
	if lock.Packages == nil {
		return s.npmTree(lock.Dependencies, f.path(), 0)
	}
	for where, p := range lock.Packages {
		name := p.Name
		if name == "" {
			_, name, _ = cutLast(where, "node_modules/")
		}
		if where != "" && !p.Link {
			s.npmEntry(name, p.npmLocked, f.path())
		}
	}
	return nil
}

var errTooDeep = errors.New("packages lie too deep in each other")

// npmTree reads the first version of the format, where packages lie in each other.
func (s *scanner) npmTree(in map[string]npmLocked, path string, depth int) error {
	if depth == maxLockDepth {
		return errTooDeep
	}
	var errs []error
	for name, p := range in {
		s.npmEntry(name, p, path)
		if err := s.npmTree(p.Dependencies, path, depth+1); err != nil {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
}

func (s *scanner) npmEntry(name string, p npmLocked, path string) {
	if name == "" || p.Version == "" || strings.Contains(p.Version, "://") || strings.HasPrefix(p.Version, "file:") {
		return // not from a registry: there may be a password in what is
	}
	out := npm(name, p.Version, path)
	out.License = npmLicense(p.License)
	out.Checksums = integrity(p.Integrity)
	s.add(out)
}

// integrity reads a subresource integrity value, "sha512-…", as SPDX names such digests.
func integrity(v string) []string {
	var out []string
	for one := range strings.FieldsSeq(v) {
		name, digest, _ := strings.Cut(one, "-")
		raw, err := base64.StdEncoding.DecodeString(digest)
		size := map[string]int{"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}[name]
		if err == nil && size > 0 && len(raw) == size {
			out = append(out, strings.ToUpper(name)+":"+hex.EncodeToString(raw))
		}
	}
	return out
}

// cutLast cuts s at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}
