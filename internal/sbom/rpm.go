package sbom

import (
	"context"
	"strings"

	"hako/internal/purl"
	"hako/internal/sbom/rpmdb"
)

// isRpm finds RPM's database in the places that distributions put it.
func isRpm(p string) bool {
	switch dir, base := splitLast(p); dir {
	case "var/lib/rpm", "usr/lib/sysimage/rpm", "usr/share/rpm":
		return base == "Packages" || base == "Packages.db" || base == "rpmdb.sqlite"
	}
	return false
}

// rpm reads installed packages of Fedora, RHEL, SUSE and their kin.
func (s *scanner) rpm(ctx context.Context, f *file) error {
	if e, err := s.tree.Lstat(f.path() + "-wal"); err == nil && e.Size > 0 {
		s.warn(f.path() + ": its write-ahead log has not been merged, so the newest packages may be missing")
	}
	return rpmdb.Packages(ctx, f, f.entry.Size, func(p rpmdb.Package) error {
		if p.Name == "gpg-pubkey" {
			return nil // a key that rpm trusts, not software
		}
		s.add(s.rpmPackage(p, f.path()))
		return nil
	})
}

func (s *scanner) rpmPackage(p rpmdb.Package, evidence string) Package {
	version := p.Version
	if p.Release != "" {
		version += "-" + p.Release
	}
	source := p.SourceRPM
	if source == "(none)" {
		source = "" // a package that was not built by rpmbuild
	}
	shown := version
	if p.Epoch != "" && p.Epoch != "0" {
		shown = p.Epoch + ":" + version
	}
	return Package{
		Type: "rpm", Name: p.Name, Version: shown, License: p.License, Supplier: p.Vendor, Homepage: p.URL, Description: p.Summary,
		Evidence: []string{evidence},
		PURL: purl.URL{Type: "rpm", Namespace: s.distro.namespace(""), Name: p.Name, Version: version, Qualifiers: [][2]string{
			{"arch", p.Arch}, {"distro", s.distro.qualifier()}, {"epoch", strings.TrimPrefix(p.Epoch, "0")},
			{"rpmmod", p.Modularity}, {"upstream", source},
		}}.String(),
	}
}
