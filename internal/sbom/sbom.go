// Package sbom lists the software in a file tree: what package databases, program files and the metadata of
// language packages say, read in place and never unpacked; and writes the list as an SPDX document.
//
// The trees come from images that anybody made. Everything read is bounded in size, depth and number,
// and what cannot be understood becomes a warning: a strange file must not stop a build.
package sbom

import (
	"cmp"
	"context"
	"crypto/sha1" //nolint:gosec // SPDX asks for it, beside SHA-256
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"hako/internal/tree"
)

// Package is one piece of software that a tree holds.
type Package struct {
	// Type is that of package URLs: deb, apk, rpm, golang, npm, pypi, maven or generic.
	Type string
	// Name and Version are as the package calls itself; Version may be empty.
	Name, Version string
	// PURL is the package URL (https://github.com/package-url/purl-spec).
	PURL string
	// License is what the package declares, verbatim: often an SPDX expression, sometimes prose, or empty.
	License string
	// Supplier is who packaged it ("Name <mail>"); Homepage and Description are what they say. All may be empty.
	Supplier, Homepage, Description string
	// Checksums are digests of the package as published, as "SHA256:hex".
	Checksums []string
	// Evidence are the files that told of the package, as tree paths, sorted.
	Evidence []string
}

// File is a file that told of a package.
type File struct {
	// Path is as in a tree. SHA1 and SHA256 are in hexadecimal digits.
	Path, SHA1, SHA256 string
}

// Inventory is what was found in a tree. The same tree gives the same inventory.
type Inventory struct {
	// Distro is the distribution that the tree is; its zero value means none.
	Distro Distro
	// Packages are sorted by package URL, each once.
	Packages []Package
	// Files are the evidence of all packages, sorted by path.
	Files []File
	// Warnings say what could not be read, one line each.
	Warnings []string
}

const (
	// maxPackages bounds an inventory. The largest images in the wild have some ten thousand packages.
	maxPackages = 200_000
	// maxWarnings bounds what a tree full of rubbish can say.
	maxWarnings = 50
)

// Scan lists the software in t. It returns ctx's cause if ctx ends first, and an error if the tree itself cannot
// be read; contents that make no sense are warnings.
func Scan(ctx context.Context, t tree.Tree) (*Inventory, error) {
	s := &scanner{tree: t, found: map[string]*Package{}, seen: map[uint64]bool{}}
	s.distro = readDistro(t)
	if err := s.walk(ctx, "."); err != nil {
		return nil, fmt.Errorf("scan for packages: %w", err)
	}
	inv := &Inventory{Distro: s.distro}
	evidence := map[string]bool{}
	for _, p := range s.found {
		slices.Sort(p.Evidence)
		p.Evidence = slices.Compact(p.Evidence)
		for _, e := range p.Evidence {
			evidence[e] = true
		}
		inv.Packages = append(inv.Packages, *p)
	}
	slices.SortFunc(inv.Packages, func(a, b Package) int { return cmp.Compare(a.PURL, b.PURL) })
	for _, p := range slices.Sorted(maps.Keys(evidence)) {
		f, err := s.hash(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("scan for packages: read %s: %w", p, err)
		}
		inv.Files = append(inv.Files, f)
	}
	inv.Warnings = s.warnings
	if s.unsaid > 0 {
		inv.Warnings = append(inv.Warnings, fmt.Sprintf("%d more files could not be read", s.unsaid))
	}
	return inv, nil
}

// hash reads a file for its digests.
func (s *scanner) hash(ctx context.Context, p string) (_ File, err error) {
	if ctx.Err() != nil {
		return File{}, context.Cause(ctx)
	}
	rc, err := s.tree.Open(p)
	if err != nil {
		return File{}, err
	}
	defer func() { err = errors.Join(err, rc.Close()) }()
	one, two := sha1.New(), sha256.New() //nolint:gosec // as above
	if _, err := io.Copy(io.MultiWriter(one, two), rc); err != nil {
		return File{}, err
	}
	return File{Path: p, SHA1: hex.EncodeToString(one.Sum(nil)), SHA256: hex.EncodeToString(two.Sum(nil))}, nil
}

