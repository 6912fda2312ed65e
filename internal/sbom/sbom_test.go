package sbom_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"hako/internal/layer"
	"hako/internal/rootfs"
	"hako/internal/sbom"
	"hako/internal/tree"
	"hako/internal/tree/treetest"
	"hako/test/lab"
)

func scan(t testing.TB, tr tree.Tree) *sbom.Inventory {
	t.Helper()
	inv, err := sbom.Scan(t.Context(), tr)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func purls(inv *sbom.Inventory) []string {
	var out []string
	for _, p := range inv.Packages {
		out = append(out, p.PURL)
	}
	return out
}

const debian = "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\n"

// TestPackages is one table of what each kind of file tells.
func TestPackages(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"dpkg": {map[string]string{
			"usr/lib/os-release":  debian,
			"var/lib/dpkg/status": "Package: libstdc++6\nStatus: install ok installed\nArchitecture: amd64\nSource: gcc-12\nVersion: 12.2.0-14\nDescription: a library\n which goes on\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: vim\nStatus: hold ok installed\nArchitecture: amd64\nSource: vim-src (1.0)\nVersion: 2:9.0+dfsg-1\n",
		}, []string{
			"pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=debian-12&upstream=gcc-12",
			"pkg:deb/debian/vim@2:9.0%2Bdfsg-1?arch=amd64&distro=debian-12&upstream=vim-src%401.0",
		}},
		"distroless": {map[string]string{
			"etc/os-release":                   debian,
			"var/lib/dpkg/status.d/tzdata":     "Package: tzdata\nVersion: 2024a\nArchitecture: all\n",
			"var/lib/dpkg/status.d/tz.md5sums": "Package: nothing\nVersion: 1\n",
		}, []string{"pkg:deb/debian/tzdata@2024a?arch=all&distro=debian-12"}},
		"apk": {map[string]string{
			"etc/os-release":       "ID=alpine\nVERSION_ID=3.20.1\n",
			"lib/apk/db/installed": "C:Q1x=\nP:busybox\nV:1.36.1-r29\nA:x86_64\nL:GPL-2.0-only\no:busybox\nF:bin\nR:busybox\n\nP:ssl_client\nV:1.36.1-r29\nA:x86_64\no:busybox\n",
		}, []string{
			"pkg:apk/alpine/busybox@1.36.1-r29?arch=x86_64&distro=alpine-3.20.1",
			"pkg:apk/alpine/ssl_client@1.36.1-r29?arch=x86_64&distro=alpine-3.20.1&upstream=busybox",
		}},
		"npm": {map[string]string{
			"app/package.json":                         `{"name":"app","version":"1.0.0"}`,
			"app/node_modules/left-pad/package.json":   `{"name":"left-pad","version":"1.3.0","license":"WTFPL","author":{"name":"a","email":"a@b"}}`,
			"app/node_modules/left-pad/x/package.json": `{"name":"inner","version":"9"}`,
			"app/node_modules/@s/p/package.json":       `{"name":"@s/p","version":"2.0.0-rc.1","licenses":[{"type":"MIT"},{"type":"ISC"}]}`,
			"app/node_modules/m/package.json":          `{"type":"module"}`,
		}, []string{"pkg:npm/%40s/p@2.0.0-rc.1", "pkg:npm/left-pad@1.3.0"}},
		"npm lock": {map[string]string{
			"a/package-lock.json": `{"lockfileVersion":3,"packages":{"":{"name":"a","version":"1"},"node_modules/x":{"version":"1.0.0","integrity":"sha512-` + strings.Repeat("A", 86) + `=="},"node_modules/x/node_modules/@t/y":{"version":"2.0.0"},"w":{"name":"w","version":"3.0.0"},"node_modules/w":{"link":true}}}`,
			"b/package-lock.json": `{"lockfileVersion":1,"dependencies":{"z":{"version":"1.1.1","dependencies":{"zz":{"version":"0.1.0"}}},"g":{"version":"git+ssh://user:secret@host/g.git"}}}`,
		}, []string{"pkg:npm/%40t/y@2.0.0", "pkg:npm/w@3.0.0", "pkg:npm/x@1.0.0", "pkg:npm/z@1.1.1", "pkg:npm/zz@0.1.0"}},
		"python": {map[string]string{
			"usr/lib/python3/dist-packages/Foo_Bar-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0\nLicense: UNKNOWN\nClassifier: License :: OSI Approved :: MIT License\n\nName: not this\n",
			"usr/lib/python3/dist-packages/old.egg-info":                   "Name: old\nVersion: 0.1\n",
			"usr/lib/python3/dist-packages/egg-2.egg-info/PKG-INFO":        "Name: egg\nVersion: 2\n",
			"srv/METADATA": "Name: other\nVersion: 1\n",
		}, []string{"pkg:pypi/egg@2", "pkg:pypi/foo-bar@1.0", "pkg:pypi/old@0.1"}},
		"nothing": {map[string]string{"etc/passwd": "root"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inv := scan(t, memory(c.files))
			if diff := cmp.Diff(c.want, purls(inv)); diff != "" {
				t.Error(diff)
			}
			if len(inv.Warnings) > 0 {
				t.Error(inv.Warnings)
			}
		})
	}
}

