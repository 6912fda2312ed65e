package rpmdb_test

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"hako/internal/sbom/rpmdb"
)

func database(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open("testdata/" + name + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func list(ctx context.Context, data []byte) ([]rpmdb.Package, error) {
	var out []rpmdb.Package
	err := rpmdb.Packages(ctx, bytes.NewReader(data), int64(len(data)), func(p rpmdb.Package) error {
		out = append(out, p)
		return nil
	})
	slices.SortFunc(out, func(a, b rpmdb.Package) int { return cmp.Compare(a.Name, b.Name) })
	return out, err
}

// TestPackages compares with what "rpm -qa" says of the same databases.
func TestPackages(t *testing.T) {
	t.Parallel()
	const suse = "SUSE LLC <https://www.suse.com/>"
	for name, want := range map[string][]rpmdb.Package{
		"sqlite": {
			{Name: "one", Version: "1.2.3", Release: "4.fc99", Epoch: "2", Arch: "noarch", SourceRPM: "one-1.2.3-4.fc99.src.rpm", License: "GPLv2+ and BSD", Vendor: "Example Project", URL: "https://example.com/one", Summary: "The one of a test"},
			{Name: "three", Version: "3", Release: "1", Arch: "noarch", SourceRPM: "three-3-1.src.rpm", License: "LicenseRef-Fedora-Public-Domain", Vendor: "Example Project", URL: "https://example.com/three", Summary: "The three of a test"},
			{Name: "two", Version: "0.1~rc1", Release: "1", Arch: "noarch", SourceRPM: "two-0.1~rc1-1.src.rpm", License: "MIT OR Apache-2.0", Vendor: "Example Project", URL: "https://example.com/two", Summary: "The two of a test"},
		},
		"bdb": {{Name: "libuuid", Version: "2.32.1", Release: "42.el8_8", Arch: "x86_64", SourceRPM: "util-linux-2.32.1-42.el8_8.src.rpm", License: "BSD", Vendor: "Red Hat, Inc.", URL: "http://en.wikipedia.org/wiki/Util-linux", Summary: "Universally unique ID library"}},
		"ndb": {
			{Name: "libbz2-1", Version: "1.0.6", Release: "5.11.1", Arch: "x86_64", SourceRPM: "bzip2-1.0.6-5.11.1.src.rpm", License: "BSD-3-Clause", Vendor: suse, URL: "http://www.bzip.org/", Summary: "The bzip2 runtime library"},
			{Name: "libcap2", Version: "2.26", Release: "4.6.1", Arch: "x86_64", SourceRPM: "libcap-2.26-4.6.1.src.rpm", License: "BSD-3-Clause or GPL-2.0", Vendor: suse, URL: "https://sites.google.com/site/fullycapable/", Summary: "Library for Capabilities (linux-privs) Support"},
			{Name: "system-user-root", Version: "20190513", Release: "3.3.1", Arch: "noarch", SourceRPM: "system-user-root-20190513-3.3.1.src.rpm", License: "MIT", Vendor: suse, Summary: "System user and group root"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := list(t.Context(), database(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestDamage cuts and changes databases: there may be an error, but no panic, and no package twice.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sqlite", "bdb", "ndb"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data := database(t, name)
			for n := 0; n < len(data); n += 1 + len(data)/200 {
				_, _ = list(t.Context(), data[:n])
				changed := bytes.Clone(data)
				changed[n] ^= 0xff
				_, _ = list(t.Context(), changed)
			}
			if _, err := list(t.Context(), data[:len(data)/3]); err == nil {
				t.Error("a third of a database was read without an error")
			}
		})
	}
}

func TestForeignFile(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "short", strings.Repeat("no database ", 100)} {
		if _, err := list(t.Context(), []byte(text)); err == nil {
			t.Errorf("%.20q was read as a database", text)
		}
	}
}

func TestCancellation(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	want := errors.New("enough")
	cancel(want)
	if _, err := list(ctx, database(t, "sqlite")); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// FuzzPackages looks for panics and for memory that grows beyond the file.
func FuzzPackages(f *testing.F) {
	for _, name := range []string{"sqlite", "bdb", "ndb"} {
		f.Add(database(f, name)[:16<<10]) // whole ones are too large to be changed quickly
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		seen := 0
		_ = rpmdb.Packages(t.Context(), bytes.NewReader(data), int64(len(data)), func(p rpmdb.Package) error {
			if p.Name == "" || p.Version == "" {
				t.Error("a package without a name or a version")
			}
			seen++
			return nil
		})
		if seen > len(data) {
			t.Errorf("%d packages in %d bytes", seen, len(data))
		}
	})
}