// scanner is one run of Scan.
type scanner struct {
	tree     tree.Tree
	distro   Distro
	found    map[string]*Package
	seen     map[uint64]bool // inodes of files with more than one name
	warnings []string
	unsaid   int
	full     bool
}

// reader reads one kind of file and adds the packages that it tells of.
type reader func(ctx context.Context, f *file) error

// walk looks at everything in the directory dir, in order. Symbolic links are not followed: what they point to
// is found where it is.
func (s *scanner) walk(ctx context.Context, dir string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	names, err := s.tree.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		p := path.Join(dir, name)
		e, err := s.tree.Lstat(p)
		if err != nil {
			return err
		}
		switch e.Kind {
		case tree.Dir:
			err = s.walk(ctx, p)
		case tree.Regular:
			err = s.file(ctx, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// file reads e if it is of a kind that tells of packages.
func (s *scanner) file(ctx context.Context, e tree.Entry) error {
	if e.Links > 1 && e.Inode != 0 {
		if s.seen[e.Inode] {
			return nil
		}
		s.seen[e.Inode] = true
	}
	read := s.reader(e)
	if read == nil || s.full {
		return nil
	}
	err := s.try(ctx, e, read)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		s.warn(fmt.Sprintf("%s: %s", e.Path, err))
	}
	return nil
}

// try reads e. Parsers of the standard library (ELF, zip) are tried by files that nobody vouches for: a panic of theirs is
// a file that could not be read, too.
func (s *scanner) try(ctx context.Context, e tree.Entry, read reader) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the file makes no sense: %v", r)
		}
	}()
	f, err := s.open(e)
	if err != nil {
		return err
	}
	defer f.close() // read only: nothing to lose
	return read(ctx, f)
}

// reader is what reads a file like e; nil for files that tell of nothing.
func (s *scanner) reader(e tree.Entry) reader {
	base := path.Base(e.Path)
	switch {
	case isDpkg(e.Path):
		return s.dpkg
	case isApk(e.Path):
		return s.apk
	case isRpm(e.Path):
		return s.rpm
	case base == "package.json" && inNodeModules(e.Path):
		return s.npmPackage
	case base == "package-lock.json", base == "npm-shrinkwrap.json":
		return s.npmLock
	case isPython(e.Path):
		return s.python
	case isJava(base):
		return s.java
	case e.Size >= minProgram:
		return s.program
	}
	return nil
}

func (s *scanner) warn(text string) {
	if len(s.warnings) == maxWarnings {
		s.unsaid++
		return
	}
	s.warnings = append(s.warnings, strings.ToValidUTF8(text, "?"))
}

// add adds a package, or the evidence for one that is known.
func (s *scanner) add(p Package) {
	p.Name, p.Version = clean(p.Name), clean(p.Version)
	if p.Name == "" {
		return
	}
	if len(p.PURL) > maxText {
		s.warn(fmt.Sprintf("%s: the name of a package is too long", p.Evidence[0]))
		return
	}
	p.License, p.Supplier, p.Homepage, p.Description = clean(p.License), clean(p.Supplier), clean(p.Homepage), clean(p.Description)
	key := p.PURL
	if old, ok := s.found[key]; ok {
		old.Evidence = append(old.Evidence, p.Evidence...)
		old.License = cmp.Or(old.License, p.License)
		old.Supplier = cmp.Or(old.Supplier, p.Supplier)
		old.Homepage = cmp.Or(old.Homepage, p.Homepage)
		old.Description = cmp.Or(old.Description, p.Description)
		return
	}
	if len(s.found) == maxPackages {
		if !s.full {
			s.full = true
			s.warnings = append(s.warnings, fmt.Sprintf("there are more than %d packages; the others are left out", maxPackages))
		}
		return
	}
	s.found[key] = &p
}

// maxText bounds one text of a package, in bytes.
const maxText = 4096

// clean makes one printable line of a text: other control characters than tabs and line ends go.
func clean(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	s = strings.ToValidUTF8(s, "")
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
	return strings.TrimSpace(s)
}

// splitLast cuts a path at its last slash.
func splitLast(s string) (dir, base string) {
	i := strings.LastIndexByte(s, '/')
	if i < 0 {
		return "", s
	}
	return s[:i], s[i+1:]
}