func gunzip(t testing.TB, path string) string {
	t.Helper()
	f, err := os.Open(path)
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
	return string(data)
}

func TestRPM(t *testing.T) {
	t.Parallel()
	inv := scan(t, memory{
		"etc/os-release": "ID=fedora\nVERSION_ID=99\n", "usr/lib/sysimage/rpm/rpmdb.sqlite": gunzip(t, "rpmdb/testdata/sqlite.gz"),
	})
	want := []string{
		"pkg:rpm/fedora/one@1.2.3-4.fc99?arch=noarch&distro=fedora-99&epoch=2&upstream=one-1.2.3-4.fc99.src.rpm",
		"pkg:rpm/fedora/three@3-1?arch=noarch&distro=fedora-99&upstream=three-3-1.src.rpm",
		"pkg:rpm/fedora/two@0.1~rc1-1?arch=noarch&distro=fedora-99&upstream=two-0.1~rc1-1.src.rpm",
	}
	if diff := cmp.Diff(want, purls(inv)); diff != "" {
		t.Error(diff)
	}
	if v := inv.Packages[0].Version; v != "2:1.2.3-4.fc99" {
		t.Errorf("version %q", v)
	}
}

// jar makes an archive of entries, in order: name, content.
func jar(t testing.TB, entries ...string) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for i := 0; i < len(entries); i += 2 {
		w, err := z.Create(entries[i])
		if err == nil {
			_, err = io.WriteString(w, entries[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestJava(t *testing.T) {
	t.Parallel()
	const pom = "META-INF/maven/org.example/lib/pom.properties"
	lib := jar(t, "META-INF/MANIFEST.MF", "Manifest-Version: 1.0\r\nBundle-License: Apache-2.0\r\n", pom, "#made\ngroupId=org.example\nartifactId=lib\nversion=1.2.3\n")
	plain := jar(t, "META-INF/MANIFEST.MF", "Implementation-Title: Plain\nImplementation-Vendor-Id: com.exa\n mple\nImplementation-Version: 4.5\n")
	inv := scan(t, memory{
		"app/app-7.0.war":   jar(t, "WEB-INF/lib/lib-1.2.3.jar", lib, "WEB-INF/lib/plain.jar", plain),
		"app/notes.rar":     "Rar!",
		"app/empty-1.0.jar": jar(t),
	})
	want := []string{"pkg:maven/app/app@7.0", "pkg:maven/com.example/plain@4.5", "pkg:maven/empty/empty@1.0", "pkg:maven/org.example/lib@1.2.3"}
	if diff := cmp.Diff(want, purls(inv)); diff != "" {
		t.Error(diff)
	}
	if l := inv.Packages[3].License; l != "Apache-2.0" {
		t.Errorf("licence %q", l)
	}
	if len(inv.Warnings) > 0 {
		t.Error(inv.Warnings)
	}
}

// memory is a tree of regular files and their contents.
type memory map[string]string

func (m memory) Lstat(p string) (tree.Entry, error) {
	if data, ok := m[p]; ok {
		return tree.Entry{Path: p, Kind: tree.Regular, Mode: 0o755, Size: int64(len(data))}, nil
	}
	for name := range m {
		if p == "." || strings.HasPrefix(name, p+"/") {
			return tree.Entry{Path: p, Kind: tree.Dir, Mode: 0o755}, nil
		}
	}
	return tree.Entry{}, os.ErrNotExist
}

func (m memory) ReadDir(p string) ([]string, error) {
	var out []string
	for name := range m {
		rest, ok := strings.CutPrefix(name, strings.TrimPrefix(p+"/", "./"))
		if first, _, _ := strings.Cut(rest, "/"); ok {
			out = append(out, first)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (m memory) Open(p string) (io.ReadCloser, error) {
	return io.NopCloser(strings.NewReader(m[p])), nil
}

// TestGoProgram reads this very test program.
func TestGoProgram(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		t.Skip("the test program does not say what it is made of")
	}
	inv := scan(t, memory{"usr/bin/tool": string(data)})
	got := purls(inv)
	for _, d := range info.Deps {
		if want := "pkg:golang/" + strings.ToLower(d.Path) + "@" + strings.ReplaceAll(d.Version, "+", "%2B"); !slices.Contains(got, want) {
			t.Errorf("%s is missing in %q", want, got)
		}
	}
	if want := "pkg:golang/stdlib@" + strings.TrimPrefix(runtime.Version(), "go"); !slices.Contains(got, want) {
		t.Errorf("%s is missing in %q", want, got)
	}
}

// TestHostileFiles has one broken file of each kind beside a good one: each is a warning, and the good one is found.
func TestHostileFiles(t *testing.T) {
	t.Parallel()
	bomb := jar(t, "x-1.jar", jar(t, "x-1.jar", jar(t, "x-1.jar", jar(t, "x-1.jar", jar(t, "META-INF/MANIFEST.MF", "A: b\n")))))
	inv := scan(t, memory{
		"a/node_modules/good/package.json": `{"name":"good","version":"1"}`,
		"a/node_modules/bad/package.json":  `{"name":`,
		"a/package-lock.json":              strings.Repeat(`{"dependencies":`, 20000),
		"b/package-lock.json":              `{"dependencies":` + strings.Repeat(`{"a":{"version":"1","dependencies":`, 100) + "{}" + strings.Repeat("}}", 100) + "}",
		"a/x.dist-info/METADATA":           "no name",
		"a/bomb-1.jar":                     bomb,
		"a/cut.jar":                        bomb[:len(bomb)-30],
		"var/lib/rpm/Packages":             strings.Repeat("\x00", 4096),
		"lib/apk/db/installed":             "rubbish",
		"var/lib/dpkg/status":              "Package: x\nVersion: " + strings.Repeat("1", 2<<20) + "\n",
		"bin/elf":                          "\x7fELF\x02\x01\x01" + strings.Repeat("\xff", 100000),
	})
	if !slices.Contains(purls(inv), "pkg:npm/good@1") {
		t.Errorf("got %q", purls(inv))
	}
	var about []string
	for _, w := range inv.Warnings {
		name, _, _ := strings.Cut(w, ":")
		about = append(about, name)
	}
	want := []string{"a/node_modules/bad/package.json", "a/package-lock.json", "a/x.dist-info/METADATA", "b/package-lock.json", "lib/apk/db/installed", "var/lib/dpkg/status", "var/lib/rpm/Packages"}
	if diff := cmp.Diff(want, about); diff != "" {
		t.Error(diff, inv.Warnings)
	}
}

// TestInflatedBound has an archive that says little and inflates to much.
func TestInflatedBound(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("inflates a gigabyte")
	}
	huge := strings.Repeat("\x00", 129<<20)
	inv := scan(t, memory{"a/bomb-1.jar": jar(t, "lib.jar", huge)})
	if len(inv.Warnings) != 1 || !strings.Contains(inv.Warnings[0], "inflates to too much") {
		t.Errorf("got %q", inv.Warnings)
	}
}

func TestCancellation(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	want := errors.New("enough")
	cancel(want)
	if _, err := sbom.Scan(ctx, memory{"a": "b"}); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// debianTree is a real Debian, as mmdebstrap makes it for the tests.
func debianTree(t *testing.T) *rootfs.Tree {
	t.Helper()
	cache, err := lab.CacheDir()
	if err != nil {
		t.Skipf("needs a cache directory: %v", err)
	}
	file := filepath.Join(cache, "debian-bookworm.tar")
	if _, err := os.Stat(file); err != nil {
		if os.Getenv("HAKO_CI") == "" {
			t.Skip("needs debian-bookworm.tar, which other tests make with mmdebstrap")
		}
		if file, err = lab.DebianTar(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum, err := digest.FromReader(f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "layer"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	im, err := layer.Prepare(t.Context(), f, layer.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: sum, DiffID: sum}, layer.PrepareOptions{Image: out})
	if err != nil {
		t.Fatal(err)
	}
	tr, err := rootfs.NewTree().Add(im)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// TestDebian compares with what dpkg's database says when it is read by other means: one "installed" for each package.
func TestDebian(t *testing.T) {
	t.Parallel()
	tr := debianTree(t)
	inv := scan(t, tr)
	status, err := treetest.ReadAll(tr, "var/lib/dpkg/status")
	if err != nil {
		t.Fatal(err)
	}
	installed := bytes.Count(status, []byte("\nStatus: install ok installed\n"))
	debs, licensed := 0, 0
	for _, p := range inv.Packages {
		if p.Type == "deb" {
			debs++
			if p.License != "" {
				licensed++
			}
			if !strings.Contains(p.PURL, "distro=debian-12") || p.Supplier == "" {
				t.Errorf("%+v", p)
			}
		}
	}
	if debs != installed || installed < 80 {
		t.Errorf("%d packages, dpkg has %d", debs, installed)
	}
	if licensed < debs/2 {
		t.Errorf("only %d of %d have a licence", licensed, debs)
	}
	if len(inv.Warnings) > 0 {
		t.Error(inv.Warnings)
	}
	if n := tr.Layer("var/lib/dpkg/status"); n != 0 {
		t.Errorf("layer %d", n)
	}
}
